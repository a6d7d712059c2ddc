import errno
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from embedcache.dataset import Dataset, read_dataset, read_info
from embedcache.dataset_write import describe_input, made_by_same_command, write_dataset
from embedcache.errors import EmbedCacheError, InvalidInputError
from embedcache.sequences import sequence_key
from embedcache.splits import SplitError

INFO: dict[str, Any] = {
    "source": "fasta",
    "inputs": [{"path": "a.fa", "size_bytes": 1, "sha256": "0"}],
    "options": {"dna_length": 8},
    "encoders": {"rna": "tiny-random-rna"},
    "labels": ["simulated"],
}
SEQUENCES = {"dna": ["ACGTACGT", "TTTTNNNN"], "rna": ["ACG", "ACGT"], "protein": ["MK"]}


def key(modality: str, index: int) -> bytes:
    return sequence_key(SEQUENCES[modality][index], modality)  # type: ignore[arg-type]


def samples() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "transcript_id": ["a/b", "a|b", "ü x" + "y" * 300],
            "gene_id": ["g1", "g1", "g2"],
            "split": ["train", "train", "test"],
            "tss": pd.array([5, None, 7], "Int64"),
            "dna_key": [key("dna", 0), key("dna", 0), key("dna", 1)],
            "rna_key": [key("rna", 0), key("rna", 1), None],
            "protein_key": [None, key("protein", 0), None],
        }
    )


def targets() -> pd.DataFrame:
    return pd.DataFrame({"WT, YPD": [0.5, np.nan, 1.5], "Liver": [0.0, 2.0, np.nan]})


def write(path: Path, **changes: Any) -> Dataset:
    rows = [(m, key(m, i), s) for m, group in SEQUENCES.items() for i, s in enumerate(group)]
    arguments = {"info": INFO, "samples": samples(), "targets": targets(), "sequences": rows + rows} | changes
    return write_dataset(path, **arguments)


def test_everything_comes_back_as_it_went_in(tmp_path: Path) -> None:
    write(tmp_path / "d")
    dataset = read_dataset(tmp_path / "d")
    assert dataset.samples["transcript_id"].tolist() == samples()["transcript_id"].tolist()
    assert dataset.keys("protein") == [None, key("protein", 0), None]
    assert dataset.tissues == ["WT, YPD", "Liver"]
    assert dataset.targets is not None
    np.testing.assert_array_equal(dataset.targets.to_numpy(), targets().to_numpy())
    assert dataset.samples["tss"].isna().tolist() == [False, True, False]
    assert dataset.modalities == ("dna", "rna", "protein")
    assert (dataset.encoder("rna"), dataset.encoder("dna"), dataset.labels) == ("tiny-random-rna", None, ["simulated"])
    dataset.verify()


@pytest.mark.parametrize("modality", ["dna", "rna", "protein"])
def test_each_distinct_sequence_comes_once(tmp_path: Path, modality: Any) -> None:
    found = list(write(tmp_path / "d").sequences(modality))
    assert found == [(key(modality, i), s) for i, s in enumerate(SEQUENCES[modality])]


def test_a_dataset_without_targets_has_none(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d", targets=None)
    assert dataset.targets is None
    assert dataset.tissues == []


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    changed = targets()
    changed.iloc[0, 0] = 0.25
    first, again = write(tmp_path / "a"), write(tmp_path / "b")
    assert first.digest == again.digest != write(tmp_path / "c", targets=changed).digest


def test_a_gene_in_two_splits_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    rows = samples()
    rows.loc[1, "split"] = "test"
    with pytest.raises(SplitError, match="'g1' is in two splits, train and test"):
        write(tmp_path / "d", samples=rows)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_stream_of_sequences_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield "dna", key("dna", 0), "ACGTACGT"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "d", sequences=broken())
    assert list(tmp_path.iterdir()) == []


def test_twice_the_same_id_is_refused(tmp_path: Path) -> None:
    rows = samples()
    rows.loc[1, "transcript_id"] = "a/b"
    with pytest.raises(InvalidInputError, match="'a/b' comes twice"):
        write(tmp_path / "d", samples=rows)


def test_a_key_without_a_sequence_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="1 protein keys of samples have no sequence"):
        write(tmp_path / "d", sequences=[(m, key(m, i), SEQUENCES[m][i]) for m in ("dna", "rna") for i in (0, 1)])


def test_inputs_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "a\udce9\n"
    path.write_text("x")
    json.dumps(describe_input(path), ensure_ascii=False).encode()
    with pytest.raises(InvalidInputError, match="a directory"):
        describe_input(tmp_path)


@pytest.mark.parametrize("place", ["loop", "file/below", "n" * 300], ids=["loop", "below-a-file", "long"])
def test_a_place_that_cannot_be_made_gives_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInputError, match=r"output"):
        write(tmp_path / place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


@pytest.mark.parametrize("name", ["transcript_id", "", "Liver"])
def test_a_tissue_has_a_name_of_its_own(tmp_path: Path, name: str) -> None:
    table = targets()
    table.columns = pd.Index([name, "Liver"])
    with pytest.raises(InvalidInputError, match="Give it another name"):
        write(tmp_path / "d", targets=table)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInputError, match=r"d cannot be written: .*--output"):
        write(tmp_path / "file" / "d")


def test_a_full_disk_gives_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    def full() -> Iterator[tuple[Any, bytes, str]]:
        yield "dna", key("dna", 0), SEQUENCES["dna"][0]
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InvalidInputError, match="cannot be written: No space left on device"):
        write(tmp_path / "a" / "b" / "d", sequences=full())
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_another_process_made_meanwhile_is_told(tmp_path: Path) -> None:
    def slow() -> Iterator[tuple[Any, bytes, str]]:
        write(tmp_path / "d")
        yield from ()

    with pytest.raises(InvalidInputError, match=r"another process .* again"):
        write(tmp_path / "d", sequences=slow(), samples=samples().drop(columns=["dna_key", "rna_key", "protein_key"]))
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_the_summary_shows_empty_splits(tmp_path: Path) -> None:
    assert "train 2, validation 0, test 1" in write(tmp_path / "d").summary()


def test_the_same_command_finds_its_dataset_and_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d"
    assert made_by_same_command(path, INFO) is None
    write(path)
    found = made_by_same_command(path, INFO)
    assert found is not None
    assert found.path == path
    with pytest.raises(EmbedCacheError, match="made with other options"):
        made_by_same_command(path, {**INFO, "options": {"dna_length": 9}})
    with pytest.raises(EmbedCacheError, match="exists already"):
        write(path)


def test_reading_the_description_imports_nothing_slow(tmp_path: Path) -> None:
    write(tmp_path / "d")
    code = (
        "import sys; from embedcache.dataset import read_info; read_info(sys.argv[1]);"
        "print(sorted({'pandas', 'pyarrow', 'numpy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d")],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
    assert read_info(tmp_path / "d")["source"] == "fasta"
