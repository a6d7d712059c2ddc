"""The sequences that the mini encoders are trained on, split by chromosome.

Yeast is split by chromosome, the pieces of the human genome by piece; coding sequences and proteins without a place
(the 29 tissues) are training data. DNA is that of yeast alone: the pieces of the human genome, half as long together,
teach little but their repeats. What shares a stretch with held-out RNA or proteins is left out of training.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from embedcache.annotation import read_gtf
from embedcache.errors import InvalidInputError
from embedcache.genome import Genome, open_genome
from embedcache.sequences import MODALITIES, Modality, read_fasta
from embedcache.splits import SPLITS, SplitName
from embedcache.transcripts import read_coding_sequence, splice

__all__ = ["HELD_OUT", "VALIDATION", "corpus_file", "read_corpus", "write_corpus"]

HELD_OUT = ("XIV", "XVI", "chr8_22000001_23000000")
"""Contigs that no mini encoder has seen: the test."""
VALIDATION = ("XI", "chr9_1_1000000")
"""Contigs by which sizes, tokens and the length of training were chosen."""
SHARED = {"rna": 60, "protein": 20, "dna": 0}
"""A training sequence with so many letters in a row in common with a held-out one is left out."""
_MITOCHONDRION = "Mito"


@dataclass(frozen=True, slots=True)
class _Found:
    split: SplitName
    identifier: str
    sequence: str


def corpus_file(folder: Path, modality: Modality, split: SplitName) -> Path:
    """FASTA of one modality and split."""
    return folder / f"{modality}.{split}.fa"


def read_corpus(folder: Path, modality: Modality, split: SplitName) -> list[str]:
    """Distinct sequences of a split, in the order of the file."""
    found = read_fasta(corpus_file(folder, modality, split), modality)
    return list(dict.fromkeys(record.sequence for record in found))


def write_corpus(data: Path, output: Path) -> dict[str, int]:
    """Write nine FASTA files, one for each modality and split.

    Args:
        data: Directory with ``yeast``, ``human_regions`` and ``human_29tissues``.
        output: Directory to make.

    Returns:
        Letters by file name.

    Raises:
        InvalidInputError: A file is missing or damaged.
    """
    for name in ("yeast", "human_regions", "human_29tissues"):
        if not (data / name).is_dir():
            raise InvalidInputError(f"{data / name} is not a directory. Give the folder that holds it (--data).")
    output.mkdir(parents=True, exist_ok=True)
    letters = {}
    for modality in MODALITIES:
        found = _without_shared(list(_sequences(data, modality)), SHARED[modality])
        for split in SPLITS:
            chosen = {one.sequence: one.identifier for one in found if one.split == split}
            path = corpus_file(output, modality, split)
            path.write_text("".join(f">{name}\n{sequence}\n" for sequence, name in chosen.items()))
            letters[path.name] = sum(map(len, chosen))
    return letters


def _sequences(data: Path, modality: Modality) -> Iterator[_Found]:
    for name in ("yeast",) if modality == "dna" else ("yeast", "human_regions"):
        with open_genome(data / name / "genome.fa.gz") as genome:
            if modality == "dna":
                yield from (_Found(_split(c), c, genome.fetch(c, 0, genome.length(c))) for c in genome.contigs)
            else:
                yield from _transcribed(genome, data / name / "annotation.gtf.gz", modality)
    files = {"dna": (), "rna": ("cds.fa.gz", "rna_full.fa.gz"), "protein": ("protein.fa.gz",)}
    for file in files[modality]:
        for record in read_fasta(data / "human_29tissues" / file, modality):
            yield _Found("train", f"{record.id}-{file.partition('.')[0]}", record.sequence)


def _transcribed(genome: Genome, gtf: Path, modality: Modality) -> Iterator[_Found]:
    for transcript in read_gtf(gtf).transcripts.values():
        if transcript.contig not in genome:
            continue
        sequence: str | None = splice(genome, transcript)
        if modality == "protein" and sequence:
            code = 3 if transcript.contig == _MITOCHONDRION else 1
            sequence = read_coding_sequence(transcript, sequence, code).protein if transcript.cds else None
        if sequence:
            yield _Found(_split(transcript.contig), transcript.id, sequence)


def _split(contig: str) -> SplitName:
    return "test" if contig in HELD_OUT else "validation" if contig in VALIDATION else "train"


def _without_shared(found: list[_Found], size: int) -> list[_Found]:
    """Leave out of training what shares a stretch of ``size`` letters with another split."""
    if not size:
        return found
    kept_out = {piece for one in found if one.split != "train" for piece in _pieces(one.sequence, size)}
    return [one for one in found if one.split != "train" or kept_out.isdisjoint(_pieces(one.sequence, size))]


def _pieces(sequence: str, size: int) -> Iterable[str]:
    return (sequence[i : i + size] for i in range(0, len(sequence) - size + 1))
