"""Simulated genes: sequences whose composition follows one latent number a modality, drawn from a seed.

Each gene has three independent latents. They shift composition so much that even mean-pooled random token
embeddings see them:

- ``dna``: share of G and C upstream of the TSS and in the long first intron, which fill the DNA window;
- ``rna``: choice among synonymous codons, and G and C in the 3'UTR; proteins do not show it;
- ``protein``: residues K, E, G against F, P, S. Their codons differ in purines and agree in G and C, so that the
  RNA shows this latent too, apart from its own.

Coding exons lie behind the window, so that DNA shows nothing of the other two. Isoforms share their TSS; they
differ by a cassette exon and by the 3' end, whose latents deviate from those of the gene.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from embedcache.genome import reverse_complement

__all__ = ["RESIDUE_SCORES", "SimulatedGene", "draw_gene", "gc_share", "residue_score"]

RESIDUE_SCORES = {"K": 1.0, "E": 1.0, "G": 1.0, "F": -1.0, "P": -1.0, "S": -1.0}
_RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
_ISOFORMS = ((True, True), (False, True), (True, False), (False, False))  # with cassette exon, with long 3' end
MAX_ISOFORMS = len(_ISOFORMS)


@dataclass(frozen=True, slots=True)
class SimulatedGene:
    """A gene in its own direction: one block of DNA, and exons and CDS pieces of each isoform in it."""

    block: str
    coding: bool
    exons: list[list[tuple[int, int]]]
    cds: list[list[tuple[int, int]]]
    """Empty for a gene without protein; the stop codon is not part of the CDS."""

    def reversed(self) -> "SimulatedGene":
        """The same gene on the other strand of its block."""
        size = len(self.block)

        def flip(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
            return sorted((size - end, size - start) for start, end in pieces)

        exons, cds = ([flip(pieces) for pieces in group] for group in (self.exons, self.cds))
        return SimulatedGene(reverse_complement(self.block), self.coding, exons, cds)


def gc_share(sequence: str) -> float:
    """Share of G and C among the letters."""
    return (sequence.count("G") + sequence.count("C")) / len(sequence)


def residue_score(protein: str) -> float:
    """Share of K, E and G minus share of F, P and S."""
    return sum(score * protein.count(residue) for residue, score in RESIDUE_SCORES.items()) / len(protein)


def draw_gene(draw: np.random.Generator, *, coding: bool, n_isoforms: int, dna_length: int) -> SimulatedGene:
    """Draw a gene whose DNA window holds nothing but upstream DNA, a short 5'UTR and the first intron."""
    dna, rna, protein = draw.standard_normal(3)
    half = dna_length - dna_length // 2 + 64

    def exon(n_codons: int, spread: float) -> str:
        shifted_rna, shifted_protein = (latent + spread * draw.standard_normal() for latent in (rna, protein))
        if coding:
            return _codons(draw, n_codons, shifted_rna, shifted_protein)
        return _letters(draw, 3 * n_codons, shifted_rna)

    def intron() -> str:
        return f"GT{_letters(draw, int(draw.integers(70, 130)), 0.0)}AG"

    parts = [
        _letters(draw, half, dna),
        _letters(draw, 40, 0.0),
        f"GT{_letters(draw, half, dna)}AG",
        "ATG" + exon(int(draw.integers(50, 110)), 0.0),
        intron(),
        exon(int(draw.integers(40, 80)), 0.8),
        intron(),
        exon(int(draw.integers(20, 60)), 0.0),
        "TAA" + _letters(draw, 40, rna),
        _letters(draw, int(draw.integers(100, 250)), rna + 0.8 * draw.standard_normal()),
        _letters(draw, 64, 0.0),
    ]
    return _lay_out(parts, coding, n_isoforms)


def _lay_out(parts: list[str], coding: bool, n_isoforms: int) -> SimulatedGene:
    """Bounds of exons and CDS in the block that the parts of ``draw_gene`` make."""
    ends = np.cumsum([len(part) for part in parts]).tolist()
    spans = list(zip([0, *ends[:-1]], ends, strict=True))
    exons, cds = [], []
    for cassette, long_end in _ISOFORMS[:n_isoforms]:
        middle = [spans[5]] if cassette else []
        last_end = spans[9][1] if long_end else spans[8][1]
        exons.append([spans[1], spans[3], *middle, (spans[7][0], last_end)])
        cds.append([spans[3], *middle, spans[7]] if coding else [])
    return SimulatedGene("".join(parts), coding, exons, cds)


def _letters(draw: np.random.Generator, length: int, latent: float) -> str:
    """Letters whose share of G and C rises with the latent, from about 0.2 at -2 to 0.8 at 2."""
    gc = 1 / (1 + np.exp(-0.7 * latent))
    return "".join(draw.choice(list("ACGT"), length, p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]))


def _codons(draw: np.random.Generator, length: int, rna: float, protein: float) -> str:
    codons, by_residue, residue_scores, gc3 = _codon_table()
    residue_weights = np.exp(0.7 * protein * residue_scores)
    within = np.exp(1.2 * rna * gc3) * by_residue  # (residues, codons)
    within /= within.sum(axis=1, keepdims=True)
    weights = (residue_weights / residue_weights.sum()) @ within
    return "".join(draw.choice(codons, length, p=weights / weights.sum()))


@cache
def _codon_table() -> tuple[list[str], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sense codons; residue of each as 0 and 1; score of each residue; +1 for G or C at the third base, else -1."""
    from Bio.Data import CodonTable

    table = CodonTable.unambiguous_dna_by_id[1].forward_table
    codons = sorted(table)
    by_residue = np.array([[float(table[codon] == residue) for codon in codons] for residue in _RESIDUES])
    scores = np.array([RESIDUE_SCORES.get(residue, 0.0) for residue in _RESIDUES])
    return codons, by_residue, scores, np.array([1.0 if codon[2] in "GC" else -1.0 for codon in codons])
