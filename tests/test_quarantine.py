from pathlib import Path

import pytest

from embedcache.errors import CacheError
from embedcache.store.files import LocalFiles
from embedcache.store.quarantine import (
    Poisoned,
    damaged_entries,
    quarantine,
    quarantined_keys,
    read_quarantine,
    release,
)

A, B = b"a" * 16, b"b" * 16
DAMAGES = {
    "empty": b"",
    "cut": b'{"id": "x", "rea',
    "no reason": b'{"id": "x"}',
    "list": b"[]",
    "binary": b"\xff\0",
    "deep": b"[" * 100_000,
}


def test_a_sequence_stays_in_quarantine_under_its_first_reason_until_it_is_released(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    assert read_quarantine(files) == {} and quarantined_keys(files) == set()
    quarantine(files, A, Poisoned("tx1", "it is\ttoo long"))
    quarantine(files, A, Poisoned("tx2", "found by another worker"))
    quarantine(files, B, Poisoned("tx3", ""))
    assert read_quarantine(files) == {A: Poisoned("tx1", "it is\ttoo long"), B: Poisoned("tx3", "")}
    assert quarantined_keys(files) == {A, B} and damaged_entries(files) == []
    release(files, [A, b"c" * 16])  # one that is not there is no error
    assert set(read_quarantine(files)) == {B}


@pytest.mark.parametrize("data", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_keeps_nobody_from_trying_and_is_written_anew(tmp_path: Path, data: bytes) -> None:
    files = LocalFiles(tmp_path)
    quarantine(files, A, Poisoned("tx1", "r"))
    quarantine(files, B, Poisoned("tx2", "r"))
    (tmp_path / "claims/quarantine" / A.hex()).write_bytes(data)
    assert set(read_quarantine(files)) == {B}
    assert damaged_entries(files) == [f"claims/quarantine/{A.hex()}"]
    quarantine(files, A, Poisoned("tx1", "again"))
    assert read_quarantine(files)[A] == Poisoned("tx1", "again") and damaged_entries(files) == []


def test_a_file_that_is_no_entry_is_told_and_means_nothing(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    quarantine(files, A, Poisoned("tx1", "r"))
    for name in ("notes.txt", "aa", "zz" * 16):
        (tmp_path / "claims/quarantine" / name).write_text('{"id": "x", "reason": "y"}')
    assert set(read_quarantine(files)) == quarantined_keys(files) == {A}
    assert len(damaged_entries(files)) == 3


def test_an_entry_released_while_it_is_read_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    quarantine(files, A, Poisoned("tx1", "r"))
    quarantine(files, B, Poisoned("tx2", "r"))
    statuses = files.statuses

    def statuses_then_release(folder: str):  # type: ignore[no-untyped-def]
        found = statuses(folder)
        (tmp_path / "claims/quarantine" / A.hex()).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(files, "statuses", statuses_then_release)
    assert set(read_quarantine(files)) == {B}


def test_a_verdict_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("a file where a folder should be")
    with pytest.raises(CacheError, match="cannot be written"):
        quarantine(LocalFiles(tmp_path), A, Poisoned("tx1", "r"))
