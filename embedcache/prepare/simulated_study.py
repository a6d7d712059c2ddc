"""A simulated genome with annotation and expression, and the files that a real study would come in."""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedcache.genome import reverse_complement, window_bounds
from embedcache.prepare.simulated_genes import SimulatedGene, draw_gene
from embedcache.transcripts import translate

__all__ = ["SimulatedStudy", "SimulatedTranscript", "draw_study", "write_expression", "write_genome"]

_GENES_A_CONTIG = 60
_LINE = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedTranscript:
    """A transcript on its contig; pieces are 0-based, half-open and ascending."""

    id: str
    gene_id: str
    contig: str
    strand: str
    exons: list[tuple[int, int]]
    cds: list[tuple[int, int]]
    rna: str
    protein: str
    """Empty without CDS."""


@dataclass(frozen=True, slots=True)
class SimulatedStudy:
    """Contigs by name, and transcripts in the order of their genes."""

    contigs: dict[str, str]
    transcripts: list[SimulatedTranscript]

    def window(self, transcript: SimulatedTranscript, length: int) -> str:
        """DNA around the TSS; genes lie far enough from the ends. Either strand will do for G and C."""
        forward = transcript.strand == "+"
        tss = transcript.exons[0][0] if forward else transcript.exons[-1][1] - 1
        start, end = window_bounds(tss, transcript.strand, length)
        return self.contigs[transcript.contig][start:end]


def draw_study(
    draw: np.random.Generator, *, n_genes: int, n_isoforms: int, n_noncoding: int, dna_length: int
) -> SimulatedStudy:
    """Draw genes on both strands, side by side on contigs."""
    contigs: dict[str, str] = {}
    transcripts: list[SimulatedTranscript] = []
    noncoding = set(draw.permutation(n_genes)[:n_noncoding].tolist())
    blocks: list[str] = []
    for number in range(n_genes):
        contig = f"sim{number // _GENES_A_CONTIG + 1}"
        gene = draw_gene(draw, coding=number not in noncoding, n_isoforms=n_isoforms, dna_length=dna_length)
        strand = "+" if draw.random() < 0.5 else "-"
        placed = gene if strand == "+" else gene.reversed()
        offset = sum(len(block) for block in blocks)
        transcripts += _place(placed, f"SIMG{number:05d}", contig, strand, offset)
        blocks.append(placed.block)
        if number % _GENES_A_CONTIG == _GENES_A_CONTIG - 1 or number == n_genes - 1:
            contigs[contig] = "".join(blocks)
            blocks = []
    return SimulatedStudy(contigs, transcripts)


def _place(gene: SimulatedGene, gene_id: str, contig: str, strand: str, offset: int) -> list[SimulatedTranscript]:
    placed = []
    for number, (exons, cds) in enumerate(zip(gene.exons, gene.cds, strict=True), start=1):
        rna, coding = (_read(gene.block, pieces, strand) for pieces in (exons, cds))
        placed.append(
            SimulatedTranscript(
                id=f"{gene_id}.T{number}",
                gene_id=gene_id,
                contig=contig,
                strand=strand,
                exons=[(start + offset, end + offset) for start, end in exons],
                cds=[(start + offset, end + offset) for start, end in cds],
                rna=rna,
                protein=translate(coding, 1),
            )
        )
    return placed


def _read(block: str, pieces: list[tuple[int, int]], strand: str) -> str:
    forward = "".join(block[start:end] for start, end in pieces)
    return forward if strand == "+" else reverse_complement(forward)


def write_genome(folder: Path, study: SimulatedStudy) -> None:
    """Write ``genome.fa`` and ``annotation.gtf``."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "genome.fa").open("w") as file:
        for name, sequence in study.contigs.items():
            file.write(f">{name}\n")
            file.writelines(f"{sequence[i : i + _LINE]}\n" for i in range(0, len(sequence), _LINE))
    with (folder / "annotation.gtf").open("w") as file:
        for transcript in study.transcripts:
            file.writelines(_gtf_lines(transcript))


def _gtf_lines(transcript: SimulatedTranscript) -> list[str]:
    kind = "protein_coding" if transcript.cds else "lncRNA"
    names = (
        f'gene_id "{transcript.gene_id}"; transcript_id "{transcript.id}"; gene_type "{kind}"; '
        f'transcript_type "{kind}";'
    )
    whole = (transcript.exons[0][0], transcript.exons[-1][1])
    lines = []
    for feature, pieces in (("transcript", [whole]), ("exon", transcript.exons), ("CDS", transcript.cds)):
        phase = "0" if feature == "CDS" else "."
        for start, end in pieces:
            place = f"{start + 1}\t{end}\t.\t{transcript.strand}\t{phase}"
            lines.append(f"{transcript.contig}\tsimulated\t{feature}\t{place}\t{names}\n")
    return lines


def write_expression(
    folder: Path,
    study: SimulatedStudy,
    log1p_tpm: NDArray[np.float64],
    tissues: Sequence[str],
    of_sample: Sequence[float],
) -> None:
    """Write ``transcript_tpm.gct.gz`` and ``sample_attributes.tsv``.

    Args:
        folder: Where the files go.
        study: Its transcripts are the rows.
        log1p_tpm: Value of each tissue, (transcripts, tissues).
        tissues: Names of the tissues.
        of_sample: TPM of each sample of a tissue over the value of the tissue; 1 in the mean.
    """
    samples = [f"SIM-{k + 1}-{j + 1}" for k in range(len(tissues)) for j in range(len(of_sample))]
    tpm = np.expm1(log1p_tpm)[:, :, None] * np.asarray(of_sample)  # (transcripts, tissues, samples of a tissue)
    # No time stamp: the same study gives the same bytes.
    with gzip.GzipFile(folder / "transcript_tpm.gct.gz", "wb", mtime=0) as file:
        header = "\t".join(["transcript_id", "gene_id", *samples])
        file.write(f"#1.2\n{len(tpm)}\t{len(samples)}\n{header}\n".encode())
        for transcript, row in zip(study.transcripts, tpm.reshape(len(tpm), -1), strict=True):
            numbers = "\t".join(f"{value:.6g}" for value in row)
            file.write(f"{transcript.id}\t{transcript.gene_id}\t{numbers}\n".encode())
    lines = [f"{sample}\tSimulated\t{tissues[i // len(of_sample)]}\n" for i, sample in enumerate(samples)]
    (folder / "sample_attributes.tsv").write_text("SAMPID\tSMTS\tSMTSD\n" + "".join(lines))
