"""How well a mini encoder names hidden tokens of held-out sequences, beside what counting reaches."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.mini.corpus import read_corpus
from embedcache.encoders.mini.kmers import KmerRates
from embedcache.encoders.mini.network import names_of_tokens
from embedcache.encoders.mini.publish import read_shape, read_trained
from embedcache.encoders.mini.recipes import mini_spec
from embedcache.encoders.mini.training import Corpus, Recipe, evaluation_pieces, masked_perplexity
from embedcache.encoders.spec import EncoderSpec
from embedcache.genome import reverse_complement
from embedcache.sequences import Modality
from embedcache.splits import SplitName

__all__ = ["MASKED", "measure"]

MASKED = 0.15
"""Share of tokens that are hidden, all at once; counting sees all of their neighbours."""
Integers = NDArray[np.int64]
STRENGTHS = (30.0, 300.0, 1000.0, 3000.0, 10000.0)
MOST_TOKENS = 400_000


def measure(modality: Modality, corpus: Path, weights: Path | None, split: SplitName) -> dict[str, Any]:
    """Perplexities a token on a held-out split of a corpus.

    Args:
        modality: Which encoder.
        corpus: Of ``write_corpus``.
        weights: Directory of ``save_trained``; the published ones without it.
        split: ``validation``, or ``test``.

    Returns:
        ``perplexity`` of the network; of the k-mer rates by context, the best of ``STRENGTHS`` on this very split; and
        what was measured on.
    """
    folder = weights or Path(str(files("embedcache.encoders.mini"))) / f"mini-{modality}"
    spec = mini_spec(modality, **read_shape(folder))
    held_out = Corpus(corpus, spec, split)
    pieces, masked = evaluation_pieces(held_out, Recipe().longest, MASKED, MOST_TOKENS)
    model = read_trained(folder, spec)
    rates = _kmer_perplexities(corpus, spec, held_out, pieces, masked)
    return {
        "encoder": spec.name,
        "tokens": spec.tokens,
        "parameters": sum(one.numel() for one in model.esm.parameters()),
        "split": split,
        "tokens_asked": sum(map(len, masked)),
        "perplexity": masked_perplexity(model, held_out.vocabulary, pieces, masked),
        "unigram": rates["0+0"],
        "best_kmer": min(rates.values()),
        "kmers": rates,
    }


def _kmer_perplexities(
    corpus: Path, spec: EncoderSpec, held_out: Corpus, pieces: Sequence[Integers], masked: Sequence[Integers]
) -> dict[str, float]:
    """Of k-mer rates by context, at the places that are hidden; the strength is the best on this split."""
    rates = KmerRates(
        [held_out.vocabulary.ids(one) for one in _counted(corpus, spec)], len(names_of_tokens(spec.tokens))
    )
    found = [rates.perplexities(pieces, masked, strength) for strength in STRENGTHS]
    return {context: min(one[context] for one in found) for context in found[0]}


def _counted(corpus: Path, spec: EncoderSpec) -> list[str]:
    """Training sequences; of DNA both strands in all frames, for a window may begin anywhere."""
    sequences = read_corpus(corpus, spec.modality, "train")
    if spec.modality != "dna":
        return sequences
    both = [strand for one in sequences for strand in (one, reverse_complement(one))]
    return [strand[frame:] for strand in both for frame in range(3)]
