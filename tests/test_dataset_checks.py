"""What a dataset refuses when it is written or asked, and what its summary and its digests say."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_dataset import INFO, SEQUENCES, key, samples, targets, write

from embedcache import dataset_write
from embedcache.dataset import SAMPLE_COLUMNS, info_digest, read_dataset
from embedcache.dataset_write import DatasetWriter, describe_input, made_by_same_command
from embedcache.errors import EmbedCacheError, InvalidInputError, UnknownNameError


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": samples().assign(tissue="x")}, "Unknown sample column 'tissue'"),
        ({"samples": samples().assign(split=["train", "train", "fold"])}, "Gene 'g2' has split 'fold'"),
        ({"samples": samples().assign(gene_id=["g1", "", "g2"])}, "A row has no gene ID"),
        ({"targets": targets().iloc[:2]}, "2 rows of targets for 3 samples. Give one row a sample."),
        ({"targets": targets().set_axis(["Liver", "Liver"], axis=1)}, "Tissue 'Liver' is empty, comes twice or is"),
        ({"targets": targets().set_axis(["", "Liver"], axis=1)}, "Tissue '' is empty, comes twice or is reserved"),
        ({"info": {**INFO, "encoders": {"RNA": "x"}}}, "Unknown modality 'RNA'"),
        ({"sequences": []}, "2 dna keys of samples have no sequence. Give them all."),
    ],
    ids=["column", "split", "gene", "rows", "tissue-twice", "no-tissue", "modality", "sequences"],
)
def test_what_cannot_be_written_is_told_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(EmbedCacheError) as error:
        write(tmp_path / "new" / "d", **changes)
    assert message in str(error.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ask", ["keys", "sequences", "encoder"])
def test_only_modalities_have_answers(tmp_path: Path, ask: str) -> None:
    dataset = write(tmp_path / "d")
    with pytest.raises(UnknownNameError, match=r"Unknown modality 'RNA'. Choose from: dna, protein, rna"):
        list(getattr(dataset, ask)("RNA") or [])
    assert (dataset.encoder("rna"), dataset.encoder("dna")) == ("tiny-random-rna", None)


def test_columns_that_are_left_out_are_empty_and_of_their_type(tmp_path: Path) -> None:
    found = write(tmp_path / "d").samples
    assert list(found.columns) == list(SAMPLE_COLUMNS)
    assert found["tss"].tolist() == [5, pd.NA, 7] and found["cds_start"].isna().all()
    assert str(found["cds_start"].dtype) == str(found["tss"].dtype) == "Int64"
    assert found["chromosome"].isna().all() and len(found) == 3


def test_row_groups_are_cut_by_letters_and_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write(tmp_path / "a")
    monkeypatch.setattr(dataset_write, "_GROUP_LETTERS", 4)
    cut = write(tmp_path / "b")
    for modality in SEQUENCES:
        assert sorted(whole.sequences(modality)) == sorted(cut.sequences(modality))  # type: ignore[arg-type]
    assert len(list(cut.sequences("rna"))) == 2 and whole.digest != cut.digest


def test_a_writer_counts_distinct_sequences(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "d") as writer:
        first, again = writer.add("rna", "ACG"), writer.add("rna", "ACG")
        assert first == again == key("rna", 0) != writer.add("dna", "ACG")
        assert +writer.counts == {"distinct rna sequences": 1, "distinct dna sequences": 1}
        assert writer.scratch.parent == tmp_path and writer.scratch.is_dir()
    assert list(tmp_path.iterdir()) == []  # never finished


def test_a_summary_shows_what_counts(tmp_path: Path) -> None:
    info = {**INFO, "counts": {"proteins": 1200, "nothing": 0}, "left_out": {"short": 3, "long": 0},
            "truth": {"explainable_r2": {"dna": 0.25, "dna,rna": 0.6}}}  # fmt: skip
    assert write(tmp_path / "d", info=info).summary().splitlines() == [
        f"{tmp_path / 'd'}: 3 transcripts, 2 tissues (simulated)",
        "       1,200  proteins",
        "           3  left out: short",
        "      splits  train 2, validation 0, test 1",
        "        NOTE  a training needs 2 validation rows: take another --split-seed or more genes",
        "       truth  share of variance that can be explained: dna 0.25, dna,rna 0.60",
    ]


def test_digests_are_of_files_and_of_what_is_said(tmp_path: Path) -> None:
    dataset = write(tmp_path / "d")
    said = json.loads((tmp_path / "d" / "dataset.json").read_text())
    files = {name: hashlib.sha256((tmp_path / "d" / name).read_bytes()).hexdigest() for name in said["files"]}
    assert {name: entry["sha256"] for name, entry in said["files"].items()} == files
    assert dataset.digest == hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    assert said["sha256"] == info_digest(said) == info_digest({name: said[name] for name in reversed(said)})
    found = describe_input(tmp_path / "d" / "samples.parquet")
    size = (tmp_path / "d" / "samples.parquet").stat().st_size
    assert (found["size_bytes"], found["sha256"]) == (size, files["samples.parquet"])


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({}, ""),
        ({"labels": []}, ""),
        ({"options": {"dna_length": 9}}, "options"),
        ({"inputs": [{**INFO["inputs"][0], "path": "moved.fa"}]}, ""),
        ({"inputs": [{**INFO["inputs"][0], "sha256": "1"}], "source": "genome"}, "source, inputs"),
        ({"encoders": {}}, "encoders"),
    ],
    ids=["same", "labels", "options", "moved", "source-and-inputs", "encoders"],
)
def test_a_command_finds_its_own_dataset_alone(tmp_path: Path, changes: dict[str, Any], different: str) -> None:
    dataset = write(tmp_path / "d")
    assert made_by_same_command(tmp_path / "none", INFO) is None
    if not different:
        found = made_by_same_command(tmp_path / "d", {**INFO, **changes})
        assert found is not None and found.digest == dataset.digest
        return
    with pytest.raises(InvalidInputError, match=rf"d holds a dataset made with other {different}\. Choose another"):
        made_by_same_command(tmp_path / "d", {**INFO, **changes})


def test_targets_of_other_rows_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a")
    other = samples().assign(transcript_id=["x", "y", "z"])
    write(tmp_path / "b", samples=other)
    path, said = tmp_path / "a", json.loads((tmp_path / "a" / "dataset.json").read_text())
    (path / "targets.parquet").write_bytes((tmp_path / "b" / "targets.parquet").read_bytes())
    described = describe_input(path / "targets.parquet")
    said["files"]["targets.parquet"] = {name: described[name] for name in ("size_bytes", "sha256")}
    (path / "dataset.json").write_text(json.dumps({**said, "sha256": info_digest(said)}))
    with pytest.raises(InvalidInputError, match=r"a: samples and targets have other rows\. Prepare the dataset again"):
        read_dataset(path)
