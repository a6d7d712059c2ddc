"""Coding sequences and genomes beside Biopython, and lines of GTF in all their forms."""

import random
from pathlib import Path
from typing import Any

import pytest
from Bio.Data import CodonTable
from Bio.Seq import Seq
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import InvalidInputError
from embedcache.genome import Genome, open_genome, reverse_complement
from embedcache.gtf_lines import exon_number, parse_line, read_names, split_line
from embedcache.transcripts import check_cds, translate

CODES = sorted(CodonTable.unambiguous_dna_by_id)


def forward_codons(code: int) -> list[str]:
    return sorted(CodonTable.unambiguous_dna_by_id[code].forward_table)


# Translation


@pytest.mark.parametrize("code", CODES)
def test_every_codon_of_every_table_is_what_biopython_says(code: int) -> None:
    table: Any = CodonTable.unambiguous_dna_by_id[code]
    codons = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
    assert translate("".join(codons), code) == "".join(
        table.forward_table.get(codon) or ("*" if codon in table.stop_codons else "?") for codon in codons
    )


@given(st.text("ACGTN", max_size=40))
def test_whole_codons_are_translated_and_n_is_unknown(cds: str) -> None:
    found = translate(cds, 1)
    assert len(found) == len(cds) // 3
    for i, residue in enumerate(found):
        codon = cds[3 * i : 3 * i + 3]
        assert residue == ("X" if "N" in codon else str(Seq(codon).translate()))


@given(st.text("ACGTN", max_size=60))
def test_the_other_strand_is_that_of_biopython(letters: str) -> None:
    assert reverse_complement(letters) == str(Seq(letters).reverse_complement())


@given(st.sampled_from(CODES), st.data())
@settings(deadline=None)
def test_a_coding_sequence_that_was_made_is_read_back(code: int, data: st.DataObject) -> None:
    table: Any = CodonTable.unambiguous_dna_by_id[code]
    starts = ["ATG"] if code == 1 else sorted(set(table.start_codons) - set(table.stop_codons))
    inside = [codon for codon in forward_codons(code) if codon not in table.stop_codons]
    body = [data.draw(st.sampled_from(starts)), *data.draw(st.lists(st.sampled_from(inside), max_size=8))]
    before, behind = data.draw(st.text("ACGT", max_size=5)), data.draw(st.text("ACGT", max_size=5))
    cds, stop = "".join(body), data.draw(st.sampled_from(sorted(table.stop_codons)))
    rna, start = before + cds + stop + behind, len(before)
    found = check_cds(rna, start, start + len(cds) + data.draw(st.sampled_from([0, 3])), code)
    if body[-1] in table.stop_codons:  # codes where one codon is both
        return
    assert (found.start, found.end, found.problem) == (start, start + len(cds), None)
    assert found.protein == "M" + "".join(table.forward_table[codon] for codon in body[1:])
    assert found.note == (None if body[0] == "ATG" else "start codons other than ATG")


@pytest.mark.parametrize(
    ("rna", "end", "code", "note"),
    [
        ("ATGAAAT", 7, 2, "stop codons completed by polyadenylation"),
        ("ATAAAATA", 8, 2, "stop codons completed by polyadenylation"),
        ("ATGAAAC", 7, 2, None),
        ("ATGAAATAC", 8, 2, None),
        ("ATGAAATA", 8, 1, None),
    ],
    ids=["T", "TA-and-other-start", "C", "not-at-the-end", "nuclear"],
)
def test_polyadenylation_completes_a_stop_at_the_very_end_alone(
    rna: str, end: int, code: int, note: str | None
) -> None:
    found = check_cds(rna, 0, end, code)
    assert found.note == note
    assert (found.start, found.end, found.protein) == ((0, 6, "MK") if note else (0, 0, None))
    assert found.problem == (None if note else "CDS whose length is not a multiple of 3")


# Genomes


@given(st.integers(1, 9), st.sampled_from(["\n", "\r\n"]), st.integers(0, 2**32))
@settings(deadline=None, max_examples=40)
def test_every_piece_of_a_genome_is_that_piece(
    tmp_path_factory: pytest.TempPathFactory, width: int, line_end: str, seed: int
) -> None:
    rng = random.Random(seed)
    contigs = {f"c{i}": "".join(rng.choices("ACGTN", k=rng.randint(1, 30))) for i in range(rng.randint(1, 3))}
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    lines = [line for name, letters in contigs.items() for line in [f">{name} x", *_wrap(letters, width)]]
    path.write_text(line_end.join(lines) + rng.choice(["", line_end]), newline="")
    with open_genome(path) as genome:
        assert genome.contigs == {name: len(letters) for name, letters in contigs.items()}
        assert all(genome.length(name) == len(letters) and name in genome for name, letters in contigs.items())
        assert "c9" not in genome
        for name, letters in contigs.items():
            for start in range(len(letters) + 1):
                end = rng.randint(start, len(letters))
                assert genome.fetch(name, start, end) == letters[start:end]


def _wrap(letters: str, width: int) -> list[str]:
    return [letters[i : i + width] for i in range(0, len(letters), width)]


def test_a_genome_that_changes_under_us_is_no_sequence(tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_text(">one\nACGT\nACGT\n")
    with open_genome(tmp_path / "g.fa") as genome:
        with (tmp_path / "g.fa").open("r+b") as file:
            file.seek(11)
            file.write(b"!")
        with pytest.raises(ValueError, match=r"g\.fa, contig 'one' from base 5 on: dna sequence has '!' at position 1"):
            genome.fetch("one", 4, 8)


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize(("tss", "length"), [(-50, 20), (400, 20), (0, 1), (299, 1), (150, 1000)])
def test_a_window_may_lie_anywhere(tmp_path: Path, tss: int, length: int, strand: str) -> None:
    letters = "".join(random.Random(1).choices("ACGT", k=300))
    (tmp_path / "g.fa").write_text(f">one\n{letters}\n")
    padded = "N" * 1000 + letters + "N" * 1000
    start = tss - length // 2 if strand == "+" else tss + length // 2 - length + 1
    expected = padded[1000 + start : 1000 + start + length]
    with open_genome(tmp_path / "g.fa") as genome:
        assert isinstance(genome, Genome)
        found = genome.window("one", tss, strand, length)
    assert found == (expected if strand == "+" else str(Seq(expected).reverse_complement()))


# GTF lines


def line(attributes: str, **changes: str) -> list[str]:
    fields = {"contig": "1", "source": "x", "feature": "exon", "start": "1", "end": "9", "score": ".", "strand": "+",
              "phase": ".", "attributes": attributes}  # fmt: skip
    return list({**fields, **changes}.values())


@pytest.mark.parametrize(
    ("attributes", "transcript", "gene", "number", "names"),
    [
        ('gene_id "g"; transcript_id "t"; exon_number 3; gene_name "N"; gene_biotype "b";', "t", "g", 3, ("N", "b")),
        ("gene_id g; transcript_id t; exon_number 3", "t", "g", 3, (None, None)),
        ('transcript_id "t"', "t", "", None, (None, None)),
        ('transcript_id "t t;u"; gene_id "";', "t t;u", "", None, (None, None)),
        ('gene_id "g"; transcript_id "t"; exon_number "12"; gene "S"; transcript_biotype "x"; gene_type "y";',
         "t", "g", 12, ("S", "x")),
        ('transcript_id "t"; gene_name "N"; gene "M"; gene_type "y"; transcript_type "z";', "t", "", None, ("N", "z")),
        ('transcript_id "t"; gene_name ""; gene "M"; transcript_type ""; gene_biotype "w";', "t", "", None, ("M", "w")),
        ('transcript_id "t"; gene_name ""; tag "a"; tag "b"; ont "x"; ont y', "t", "", None, (None, None)),
        ('ref_gene_id "r"; transcript_id "t"; exon_number 1a;', "t", "", None, (None, None)),
        ('orig_transcript_id "o"; transcript_id "t"; exon_number 1234567890;', "t", "", None, (None, None)),
    ],
    ids=["gencode", "bare", "no-gene", "semicolon", "refseq", "order", "empty-names", "two-tags", "look-alike",
         "long-number"],
)  # fmt: skip
def test_attributes_are_read_in_all_their_forms(
    attributes: str, transcript: str, gene: str, number: int | None, names: tuple[str | None, str | None]
) -> None:
    if attributes.count("transcript_id") == 1:
        found = parse_line("here", line(attributes))
        assert (found.transcript_id, found.gene_id, found.start, found.end) == (transcript, gene, 0, 9)
    assert exon_number(attributes) == number
    assert tuple(read_names("here", attributes)) == names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": "0"}, "here: exon from '0' to '9'. Expected 1-based start <= end. Mend the line."),
        ({"start": "10"}, "here: exon from '10' to '9'"),
        ({"end": "-9"}, "here: exon from '1' to '-9'"),
        ({"end": "1" * 16}, "here: exon from '1' to '1111111111111111'"),
        ({"strand": ""}, "here: transcript 't' has strand ''. Expected [+], - or . [(]unknown[)]"),
        ({"feature": "CDS", "phase": "3"}, "here: CDS of 't' has phase '3'. Expected 0, 1, 2 or . [(]unknown[)]"),
        ({"contig": " "}, "here: ' ' is no name. Write contigs and IDs in printable letters."),
        ({"attributes": 'gene_id "\u200b"; transcript_id "t"'}, "here: '.u200b' is no name"),
    ],
    ids=["zero", "order", "negative", "huge", "strand", "phase", "contig", "gene"],
)
def test_a_field_that_cannot_be_is_told(changes: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_line("here", line(**{"attributes": 'gene_id "g"; transcript_id "t"', **changes}))


@pytest.mark.parametrize(
    "changes",
    [{"end": "1"}, {"end": "1" * 15}, {"feature": "CDS", "phase": "2"}, {"phase": "7"}, {"strand": "?"}],
    ids=["one-base", "fifteen-digits", "phase", "phase-of-an-exon", "unknown-strand"],
)
def test_a_field_at_its_bounds_is_taken(changes: dict[str, str]) -> None:
    found = parse_line("here", line(**{"attributes": 'gene_id "g"; transcript_id "t"', **changes}))
    assert (found.start, found.end) == (0, int(changes.get("end", "9")))
    assert (found.phase, found.strand) == (changes.get("phase", "."), changes.get("strand", "+"))


@pytest.mark.parametrize("n", [1, 8, 10])
def test_a_line_has_nine_fields(n: int) -> None:
    assert split_line("here", "\t".join("abcdefghi")) == list("abcdefghi")
    with pytest.raises(InvalidInputError, match=f"here: {n} tab-separated fields instead of 9. Give a GTF file"):
        split_line("here", "\t".join("x" * n))
