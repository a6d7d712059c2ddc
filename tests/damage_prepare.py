"""Datasets prepared from damaged files: nothing half written, and every row is what the files say."""

import math
import re
from pathlib import Path
from random import Random
from typing import Any

from damage import Case, DefectError, Outcome, attempt, compare, require, unpacked
from damage_sequences import make_fasta, make_genome, make_gtf, plain_fasta, plain_gtf, word, write_genome
from damage_tables import is_near, make_gct, number, plain_attributes, plain_gct, plain_table

from embedcache.annotation import read_gtf
from embedcache.dataset import Dataset
from embedcache.prepare.fasta import prepare_fasta
from embedcache.prepare.genome import prepare_genome
from embedcache.prepare.isoformer import prepare_isoformer
from embedcache.splits import SplitRule

OTHER_STRAND = str.maketrans("ACGTN", "TGCAN")
TRIPLETS = [a + b + c for a in "TCAG" for b in "TCAG" for c in "TCAG"]
RESIDUES = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
CODONS = dict(zip(TRIPLETS, RESIDUES, strict=True))


def rows_of(dataset: Dataset, columns: list[str]) -> dict[str, dict[str, Any]]:
    """By transcript: these columns, its sequences and its targets."""
    letters = {modality: dict(dataset.sequences(modality)) for modality in ("dna", "rna", "protein")}
    found = {}
    targets = dataset.targets.to_numpy().tolist() if dataset.targets is not None else [[]] * len(dataset.samples)
    for row, values in zip(dataset.samples.to_dict("records"), targets, strict=True):
        kept = {name: row[name] for name in columns}
        kept |= {modality: letters[modality].get(row[f"{modality}_key"]) for modality in letters}
        found[row["transcript_id"]] = kept | {"targets": values, "bounds": (row["cds_start"], row["cds_end"])}
    return found


def run(action: Any, folder: Path, names: list[str]) -> Dataset | None:
    """Prepare into ``folder``; whatever happens, nothing half written is left."""
    found: Dataset | None = attempt(action, *names, "out")
    left = sorted(path.name for path in folder.iterdir())
    require(left == (["out"] if found is not None else []), f"{left} was left")
    if found is not None:
        found.verify()
        again = attempt(action, *names, "out")
        require(again is not None and again.digest == found.digest, "the same command does not find its dataset")
    return found


# A genome with annotation and expression


def folders(case: Case) -> tuple[Path, Path]:
    made = case.folder / "inputs", case.folder / case.rng.choice(["outputs", "outputs", "a\nb", "caf\udce9"])
    for path in made:
        path.mkdir()
    return made


def spoil_one(case: Case, files: dict[str, bytes], inputs: Path) -> dict[str, Any]:
    """Write all files, one of them damaged; what they are called."""
    victim = case.rng.choice(list(files))
    spoiled = {**files, victim: case.spoil(files[victim])}
    case.done[:] = [f"{victim}: {kind}" for kind in case.done]
    return {name: case.place(data, name, inputs) for name, data in spoiled.items()}


def same(files: dict[str, bytes], paths: dict[str, Path], plain: dict[str, Any]) -> bool:
    """Whether all files say what they said before one was damaged."""
    return all(repr(plain[name](unpacked(paths[name]))) == repr(plain[name](files[name])) for name in files)


def reverse(letters: str) -> str:
    return letters.translate(OTHER_STRAND)[::-1]


def prepare_case(case: Case) -> Outcome:
    rng, (inputs, output) = case.rng, folders(case)
    genome = make_genome(rng)
    gtf = make_gtf(rng, genome)
    names = sorted(plain_gtf(gtf) or {"T": {}})
    gct, attributes = make_gct(rng, rng.sample(names, rng.randrange(1, len(names) + 1)))
    files = {"genome": write_genome(rng, genome), "gtf": gtf, "expression": gct, "samples": attributes}
    paths = spoil_one(case, files, inputs)
    length, missing = rng.choice([1, 16, 101]), rng.choice(["error", "leave-out"])

    def action() -> Dataset:
        more: Any = {"dna_length": length, "missing_contigs": missing, "only_measured": length == 1}
        return prepare_genome(**paths, output=output / "out", **more)

    found = run(action, output, [path.name for path in paths.values()])
    if found is None:
        return "refused"  # a valid study too, if all its transcripts go without targets
    said = plain_gct(unpacked(paths["expression"]), plain_attributes(unpacked(paths["samples"])))
    contigs = plain_fasta(unpacked(paths["genome"]), "dna")
    if said is None or contigs is None:
        raise DefectError("a file that must be refused was read")
    transcripts = read_gtf(paths["gtf"]).transcripts
    for name, row in rows_of(found, ["gene_id", "chromosome", "strand", "tss"]).items():
        one = transcripts[name]
        letters = contigs[one.contig]
        rna = "".join(letters[start:end] for start, end in one.exons)
        start = one.tss - length // 2 if one.strand == "+" else one.tss + length // 2 - length + 1
        dna = ("N" * 200 + letters + "N" * 200)[start + 200 : start + 200 + length]
        require(row["rna"] == (rna if one.strand == "+" else reverse(rna)), f"RNA of {name}")
        require(row["dna"] == (dna if one.strand == "+" else reverse(dna)), f"DNA of {name}")
        require((row["gene_id"], row["chromosome"]) == (one.gene_id, one.contig), f"names of {name}")
        require(is_near(row["targets"], said[1].get(name, [math.nan] * len(said[0]))), f"targets of {name}")
        check_protein(row)
    missed = len(transcripts) - len(found.samples)
    require(
        missed == sum(found.info["left_out"].get(reason, 0) for reason in LEFT_OUT), f"{missed} were lost in silence"
    )
    plain = {"genome": lambda data: plain_fasta(data, "dna"), "gtf": plain_gtf, "expression": plain_table_of_gct}
    is_counted = found.info["left_out"] != {}
    return case.read(same(files, paths, plain | {"samples": plain_attributes}), is_counted)


def plain_table_of_gct(data: bytes) -> list[str]:
    return [line for line in data.decode().replace("\r\n", "\n").removeprefix("\ufeff").split("\n") if line]


LEFT_OUT = ("transcripts on contigs that the genome lacks", "transcripts without targets")


def check_protein(row: dict[str, Any]) -> None:
    if row["protein"] is not None and isinstance(row["bounds"][0], int):
        start, end = row["bounds"]
        codons = [row["rna"][at : at + 3] for at in range(start, end, 3)]
        said = "M" + "".join(CODONS.get(codon, "X") for codon in codons[1:])
        mitochondrial = said.replace("I", "M").replace("*", "W")  # table 2 differs in ATA, TGA, AGA and AGG
        require(row["protein"] == said or len(row["protein"]) == len(mitochondrial), "a protein that is not its CDS")


# FASTA files with a table


def fasta_table_case(case: Case) -> Outcome:
    rng, (inputs, output) = case.rng, folders(case)
    files = {
        modality: make_fasta(rng, modality) for modality in rng.sample(["dna", "rna", "protein"], rng.randrange(1, 4))
    }
    ids = sorted({name for modality, data in files.items() for name in plain_fasta(data, modality) or {}})
    rows = [f"{name},{number(rng)},G{i // 2}" for i, name in enumerate(rng.sample(ids, rng.randrange(1, len(ids) + 1)))]
    files["targets"] = "\n".join(["id,Liver,gene", *rows, ""]).encode()
    genes = [f"{name}\tH{i // 2}\t{['train', 'dev', 'test'][i // 2 % 3]}" for i, name in enumerate(ids)]
    files["genes"] = "\n".join(["id\tgene\tsplit", *genes, ""]).encode()
    paths = spoil_one(case, files, inputs)

    def action() -> Dataset:
        return prepare_fasta(**paths, gene_column="gene", output=output / "out", splits=SplitRule(kind="column"))

    found = run(action, output, [*(path.name for path in paths.values()), "Gene '"])
    if found is None:
        return case.refused()
    targets, table = plain_table(unpacked(paths["targets"])), plain_table(unpacked(paths["genes"]))
    if targets is None or table is None:
        raise DefectError("a table that must be refused was read")
    liver = {row[0]: row[targets[0].index("Liver")].strip() for row in targets[1:]} if "Liver" in targets[0] else {}
    of_gene = {row[0]: row[1] for row in table[1:]}
    letters = {m: plain_fasta(unpacked(paths[m]), m) or {} for m in ("dna", "rna", "protein") if m in paths}
    for name, row in rows_of(found, ["gene_id", "split"]).items():
        for modality in ("dna", "rna", "protein"):
            require(row[modality] == letters.get(modality, {}).get(name), f"{modality} of {name!r}")
        require(row["gene_id"] == of_gene.get(name) or not of_gene.get(name), f"gene of {name!r}")
        if "Liver" in found.tissues:
            said = liver.get(name, "")
            value = math.nan if said in ("", "NA", "NaN", "nan") else math.log1p(float(said))
            require(is_near([row["targets"][found.tissues.index("Liver")]], [value]), f"target of {name!r}")
    require(len(found.samples) == len({name for one in letters.values() for name in one}), "rows were lost")
    plain: dict[str, Any] = {m: lambda data, m=m: plain_fasta(data, m) for m in letters}
    return case.read(
        same(files, paths, plain | {"targets": plain_table, "genes": plain_table}), found.info["left_out"] != {}
    )


# The published table

COLUMNS = "transcript_id_gtex,gene_id_gtex,split,chr,strand,start,end,RNA,5UTR,CDS,3UTR,Protein,Adipose Tissue,Liver"


def make_isoformer(rng: Random) -> bytes:
    lines = [COLUMNS]
    for i in range(rng.randrange(1, 8)):
        cds = (
            "ATG"
            + "".join(rng.choices([codon for codon in CODONS if CODONS[codon] != "*"], k=rng.randrange(9)))
            + "TAA"
        )
        before, after = word(rng, "ACGT", 20), word(rng, "ACGT", 20)
        protein = "".join(CODONS[cds[at : at + 3]] for at in range(0, len(cds) - 3, 3))
        pieces = [before, cds, after, protein] if rng.random() < 0.8 else ["", "", "", ""]
        split = ["train", "evaluation", "test"][i // 2 % 3]
        start = rng.randrange(1, 100)
        values = [rng.choice(["", number(rng), "-0.5"]), number(rng)]
        lines.append(
            ",".join([f"T{i}.1", f"G{i // 2}", split, "chr1", rng.choice("+-"), str(start), str(start + 40),
                      f"{before}{cds}{after}", *pieces, *values])
        )  # fmt: skip
    return "\n".join([*lines, ""]).encode()


def isoformer_case(case: Case) -> Outcome:
    inputs, output = folders(case)
    whole = make_isoformer(case.rng)
    path = case.place(case.spoil(whole), "t.csv", inputs)
    found = run(lambda: prepare_isoformer(table=path, output=output / "out"), output, [path.name])
    if found is None:
        return case.refused()
    table = plain_table(unpacked(path))
    if table is None:
        raise DefectError("a table that must be refused was read")
    said = {}
    for fields in table[1:]:
        row = dict(zip(table[0], fields, strict=True))
        require(row["transcript_id_gtex"] not in said, "an ID that comes twice")
        if row["RNA"]:
            strand = {"+": "+", "1": "+", "-": "-", "-1": "-"}[row["strand"].removesuffix(".0")]
            start, end = (int(row[name].removesuffix(".0")) for name in ("start", "end"))
            require(1 <= start <= end, f"start {start}, end {end}")
            protein = row["Protein"].upper().removesuffix("*")
            said[row["transcript_id_gtex"]] = {
                "gene_id": row["gene_id_gtex"] or row["transcript_id_gtex"], "chromosome": row["chr"], "strand": strand,
                "tss": start if strand == "+" else end, "rna": plain_fasta(b">x\n" + row["RNA"].encode(), "rna"),
                "protein": protein if re.fullmatch(r"[A-Za-z]+\*?", row["Protein"]) else None,
                "targets": [math.nan if row[name] == "" else float(row[name]) for name in found.tissues],
            }  # fmt: skip
    rows = rows_of(found, ["gene_id", "chromosome", "strand", "tss"])
    require(list(rows) == list(said), "rows were lost")
    for name, row in rows.items():
        require(is_near(row.pop("targets"), said[name].pop("targets")), f"targets of {name}")
        check_protein(row)
        row["rna"] = {"x": row["rna"]}
        compare({k: row[k] for k in said[name]}, said[name])
    return case.read(table == plain_table(whole))
