"""Borzoi and Flashzoi: bins of windows of any length, keys of the published files, drawn weights, training."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embedcache.build import build_cache
from embedcache.encoders import registry
from embedcache.encoders.bins import BinEncoder
from embedcache.encoders.borzoi import Borzoi, offset_features
from embedcache.encoders.cards import CARDS, EncoderCard
from embedcache.encoders.cards.borzoi import BORZOI, FLASHZOI, with_final
from embedcache.encoders.registry import encoder_spec, load_encoder
from embedcache.errors import InvalidInputError, InvalidSequenceError
from embedcache.sequences import SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore


def narrow(card: EncoderCard) -> EncoderCard:
    """The same network, small enough for a test."""
    sizes = {"dim": 48, "channels": [16, 20, 24, 28, 32, 40], "key_dim": 8, "value_dim": 12, "rotary_dim": 8}
    settings = {name: sizes.get(name, value) for name, value in card.settings.items()} | {"key_value_heads": 2}
    return replace(card, width=48, layers=2, heads=4, feed_forward=96, settings=settings)


SMALL = {card.name: card for card in (narrow(BORZOI), narrow(FLASHZOI))}
SMALL |= {card.name: replace(card, width=60) for card in map(with_final, SMALL.values())}
BOTH = pytest.mark.parametrize("name", ["borzoi", "flashzoi"])
ALL = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(autouse=True)
def small_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS | SMALL)


def load(name: str, **options: object) -> BinEncoder:
    encoder = load_encoder(name, "dna", **{"random_init": 0, **options})  # type: ignore[arg-type]
    assert isinstance(encoder, BinEncoder)
    return encoder


def window(letters: int, alphabet: str = "ACGT") -> str:
    return "".join(random.Random(letters).choices(alphabet, k=letters))


@ALL
def test_one_row_a_bin_and_the_same_alone_and_among_others(name: str) -> None:
    encoder = load(name)
    windows = [window(n, "ACGTN") for n in (1, 31, 32, 33, 128, 129, 1300, 2048, 60)]  # long before short, too
    together = encoder.encode(windows)
    for sequence, rows in zip(windows, together, strict=True):
        assert rows.shape == (encoder.spec.n_tokens(sequence), SMALL[name].width)
        assert len(rows) == -(-len(sequence) // 32)
        assert np.array_equal(rows, encoder.encode([sequence])[0])
    assert encoder.encode([]) == []
    assert encoder.spec.attention == "single"


@BOTH
def test_a_window_is_padded_with_n_to_whole_bins_of_the_deepest_layer(name: str) -> None:
    encoder = load(name)
    (rows,) = encoder.encode([window(1000)])
    (padded,) = encoder.encode([window(1000) + 24 * "N"])
    assert np.array_equal(rows, padded)
    (short,) = encoder.encode([window(900)])
    (longer,) = encoder.encode([window(900) + 124 * "N"])
    assert (len(short), len(longer)) == (29, 32)
    assert np.array_equal(short, longer[:29])
    assert encoder.spec.architecture["multiple_bp"] == 128


@ALL
def test_drawn_weights_tell_bins_and_windows_apart(name: str) -> None:
    (rows,) = load(name).encode([window(4096)])
    assert rows.std(0).mean() > 0.4 * rows.std()
    (again,), (other,) = load(name).encode([window(4096)]), load(name, random_init=1).encode([window(4096)])
    assert np.array_equal(rows, again)
    assert not np.allclose(rows, other, atol=0.1)


@BOTH
def test_both_sides_of_a_bin_are_seen_and_told_apart(name: str) -> None:
    encoder = load(name)
    half = window(2048)
    (plain,) = encoder.encode([half + half[:1024]])
    (swapped,) = encoder.encode([half[:1024] + half])
    assert not np.allclose(plain[40], swapped[40], atol=1e-3)
    mutated = half[:-1] + ("A" if half[-1] != "A" else "C")
    (before,), (after,) = encoder.encode([half]), encoder.encode([mutated])
    assert not np.array_equal(before[0], after[0])  # 63 bins away


def test_features_of_an_offset_do_not_depend_on_the_window() -> None:
    short, long = (offset_features(bins, device=torch.device("cpu")) for bins in (7, 4096))
    assert torch.equal(short, long[4096 - 7 : 4096 + 6])
    inside, signed = long.chunk(2, dim=1)
    assert torch.equal(inside, inside.flip(0))
    assert torch.equal(signed, -signed.flip(0))
    # the masks as the original writes them: powers of one rate in float32
    rate = torch.tensor(4097.0).log().div(16).exp()
    widths = rate ** torch.arange(1, 17) - 1
    assert torch.equal(inside[4095:], (widths > torch.arange(4096)[:, None]).float())


def test_the_published_size_has_the_published_names() -> None:
    with torch.device("meta"):
        borzoi = Borzoi(encoder_spec("borzoi-replicate-0-final", "dna", random_init=0)).state_dict()
        flashzoi = Borzoi(encoder_spec("flashzoi-replicate-3", "dna", random_init=0)).state_dict()
    shapes = {
        "conv_dna.conv_layer.weight": (512, 4, 15),
        "res_tower.8.conv_layer.weight": (1280, 1056, 5),
        "res_tower.2.norm.running_var": (608,),
        "unet1.1.norm.num_batches_tracked": (),
        "horizontal_conv0.conv_layer.weight": (1536, 1280, 1),
        "transformer.7.0.fn.0.weight": (1536,),
        "transformer.7.0.fn.1.to_v.weight": (1536, 1536),
        "transformer.7.0.fn.1.to_rel_k.weight": (512, 32),
        "transformer.0.0.fn.1.rel_pos_bias": (1, 8, 1, 64),
        "transformer.0.1.fn.4.weight": (1536, 3072),
        "upsampling_unet0.0.conv_layer.weight": (1536, 1536, 1),
        "separable1.conv_layer.0.weight": (1536, 1, 3),
        "separable0.conv_layer.1.bias": (1536,),
        "final_joined_convs.0.conv_layer.weight": (1920, 1536, 1),
    }
    assert {name: tuple(borzoi[name].shape) for name in shapes} == shapes
    assert tuple(flashzoi["transformer.0.0.fn.1.mha.Wqkv.weight"].shape) == (3072, 1536)
    assert "transformer.0.0.fn.1.mha.out_proj.bias" in flashzoi
    assert not [name for name in flashzoi if "final_joined_convs" in name]


def write(folder: Path, name: str, state: dict[str, torch.Tensor], **config: object) -> None:
    settings = {"model_type": "borzoi", "flashed": name.startswith("flash"), "dim": 48, "depth": 2, "heads": 4}
    (folder / "config.json").write_text(json.dumps(settings | {"attn_dim_key": 8, "attn_dim_value": 12} | config))
    torch.save(state, folder / "pytorch_model.bin")


@ALL
def test_published_files_are_loaded_strictly(name: str, tmp_path: Path) -> None:
    drawn = load(name, random_init=5)
    heads = {"human_head.weight": torch.zeros(3), "mouse_head.bias": torch.zeros(2)}
    final = {} if name.endswith("final") else {"final_joined_convs.0.norm.weight": torch.zeros(4)}
    state = drawn.model.state_dict()
    write(tmp_path, name, state | heads | final)
    loaded = load(name, random_init=None, weights=tmp_path)
    assert loaded.spec.weights.startswith("blake2b:")
    assert np.array_equal(loaded.encode([window(700)])[0], drawn.encode([window(700)])[0])
    write(tmp_path, name, state | {"separable2.conv_layer.1.bias": torch.zeros(3)})
    with pytest.raises(InvalidInputError, match=r"separable2\.conv_layer\.1\.bias is unknown"):
        load(name, random_init=None, weights=tmp_path)
    del state["res_tower.0.norm.running_var"]
    write(tmp_path, name, state)
    with pytest.raises(InvalidInputError, match=r"res_tower\.0\.norm\.running_var is missing"):
        load(name, random_init=None, weights=tmp_path)


def test_files_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "flashzoi", load("flashzoi").model.state_dict())
    with pytest.raises(InvalidInputError, match="not that of borzoi: flashed is True, expected False"):
        load("borzoi", random_init=None, weights=tmp_path)


@ALL
def test_training_never_moves_batch_statistics_and_reaches_every_parameter(name: str) -> None:
    encoder = load(name)
    encoder.encode([window(512)])  # fills the caches of positions in inference mode
    before = {key: value.clone() for key, value in encoder.model.named_buffers()}
    encoder.model.train()
    packed = encoder.encode_packed([window(512), window(300)])
    assert packed.lengths.tolist() == [16, 10]
    packed.values.square().mean().backward()
    assert [key for key, parameter in encoder.model.named_parameters() if parameter.grad is None] == []
    assert all(torch.equal(value, before[key]) for key, value in encoder.model.named_buffers())


@ALL
@pytest.mark.parametrize(("dtype", "least"), [("bfloat16", 0.997), ("float16", 0.9998)])
def test_half_precision_is_close(name: str, dtype: str, least: float) -> None:
    (exact,), (rounded,) = load(name).encode([window(3000)]), load(name, dtype=dtype).encode([window(3000)])
    cosine = (exact * rounded).sum() / np.linalg.norm(exact) / np.linalg.norm(rounded)
    assert cosine > least
    assert not np.array_equal(exact, rounded)


def test_the_limit_is_524288_bp_and_what_is_beyond_is_cropped_or_refused_by_rule() -> None:
    spec = encoder_spec("borzoi-replicate-0", "dna", random_init=0)
    longest = "ACGT" * 131_072
    assert spec.cropped(longest) == longest
    assert spec.n_tokens(longest) == 16_384
    assert spec.crop == "center"
    assert spec.cropped("G" * 640 + longest + "T" * 640) == longest
    strict = encoder_spec("borzoi-replicate-0", "dna", random_init=0, crop="error")
    with pytest.raises(InvalidSequenceError, match="524289 letters are 16385 tokens"):
        strict.cropped(longest + "A")
    with pytest.raises(InvalidInputError, match=r"cannot take 16385 tokens\. Give 1 to 16384"):
        encoder_spec("borzoi-replicate-0", "dna", random_init=0, max_tokens=16_385)


@ALL
def test_a_store_holds_the_rows_of_each_window_alone(name: str, tmp_path: Path) -> None:
    encoder = load(name, store_dtype="float32", max_tokens=40, crop="center")
    windows = [window(n, "ACGTN") for n in (700, 64, 1280, 5000)]  # the last is over the limit
    build_cache([SequenceRecord(str(i), one, "dna") for i, one in enumerate(windows)], encoder, tmp_path)
    store = EmbeddingStore(tmp_path)
    for one in windows:
        middle = len(one) // 2
        (alone,) = encoder.encode([one if len(one) <= 1280 else one[middle - 640 : middle + 640]])
        assert np.array_equal(store[sequence_key(one, "dna")], alone)
        assert len(encoder.spec.spans(one)) == len(alone)
