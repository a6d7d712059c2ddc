"""Encoders against plain forward passes of the same networks, one sequence at a time."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from embedcache.encoders import nt
from embedcache.encoders.cards import CARDS, TINY_ENCODERS
from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.registry import EncoderCard, encoder_spec, load_encoder, register_encoder
from embedcache.encoders.tokens import ESM_CLS, ESM_EOS, NT_CLS, esm_ids
from embedcache.errors import EmbedCacheError
from embedcache.sequences import MODALITIES, Modality

PROTEIN, BASES = "LAGVSERTIDPKQNFYMHWCXBUZOJ", "ACGTACGTACGTN"
LENGTHS = [1, 7, 40, 40, 3, 250, 90, 40, 12, 601, 6, 2, 4, 5, 8, 9, 10, 11, 18, 30, 36, 60, 66]


def small(name: str, family: str) -> EncoderCard:
    """A card with the architecture of a family in a size for tests."""
    return replace(CARDS[family], name=name, width=96, layers=3, heads=4, feed_forward=192)


FAMILIES = {
    "test-esm2": small("test-esm2", "esm2-8m"),
    "test-nt-v2": small("test-nt-v2", "nt-v2-50m"),
    "test-nt-v1": small("test-nt-v1", "nt-v1-500m-human-ref"),
}


@pytest.fixture(params=FAMILIES)
def encoder(request: pytest.FixtureRequest) -> PackedEncoder:
    return load_small(request.param)


def load_small(name: str, **options: Any) -> PackedEncoder:
    register_encoder(FAMILIES[name])
    loaded = load_encoder(name, "protein" if "esm" in name else "rna", random_init=1, **options)
    assert isinstance(loaded, PackedEncoder)
    return loaded


def sequences_for(encoder: PackedEncoder, lengths: Sequence[int] = LENGTHS) -> list[str]:
    draw = random.Random(0)
    letters = PROTEIN if encoder.spec.modality == "protein" else BASES
    return ["".join(draw.choices(letters, k=length)) for length in lengths]


def alone(encoder: PackedEncoder, sequence: str) -> Tensor:
    """The plain forward pass of transformers: one sequence, no positions given, rows of specials cut off."""
    vocabulary = encoder.vocabulary
    ids = [vocabulary.before, *vocabulary.ids(sequence)]
    ids += [] if vocabulary.after is None else [vocabulary.after]
    encoder.model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        hidden: Tensor = encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    encoder.model.set_attn_implementation("isoheads_packed")
    return hidden[1 : None if vocabulary.after is None else -1].float()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_sequence_is_bitwise_the_same_in_a_batch_and_close_to_a_plain_forward_pass(
    encoder: PackedEncoder, threads: int, set_threads: Callable[[int], None]
) -> None:
    set_threads(threads)
    sequences = sequences_for(encoder)
    for sequence, together in zip(sequences, encoder.encode(sequences), strict=True):
        assert together.dtype == np.float32
        assert together.shape == (encoder.spec.n_tokens(sequence), encoder.spec.width)
        assert np.array_equal(together, encoder.encode([sequence])[0])
        assert np.abs(together - alone(encoder, sequence).numpy()).max() < 1e-5 * np.abs(together).max()
    assert encoder.packing_error < 1e-5


def test_the_order_of_a_batch_changes_nothing(encoder: PackedEncoder) -> None:
    sequences = sequences_for(encoder)
    forwards = encoder.encode(sequences)
    backwards = encoder.encode(sequences[::-1])[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert encoder.encode([]) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_is_nearer_to_float32_than_the_plain_pass_and_does_not_depend_on_the_batch(name: str) -> None:
    exact, half = load_small(name), load_small(name, dtype="bfloat16")
    sequences = sequences_for(exact)
    ours, plain = [], []
    for sequence, want, got in zip(sequences, exact.encode(sequences), half.encode(sequences), strict=True):
        assert np.array_equal(got, half.encode([sequence])[0])
        ours.append(np.linalg.norm(got - want) / np.linalg.norm(want))
        plain.append(np.linalg.norm(alone(half, sequence).numpy() - want) / np.linalg.norm(want))
    assert max(ours) < 0.03
    assert np.mean(ours) < np.mean(plain)
    rotary = half.model.rotary_embeddings
    assert rotary is None or rotary.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision_a_sequence_is_bitwise_the_same_in_any_batch(
    dtype: Any, threads: int, set_threads: Callable[[int], None]
) -> None:
    set_threads(threads)
    encoder = load_small("test-esm2", dtype=dtype)
    sequences = sequences_for(encoder)
    for sequence, together in zip(sequences, encoder.encode(sequences), strict=True):
        assert np.array_equal(together, encoder.encode([sequence])[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_layer_in_the_middle_is_the_hidden_state_of_that_name(name: str) -> None:
    full, second = load_small(name), load_small(name, layer=2)
    sequence = sequences_for(full)[5]
    vocabulary = full.vocabulary
    ids = [vocabulary.before, *vocabulary.ids(sequence)]
    ids += [] if vocabulary.after is None else [vocabulary.after]
    full.model.set_attn_implementation("sdpa")
    with torch.inference_mode():
        states = full.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    (got,) = second.encode([sequence])
    want = states[2][0, 1 : None if vocabulary.after is None else -1].numpy()
    assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_equals_an_implementation_from_its_description(name: str) -> None:
    encoder = load_small(name)
    with torch.no_grad():  # so that a bias forgotten, or one too many, shows
        for key, parameter in encoder.model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.linspace(-0.3, 0.3, len(parameter)) * (1 + len(key) % 3))
    vocabulary = encoder.vocabulary
    for sequence in sequences_for(encoder):
        after = [] if vocabulary.after is None else [vocabulary.after]
        ids = torch.tensor([vocabulary.before, *vocabulary.ids(sequence), *after])
        want = plain_forward(name, dict(encoder.model.state_dict()), ids, heads=4)[1 : len(ids) - len(after)]
        (got,) = encoder.encode([sequence])
        assert torch.allclose(torch.from_numpy(got), want, atol=2e-5)


def plain_forward(name: str, weights: dict[str, Tensor], ids: Tensor, heads: int) -> Tensor:
    """The three families in complex rotations and full attention maps: (T,) to (T, D)."""
    eps = 1e-5 if name == "test-esm2" else 1e-12
    x = weights["embeddings.word_embeddings.weight"][ids] * (1.0 if name == "test-nt-v2" else 0.88)
    length, width = x.shape
    d = width // heads
    if name == "test-nt-v1":
        x = x + weights["embeddings.position_embeddings.weight"][2 : length + 2]
    speed = 0.0 if name == "test-nt-v1" else 1.0  # rotary in the others
    angle = speed * torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
    turn = torch.polar(torch.ones_like(angle), angle)  # (T, d / 2)

    def linear(y: Tensor, name: str) -> Tensor:
        return F.linear(y, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(y: Tensor, name: str) -> Tensor:
        return F.layer_norm(y, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    def rotated(y: Tensor) -> Tensor:  # component j is paired with j + d / 2
        z = torch.complex(*y.chunk(2, dim=-1)) * turn
        return torch.cat([z.real, z.imag], dim=-1)

    def activated(y: Tensor) -> Tensor:
        if name != "test-nt-v2":
            return F.gelu(y)
        gate, value = y.chunk(2, dim=-1)
        return gate * gate.sigmoid() * value

    for i in range(3):
        at = f"encoder.layer.{i}"
        y = norm(x, f"{at}.attention.LayerNorm")
        q, k, v = (
            linear(y, f"{at}.attention.self.{n}").view(length, heads, d).transpose(0, 1)
            for n in ("query", "key", "value")
        )
        attention = (rotated(q) @ rotated(k).transpose(1, 2) / d**0.5).softmax(-1)
        x = x + linear((attention @ v).transpose(0, 1).reshape(length, width), f"{at}.attention.output.dense")
        x = x + linear(activated(linear(norm(x, f"{at}.LayerNorm"), f"{at}.intermediate.dense")), f"{at}.output.dense")
    return norm(x, "encoder.emb_layer_norm_after")


def test_published_sizes_have_the_published_numbers_of_parameters() -> None:
    def parameters(name: str, load: Any) -> int:
        spec = encoder_spec(name, "dna", random_init=0)
        with torch.device("meta"):
            return sum(p.numel() for p in load(spec).parameters())

    # 53,534,401 with the unused table of positions (2,050 x 512) and the contact head (12 x 16 + 1)
    assert parameters("nt-v2-50m", nt.build_v2) == 53_534_401 - 2050 * 512 - 193


def test_special_tokens_are_those_of_the_families() -> None:
    esm, v2, v1 = (load_small(name).vocabulary for name in FAMILIES)
    assert (esm.before, esm.after, esm.ids("LA").tolist()) == (ESM_CLS, ESM_EOS, esm_ids("LA").tolist())
    assert (v2.before, v2.after, v2.ids("AAAAAA").tolist()) == (NT_CLS, None, [6])
    assert (v1.before, v1.after, v1.ids("AAAAAA").tolist()) == (NT_CLS, None, [4])


def test_the_longest_input_of_nt_v1_fits_its_table_of_positions() -> None:
    encoder = load_small("test-nt-v1")
    sequence = "".join(random.Random(0).choices("ACGT", k=7000))
    kept = encoder.spec.cropped(sequence)
    assert sequence.endswith(kept)
    assert encoder.encode([kept])[0].shape[0] == 999 == encoder.spec.n_tokens(sequence)


def test_tensors_on_the_device_take_gradients() -> None:
    encoder = load_small("test-nt-v2")
    sequences = sequences_for(encoder, [30, 90])
    packed = encoder.encode_packed(sequences)
    for tensor, array in zip(packed.to_list(), encoder.encode(sequences), strict=True):
        assert np.allclose(tensor.detach().numpy(), array, rtol=0, atol=1e-5 * np.abs(array).max())
    packed.values.square().sum().backward()
    without = [name for name, parameter in encoder.model.named_parameters() if parameter.grad is None]
    assert without == []


def test_values_that_are_not_finite_are_an_error_with_the_name_of_the_encoder() -> None:
    encoder = load_small("test-esm2")
    with torch.no_grad():
        encoder.model.embeddings.word_embeddings.weight[4] = float("inf")  # L
    with pytest.raises(EmbedCacheError, match=r"test-esm2-random1 gave values that are not finite for 5 of 10 tokens"):
        encoder.encode(["AAAAA", "AALAA"])


def test_loading_leaves_the_random_state_of_the_caller_alone() -> None:
    torch.manual_seed(0)
    want = torch.rand(3)
    torch.manual_seed(0)
    load_small("test-nt-v2")
    assert torch.equal(torch.rand(3), want)


@pytest.mark.parametrize("modality", MODALITIES)
def test_tiny_encoders_show_both_composition_and_context(modality: Modality) -> None:
    encoder = load_encoder(TINY_ENCODERS[modality], modality)
    assert encoder.spec.is_random
    assert "random" in encoder.spec.name
    letters = "ACGT" if modality != "protein" else "LAGVSERTIDPKQNFYMHWC"
    draw = np.random.default_rng(0)

    def means(weights: np.ndarray) -> np.ndarray:
        """Mean embeddings of 12 sequences of one composition, (12, D)."""
        drawn = ["".join(draw.choice(list(letters), size=1800, p=weights / weights.sum())) for _ in range(12)]
        return np.stack([one.mean(0) for one in encoder.encode(drawn)])

    even = np.ones(len(letters))
    tilted = np.where(np.arange(len(letters)) % 2, 2.0, 1.0)
    one, other = means(even), means(tilted)
    between, within = np.linalg.norm(one.mean(0) - other.mean(0)), np.sqrt(one.var(0).sum())
    assert between > 1.5 * within

    width = 1 if modality == "protein" else 6
    words = ["".join(draw.choice(list(letters), size=width)) for _ in range(200)]
    forwards, backwards = encoder.encode(["".join(words), "".join(words[::-1])])
    moved = np.linalg.norm(forwards - backwards[::-1], axis=1) / np.linalg.norm(forwards, axis=1)
    assert 0.05 < np.median(moved) < 0.8  # the same token elsewhere is like itself, but not equal
