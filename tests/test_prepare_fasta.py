from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from embedcache.dataset import Dataset
from embedcache.errors import EmbedCacheError
from embedcache.prepare.fasta import prepare_fasta
from embedcache.splits import SplitRule

FILES = {
    "rna": ">t1 first\nacgu\nacgu\n>t2\nACGTACGT\n>a/b|c\nRRRR\n",
    "protein": ">t1\nMK*\n>t4\nMM\n",
    "targets": "id\tgene\tnote\tLiver\nt1\tg\tx\t1\nt2\tg\ty\t\nt9\th\tz\t4\n",
    "genes": "transcript\tgene\tfold\nt1\tg\ttrain\nt2\tg\ttrain\na/b|c\tk\ttest\nt4\tl\tdev\n",
}


def prepare(folder: Path, *names: str, **changes: Any) -> Dataset:
    for name in names:
        (folder / name).write_text(changes.pop(name, FILES[name]))
    paths = {name: folder / name for name in names}
    columns = {"gene_column": "gene", "drop_columns": ["note"]} if "targets" in names else {}
    return prepare_fasta(**{**paths, "output": folder / "d", **columns, **changes})


def test_ids_join_the_files(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, "rna", "protein", "targets")
    assert dataset.samples["transcript_id"].tolist() == ["t1", "t2", "a/b|c", "t4"]
    assert dataset.samples["gene_id"].tolist() == ["g", "g", "a/b|c", "t4"]
    assert dataset.modalities == ("rna", "protein")
    keys = dataset.keys("rna")
    assert keys[0] == keys[1] is not None  # one sequence under two IDs
    assert keys[3] is None
    assert dict(dataset.sequences("protein"))[dataset.keys("protein")[0] or b""] == "MK"
    assert dataset.tissues == ["Liver"]
    np.testing.assert_allclose(dataset.targets, np.log1p([[1], [np.nan], [np.nan], [np.nan]]))
    assert dataset.info["left_out"] == {"rows of targets without sequence": 1}
    assert dataset.info["counts"]["transcripts that are genes of their own"] == 2
    assert dataset.info["counts"]["distinct rna sequences"] == 2


def test_distinct_sequences_are_counted_where_rows_are_kept(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, "protein", "targets", only_measured=True)
    assert (len(dataset.samples), dataset.info["counts"]["distinct protein sequences"]) == (1, 1)


def test_short_proteins_may_be_spelt_with_letters_of_bases(tmp_path: Path) -> None:
    assert len(prepare(tmp_path, "protein", protein=">t1\nGATTACA\n>t2\nCAT\n").samples) == 2


def test_ambiguous_letters_are_read_as_n_and_counted(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, "rna", rna=">t1\nACGRYT\n")
    assert [sequence for _, sequence in dataset.sequences("rna")] == ["ACGNNT"]
    assert "2  ambiguous rna letters read as N" in dataset.summary()


def test_one_modality_without_targets_is_enough(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, "protein")
    assert (dataset.targets, dataset.modalities, len(dataset.samples)) == (None, ("protein",), 2)


def test_genes_without_sequence_are_counted(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, "rna", "genes", genes="t\tg\nt1\tg\nt8\th\nt9\th\n")
    assert dataset.info["left_out"] == {"rows of genes without sequence": 2}


def test_only_measured_ids_on_request(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, "rna", "protein", "targets", only_measured=True)
    assert dataset.samples["transcript_id"].tolist() == ["t1", "t2"]


def test_a_column_of_the_genes_gives_the_splits(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, "rna", "protein", "genes", splits=SplitRule(kind="column", column="fold"))
    assert dataset.samples["split"].tolist() == ["train", "train", "test", "validation"]


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        ((), {}, "Give --dna, --rna or --protein"),
        (("rna",), {"only_measured": True}, "Give --targets"),
        (("rna",), {"rna": ">t1\nACGT\n>t1\nACGT\n"}, "line 3: ID 't1' comes a second time"),
        (("rna",), {"rna": ">t1\n>t2\nACGT\n"}, "record 't1' at line 1: .* is empty"),
        (("protein",), {"protein": ">t1\nM*K\n"}, r"record 't1' at line 1: .* has '\*' at position 1"),
        (("protein",), {"protein": ">t1\n" + "ACGTN" * 20 + "\n"}, "holds no proteins: its 100 letters .* as --rna"),
        (("rna", "targets"), {"targets": "id\tgene\tnote\tLiver\nu\tg\tx\t1\n"}, "IDs look like 'u' and 't1'"),
        (("rna",), {"splits": SplitRule(kind="chromosomes", test_chromosomes=("1",))}, "no chromosomes"),
        (("rna", "genes"), {"splits": SplitRule(kind="column", column="folt")}, "Did you mean 'fold'"),
        (("rna", "genes"), {"genes": "t\tg\nt1\ta\nt1\tb\n"}, "transcript 't1' comes twice"),
        (("rna", "genes"), {"genes": "u\tg\nx\ty\n"}, "No transcript of .*genes is in the FASTA files"),
        (("rna", "genes"), {"genes": "t1\tg\nt2\tg\n"}, "first line .* no header"),
        (("rna",), {"splits": SplitRule(kind="column")}, "Give --genes"),
        (
            ("rna", "genes"),
            {"genes": "t\tg\tsplit\nt1\ta\ttrian\n", "splits": SplitRule(kind="column")},
            "genes, line 2: 'trian' names no split",
        ),
        (
            ("rna", "genes"),
            {"genes": "t\tg\tsplit\nt1\ta\ttrain\n", "splits": SplitRule(kind="column")},
            "no row for transcript 't2'",
        ),
        (
            ("rna", "genes"),
            {"genes": "t\tg\tsplit\nt1\tg\ttrain\nt2\tg\ttest\na/b|c\tk\tdev\n", "splits": SplitRule(kind="column")},
            "'g' is in two splits",
        ),
    ],
    ids=[
        "nothing", "no-targets", "twice", "empty", "stop", "nucleotides", "strangers", "chromosomes", "column",
        "gene-twice", "strange-genes", "no-header", "column-of-nothing", "split-name", "no-split", "leak",
    ],
)  # fmt: skip
def test_wrong_input_gives_one_line_and_leaves_nothing(
    tmp_path: Path, names: tuple[str, ...], changes: Any, message: str
) -> None:
    with pytest.raises(EmbedCacheError, match=message) as error:
        prepare(tmp_path, *names, **changes)
    assert "\n" not in str(error.value)
    assert {file.name for file in tmp_path.iterdir()} == set(names)


def test_real_targets_with_empty_cells_and_no_dna(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("human_29tissues")
    dataset = prepare_fasta(
        rna=folder / "cds.fa.gz",
        protein=folder / "protein.fa.gz",
        targets=folder / "mrna_log10fpkm.tsv.gz",
        id_column="EnsemblTranscriptID",
        gene_column="EnsemblGeneID",
        drop_columns=["GeneName", "EnsemblProteinID", "sequence_source"],
        already_log=True,
        target_unit="log10_fpkm",
        only_measured=True,
        output=tmp_path / "d",
    )
    plain = pd.read_csv(folder / "mrna_log10fpkm.tsv.gz", sep="\t").set_index("EnsemblTranscriptID")
    plain = plain.drop(columns=["GeneName", "EnsemblGeneID", "EnsemblProteinID", "sequence_source"])
    assert dataset.modalities == ("rna", "protein")
    assert dataset.targets is not None
    assert dataset.targets.shape == (1022, 29)
    np.testing.assert_array_equal(dataset.targets, plain.loc[dataset.samples["transcript_id"]])
    assert dataset.info["target_unit"] == "log10_fpkm"
    assert dataset.info["left_out"] == {"transcripts without targets": 288}
