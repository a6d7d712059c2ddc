"""An object store that is gone for a while, that hangs, or that refuses; see ``test_objects`` for all else."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")
pytest.importorskip("moto", reason="moto, the local S3 server, is not installed")

from fake_s3 import s3_server

from embedcache.place import ObjectUrl
from embedcache.store.answers import what_went_wrong, when_answered
from embedcache.store.files import open_files

PLACE = ObjectUrl("s3://bucket/cache")
HANGS = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # of a suite in the background it is ignored
from embedcache.interrupt import stop_requests
from embedcache.store.files import open_files
with stop_requests():
    print("asks", flush=True)
    open_files("s3://bucket/a").exists("zarr.json")
"""


class Door:
    """Passes connections on to a server while it is open, and refuses them while it is shut."""

    def __init__(self, port: int) -> None:
        self.server = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        if self.listener.fileno() < 0:
            self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def shut(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in self.connections:
            one.close()
        self.connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                here = listener.accept()[0]
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self.server))
            self.connections += [here, there]
            for one, other in ((here, there), (there, here)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
        except OSError:
            pass
        finally:
            for end in (one, other):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def bucket() -> Iterator[str]:
    with s3_server("outages") as url:
        yield url


def test_an_outage_of_seconds_is_waited_for(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(urlsplit(os.environ["AWS_ENDPOINT_URL"]).port or 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{door.port}")
    files = open_files(f"{bucket}/store")
    assert not files.exists("zarr.json")
    door.shut()
    timer = threading.Timer(2.5, door.open)  # the retries before a first answer end after a second
    timer.start()
    started = time.monotonic()
    assert files.create("zarr.json", [b"{}"]) and files.read("zarr.json") == b"{}"
    assert time.monotonic() - started > 2
    door.shut()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_server_that_hangs_does_not_keep_signals_away(number: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        here = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "AWS_ALLOW_HTTP": "true"}
        keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1"}
        asking = subprocess.Popen(
            [sys.executable, "-c", HANGS], env={**os.environ, **here, **keys}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert asking.stdout is not None and asking.stdout.readline() == "asks\n"
        with silent.accept()[0]:  # it has begun to ask
            for _ in range(40):  # two do; on a busy machine they may come together and count as one
                time.sleep(0.5)
                asking.send_signal(number)
                if asking.poll() is not None:
                    break
            asking.communicate(timeout=20)
    assert asking.returncode == -number


def test_long_silence_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("embedcache.store.answers.SILENCE_SECONDS", 0.0)
    assert when_answered(lambda: time.sleep(2.2) or 5, PLACE) == 5
    assert caplog.text.count("s3://bucket/cache has not answered for 0 seconds; waiting.") == 1
    with pytest.raises(ZeroDivisionError):
        when_answered(lambda: 1 // 0, PLACE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "404 Not Found: <?xml?><Code>NoSuchBucket</Code>",
            "there is no bucket 'bucket'. Make it, or mend",
        ),
        ("403 Forbidden: <?xml?><Code>InvalidAccessKeyId</Code>", r"access is refused (InvalidAccessKeyId). Check the"),
        ("Error performing HEAD - Server returned non-2xx status code: 403 Forbidden: ", "access is refused (403 For"),
        ("Generic S3 error: error sending request", "nobody answers at host:9 (AWS_ENDPOINT_URL). Check the network"),
        ("500 Internal http://me:secret@host/x\nmore", "did not answer (ValueError: 500 Internal). Check the address"),
    ],
    ids=["bucket", "key", "head", "nobody", "else"],
)
def test_what_went_wrong_is_named(monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:secret@host:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    said = what_went_wrong(ValueError(text), PLACE)
    assert words in said and "secret" not in said.replace("AWS_SECRET", "") and "\n" not in said
