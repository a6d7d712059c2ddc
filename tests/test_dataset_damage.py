import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_dataset import write

from embedcache.dataset import read_dataset
from embedcache.errors import InvalidInputError


def damage_newer(path: Path) -> None:
    info = json.loads((path / "dataset.json").read_text())
    (path / "dataset.json").write_text(json.dumps({**info, "version": 2}))


def damage_columns(path: Path) -> None:
    frame = pd.read_parquet(path / "samples.parquet").drop(columns="tss")
    frame.to_parquet(path / "samples.parquet")
    change_info(files=describe(path))(path)


def describe(path: Path) -> dict[str, Any]:
    """What ``dataset.json`` would say of the files that are there now."""
    return {
        file.name: {"size_bytes": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in path.glob("*.parquet")
    }


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def change_info(**changes: Any) -> Any:
    def damage(path: Path) -> None:
        info = json.loads((path / "dataset.json").read_text())
        (path / "dataset.json").write_text(json.dumps({**info, "sha256": None, **changes}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_info(files=None), "'files' of .* is not"),
        (change_info(files={}), "'files' of .* is not"),
        (change_info(files={"samples.parquet": 1, "sequences.parquet": 1}), "'files' of .* is not"),
        (change_info(tissues=3), "'tissues' of .* is not"),
        (change_info(encoders=["x"]), "'encoders' of .* is not"),
        (lambda path: path.rename(path.with_name("moved")), "There is no dataset at"),
        (lambda path: (path / "dataset.json").unlink(), "has no dataset.json"),
        (lambda path: (path / "dataset.json").write_text("{"), "cannot be read"),
        (lambda path: (path / "dataset.json").write_text("{}"), "does not describe a dataset"),
        (damage_newer, "format version 2, this program reads 1"),
        (lambda path: (path / "targets.parquet").unlink(), "targets.parquet is missing"),
        (lambda path: (path / "samples.parquet").write_bytes(b"PAR1"), "has 4 bytes instead of"),
        (damage_columns, "other columns than expected: .'tss'."),
        (change_info(counts={"transcripts": "many"}), "'counts' of .* is not"),
        (change_info(inputs=[3]), "'inputs' of .* is not"),
        (change_info(labels=[3]), "'labels' of .* is not"),
        (change_info(truth=3), "'truth' of .* is not"),
        (lambda path: (path / "dataset.json").write_text("[" * 100_000), "cannot be read"),
        (lambda path: (path / "dataset.json").write_text('{"version": ' + "9" * 5000 + "}"), "cannot be read"),
        (lambda path: flip(path / "samples.parquet"), "samples.parquet has other bytes"),
        (lambda path: flip(path / "targets.parquet"), "targets.parquet has other bytes"),
        (
            lambda path: replace(path / "dataset.json", '"simulated"', '"simulatee"'),
            "dataset.json is not as it was written",
        ),
    ],
    ids=[
        "no-files",
        "empty-files",
        "odd-files",
        "odd-tissues",
        "odd-encoders",
        "moved",
        "no-json",
        "cut-json",
        "other-json",
        "newer",
        "no-targets",
        "cut-samples",
        "other-columns",
        "odd-counts",
        "odd-inputs",
        "odd-labels",
        "odd-truth",
        "deep",
        "huge",
        "bit-of-samples",
        "bit-of-targets",
        "other-description",
    ],
)
def test_a_damaged_dataset_gives_one_line(tmp_path: Path, damage: Any, message: str) -> None:
    write(tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(InvalidInputError, match=message) as error:
        read_dataset(tmp_path / "d")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["zeros", "letter"])
def test_damaged_sequences_are_told_in_one_line(tmp_path: Path, damage: str) -> None:
    dataset = write(tmp_path / "d")
    file = tmp_path / "d" / "sequences.parquet"
    if damage == "zeros":
        file.write_bytes(bytes(file.stat().st_size))
    else:
        table = pd.read_parquet(file)
        table["sequence"] = table["sequence"].str.replace("ACGTACGT", "ACGTACGA")
        table.to_parquet(file)
    with pytest.raises(InvalidInputError, match=r"sequences\.parquet") as error:
        list(dataset.sequences("dna"))
    assert "\n" not in str(error.value)


def test_a_sequence_that_samples_have_cannot_go_missing(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d")
    table = pd.read_parquet(tmp_path / "d" / "sequences.parquet")
    table[table["sequence"] != "ACGTACGT"].to_parquet(tmp_path / "d" / "sequences.parquet", index=False)
    with pytest.raises(InvalidInputError, match="lacks 1 dna sequences that samples have"):
        list(dataset.sequences("dna"))


def test_changed_bytes_are_found_on_request(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d")
    flip(tmp_path / "d" / "sequences.parquet")
    with pytest.raises(InvalidInputError, match="other bytes"):
        dataset.verify()
