import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.dataset import Dataset
from embedcache.errors import EmbedCacheError
from embedcache.prepare import isoformer
from embedcache.prepare.isoformer import TISSUES, prepare_isoformer
from embedcache.prepare.isoformer_rows import contig_aliases

COLUMNS = "transcript_id_gtex,gene_id_gtex,split,chr,strand,start,end,RNA,5UTR,CDS,3UTR,Protein,Adipose Tissue,Liver"
GENOME = ">chr1\nCCATGAAATAACCGG\n>chrM\nACGTACGTAC\n"
ROWS = [
    "T1.1,G1,train,chr1,+,2,13,CATGAAATAACC,C,ATGAAATAA,CC,MK,-0.5,1.5",
    "T2.1,G1,train,chr1,-,2,13,GGTTATTTCATG,,,,,0.25,",
    "T3.1,G2,evaluation,chrMT,+,3,8,GTATGTAA,G,ATGTAA,AA,M,2,3",  # 5'UTR + CDS + 3'UTR is not the RNA
    "T4.1,G3,test,chr1,+,2,13,CATGAAATAACC,C,ATGAAATAA,CC,MQ,0,0",  # CDS and protein disagree
    "T5.1,G4,test,chr1,+,2,13,,,,,,0,0",
]


def prepare(folder: Path, rows: list[str] | None = None, **changes: Any) -> Dataset:
    text = "\n".join([changes.pop("columns", COLUMNS), *(ROWS if rows is None else rows)]) + "\n"
    (folder / "t.csv").write_bytes(gzip.compress(text.encode()) if changes.pop("packed", False) else text.encode())
    (folder / "g.fa").write_text(changes.pop("genome", GENOME))
    paths = {"table": folder / "t.csv", "genome": folder / "g.fa", "output": folder / "d"}
    return prepare_isoformer(**{**paths, "dna_length": 6, **changes})


@pytest.mark.parametrize("block_bytes", [150, 250, 1 << 20])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_small_table_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int, packed: bool) -> None:
    monkeypatch.setattr(isoformer, "_BLOCK_BYTES", block_bytes)
    dataset = prepare(tmp_path, packed=packed)
    samples, dna = dataset.samples, dict(dataset.sequences("dna"))
    assert samples["transcript_id"].tolist() == ["T1.1", "T2.1", "T3.1", "T4.1"]
    assert samples["split"].tolist() == ["train", "train", "validation", "test"]
    assert samples["tss"].tolist() == [2, 13, 3, 2]
    assert samples["genetic_code"].tolist() == [1, 1, 2, 1]
    # 1-based inclusive: T1 starts at base 2, T2 at base 13 of the other strand; index 3 of the window in both.
    assert [dna[key or b""] for key in dataset.keys("dna")] == ["NNCCAT", "NCCGGT", "NACGTA", "NNCCAT"]
    assert samples["protein_key"].notna().tolist() == [True, False, True, True]
    assert samples["cds_start"].fillna(-1).tolist() == [1, -1, 2, -1]
    assert samples["cds_end"].fillna(-1).tolist() == [7, -1, 5, -1]
    np.testing.assert_array_equal(dataset.targets, [[-0.5, 1.5], [0.25, np.nan], [2, 3], [0, 0]])
    assert dataset.info["target_unit"] == "z_score_of_log1p_tpm"
    assert dataset.info["left_out"] == {"transcripts without RNA": 1}
    counts = dataset.info["counts"]
    assert counts["RNA that is not 5'UTR + CDS + 3'UTR"] == 1
    assert counts["CDS that does not translate to the protein given"] == 1
    assert counts["transcripts whose contig has another name in the genome"] == 1


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ("tpm", "log1p_tpm", np.log1p([2, 3])),
        ("log1p", "log1p_tpm", [2, 3]),
        ("z-score", "z_score_of_log1p_tpm", [2, 3]),
    ],
)
def test_the_kind_of_values_decides(tmp_path: Path, values: Any, unit: str, expected: Any) -> None:
    dataset = prepare(tmp_path, ROWS[2:3], values=values)
    assert dataset.info["target_unit"] == unit
    np.testing.assert_allclose(dataset.targets, [expected])


def test_without_a_genome_there_is_no_dna(tmp_path: Path) -> None:
    dataset = prepare_isoformer(table=_table(tmp_path), output=tmp_path / "e")
    assert dataset.modalities == ("rna", "protein")


def _table(folder: Path) -> Path:
    (folder / "t.csv").write_text("\n".join([COLUMNS, *ROWS]) + "\n")
    return folder / "t.csv"


def test_tissues_can_be_named(tmp_path: Path) -> None:
    assert prepare(tmp_path, tissues=["Liver", "Liver"]).tissues == ["Liver"]


@pytest.mark.parametrize(
    ("name", "aliases"),
    [("chr1", ["1"]), ("X", ["chrX"]), ("chrMT", ["chrM", "MT", "M"]), ("MT", ["chrM", "chrMT", "M"])],
)
def test_other_names_of_a_contig(name: str, aliases: list[str]) -> None:
    assert contig_aliases(name) == aliases


def test_there_are_thirty_tissues() -> None:
    assert len(set(TISSUES)) == 30


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ([ROWS[0], ROWS[0]], {}, "line 3: transcript 'T1.1' was on line 2"),
        ([ROWS[0], ROWS[1].replace("train", "test")], {}, "'G1' is in two splits"),
        ([ROWS[0].replace("chr1", "chr7")], {}, "line 2: contig 'chr7' is not in"),
        ([ROWS[0].replace(",2,13", ",200,210")], {}, "line 2: TSS 200 lies past the end of contig 'chr1'"),
        ([ROWS[0].replace(",2,13", ",13,2")], {}, "line 2: strand '.', start '13', end '2'"),
        ([ROWS[0].replace("CATG", "CA!G", 1)], {}, "line 2: rna sequence has '!' at position 2"),
        ([ROWS[0].replace("1.5", "high")], {}, "line 2, column 'Liver': 'high' is no value of the kind z-score"),
        ([ROWS[0]], {"values": "tpm"}, "line 2, column 'Adipose Tissue': '-0.5' is no value of the kind tpm"),
        ([ROWS[0]], {"tissues": ["Livre"]}, "Did you mean 'Liver'"),
        ([ROWS[0]], {"columns": COLUMNS.replace("RNA", "rna")}, "Unknown column of .*'RNA'"),
        ([ROWS[0] + ",1,2"], {}, "Row #2: Expected 14 columns, got 16"),
        ([ROWS[0].rsplit(",", 3)[0]], {}, "Row #2: Expected 14 columns, got 11"),
        ([], {}, "has no row"),
        ([ROWS[4]], {}, "has no row with RNA"),
        ([ROWS[0].replace("T1.1", "")], {}, "line 2: no transcript ID"),
        ([ROWS[0].replace(",2,13", ",\u00b2,13")], {}, "line 2: strand"),
        ([ROWS[0].replace("train", "trian")], {}, "line 2: 'trian' names no split"),
        ([ROWS[0]], {"genetic_codes": {"chr9": 3}}, "Unknown contig 'chr9'. Did you mean 'chr1'"),
    ],
    ids=[
        "twice", "leak", "contig", "past-end", "order", "letter", "word", "kind", "tissue", "column", "long-row",
        "short-row", "empty", "no-rna", "no-id", "superscript", "split-name", "code-contig",
    ],
)  # fmt: skip
def test_a_wrong_table_gives_one_line_and_leaves_nothing(
    tmp_path: Path, rows: list[str], changes: Any, message: str
) -> None:
    with pytest.raises(EmbedCacheError, match=message) as error:
        prepare(tmp_path, rows, **changes)
    assert "\n" not in str(error.value)
    assert {file.name for file in tmp_path.iterdir()} == {"t.csv", "g.fa"}


def test_a_cut_file_gives_one_line(tmp_path: Path) -> None:
    path = _table(tmp_path)
    path.write_bytes(gzip.compress(path.read_bytes())[:-12])
    with pytest.raises(EmbedCacheError, match="cut or damaged"):
        prepare_isoformer(table=path, output=tmp_path / "d")
