"""A small share of ``benchmarks/fuzz_inputs.py``, and whether it would see what must not happen."""

import os
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import damage_sequences
import pytest
from damage import Case, Outcome
from damage_cases import CASES

from embedcache.errors import InvalidInputError
from embedcache.sequences import SequenceRecord

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from fuzz_inputs import GOOD, fuzz, run_case, table

N_EACH = 9


@pytest.mark.parametrize("kind", list(CASES))
def test_damage_is_refused_or_read_as_it_stands(tmp_path: Path, kind: str) -> None:
    outcomes = set()
    for number in range(list(CASES).index(kind), N_EACH * len(CASES), len(CASES)):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcomes.add(run_case(CASES, 0, number, folder)[0])
    assert outcomes <= {*GOOD}


def hang(case: Case) -> Outcome:
    case.done.append("made")
    time.sleep(60)
    return "refused"


def crash(case: Case) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    return "refused"


def fail(case: Case) -> Outcome:
    case.done += ["made", "once more"]
    raise ZeroDivisionError("no error of ours")


def warn(case: Case) -> Outcome:
    warnings.warn("numbers are not what they were", RuntimeWarning, stacklevel=1)
    return "refused"


def leave(case: Case) -> Outcome:
    sys.exit(0)


def test_a_bad_case_is_told_apart_and_the_others_go_on() -> None:
    cases = {"good": CASES["FASTA"], "hang": hang, "crash": crash, "fail": fail, "warn": warn, "leave": leave}
    found = sorted(fuzz(range(12), cases, seed=0, workers=2, limit=0.7), key=lambda one: one.number)
    outcomes = [(one.kind, one.outcome) for one in found if one.kind != "good"]
    assert [one.number for one in found] == list(range(12)) and all(one.outcome in GOOD for one in found[::6])
    bad = {"hang": "hang", "crash": "traceback", "fail": "traceback", "warn": "traceback", "leave": "traceback"}
    assert outcomes == list(bad.items()) * 2
    assert "no error of ours" in found[3].text and found[3].damage == "several"
    assert "no end within 0.7 s" in found[1].text and "ended with -9" in found[2].text
    assert "| fail  | 2     | 0" in table("kind", Counter((one.kind, one.outcome) for one in found))


def skip_what_is_wrong(path: Path, modality: Any) -> Iterator[SequenceRecord]:
    """What a careless reader makes of FASTA."""
    letters = "ACDEFGHIKLMNPQRSTVWYX" if modality == "protein" else "ACGTN"
    for record in path.read_bytes().decode("utf-8", "replace").upper().split(">")[1:]:
        name, *lines = record.splitlines() or [""]
        yield SequenceRecord(name.split(" ")[0], "".join(c for c in "".join(lines) if c in letters), modality)


def refuse_without_help(path: Path, modality: Any) -> Iterator[SequenceRecord]:
    raise InvalidInputError("bad input")


@pytest.mark.parametrize("reader", [skip_what_is_wrong, refuse_without_help])
def test_a_reader_that_is_broken_is_found(monkeypatch: pytest.MonkeyPatch, reader: Any) -> None:
    monkeypatch.setattr(damage_sequences, "read_fasta", reader)
    found = list(fuzz(range(6), {"FASTA": CASES["FASTA"]}, seed=0, workers=1, limit=20))
    assert "silent" in {one.outcome for one in found}


def test_the_same_number_is_the_same_case(tmp_path: Path) -> None:
    number = list(CASES).index("GTF")
    outcomes = []
    for name in "ab":
        (tmp_path / name).mkdir()
        outcomes.append(run_case(CASES, 3, number, tmp_path / name))
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab"]
    assert outcomes[0] == outcomes[1] and files[0] == files[1] != {}
