"""What a store holds is what the encoder says of the single sequence, and close to what transformers says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedcache.build import build_cache
from embedcache.encoders.registry import load_encoder
from embedcache.sequences import Modality, SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore

LETTERS: dict[Modality, str] = {"dna": "ACGTN", "rna": "ACGT", "protein": "ACDEFGHIKLMNPQRSTVWYX"}


def records(modality: Modality) -> list[SequenceRecord]:
    rng = np.random.default_rng(3)
    lengths = [1, 2, 5, 6, 7, 12, 13, *rng.integers(20, 400, 20).tolist(), 60, 60, 60]
    draw = [rng.choice(list(LETTERS[modality]), length) for length in lengths]
    return [SequenceRecord(str(i), "".join(letters), modality) for i, letters in enumerate(draw)]


@torch.inference_mode()
def plain_rows(encoder: Any, sequence: str) -> torch.Tensor:
    """One unpadded pass of the model as transformers runs it, special tokens taken off by hand."""
    model, vocabulary = encoder.model, encoder.vocabulary
    model.set_attn_implementation("sdpa")
    after = [] if vocabulary.after is None else [vocabulary.after]
    ids = torch.tensor([[vocabulary.before, *vocabulary.ids(sequence).tolist(), *after]])
    hidden: torch.Tensor = model(input_ids=ids).last_hidden_state[0]
    return hidden[1 : len(hidden) - len(after)]


@pytest.mark.parametrize("store_dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("modality", ["dna", "rna", "protein"])
def test_a_stored_embedding_is_that_of_the_single_sequence_and_close_to_the_plain_pass(
    tmp_path: Path, modality: Modality, store_dtype: Any
) -> None:
    encoder: Any = load_encoder(f"tiny-random-{modality}", modality, store_dtype=store_dtype)
    sequences = records(modality)
    build_cache(sequences, encoder, tmp_path, tokens_per_batch=500)
    store = EmbeddingStore(tmp_path)
    for record in sequences:
        key = sequence_key(record.sequence, modality)
        alone = torch.from_numpy(encoder.encode([record.sequence])[0])
        plain = plain_rows(encoder, record.sequence)
        assert (alone - plain).abs().max() < 1e-5 * plain.abs().max()
        # bitwise, after one rounding to the stored type
        assert torch.equal(store.batch([key]).values, alone.to(getattr(torch, store_dtype)))
        assert len(store[key]) == encoder.spec.n_tokens(record.sequence)
