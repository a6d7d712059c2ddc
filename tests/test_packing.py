"""Packs: who shares one, what the model is told, and that unsound packing is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import EsmConfig, EsmModel

from embedcache.build import build_cache
from embedcache.encoders import blocks, packing, registry
from embedcache.encoders.attention import attend_by_runs, packed_attention
from embedcache.encoders.cards import CARDS
from embedcache.encoders.packing import Vocabulary, check_packing
from embedcache.encoders.tokens import esm_ids
from embedcache.errors import EmbedCacheError
from embedcache.sequences import SequenceRecord

ESM = Vocabulary(ids=esm_ids, before=0, after=2)


def esm_model(**changes: Any) -> EsmModel:
    settings: dict[str, Any] = {
        "vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 128, "position_embedding_type": "rotary",
        "max_position_embeddings": 256, "token_dropout": True, "emb_layer_norm_before": False,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2,
    }  # fmt: skip
    torch.manual_seed(0)
    return EsmModel(EsmConfig(**(settings | changes)), add_pooling_layer=False).eval()


def test_packs_are_about_as_large_as_each_other_and_long_or_very_short_sequences_are_alone() -> None:
    lengths = [3, 50, 90, 40, 200, 10]
    order = [4, 2, 1, 3, 5, 0]
    assert list(packing._packs(order, lengths, 100, 12)) == [[4], [2], [1, 3], [5], [0]]
    assert list(packing._packs(order, lengths, 100, 0)) == [[4], [2], [1, 3, 5, 0]]
    assert list(packing._packs(order, lengths, 1000, 0)) == [order]
    assert [len(pack) for pack in packing._packs(range(7), [300] * 7, 1024, 0)] == [4, 3]  # 3, 3 and 1 if filled up


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(2, 900), min_size=1, max_size=60), st.integers(100, 1200), st.integers(0, 12))
def test_every_sequence_is_in_one_pack_in_order_and_packs_have_a_bound(
    lengths: list[int], budget: int, shortest: int
) -> None:
    lengths = sorted(lengths, reverse=True)
    packs = list(packing._packs(range(len(lengths)), lengths, budget, shortest))
    assert [i for pack in packs for i in pack] == list(range(len(lengths)))
    for pack in packs:
        assert len(pack) == 1 or sum(lengths[i] for i in pack) <= 1.5 * budget + lengths[pack[-1]] / 2
        assert len(pack) == 1 or lengths[pack[-1]] >= shortest


def test_positions_restart_and_equal_neighbours_share_a_call() -> None:
    ids = [np.arange(3), np.arange(3), np.arange(2)]
    vocabulary = Vocabulary(ids=esm_ids, before=0, first_position=2)
    inputs = packing.pack_inputs(ids, vocabulary, torch.device("cpu"))
    assert inputs["position_ids"].tolist() == [[2, 3, 4, 2, 3, 4, 2, 3]]
    assert inputs["runs"] == [(3, 2), (2, 1)]
    assert inputs["bounds"].tolist() == [0, 3, 6, 8]
    assert inputs["longest"] == 3


def test_attention_stays_within_each_sequence() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 9, 8, generator=generator) for _ in range(3))
    got, _ = packed_attention(torch.nn.Identity(), q, k, v, None, scaling=0.5, runs=[(2, 3), (3, 1)])
    for start, stop in ((0, 2), (2, 4), (4, 6), (6, 9)):
        part = slice(start, stop)
        scores = (q[:, :, part] @ k[:, :, part].transpose(2, 3) * 0.5).softmax(-1)
        want = (scores @ v[:, :, part]).transpose(1, 2)
        assert torch.allclose(got[:, part], want, atol=1e-6)


def test_a_model_that_packs_is_left_on_packed_attention_with_all_its_layers() -> None:
    model = esm_model(num_hidden_layers=3)
    assert check_packing(model, ESM, "test") <= 1e-5
    assert model.config._attn_implementation == packing.ATTENTION
    assert len(model.encoder.layer) == 3


def test_learned_positions_that_begin_in_the_wrong_place_are_refused() -> None:
    model = esm_model(position_embedding_type="absolute")
    assert check_packing(model, Vocabulary(ids=esm_ids, before=0, first_position=2), "test") <= 1e-5
    with pytest.raises(EmbedCacheError, match="Encoder test: packed and single runs differ"):
        check_packing(model, ESM, "test")


def test_attention_that_leaks_between_sequences_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_see_all(query: Tensor, key: Tensor, value: Tensor, runs: Any, scaling: float | None) -> Tensor:
        return attend_by_runs(query, key, value, [(len(query), 1)], scaling)

    monkeypatch.setattr(blocks, "attend_by_runs", all_see_all)
    with pytest.raises(EmbedCacheError, match="would depend on the batch"):
        check_packing(esm_model(), ESM, "test")


@pytest.mark.parametrize(
    ("name", "modality"), [("esm2-8m", "protein"), ("nt-v2-50m", "rna"), ("nt-v1-500m-human-ref", "dna")]
)
def test_a_build_computes_no_padding(name: str, modality: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = replace(CARDS[name], name=f"narrow-{name}", width=64, layers=2, heads=4, feed_forward=128)
    monkeypatch.setattr(registry, "CARDS", CARDS | {card.name: card})
    monkeypatch.setattr("embedcache.build.check_encoder", lambda *_, **__: None)  # tokens of its own
    encoder: Any = registry.load_encoder(card.name, modality, random_init=0)
    computed: dict[str, int] = {"embeddings": 0, "block": 0}

    def count(which: str) -> Any:
        def hook(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            computed[which] += inputs[0][..., 0].numel() if which == "block" else inputs[0].numel()

        return hook

    encoder.model.embeddings.word_embeddings.register_forward_hook(count("embeddings"))
    encoder.model.encoder.layer[1].LayerNorm.register_forward_hook(count("block"))
    draw = np.random.default_rng(0)
    letters = list("LAGVSERT" if modality == "protein" else "ACGTN")
    records = [
        SequenceRecord(f"S{i}", "".join(draw.choice(letters, size=n)), modality)
        for i, n in enumerate(draw.integers(1, 700, 40))
    ]
    build_cache(records, encoder, tmp_path / "store", tokens_per_batch=1500)
    special = 1 if encoder.vocabulary.after is None else 2
    needed = sum(encoder.spec.n_tokens(record.sequence) + special for record in records)
    assert computed == {"embeddings": needed, "block": needed}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_gpu_gives_the_numbers_of_the_cpu_within_tolerance(dtype: Any) -> None:
    from embedcache.encoders.registry import load_encoder

    for name, modality, letters in (("esm2-8m", "protein", "LAGVSERT"), ("nt-v2-50m", "rna", "ACGT")):
        draw = np.random.default_rng(0)
        sequences = ["".join(draw.choice(list(letters), size=n)) for n in (700, 700, 60, 9, 1)]
        want = load_encoder(name, modality, random_init=0).encode(sequences)
        got = load_encoder(name, modality, random_init=0, dtype=dtype, device="cuda").encode(sequences)
        for one, other in zip(want, got, strict=True):
            assert np.linalg.norm(one - other) < {"float32": 1e-4}.get(dtype, 0.03) * np.linalg.norm(one)
