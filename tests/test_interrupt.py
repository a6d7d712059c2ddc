"""Signals during long work: a flag at first, what they always do at the second; and what they were, afterwards."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from embedcache.errors import EmbedCacheError
from embedcache.interrupt import StopFlag, StoppedError, stop_at_once, stop_requests

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@pytest.fixture(autouse=True)
def seen() -> Iterator[list[int]]:
    """Signals that reached the handler of before; it is put back at the end."""
    found: list[int] = []
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in earlier:
        signal.signal(number, lambda caught, _: found.append(caught))
    yield found
    for number, handler in earlier.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)  # Python runs the handler between two bytecodes


@BOTH
def test_the_first_signal_sets_the_flag_and_the_second_acts(number: int, seen: list[int]) -> None:
    with stop_requests() as stop:
        assert not stop and stop.signal_number == 0
        stop.check("not yet")
        send(number)
        assert stop and stop.signal_number == number and seen == []
        send(number)
        assert seen == [number]
    send(number)
    assert seen == [number, number]
    with pytest.raises(StoppedError, match=r"^all is kept$") as error:
        stop.check("all is kept")
    assert error.value.signal_number == number and isinstance(error.value, EmbedCacheError)


def test_the_other_signal_still_asks(seen: list[int]) -> None:
    with stop_requests() as stop:
        send(signal.SIGINT)
        send(signal.SIGTERM)
        assert seen == [] and stop.signal_number == signal.SIGTERM


def test_an_inner_block_gives_the_signals_back_to_the_outer_one(seen: list[int]) -> None:
    with stop_requests() as outer:
        with stop_requests() as inner:
            send(signal.SIGTERM)
            assert inner and not outer
        send(signal.SIGTERM)
        assert outer.signal_number == signal.SIGTERM and seen == []


def test_handlers_come_back_after_an_error(seen: list[int]) -> None:
    with pytest.raises(KeyError), stop_requests():
        raise KeyError
    with pytest.raises(KeyError), stop_at_once("stopped"):
        raise KeyError
    send(signal.SIGINT)
    assert seen == [signal.SIGINT]


@BOTH
def test_work_that_is_lost_stops_at_once(number: int, seen: list[int]) -> None:
    cleaned = []
    with pytest.raises(StoppedError, match=r"^nothing was left$") as error, stop_at_once("nothing was left"):
        try:
            send(number)
        finally:
            send(number)  # the second one acts as always, while the clean-up runs
            cleaned.append(True)
    assert cleaned == [True] and seen == [number] and error.value.signal_number == number
    send(number)
    assert seen == [number, number]


@pytest.mark.parametrize("once", [True, False])
def test_a_launcher_that_tells_twice_asks_once(once: bool, seen: list[int]) -> None:
    with stop_at_once("again", once=once):
        with stop_requests() as stop:
            send(signal.SIGTERM)
            assert stop
            if once:
                send(signal.SIGTERM)  # that of the parent, after that of the group
            else:
                with pytest.raises(StoppedError, match="again"):
                    send(signal.SIGTERM)
        assert seen == []
        if once:
            with pytest.raises(StoppedError, match="again"):
                send(signal.SIGTERM)  # no flag is set any more


@pytest.mark.parametrize("block", [stop_requests, lambda: stop_at_once("no")], ids=["flag", "at-once"])
def test_outside_the_main_thread_signals_are_left_alone(block: object, seen: list[int]) -> None:
    handlers: list[object] = []

    def work() -> None:
        with block():  # type: ignore[operator]
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_waiting_ends_with_the_time_or_with_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("embedcache.interrupt.time.sleep", sleep)
    monkeypatch.setattr("embedcache.interrupt.time.monotonic", lambda: now[0])
    flag = StopFlag()
    flag.wait(0.25)
    assert slept == pytest.approx([0.1, 0.1, 0.05])
    flag.signal_number = signal.SIGINT
    flag.wait(9)
    assert len(slept) == 3
