"""One row of the published table at a time, without files: places, names, and CDS against protein."""

from pathlib import Path
from typing import Any

import pytest

from embedcache.errors import EmbedCacheError, InvalidInputError, UnknownNameError
from embedcache.genome import reverse_complement
from embedcache.prepare.isoformer import choose_tissues
from embedcache.prepare.isoformer_rows import RowReader, contig_aliases
from embedcache.sequences import sequence_key

ROW = {
    "transcript_id_gtex": "T1.1", "gene_id_gtex": "G1", "chr": "chr1", "strand": "+", "start": "2", "end": "13",
    "RNA": "CATGAAATAACC", "5UTR": "C", "CDS": "ATGAAATAA", "3UTR": "CC", "Protein": "MK",
}  # fmt: skip
LETTERS = "CCATGAAATAACCGG"


class Writer:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []

    def add(self, modality: Any, sequence: str) -> bytes:
        self.written.append((modality, sequence))
        return sequence_key(sequence, modality)


class OneContig:
    """A genome of one contig."""

    path = Path("g.fa")

    def __init__(self, name: str) -> None:
        self.name = name

    def __contains__(self, contig: object) -> bool:
        return contig == self.name

    def length(self, contig: str) -> int:
        assert contig == self.name
        return len(LETTERS)

    def window(self, contig: str, tss: int, strand: str, length: int) -> str:
        one = LETTERS[tss : tss + length] if strand == "+" else reverse_complement(LETTERS[: tss + 1])[:length]
        return one.ljust(length, "N")


def reader(contig: str = "chr1", **changes: Any) -> RowReader:
    genome: Any = OneContig(contig)
    made: dict[str, Any] = {"path": Path("t.csv"), "writer": Writer(), "genome": genome, "dna_length": 4}
    return RowReader(**{**made, "genetic_codes": {}, **changes})


def added(found: RowReader, **changes: str) -> dict[str, Any]:
    assert found.add(2, {**ROW, **changes})
    return found.rows[-1]


@pytest.mark.parametrize(
    ("changes", "strand", "tss", "window"),
    [
        ({}, "+", 2, "CATG"),
        ({"strand": "1"}, "+", 2, "CATG"),
        ({"strand": "-1.0", "start": "2.0", "end": "13.0"}, "-", 13, "GGTT"),
        ({"strand": "-"}, "-", 13, "GGTT"),
        ({"start": "13"}, "+", 13, "CGGN"),
        ({"start": "1", "end": "1"}, "+", 1, "CCAT"),
        ({"start": "15", "end": "99"}, "+", 15, "GNNN"),
    ],
    ids=["plus", "one", "floats", "minus", "one-base", "first-base", "last-base"],
)
def test_a_place_has_several_spellings(changes: dict[str, str], strand: str, tss: int, window: str) -> None:
    found = reader()
    row = added(found, **changes)
    assert (row["strand"], row["tss"], row["chromosome"], row["genetic_code"]) == (strand, tss, "chr1", 1)
    assert ("dna", window) in found.writer.written and row["dna_key"] == sequence_key(window, "dna")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strand": "."}, "t.csv, line 2: strand '.', start '2', end '13'. Expected + or -, and 1-based start <= end."),
        ({"start": "0"}, "start '0', end '13'. Expected"),
        ({"start": "14"}, "start '14', end '13'. Expected"),
        ({"end": "1e3"}, "end '1e3'. Expected"),
        ({"start": "\u0662"}, "Expected + or -"),
        ({"end": "1" * 16}, "Expected + or -"),
        ({"start": "16", "end": "99"}, "line 2: TSS 16 lies past the end of contig 'chr1' (15 bp) of g.fa."),
        ({"strand": "-", "end": "16"}, "TSS 16 lies past the end"),
        ({"chr": "chr2"}, "line 2: contig 'chr2' is not in g.fa. Give the FASTA of hg38."),
        ({"transcript_id_gtex": ""}, "line 2: no transcript ID. Give every row its ID."),
        ({"gene_id_gtex": "G\u200b"}, "is no name. Write printable letters."),
        ({"RNA": "AC!"}, "rna sequence has '!' at position 2"),
        ({"CDS": "AC-"}, "rna sequence has '-' at position 2"),
    ],
    ids=["strand", "zero", "order", "number", "digits", "huge", "past-end", "past-end-minus", "contig", "no-id",
         "invisible", "rna", "cds"],
)  # fmt: skip
def test_a_row_that_cannot_be_is_told(changes: dict[str, str], message: str) -> None:
    with pytest.raises(EmbedCacheError) as error:
        reader().add(2, {**ROW, **changes})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "bounds", "counts"),
    [
        ({}, (1, 7), {}),
        ({"5UTR": "c", "3UTR": "cc", "CDS": "augaaauaa"}, (1, 7), {}),
        ({"CDS": ""}, None, {"proteins without CDS": 1}),
        ({"5UTR": "", "3UTR": ""}, (1, 7), {}),
        ({"5UTR": "R", "RNA": "RATGAAATAACC"}, (1, 7), {}),  # a letter that is written as N wherever it stands
        ({"5UTR": "G"}, (1, 7), {"RNA that is not 5'UTR + CDS + 3'UTR": 1}),
        ({"5UTR": "G", "3UTR": ""}, (1, 7), {"RNA that is not 5'UTR + CDS + 3'UTR": 1}),
        ({"5UTR": "", "3UTR": "G"}, (1, 7), {"RNA that is not 5'UTR + CDS + 3'UTR": 1}),
        ({"5UTR": "", "3UTR": "", "CDS": "GGG"}, None, {"CDS that cannot be placed on the RNA": 1}),
        ({"5UTR": "", "3UTR": "", "CDS": "A"}, None, {"CDS that cannot be placed on the RNA": 1}),
        ({"5UTR": "", "3UTR": "", "RNA": "CAAACC", "CDS": "AA"}, None, {"CDS that cannot be placed on the RNA": 1}),
        ({"5UTR": "", "3UTR": "", "RNA": "ATGAAATAACC"}, (0, 6), {}),
        ({"Protein": "ML"}, None, {"CDS that does not translate to the protein given": 1}),
        ({"CDS": "ATGAAA", "3UTR": "TAACC"}, (1, 7), {}),
    ],
    ids=[
        "pieces",
        "lower-case",
        "no-cds",
        "found-once",
        "ambiguous letter",
        "other-utr",
        "other-5utr",
        "other-3utr",
        "not-found",
        "found-twice",
        "overlapping",
        "at-the-start",
        "protein",
        "no-stop",
    ],
)
def test_bounds_are_kept_where_cds_and_protein_agree(
    changes: dict[str, str], bounds: tuple[int, int] | None, counts: dict[str, int]
) -> None:
    found = reader()
    row = added(found, **changes)
    assert (None if "cds_start" not in row else (row["cds_start"], row["cds_end"])) == bounds
    assert +found.counts == {"transcripts": 1, "proteins": 1, **counts}
    assert row["protein_key"] == sequence_key(changes.get("Protein", "MK"), "protein")


def test_a_protein_that_is_none_is_left_out_and_its_row_stays() -> None:
    found = reader()
    row = added(found, Protein="M*K")
    assert "protein_key" not in row and found.left_out == {"protein: letters that are not allowed (a stop inside)": 1}
    row = added(found, transcript_id_gtex="T2", Protein="", gene_id_gtex="", gene_name="ABC")
    assert (row["gene_id"], row["gene_name"]) == ("T2", "ABC") and "protein_key" not in row
    assert found.counts["transcripts that are genes of their own"] == 1 and found.counts["transcripts"] == 2


def test_a_row_without_rna_is_left_out_and_an_id_comes_once() -> None:
    found = reader()
    assert not found.add(2, {**ROW, "RNA": ""}) and found.rows == []
    assert found.left_out == {"transcripts without RNA": 1} and found.writer.written == []
    with pytest.raises(InvalidInputError, match=r"line 3: transcript 'T1\.1' was on line 2. Give each one row"):
        found.add(3, ROW)


@pytest.mark.parametrize(
    ("ours", "theirs", "renamed"), [("chr1", "chr1", 0), ("chr1", "1", 2), ("1", "chr1", 2), ("chrM", "MT", 2)]
)
def test_a_contig_may_have_another_name_in_the_genome(ours: str, theirs: str, renamed: int) -> None:
    found = reader(theirs)
    for identifier in ("T1", "T2"):
        added(found, chr=ours, transcript_id_gtex=identifier, Protein="")
    assert found.counts["transcripts whose contig has another name in the genome"] == renamed
    assert found.rows[0]["chromosome"] == ours and theirs in (ours, *contig_aliases(ours))
    assert [one for one in found.writer.written if one[0] == "dna"] == [("dna", "CATG")]  # one window for both


def test_genetic_codes_are_those_of_their_contigs() -> None:
    found = reader("chrM", genetic_codes={"x": 11}, genome=None)
    for contig in ("chrM", "MT", "chr1", "x"):
        assert "dna_key" not in added(found, chr=contig, transcript_id_gtex=contig, Protein="")
    assert found.codes_used() == {"chrM": 2, "MT": 2, "x": 11}
    found.check_genetic_codes()
    found.genetic_codes["y"] = 2
    with pytest.raises(UnknownNameError, match="Unknown contig 'y'"):
        found.check_genetic_codes()


def test_tissues_are_found_by_their_names_or_asked_for() -> None:
    columns = ["id", "Liver", "adipose_tissue", "Whole Liver", "Liver extra"]
    assert choose_tissues(Path("t"), columns, None) == ["Liver", "adipose_tissue"]
    assert choose_tissues(Path("t"), columns, ["Liver extra", "id", "Liver extra"]) == ["Liver extra", "id"]
    with pytest.raises(InvalidInputError, match=r"t has no column named like a GTEx tissue. Name the target columns"):
        choose_tissues(Path("t"), ["id", "x"], None)
    with pytest.raises(UnknownNameError, match=r"Unknown column of t: 'Livr'. Did you mean 'Liver'"):
        choose_tissues(Path("t"), columns, ["Livr"])
