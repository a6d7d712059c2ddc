import io
import sys

import pytest

from embedcache.progress import SECONDS_BETWEEN_LINES, Progress


def test_without_a_terminal_a_line_comes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now, text = [100.0], io.StringIO()
    monkeypatch.setattr("embedcache.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", text)
    with Progress(4000, "tok", "rna tiny") as progress:
        progress.update(100)
        assert text.getvalue() == ""
        now[0] += 2 * SECONDS_BETWEEN_LINES
        progress.update(900)
        progress.update(200)
    assert text.getvalue() == "rna tiny: 1,000 of 4,000 tok, 17 a second, 180 s left\n"
    assert progress.done == 1200


def test_a_worker_that_waited_for_others_has_no_rate_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    now, text = [100.0], io.StringIO()
    monkeypatch.setattr("embedcache.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", text)
    with Progress(4000, "tok", "rna tiny") as progress:
        now[0] += SECONDS_BETWEEN_LINES
        progress.update(0)
    assert text.getvalue() == "rna tiny: 0 of 4,000 tok\n"
