"""Damaged FASTA and GTF, and what they say by plain rules, written apart from the readers."""

import re
from dataclasses import replace
from random import Random
from typing import Any

from damage import Case, DefectError, Outcome, attempt, compare, require, unpacked

from embedcache.annotation import Annotation, Transcript, read_gtf
from embedcache.genome import open_genome
from embedcache.sequences import read_fasta

LETTERS: dict[str, str] = {"dna": "ACGTN", "rna": "ACGU", "protein": "ACDEFGHIKLMNPQRSTVWYX"}
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def word(rng: Random, alphabet: str, longest: int) -> str:
    return "".join(rng.choices(alphabet, k=rng.randrange(1, longest)))


def plain_lines(data: bytes) -> list[str] | None:
    """Lines of a text file; None if no text reader may accept it: UTF-16, or CR between other line ends."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"PK\x03\x04")):
        return None
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if "\n" in text and "\r" in text.replace("\r\n", ""):
        return None
    lines = re.split("\r\n|\r|\n", text)
    return lines[:-1] if lines[-1] == "" else lines


# FASTA of sequences


def make_fasta(rng: Random, modality: str) -> bytes:
    lines = []
    for i in range(rng.randrange(1, 12)):
        lines.append(f">{rng.choice(['p', 'ENST0', 'a/b|c', 'é'])}{i}" + rng.choice(["", " some words", "\tx=1 [y]"]))
        sequence = word(rng, LETTERS[modality], 200)
        width = rng.choice([10, 60, 1000])
        sequence = sequence.lower() if rng.random() < 0.2 else sequence
        lines += [sequence[at : at + width] for at in range(0, len(sequence), width)]
    return "\n".join([*lines, ""]).encode()


def plain_fasta(data: bytes, modality: str) -> dict[str, str] | None:
    """ID and sequence of each record; None if the file must be refused."""
    lines = plain_lines(data)
    if lines is None:
        return None
    records: dict[str, str] = {}
    name = None
    for line in lines:
        if line.startswith(">"):
            name = re.split("[ \t]", line[1:].lstrip(" \t"))[0]
            header = re.sub("[\udc80-\udcff]", "", line)  # descriptions in other encodings are nobody's business
            if not name or not name.isprintable() or name in records or CONTROL.search(header.replace("\x01", "")):
                return None
            records[name] = ""
        elif line.strip(" \t"):
            if name is None:
                return None
            records[name] += re.sub("[ \t]", "", line)
    for name, letters in records.items():
        if modality == "protein":
            is_good, said = re.fullmatch(r"[A-Za-z]+\*?", letters), letters.rstrip("*")
        else:
            is_good, said = re.fullmatch("[ACGTUNRYSWKMBDHVacgtunryswkmbdhv]+", letters), re.sub("[Uu]", "T", letters)
            said = re.sub("[^ACGTN]", "N", said.upper())
        if is_good is None:
            return None
        records[name] = said.upper()
    return records or None


def fasta_case(case: Case) -> Outcome:
    modality: Any = case.rng.choice(["dna", "rna", "protein"])
    whole = make_fasta(case.rng, modality)
    path = case.place(case.spoil(whole), "x.fa")
    found = attempt(lambda: {r.id: r.sequence for r in read_fasta(path, modality)}, path.name)
    if found is None:
        return case.refused()
    compare(found, plain_fasta(unpacked(path), modality))
    return case.read(found == plain_fasta(whole, modality))


# FASTA of a genome


def make_genome(rng: Random) -> dict[str, str]:
    names = rng.sample(["chr1", "chr2", "chrM", "MT", "2L", "NC_1.1"], rng.randrange(1, 4))
    return {name: "".join(rng.choices("ACGT", k=rng.randrange(150, 700))) for name in names}


def write_genome(rng: Random, genome: dict[str, str]) -> bytes:
    lines, is_lower = [], rng.random() < 0.1
    for name, letters in genome.items():
        width = rng.choice([60, 50, 10_000])
        lines.append(f">{name}{rng.choice(['', ' dna:chromosome'])}")
        shown = letters.lower() if is_lower else letters
        lines += [shown[at : at + width] for at in range(0, len(shown), width)]
    return "\n".join([*lines, ""]).encode()


def genome_case(case: Case) -> Outcome:
    genome = make_genome(case.rng)
    path = case.place(case.spoil(write_genome(case.rng, genome)), "g.fa")

    def read() -> dict[str, str]:
        with open_genome(path, case.folder) as opened:
            found = {name: opened.fetch(name, 0, size) for name, size in opened.contigs.items()}
            for name, letters in found.items():
                middle = case.rng.randrange(len(letters))
                window = opened.window(name, middle, "+", 64)
                around = f"{'N' * 64}{letters}{'N' * 64}"[middle + 32 : middle + 96]
                require(window == around, f"window {window} instead of {around}")
            return found

    found = attempt(read, path.name)
    require(not list(case.folder.glob(".genome*")), "a temporary folder was left")
    if found is None:
        return case.refused()
    compare(found, plain_fasta(unpacked(path), "dna"))
    return case.read(found == genome)


# GTF

KNOWN = {
    "gene", "transcript", "mRNA", "exon", "CDS", "start_codon", "stop_codon", "UTR", "five_prime_utr",
    "three_prime_utr", "5UTR", "3UTR", "Selenocysteine", "intron", "inter", "inter_CNS", "intron_CNS",
}  # fmt: skip


def make_gtf(rng: Random, genome: dict[str, str]) -> bytes:
    """Genes one behind the other; has_transcripts as in GENCODE, or exons only as in old UCSC files."""
    lines, number = ["#!made"], 0
    has_transcripts, quote = rng.random() < 0.7, rng.choice(['"', '"', '"', ""])
    for contig, letters in genome.items():
        at = rng.randrange(1, 40)
        while at + 120 < len(letters):
            number += 1
            strand, cuts = rng.choice("+-"), sorted(rng.sample(range(at, at + 110), 6))
            pieces = list(zip(cuts[::2], cuts[1::2], strict=True))
            gene = f'gene_id {quote}G{number}{quote}; gene_name "N{number}"; gene_type "protein_coding";'
            lines.append(f"{contig}\tx\tgene\t{cuts[0]}\t{cuts[-1]}\t.\t{strand}\t.\t{gene}")
            for isoform in range(rng.randrange(1, 3)):
                exons = pieces if isoform == 0 else pieces[rng.randrange(2) :: rng.randrange(1, 3)]
                names = f"{gene} transcript_id {quote}T{number}.{isoform}{quote};"
                rows = [("exon", *exon, ".", f" exon_number {i};") for i, exon in enumerate(exons, 1)]
                if isoform == 0:
                    rows += [("CDS", *exon, str(rng.randrange(3)), "") for exon in exons[: rng.randrange(3)]]
                if has_transcripts:
                    rows.insert(
                        0, ("transcript", exons[0][0], exons[-1][1], ".", rng.choice(["", ' tag "cds_end_NF";']))
                    )
                for feature, start, end, phase, more in rows:
                    lines.append(f"{contig}\tx\t{feature}\t{start}\t{end}\t.\t{strand}\t{phase}\t{names}{more}")
            at = cuts[-1] + rng.randrange(1, 30)
    return "\n".join([*lines, ""]).encode()


def plain_gtf(data: bytes) -> dict[str, dict[str, Any]] | None:
    """Everything the lines say of each transcript ID, in any order; None if the file must be refused."""
    lines = plain_lines(data)
    if lines is None:
        return None
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 9:
            return None
        contig, _, feature, start, end, _, strand, phase, names = fields
        if feature not in ("transcript", "mRNA", "exon", "CDS", "stop_codon"):
            continue
        values = {}
        names_said = re.findall(r'(?:^|;)\s*gene_name "([^"]*)"\s*(?=;|$)', names)
        for name in ("transcript_id", "gene_id"):
            if n_said := len(re.findall(rf'(?:^|[;\s]){name}(?=\s|"|$)', names, re.ASCII)):
                pairs = re.findall(rf'(?:^|[;\s]){name}[ \t]+(?:"([^"]*)"|([^";\s]+))[ \t]*(?=;|$)', names)
                if len(pairs) != n_said or len(set(pairs)) != 1:
                    return None
                values[name] = pairs[0][0] or pairs[0][1]
        identifier = values.get("transcript_id")
        numbers = re.fullmatch(r"[0-9]{1,18} [0-9]{1,18}", f"{start} {end}") and 0 < int(start) <= int(end)
        if not identifier or CONTROL.search(line) or not numbers or strand not in ("+", "-", ".", "?"):
            return None
        if feature == "CDS" and phase not in ("0", "1", "2", "."):
            return None
        one = found.setdefault(identifier, {"exon": [], "CDS": [], "whole": [], "places": set(), "genes": set()})
        one["places"].add((contig, strand))
        one["genes"].add(values.get("gene_id") or identifier)
        one.setdefault("names", set()).update(names_said or [None])
        kind = "whole" if feature in ("transcript", "mRNA") else feature
        one.setdefault(kind, []).append((int(start) - 1, int(end)))
    return found


def check_annotation(read: Annotation, said: dict[str, dict[str, Any]] | None) -> None:
    """Every transcript that was kept is wholly what the lines say; every other one was counted."""
    if said is None:
        raise DefectError("a file that must be refused was read")
    for name, one in read.transcripts.items():
        lines = said.get(name)
        require(lines is not None, f"transcript {name!r} is not in the file")
        assert lines is not None
        require((one.contig, one.strand) in lines["places"], f"{name} is not on {one.contig}{one.strand}")
        if len(lines["places"]) == 1:
            exons, pieces = sorted(lines["exon"]), sorted(lines["CDS"])
            require(one.exons == exons or not exons, f"{name}: exons {one.exons} instead of {exons}")
            require(one.cds == pieces, f"{name}: CDS {one.cds} instead of {pieces}")
            whole = {(one.exons[0][0], one.exons[-1][1])}
            require(set(lines["whole"]) in (set(), whole), f"{name}: exons do not span {lines['whole']}")
        require(lines["genes"] == {one.gene_id}, f"{name}: gene {one.gene_id!r} instead of {lines['genes']}")
        require(one.gene_name in lines["names"], f"{name}: name {one.gene_name!r} instead of {lines['names']}")
    n_counted = sum(n for reason, n in read.left_out.items() if reason.startswith("transcript "))
    require(len(read.transcripts) + n_counted == len(said), f"{len(said)} IDs, {n_counted} counted as left out")


def gtf_case(case: Case) -> Outcome:
    whole = make_gtf(case.rng, make_genome(case.rng))
    (case.folder / "whole.gtf").write_bytes(whole)
    path = case.place(case.spoil(whole), "a.gtf")
    found = attempt(lambda: read_gtf(path), path.name)
    if found is None:
        return case.refused()
    text = unpacked(path)
    check_annotation(found, plain_gtf(text))
    unknown = {
        line.split(b"\t")[2] for line in text.split(b"\n") if line.count(b"\t") == 8 and not line.startswith(b"#")
    }
    unknown -= {name.encode() for name in KNOWN}
    if unknown and b"\r" not in text:
        require(any("feature" in reason for reason in found.left_out), f"lines of {unknown} were skipped in silence")
    said = read_gtf(case.folder / "whole.gtf")
    is_counted = (found.left_out, found.counts) != (said.left_out, said.counts)
    return case.read(said_by(found) == said_by(said) and not is_counted, is_counted)


def said_by(annotation: Annotation) -> list[Transcript]:
    """Transcripts without the lines that they were read from."""
    return [replace(one, line=0) for one in annotation.transcripts.values()]
