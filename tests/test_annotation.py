from pathlib import Path

import pytest

from embedcache.annotation import Annotation, read_gtf
from embedcache.errors import InvalidInputError
from embedcache.transcripts import read_coding_sequence

LINE = 'one\tx\texon\t{}\t{}\t.\t{}\t.\tgene_id "{}"; transcript_id "{}";\n'
WHOLE = LINE.replace("exon", "transcript")
GOOD = LINE.format(1, 9, "+", "g", "t")


def read(folder: Path, text: str | bytes) -> Annotation:
    (folder / "a.gtf").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_gtf(folder / "a.gtf")


@pytest.mark.parametrize(
    "text",
    [GOOD + "  \n", "\ufeff" + GOOD, "\ufeff#!build\n" + GOOD, GOOD.replace("one", "one", 1).rstrip("\n")],
    ids=["blank-line", "mark", "mark-and-comment", "no-line-end"],
)
def test_a_gtf_is_read_in_any_form(tmp_path: Path, text: str) -> None:
    (one,) = read(tmp_path, text).transcripts.values()
    assert (one.contig, one.exons) == ("one", [(0, 9)])


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (LINE.format(1, 9, ".", "h", "u"), "transcript without strand"),
        (LINE.format(1, 9, "?", "h", "u") + LINE.format(20, 29, "?", "h", "u"), "transcript without strand"),
        (LINE.format(1, 9, "+", "h", "u") + LINE.format(20, 29, "+", "i", "u"), "transcript of two genes"),
        (LINE.format(1, 9, "+", "h1", "u") + LINE.format(20, 29, "+", "h11", "u"), "transcript of two genes"),
        (LINE.format(1, 9, "+", "h", "u").replace("gene_id", "gene_jd") + LINE.format(20, 29, "+", "h", "u"),
         "transcript of two genes"),
        (WHOLE.format(1, 29, "+", "h", "u") + LINE.format(1, 9, "+", "h", "u"),
         "transcript whose exons do not reach its ends"),
        ("".join(LINE.format(10 * i, 10 * i + 5, "+", "h", "u").replace("\n", f" exon_number {i};\n") for i in (1, 3)),
         "transcript whose exon numbers have gaps"),
        (WHOLE.format(1, 9, "+", "h", "u") + LINE.format(1, 9, "+", "h", "u")
         + LINE.format(20, 29, "+", "h", "u").replace("one", "one!"),
         "transcript with a piece on another contig"),
    ],
    ids=["dot", "question-mark", "two-genes", "longer-gene", "lost-gene", "lost-end", "lost-middle", "strange-contig"],
)  # fmt: skip
def test_a_transcript_that_cannot_be_placed_is_left_out_and_counted(tmp_path: Path, extra: str, reason: str) -> None:
    annotation = read(tmp_path, GOOD + extra)
    assert list(annotation.transcripts) == ["t"]
    assert annotation.left_out[reason] == 1
    assert set(annotation.left_out) <= {reason, "second place of a transcript, on another contig"}


def test_lines_of_unknown_features_are_counted(tmp_path: Path) -> None:
    odd = LINE.format(20, 29, "+", "g", "t").replace("exon", "exoo")
    known = LINE.format(1, 3, "+", "g", "t").replace("exon", "start_codon")
    assert read(tmp_path, GOOD + odd + odd + known).left_out == {"lines of feature 'exoo', which is not known": 2}
    many = "".join(odd.replace("exoo", f"x{i}") for i in range(11))
    assert read(tmp_path, GOOD + many).left_out == {"lines of other features, which is not known": 11}


def test_a_transcript_without_gene_is_counted_as_a_gene_of_its_own(tmp_path: Path) -> None:
    annotation = read(tmp_path, GOOD + LINE.format(1, 9, "+", "g", "u").replace('gene_id "g"; ', ""))
    assert annotation.transcripts["u"].gene_id == "u"
    assert annotation.counts["transcripts without gene_id, each a gene of its own"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + GOOD.replace("\t.\tgene", "\t.\t\tgene"), "line 2: 10 tab-separated fields instead of 9"),
        (GOOD.replace('"g"', '"g'), "line 1: gene_id has no value, or broken quotes"),
        (GOOD.replace('"g"', 'g"'), "line 1: gene_id has no value, or broken quotes"),
        (GOOD.replace('"t"', '"t'), "line 1: exon without transcript_id"),
        (GOOD.replace(";\n", '; gene_name "N"x";\n'), "line 1: gene_name has no value, or broken quotes"),
        (GOOD.replace(";\n", ';gene_id "h";\n'), "line 1: gene_id comes twice, as 'g' and 'h'"),
        (GOOD.replace(";\n", "; transcript_id u;\n"), "line 1: transcript_id comes twice, as 't' and 'u'"),
        (GOOD.replace(";\n", '; gene_name "N"; gene_name "M";\n'), "line 1: gene_name comes twice, as 'N' and 'M'"),
        (GOOD.replace(";\n", '; gene_id "";\n'), "line 1: gene_id comes twice, as 'g' and ''"),
        (GOOD.replace('"t"', '"t\0"'), "line 1: '.x00' is no text"),
        (GOOD.replace("one", "o\u200be"), "line 1: 'o.u200be' is no name"),
        (GOOD + LINE.format(20, 29, "x", "g", "t"), "line 2: transcript 't' has strand 'x'"),
        (GOOD + GOOD.replace("exon", "CDS").replace("+\t.", "+\t7"), "line 2: CDS of 't' has phase '7'"),
        (LINE.format(1, "9" * 5000, "+", "g", "t"), "line 1: exon from '1' to '999"),
        (WHOLE.format(9, 1, "+", "g", "t") + GOOD, "line 1: transcript from '9' to '1'"),
        (LINE.format("1_0", 99, "+", "g", "t"), "line 1: exon from '1_0' to '99'"),
        (LINE.format("\u0661", 99, "+", "g", "t"), "line 1: exon from"),
        (LINE.format(1, 9, "x", "g", "t"), "line 1: transcript 't' has strand 'x'.*Mend"),
        (GOOD.replace('"g"', '"g\u00e9"').encode("latin-1"), "line 1: .*UTF-8"),
        (GOOD.encode("utf-16"), "UTF-16"),
        (GOOD + GOOD, "no transcript that can be used.*1 transcript with overlapping exons"),
        (LINE.format(1, 9, ".", "g", "t"), "no transcript that can be used.*1 transcript without strand"),
    ],
    ids=["ten-fields", "open-quote", "close-quote", "id-quote", "name-quote", "two-genes", "two-ids",
         "two-names", "gene-and-none", "nul", "invisible", "late-strand",
         "phase", "huge", "bounds", "underscore", "other-digits", "strand", "latin-1", "utf-16", "doubled",
         "no-strand"],
)  # fmt: skip
def test_what_is_wrong_with_a_gtf_is_told_in_one_line(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value) and "a.gtf" in str(error.value)


# GTF dialects

GENCODE = """##provider: GENCODE
chr1\tHAVANA\tgene\t1\t90\t.\t-\t.\tgene_id "G.1"; gene_type "protein_coding"; gene_name "ABC";
chr1\tHAVANA\ttranscript\t1\t90\t.\t-\t.\tgene_id "G.1"; transcript_id "T.2"; gene_type "x"; gene_name "ABC"; transcript_type "lncRNA"; tag "basic";
chr1\tHAVANA\texon\t61\t90\t.\t-\t.\tgene_id "G.1"; transcript_id "T.2"; exon_number 1;
chr1\tHAVANA\texon\t1\t30\t.\t-\t.\tgene_id "G.1"; transcript_id "T.2"; exon_number 2;
chr1\tHAVANA\tCDS\t61\t80\t.\t-\t0\tgene_id "G.1"; transcript_id "T.2"; exon_number 1;
"""  # noqa: E501
ENSEMBL = (
    GENCODE.replace('gene_id "G.1"; transcript_id "T.2"', 'transcript_version "2"; transcript_id "T"; gene_id "G"')
    .replace("gene_type", "gene_biotype")
    .replace("transcript_type", "transcript_biotype")
)
REFSEQ = "".join(
    line.replace('"T.2"', '"NM_1.3"') + '\n' for line in GENCODE.splitlines() if "\ttranscript\t" not in line
).replace("gene_name", "gene")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GENCODE, ("T.2", "G.1", "ABC", "lncRNA")),
        (ENSEMBL, ("T", "G", "ABC", "lncRNA")),
        (REFSEQ, ("NM_1.3", "G.1", None, None)),
    ],
    ids=["gencode", "ensembl", "refseq"],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_dialects_of_gtf_agree(tmp_path: Path, text: str, expected: tuple[str, ...], line_end: str) -> None:
    (tmp_path / "a.gtf").write_bytes(text.replace("\n", line_end).encode())
    (one,) = read_gtf(tmp_path / "a.gtf").transcripts.values()
    assert (one.id, one.gene_id, one.gene_name, one.biotype) == expected
    assert (one.exons, one.cds, one.strand, one.tss) == ([(0, 30), (60, 90)], [(60, 80)], "-", 89)


def test_odd_ids_stay_as_given(tmp_path: Path) -> None:
    identifier = "a/b|c ü;d" + "x" * 300
    (tmp_path / "a.gtf").write_text(GENCODE.replace("T.2", identifier), encoding="utf-8")
    assert list(read_gtf(tmp_path / "a.gtf").transcripts) == [identifier]


def test_a_copy_on_another_contig_is_counted_and_never_merged(tmp_path: Path) -> None:
    (tmp_path / "a.gtf").write_text(GENCODE + GENCODE.replace("chr1", "chrY"))
    annotation = read_gtf(tmp_path / "a.gtf")
    assert annotation.transcripts["T.2"].exons == [(0, 30), (60, 90)]
    assert annotation.left_out == {"second place of a transcript, on another contig": 1}


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (GENCODE.replace("\t1\t", "\t20\t"), "transcript placed twice on one contig"),
        (GENCODE.replace("\t-\t", "\t+\t"), "transcript placed twice on one contig"),
        (GENCODE.splitlines()[3], "transcript with overlapping exons"),
    ],
    ids=["second-line", "other-strand", "same-exon"],
)
def test_an_ambiguous_transcript_is_left_out_and_counted(tmp_path: Path, extra: str, reason: str) -> None:
    other = GENCODE.replace('"T.2"', '"U.1"')
    (tmp_path / "a.gtf").write_text(GENCODE + other + extra + "\n")
    annotation = read_gtf(tmp_path / "a.gtf")
    assert list(annotation.transcripts) == ["U.1"]
    assert annotation.left_out == {reason: 1}


def test_genes_without_exon_lines_are_built_from_their_cds(tmp_path: Path) -> None:
    line = 'MT\tRefSeq\t{}\t{}\t{}\t.\t+\t0\tgene_id "ND1"; transcript_id "unassigned_1"; gene "ND1";\n'
    (tmp_path / "a.gtf").write_text(line.format("CDS", 11, 16) + line.format("stop_codon", 17, 19))
    annotation = read_gtf(tmp_path / "a.gtf")
    one = annotation.transcripts["unassigned_1"]
    assert (one.exons, one.cds) == ([(10, 16), (16, 19)], [(10, 16)])
    assert annotation.counts["transcripts whose exons are their CDS"] == 1
    assert read_coding_sequence(one, "ATGAAATAA", 1).protein == "MK"


@pytest.mark.parametrize(
    "change", [("\t0\tgene_id", "\t2\tgene_id"), ('exon_number 1;', 'exon_number 1; tag "cds_start_NF";')],
    ids=["phase", "tag"],
)  # fmt: skip
def test_a_cds_without_its_start_is_incomplete(tmp_path: Path, change: tuple[str, str]) -> None:
    (tmp_path / "a.gtf").write_text(GENCODE.replace(*change))
    (one,) = read_gtf(tmp_path / "a.gtf").transcripts.values()
    assert read_coding_sequence(one, "ATGAAATAA" * 7, 1).problem == "CDS annotated as incomplete"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1 spaces instead of tabs\n", "line 1: 1 tab-separated fields instead of 9"),
        (GENCODE.replace("\t61\t90", "\t91\t90"), "line 4: exon from '91' to '90'"),
        (GENCODE.replace("\t61\t90", "\tx\t90"), "line 4: exon from 'x' to '90'"),
        ("chr1\ta\texon\t1\t2\t.\t+\t.\tID=exon1;Parent=t1\n", "GFF3 is not read"),
        ("#only a comment\n", "no transcript with exons"),
    ],
    ids=["spaces", "order", "number", "gff3", "empty"],
)
def test_a_gtf_that_cannot_be_used_gives_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.gtf").write_text(text)
    with pytest.raises(InvalidInputError, match=message) as error:
        read_gtf(tmp_path / "a.gtf")
    assert "\n" not in str(error.value)
    assert "a.gtf" in str(error.value)
