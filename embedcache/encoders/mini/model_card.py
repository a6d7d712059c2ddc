"""The model card beside the weights: what it is, what it has seen, what it has not, and what it reaches."""

from dataclasses import asdict
from typing import Any

from embedcache.encoders.mini.corpus import HELD_OUT, SHARED, VALIDATION
from embedcache.encoders.mini.training import Recipe
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import kmer_of
from embedcache.sequences import Modality

__all__ = ["model_card"]

_KIND = {"dna": "DNA", "rna": "RNA", "protein": "proteins"}
_LETTERS = {
    "letter": "one residue",
    "codon": "one codon, in the frame of the longest stretch without a stop codon; bases around it stand alone",
}
_BASES = "{} bases, from the left end of the {}"
_DATA = {
    "dna": "both strands, in windows from random places, of the genome of yeast (S. cerevisiae\n  R64-1-1); no other"
    " genome, so nothing is claimed of any",
    "rna": "spliced transcripts of yeast (Ensembl 96: coding sequences without UTRs) and of nine pieces of\n  GRCh38,"
    " and coding sequences of 1,310 human genes",
    "protein": "translated coding sequences of yeast and of nine pieces of GRCh38, and proteins of 1,310\n  human"
    " genes",
}
_TEXT = """# {name}

A small masked language model of {kind} for trying things out, teaching and tests without a download. It is no rival of
the published encoders, and results with it are labelled as those of a small encoder.

- **Network**: rotary ESM (`EsmForMaskedLM` of transformers), width {width}, {layers} layers, {heads} heads,
  {parameters:,} parameters without the head that names hidden tokens; float16.
- **A token** is {token} (`{rule}`).
- **Seen in training**: {data}.
- **Held out**: {held_out} (test) and {validation} (to choose by),
  with all genes on them.{apart}
- **Training**: {epochs:g} epochs of pieces of at most {longest} tokens, about {tokens_per_step:,} tokens a step,
  {percent:.0f} % of them asked for (80 % hidden, 10 % another token, 10 % shown), AdamW at {learning_rate:g},
  seed {seed}, products in {dtype}.
- **Licence**: Apache-2.0.

Perplexity a token on the validation split, over {tokens_asked:,} tokens, 15 % hidden at a time (counting sees all
neighbours):

| this network | best k-mer rate | unigram |
|---|---|---|
| {perplexity:.2f} | {best_kmer:.2f} | {unigram:.2f} |

K-mer rates are counts in the training sequences given up to three tokens to the left, or two on both sides, each length
leaning on the shorter ones, with the strength that is best on this split.

Again: `python -m embedcache.encoders.mini train {modality} --corpus CORPUS --output DIR`, and `evaluate`.
"""


def model_card(spec: EncoderSpec, recipe: Recipe, found: dict[str, Any]) -> str:
    """Markdown.

    Args:
        spec: What was trained.
        recipe: How.
        found: Of ``measure`` on the validation split.
    """
    size, window = SHARED[spec.modality], "window" if spec.modality == "dna" else "sequence"
    apart = ""
    if size:
        apart = f" Training sequences with {size} letters in a row in common with them were left out;\n  paralogues"
        apart += " further apart than that are on both sides."
    return _TEXT.format(
        name=spec.name,
        modality=spec.modality,
        kind=_KIND[spec.modality],
        width=spec.width,
        layers=spec.architecture["layers"],
        heads=spec.architecture["heads"],
        token=_LETTERS.get(spec.tokens) or _BASES.format(kmer_of(spec.tokens), window),
        rule=spec.tokens,
        data=_DATA[spec.modality],
        held_out=_contigs(HELD_OUT, spec.modality),
        validation=_contigs(VALIDATION, spec.modality),
        apart=apart,
        percent=100 * recipe.masked,
        **asdict(recipe),
        **{name: found[name] for name in ("parameters", "tokens_asked", "perplexity", "best_kmer", "unigram")},
    )


def _contigs(names: tuple[str, ...], modality: Modality) -> str:
    """Names of chromosomes and pieces; DNA is of yeast alone."""
    return ", ".join(name for name in names if modality != "dna" or not name.startswith("chr"))
