import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")
pytest.importorskip("moto", reason="moto, the local S3 server, is not installed")

from fake_s3 import s3_server
from fakes import FakeEncoder, random_records

from embedcache.build import build_cache
from embedcache.errors import CacheDamagedError, CacheError
from embedcache.remove import describe_removal, remove_store
from embedcache.store import EmbeddingStore, find_store, list_stores, store_path
from embedcache.store.files import Files, LocalFiles, open_files
from embedcache.store.leases import Attempt, Leases
from embedcache.store.objects import ObjectFiles

RECORDS = random_records(40)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("remove-tests") as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> str:
    return str(tmp_path / "cache") if request.param == "local" else f"{bucket}/{uuid.uuid4().hex}"


def build(cache: str | Path, **changes: object) -> EmbeddingStore:
    encoder = FakeEncoder(**changes)
    root = store_path(cache, encoder.spec)
    build_cache(RECORDS, encoder, root, shard_bytes=1 << 13)
    return EmbeddingStore(root)


def test_a_store_goes_and_its_neighbours_stay(cache: str) -> None:
    gone, stays = build(cache), build(cache, name="other")
    before = {key: rows.tobytes() for key, rows in stays.items()}
    found = describe_removal(gone.root)
    assert found.sequences == len(gone) and found.files > 5 and not found.removed
    assert len(list(list_stores(cache))) == 2  # it was only described
    report = remove_store(gone.root)
    assert report.removed and report.size_bytes == found.size_bytes
    assert list(list_stores(cache)) == [stays.root]
    assert open_files(gone.root).statuses("") == {}
    assert {key: rows.tobytes() for key, rows in EmbeddingStore(stays.root).items()} == before
    with pytest.raises(CacheError, match="holds no store"):
        remove_store(gone.root)
    assert len(build(cache)) == len(gone)  # and it can be built again


def test_a_store_that_somebody_builds_stays(cache: str) -> None:
    store = build(cache)
    with Leases(store.files) as leases:
        attempt = Attempt("task", 0, 0, {})
        leases.acquire(attempt)
        with pytest.raises(CacheError, match="1 workers that build it or copy to it, and nothing was removed"):
            remove_store(store.root)
        assert len(EmbeddingStore(store.root)) == len(store) and EmbeddingStore(store.root).damaged() == []
        leases.hand_back(attempt)
    assert remove_store(store.root).removed


@pytest.mark.parametrize("step", range(1, 6))
def test_what_a_kill_leaves_is_a_store_and_can_be_removed(
    cache: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, calls = build(cache), [0]
    kind: type[LocalFiles | ObjectFiles] = type(store.files)  # type: ignore[assignment]
    remove = kind.remove

    def dies(self: Files, names: object) -> None:
        chosen = list(names)  # type: ignore[call-overload]
        calls[0] += 1
        remove(self, chosen[: len(chosen) // 2] if calls[0] == step else chosen)  # type: ignore[arg-type]
        if calls[0] == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(kind, "remove", dies)
    with pytest.raises(KeyboardInterrupt):
        remove_store(store.root)
    monkeypatch.undo()
    left = EmbeddingStore(store.root)
    assert (len(left) < len(store)) == (step > 1) and left.damaged() == []  # whatever it says is there, is there
    left.check_shards()
    build_cache(RECORDS, FakeEncoder(), store.root)
    assert len(EmbeddingStore(store.root)) == len(store) and EmbeddingStore(store.root).damaged() == []
    assert remove_store(store.root).removed and list(list_stores(cache)) == []


def test_a_damaged_store_can_be_removed(tmp_path: Path) -> None:
    store = build(tmp_path)
    root = Path(str(store.root))
    (root / "index.npy").unlink()
    sorted((root / "commits").iterdir())[0].write_bytes(b"")
    (root / "zarr.json").write_bytes(b"{")
    with pytest.raises(CacheDamagedError):
        EmbeddingStore(root)
    assert find_store(tmp_path, "protein", root.name) == root
    assert "unknown (damaged records)" in str(describe_removal(root))
    remove_store(root)
    assert not root.exists()


def test_a_link_to_a_store_goes_with_it(tmp_path: Path) -> None:
    store = build(tmp_path / "cache")
    root, elsewhere = Path(str(store.root)), tmp_path / "elsewhere"
    root.rename(elsewhere)
    root.symlink_to(elsewhere)
    remove_store(root)
    assert not elsewhere.exists() and not root.is_symlink()


def test_the_command_asks_and_without_a_terminal_does_nothing(tmp_path: Path) -> None:
    store = build(tmp_path / "cache")

    def remove(*options: str) -> subprocess.CompletedProcess[str]:
        code = "import cli; cli.embedcache()"
        words = [sys.executable, "-c", code, "remove", "--modality", "protein", "--cache", str(tmp_path / "cache")]
        environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
        return subprocess.run(
            [*words, *options], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment
        )

    done = remove("--encoder", "fake")
    assert done.returncode == 2 and "Add --yes" in done.stderr and f"{len(store):,} sequences" in done.stderr
    assert remove("--yes").returncode == 2 and len(EmbeddingStore(store.root)) == len(store)  # which one must be said
    assert '"removed": true' in remove("--encoder", "fake", "--yes", "--json").stdout
    assert not Path(str(store.root)).exists()
