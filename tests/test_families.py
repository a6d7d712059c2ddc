"""ESM C and the T5 family: what holds of every packed encoder, and what is their own."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from embedcache.encoders import attention
from embedcache.encoders.attention import attend_by_runs
from embedcache.encoders.cards import CARDS
from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.registry import encoder_spec, load_encoder, register_encoder
from embedcache.encoders.t5 import ankh_ids, prott5_ids
from embedcache.errors import EmbedCacheError

NAMES = ("esmc-300m", "prott5-xl", "prostt5", "ankh-base")
LETTERS = "LAGVSERTIDPKQNFYMHWCXBUZOJ"
LENGTHS = [1, 7, 40, 40, 3, 250, 90, 40, 12, 401, 6, 2, 4, 5, 8, 9, 10, 11, 18, 30]


def load_small(family: str, **options: Any) -> PackedEncoder:
    """The architecture of a family in a size for tests, with drawn weights."""
    sizes = {"width": 96, "layers": 3, "heads": 4, "feed_forward": 192}
    card = replace(CARDS[family], name=f"small-{family}", **sizes)
    register_encoder(card)
    loaded = load_encoder(card.name, "protein", **{"random_init": 1, **options})
    assert isinstance(loaded, PackedEncoder)
    return loaded


def drawn(lengths: list[int] = LENGTHS) -> list[str]:
    draw = random.Random(0)
    return ["".join(draw.choices(LETTERS, k=length)) for length in lengths]


@torch.inference_mode()
def plain_states(encoder: PackedEncoder, sequence: str) -> list[Tensor]:
    """All hidden states by one pass of transformers, one sequence, rows of special tokens cut off by hand."""
    before, after = encoder.vocabulary.before, encoder.vocabulary.after
    special = [[] if one is None else [one] for one in (before, after)]
    ids = [*special[0], *encoder.vocabulary.ids(sequence).tolist(), *special[1]]
    encoder.model.set_attn_implementation("sdpa")
    states = encoder.model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    encoder.model.set_attn_implementation("isoheads_packed")
    return [state[0, len(special[0]) : len(ids) - len(special[1])].float() for state in states]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_sequence_is_bitwise_the_same_in_any_batch_and_close_to_a_plain_pass(
    name: str, threads: int, set_threads: Callable[[int], None]
) -> None:
    set_threads(threads)
    encoder, sequences = load_small(name), drawn()
    for sequence, together in zip(sequences, encoder.encode(sequences), strict=True):
        assert together.shape == (len(sequence), 96) == (encoder.spec.n_tokens(sequence), encoder.spec.width)
        assert np.array_equal(together, encoder.encode([sequence])[0])
        assert np.abs(together - plain_states(encoder, sequence)[-1].numpy()).max() < 1e-5 * np.abs(together).max()
    assert encoder.packing_error < 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_in_half_precision_rows_are_near_float32_and_do_not_depend_on_the_batch(name: str, dtype: Any) -> None:
    exact, half, sequences = load_small(name), load_small(name, dtype=dtype), drawn()
    ours, plain = [], []
    for sequence, want, got in zip(sequences, exact.encode(sequences), half.encode(sequences), strict=True):
        assert np.array_equal(got, half.encode([sequence])[0])
        ours.append(np.linalg.norm(got - want) / np.linalg.norm(want))
        plain.append(np.linalg.norm(plain_states(half, sequence)[-1].numpy() - want) / np.linalg.norm(want))
    assert max(ours) < {"bfloat16": 0.03, "float16": 0.005}[dtype]
    assert np.mean(ours) < 1.02 * np.mean(plain)


@pytest.mark.parametrize("name", NAMES)
def test_several_layers_of_one_pass_are_the_hidden_states_and_those_of_encoders_cut_there(name: str) -> None:
    encoder, sequences = load_small(name), drawn([40, 7, 90])
    found = encoder.encode_layers(sequences, [1, 2, -1])
    for layer in (1, 2):
        cut = load_small(name, layer=layer).encode(sequences)
        for sequence, got, want in zip(sequences, found[layer], cut, strict=True):
            assert np.array_equal(got, want)
            state = plain_states(encoder, sequence)[layer].numpy()
            assert np.abs(got - state).max() < 1e-5 * np.abs(state).max()
    assert all(map(np.array_equal, found[-1], encoder.encode(sequences)))


@pytest.mark.parametrize("name", NAMES)
def test_drawn_rows_show_the_residue_and_its_context(name: str) -> None:
    encoder = load_small(name)
    one, other = encoder.encode(["MKVLAAGW", "MKVWAAGW"])
    moved = np.linalg.norm(one - other, axis=1) / np.linalg.norm(one, axis=1)
    assert moved[3] > 0.5  # the residue that changed
    assert moved.min() > 0.01  # and all that see it
    assert np.linalg.norm(one[4] - one[5]) > 0.01 * np.linalg.norm(one[4])  # A is not A elsewhere
    assert not np.allclose(one, load_small(name, random_init=2).encode(["MKVLAAGW"])[0], atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_take_gradients_and_are_the_same_numbers(name: str) -> None:
    encoder, sequences = load_small(name), drawn([30, 90, 30])
    packed = encoder.encode_packed(sequences)
    for tensor, array in zip(packed.to_list(), encoder.encode(sequences), strict=True):
        assert np.allclose(tensor.detach().numpy(), array, rtol=0, atol=1e-5 * np.abs(array).max())
    packed.values.square().sum().backward()
    assert [name for name, parameter in encoder.model.named_parameters() if parameter.grad is None] == []


def test_residues_have_the_ids_of_the_published_vocabularies() -> None:
    # as the tokenizers of the published files give them, by public code that was tested against those
    assert ankh_ids("MKTAYIAKQRQISFVKSHF").tolist() == [
        19,
        14,
        11,
        3,
        18,
        12,
        3,
        14,
        16,
        8,
        16,
        12,
        7,
        15,
        6,
        14,
        7,
        20,
        15,
    ]
    assert ankh_ids("GSUZBOXJ").tolist() == [5, 7, 26, 27, 24, 25, 23, 2]
    assert prott5_ids("ALGVSREDTIPKFQNYMHWCX").tolist() == list(range(3, 24))
    assert prott5_ids("UZOBJX").tolist() == [23] * 6
    special = {name: (load_small(name).vocabulary.before, load_small(name).vocabulary.after) for name in NAMES[1:]}
    assert special == {"prott5-xl": (None, 1), "prostt5": (149, 1), "ankh-base": (None, 1)}


def test_the_bias_of_a_pack_is_that_of_each_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "QUERIES", 3)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(16, 2, 8, generator=generator) for _ in range(3))
    bias = torch.randn(2, 19, generator=generator)  # for up to 10 tokens
    got = attend_by_runs(q, k, v, [(7, 1), (4, 2), (1, 1)], 0.5, bias=bias)
    for start, stop in ((0, 7), (7, 11), (11, 15), (15, 16)):
        part, at = slice(start, stop), torch.arange(stop - start)
        added = bias[:, at[None] - at[:, None] + 9]  # key minus query
        scores = torch.einsum("qhd,khd->hqk", q[part], k[part]) * 0.5 + added
        assert torch.allclose(got[part], torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[part]), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_family_equals_an_implementation_from_its_description(name: str) -> None:
    encoder = load_small(name)
    with torch.no_grad():  # so that a norm or bias forgotten shows
        for parameter in encoder.model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.linspace(-0.3, 0.3, len(parameter)))
    forward = esmc_forward if name == "esmc-300m" else t5_forward
    for sequence in drawn():
        before, after = encoder.vocabulary.before, encoder.vocabulary.after
        ids = [*([] if before is None else [before]), *encoder.vocabulary.ids(sequence).tolist(), after]
        want = forward(dict(encoder.model.state_dict()), torch.tensor(ids))[:-1]
        assert torch.allclose(torch.from_numpy(encoder.encode([sequence])[0]), want[-len(sequence) :], atol=3e-5)


def esmc_forward(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """ESM C in complex rotations and full attention maps: (T,) to (T, D)."""
    x, length, d, scale = weights["embed_tokens.weight"][ids], len(ids), 24, (3 / 36) ** 0.5
    angle = torch.arange(length)[:, None] * 10000.0 ** (-torch.arange(0, d, 2) / d)
    turn = torch.polar(torch.ones_like(angle), angle)

    def norm(y: Tensor, at: str) -> Tensor:
        return F.layer_norm(y, (96,), weights[f"{at}.weight"], weights.get(f"{at}.bias"), 1e-5)

    def heads(y: Tensor) -> Tensor:
        return y.view(length, 4, d).transpose(0, 1)

    def rotated(y: Tensor) -> Tensor:  # component j is paired with j + d / 2
        z = torch.complex(*y.chunk(2, dim=-1)) * turn
        return torch.cat([z.real, z.imag], dim=-1)

    for i in range(3):
        at = f"layers.{i}"
        y = norm(x, f"{at}.input_layernorm")
        q, k, v = (y @ weights[f"{at}.self_attn.{n}_proj.weight"].T for n in "qkv")
        q, k = (rotated(heads(norm(z, f"{at}.self_attn.{n}_norm"))) for z, n in ((q, "q"), (k, "k")))
        seen = ((q @ k.transpose(1, 2) / d**0.5).softmax(-1) @ heads(v)).transpose(0, 1).reshape(length, 96)
        x = x + seen @ weights[f"{at}.self_attn.o_proj.weight"].T / scale
        y = norm(x, f"{at}.post_attention_layernorm")
        gate, up = (y @ weights[f"{at}.mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x = x + (gate * gate.sigmoid() * up) @ weights[f"{at}.mlp.down_proj.weight"].T / scale
    return norm(x, "norm")


def t5_forward(weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The encoder of T5 with the distance of each pair in a bucket of its own making: (T,) to (T, D)."""
    x, length = weights["embed_tokens.weight"][ids], len(ids)
    table = weights["block.0.layer.0.SelfAttention.relative_attention_bias.weight"]  # (buckets, heads)
    half = len(table) // 2
    bucket = [[bucket_of(key - query, half) for key in range(length)] for query in range(length)]
    bias = table[torch.tensor(bucket)].permute(2, 0, 1)

    def norm(y: Tensor, at: str) -> Tensor:
        return weights[f"{at}.weight"] * y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    for i in range(3):
        at = f"block.{i}.layer.0"
        y = norm(x, f"{at}.layer_norm")
        q, k, v = ((y @ weights[f"{at}.SelfAttention.{n}.weight"].T).view(length, 4, -1).transpose(0, 1) for n in "qkv")
        seen = ((q @ k.transpose(1, 2) + bias).softmax(-1) @ v).transpose(0, 1).reshape(length, -1)
        x = x + seen @ weights[f"{at}.SelfAttention.o.weight"].T
        at = f"block.{i}.layer.1"
        y = norm(x, f"{at}.layer_norm")
        wi = [
            weights[f"{at}.DenseReluDense.{n}.weight"]
            for n in ("wi", "wi_0", "wi_1")
            if f"{at}.DenseReluDense.{n}.weight" in weights
        ]
        if len(wi) == 1:
            inner = (y @ wi[0].T).clamp(min=0)
        else:
            g = y @ wi[0].T
            inner = 0.5 * g * (1 + torch.tanh((2 / np.pi) ** 0.5 * (g + 0.044715 * g**3))) * (y @ wi[1].T)
        x = x + inner @ weights[f"{at}.DenseReluDense.wo.weight"].T
    return norm(x, "final_layer_norm")


def bucket_of(distance: int, half: int) -> int:
    """T5's bucket: exact up to a quarter of all buckets, then by the logarithm up to 128, apart for what lies ahead."""
    exact, size = half // 2, abs(distance)
    if size >= exact:
        size = min(
            exact + int(np.float32(np.log(np.float32(size / exact)) / np.log(128 / exact) * (half - exact))), half - 1
        )
    return size + (half if distance > 0 else 0)


def test_numbers_that_float16_cannot_hold_are_an_error_not_clamped() -> None:
    encoder = load_small("ankh-base", dtype="float16")
    with torch.no_grad():
        encoder.model.block[1].layer[1].DenseReluDense.wi_0.weight.mul_(1e3)
        encoder.model.block[1].layer[1].DenseReluDense.wi_1.weight.mul_(1e3)
    with pytest.raises(EmbedCacheError, match=r"not finite .* in float16\. Compute in float32 or bfloat16"):
        encoder.encode(["MKVLAAGW"])


def test_large_sizes_have_the_shape_of_their_names() -> None:
    for name, billions in (("esm2-15b", 15.0), ("esmc-6b", 6.3), ("prott5-xl", 1.2), ("ankh-large", 1.2)):
        spec = encoder_spec(name, "protein", random_init=0)
        width, of = spec.width, spec.architecture
        attended = of.get("key_dim", width // of["heads"]) * of["heads"]
        matrices = 3 if of.get("activation") == "gated-gelu" or name.startswith("esmc") else 2
        count = of["layers"] * (4 * width * attended + matrices * width * of["feed_forward"])
        assert abs(count / 1e9 - billions) < 0.05 * billions, name
