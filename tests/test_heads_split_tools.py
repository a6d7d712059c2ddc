"""Programs for clusters as they are called and read, and what a split says of itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_study import make_dataset

from embedcache.dataset import Dataset
from embedcache.errors import InvalidInputError, InvalidSettingError
from heads.split_config import SplitConfig
from heads.splits import SplitError
from heads.splits.describe import describe_split
from heads.splits.related import least_similarity
from heads.splits.text import format_report, write_rows
from heads.splits.tools import _cd_hit, _read_cd_hit, _read_mmseqs, _run


@pytest.mark.parametrize(
    ("modality", "similarity", "expected"),
    [("protein", 0.3, 0.3), ("protein", 0.95, 0.95), ("rna", 0.3, 0.9), ("rna", 0.95, 0.95)],
)
def test_rnas_are_alike_from_nine_tenths_on(modality: str, similarity: float, expected: float) -> None:
    assert least_similarity(modality, similarity) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("modality", "similarity", "word"),
    [("protein", 0.4, 2), ("protein", 0.5, 3), ("protein", 0.6, 4), ("protein", 0.69, 4), ("protein", 0.7, 5),
     ("protein", 1.0, 5), ("rna", 0.8, 5), ("rna", 0.89, 5), ("rna", 0.9, 8)],
)  # fmt: skip
def test_words_of_cd_hit_follow_its_manual(modality: str, similarity: float, word: int) -> None:
    arguments = _cd_hit(modality, similarity)  # type: ignore[arg-type]
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert (options["-n"], options["-c"]) == (str(word), str(similarity))


@pytest.mark.parametrize(("modality", "similarity", "least"), [("protein", 0.39, 0.4), ("rna", 0.79, 0.8)])
def test_cd_hit_does_not_go_lower(modality: str, similarity: float, least: float) -> None:
    with pytest.raises(InvalidSettingError, match=f"CD-HIT finds {modality} from {least} on"):
        _cd_hit(modality, similarity)  # type: ignore[arg-type]


def test_clusters_are_read_as_the_programs_write_them(tmp_path: Path) -> None:
    lines = [">Cluster 0", "0\t120aa, >s3... at 91.25%", "1\t130aa, >s0... *", ">Cluster 1", "0\t9aa, >s12... *", ""]
    (tmp_path / "out.clstr").write_text("\n".join(lines[:-1]) + "\n")
    assert list(_read_cd_hit(tmp_path)) == [("s3", "s3"), ("s3", "s0"), ("s12", "s12")]
    (tmp_path / "out_cluster.tsv").write_text("s1\ts1\ns1\ts0\n")
    assert list(_read_mmseqs(tmp_path)) == [("s1", "s1"), ("s1", "s0")]


@pytest.mark.parametrize(
    ("script", "words"),
    [("echo a; echo out of memory; exit 3", "code 3: out of memory"), ("echo x; echo y >&2; exit 1", "code 1: y"),
     ("exit 2", "code 2: it said nothing")],
)  # fmt: skip
def test_a_program_that_failed_is_quoted_by_its_last_line(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(SplitError, match=f"sh ended with {words}"):
        _run(["/bin/sh", "-c", script], tmp_path)
    _run(["/bin/sh", "-c", "exit 0"], tmp_path)


# --- reports ---


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    found = make_dataset(tmp_path_factory.mktemp("study") / "dataset", n_genes=30, modalities=("dna",))
    found.samples["chromosome"] = [f"chr{i % 3}" for i in range(len(found.samples))]
    return found


def test_parts_are_described_by_what_is_in_them(dataset: Dataset) -> None:
    report = describe_split(dataset, SplitConfig(unit="gene", folds=4), folds=True)
    samples, parts = dataset.samples, np.array(report.part_of_row)
    for part in report.parts:
        mine = parts == part.name
        assert (part.transcripts, part.genes) == (mine.sum(), samples["gene_id"][mine].nunique())
        targets = dataset.targets[mine].to_numpy()  # type: ignore[index]
        assert part.target_mean == pytest.approx(np.nanmean(targets))
        assert part.target_sd == pytest.approx(np.nanstd(targets))
        assert part.chromosomes == samples["chromosome"][mine].value_counts().to_dict()
        assert sum(part.biotypes.values()) == part.transcripts
        assert part.units == part.genes
    assert report.unit_of_row == samples["gene_id"].tolist()
    assert report.largest_unit == samples["gene_id"].value_counts().max()
    assert report.share_alike is None
    text = format_report(report)
    assert "split by gene, seed 0, 4 folds\n" in text
    assert "NOTE: simulated" in text
    assert text.endswith("Nothing to compare: the dataset has neither RNAs nor proteins.")


def test_the_last_line_says_whether_relatives_leak(dataset: Dataset) -> None:
    report = describe_split(dataset, SplitConfig(unit="gene", folds=4), folds=True)
    ends = {
        text.rpartition("\n")[2]
        for text in (
            format_report(replace(report, share_alike=share, unit=unit))  # type: ignore[arg-type]
            for share, unit in ((0.0, "gene"), (0.25, "gene"), (0.25, "similarity"))
        )
    }
    assert ends == {
        "No transcript held out is alike to a gene trained on.",
        "Relatives leak: 25.0% of the transcripts held out are alike to a gene trained on. "
        "`--by similarity` keeps them together.",
        "25.0% of the transcripts held out are alike to a gene trained on, as this looks closer than the tool that "
        "made the groups.",
    }


def test_a_table_that_cannot_be_written_is_told(dataset: Dataset, tmp_path: Path) -> None:
    report = describe_split(dataset, SplitConfig(unit="gene"))
    write_rows(report, dataset, tmp_path / "new" / "rows.tsv")
    table = pd.read_csv(tmp_path / "new" / "rows.tsv", sep="\t")
    assert table["part"].value_counts().to_dict() == {part.name: part.transcripts for part in report.parts}
    with pytest.raises(InvalidInputError, match=r"rows\.tsv/x\.tsv cannot be written: .*Choose another output"):
        write_rows(report, dataset, tmp_path / "new" / "rows.tsv" / "x.tsv")
    with pytest.raises(InvalidInputError, match=r"new cannot be written: .*directory"):
        write_rows(report, dataset, tmp_path / "new")
