"""Enformer: its parts against their descriptions, its bins, its keys and its drawn weights."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from embedcache.encoders import registry
from embedcache.encoders.bins import BinEncoder, one_hot
from embedcache.encoders.cards import CARDS
from embedcache.encoders.enformer import Enformer, position_features
from embedcache.encoders.registry import encoder_spec, load_encoder
from embedcache.encoders.relative import relative_shift
from embedcache.errors import InvalidInputError

SMALL = replace(
    CARDS["enformer"],
    width=192,
    layers=2,
    feed_forward=192,
    settings={"key_dim": 8, "divisor": 6, "gamma": "position"},
    heads=4,
    config={"dim": 96, "depth": 2, "heads": 4},
)
CONFIG = {"dim": 96, "depth": 2, "heads": 4, "target_length": 896}


@pytest.fixture(autouse=True)
def small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS | {"enformer": SMALL})


def load(**options: object) -> BinEncoder:
    encoder = load_encoder("enformer", "dna", **{"random_init": 0, **options})  # type: ignore[arg-type]
    assert isinstance(encoder, BinEncoder)
    return encoder


def window(letters: int, alphabet: str = "ACGT") -> str:
    return "".join(random.Random(letters).choices(alphabet, k=letters))


def test_one_row_a_bin_and_the_same_alone_and_among_others() -> None:
    encoder = load()
    windows = [window(n, "ACGTN") for n in (1, 100, 128, 129, 1300, 2048)]
    together = encoder.encode(windows)
    for sequence, rows in zip(windows, together, strict=True):
        assert rows.shape == (encoder.spec.n_tokens(sequence), 192) == (-(-len(sequence) // 128), 192)
        assert rows.dtype == np.float32
        assert np.array_equal(rows, encoder.encode([sequence])[0])
    assert encoder.encode([]) == []
    assert encoder.spec.attention == "single"


def test_drawn_weights_tell_bins_and_windows_apart() -> None:
    (rows,) = load().encode([window(4096)])
    assert rows.std(0).mean() > 0.2 * rows.std()  # without calibration about 0.02
    (again,) = load().encode([window(4096)])
    (other,) = load(random_init=1).encode([window(4096)])
    assert np.array_equal(rows, again)
    assert not np.allclose(rows, other, atol=0.1)


def test_letters_are_columns_and_n_is_zeros() -> None:
    assert one_hot("ACGTN").tolist() == [*np.eye(4).tolist(), [0, 0, 0, 0]]


def test_the_shift_turns_offsets_into_pairs() -> None:
    n = 7
    scores = torch.randn(2, 3, n, 2 * n - 1, generator=torch.Generator().manual_seed(0))
    shifted = relative_shift(scores)
    for i in range(n):
        for j in range(n):
            assert torch.equal(shifted[:, :, i, j], scores[:, :, i, j - i + n - 1])


def test_position_features_are_symmetric_and_gamma_peaks_at_one_over_positions() -> None:
    bins, count = 96, 32
    features = position_features(bins, 6 * count, torch.device("cpu"))
    half, signed = features.chunk(2, dim=1)
    assert torch.equal(half, half.flip(0))
    assert torch.equal(signed, -signed.flip(0))
    gamma = half[:, 2 * count :]
    assert torch.equal(gamma.amax(0), torch.ones(count))  # every feature has its peak; not every position
    assert gamma[bins - 1].max() < 1e-3  # at distance 0 the densities are next to nothing
    peaks = (gamma[bins - 1 :].argmax(0)).float()
    assert (peaks.diff() >= 0).all()
    central = half[bins - 1 :, count]
    assert central.tolist() == [1.0] + [0.0] * (bins - 1)


def test_the_other_rule_divides_gamma_features_by_their_maximum_at_an_offset() -> None:
    ours, theirs = (position_features(96, 192, torch.device("cpu"), rule) for rule in ("position", "features"))
    is_gamma = torch.arange(192) % 96 >= 64
    assert torch.equal(ours[:, ~is_gamma], theirs[:, ~is_gamma])
    gamma = theirs[:, 64:96]
    assert torch.equal(gamma.amax(1), torch.ones(191))
    assert torch.equal(gamma[95], torch.ones(32))  # the sharpest difference: at distance 0 all are 1, not next to 0


def test_weights_say_by_which_rule_they_were_tuned(tmp_path: Path) -> None:
    drawn = load(random_init=5)
    torch.save(dict(drawn.model.state_dict()), tmp_path / "pytorch_model.bin")

    def rows(config: dict[str, object]) -> np.ndarray:
        (tmp_path / "config.json").write_text(json.dumps(CONFIG | config))
        encoder = load(random_init=None, weights=tmp_path)
        assert encoder.spec.architecture["gamma"] == config.get("gamma", "position")
        return encoder.encode([window(2048)])[0]

    published = rows({})
    assert np.array_equal(published, rows({"gamma": "position"}))
    assert np.abs(published - rows({"gamma": "features"})).max() > 0.01 * np.abs(published).max()
    for unknown in ("feature", 1):
        with pytest.raises(InvalidInputError, match=r"config\.json says gamma .* Give one of: position, features"):
            rows({"gamma": unknown})


def test_the_published_size_has_the_published_number_of_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS)
    with torch.device("meta"):
        model = Enformer(encoder_spec("enformer", "dna", random_init=0))
    assert sum(parameter.numel() for parameter in model.parameters()) == 229_845_504
    keys = set(model.state_dict())
    assert {
        "stem.0.weight",
        "stem.1.fn.0.running_mean",
        "stem.2.to_attn_logits.weight",
        "conv_tower.5.1.fn.2.bias",
        "transformer.10.0.fn.1.rel_content_bias",
        "transformer.10.1.fn.4.weight",
        "final_pointwise.1.2.weight",
    } <= keys


def test_published_files_are_loaded_strictly(tmp_path: Path) -> None:
    drawn = load(random_init=5)
    state = dict(drawn.model.state_dict())
    unused = {"_trunk.0.0.weight": state["stem.0.weight"], "_heads.human.0.weight": torch.zeros(3)}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    torch.save(state | unused, tmp_path / "pytorch_model.bin")
    loaded = load(random_init=None, weights=tmp_path)
    assert loaded.spec.weights.startswith("blake2b:")
    assert np.array_equal(loaded.encode([window(700)])[0], drawn.encode([window(700)])[0])
    del state["stem.1.fn.0.running_var"]
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidInputError, match=r"stem\.1\.fn\.0\.running_var is missing"):
        load(random_init=None, weights=tmp_path)


def test_training_never_moves_batch_statistics_and_reaches_every_parameter() -> None:
    encoder = load()
    encoder.encode([window(512)])  # fills the cache of position features in inference mode
    before = {name: value.clone() for name, value in encoder.model.named_buffers()}
    encoder.model.train()
    packed = encoder.encode_packed([window(512), window(300)])
    assert packed.lengths.tolist() == [4, 3]
    packed.values.square().mean().backward()
    assert [name for name, parameter in encoder.model.named_parameters() if parameter.grad is None] == []
    assert all(torch.equal(value, before[name]) for name, value in encoder.model.named_buffers())


def test_only_the_last_layer_can_be_had() -> None:
    with pytest.raises(InvalidInputError, match="gives its last layer only"):
        encoder_spec("enformer", "dna", random_init=0, layer=1)


@pytest.mark.parametrize("most", [1, 4, 5, 9])
@pytest.mark.parametrize("bins", [1, 4, 5, 8, 9, 10])
def test_the_bins_in_the_middle_can_be_kept_alone(bins: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = f"bins-128-center-{most}"
    monkeypatch.setattr(registry, "CARDS", CARDS | {"enformer": SMALL, "middle": replace(SMALL, tokens=rule)})
    sequence = window(bins * 128)
    (rows,) = load().encode([sequence])
    middle = load_encoder("middle", "dna", random_init=0)
    (kept,) = middle.encode([sequence])
    first = max(0, bins // 2 - most // 2) if most < bins else 0
    assert np.array_equal(kept, rows[first : first + most])
    assert len(kept) == min(bins, most) == middle.spec.n_tokens(sequence)
    spans = middle.spec.spans(sequence)
    assert spans.tolist() == [[128 * i, min(128 * i + 128, len(sequence))] for i in range(first, first + len(kept))]
    if most < bins:
        assert spans[most // 2, 0] <= len(sequence) // 2 < spans[most // 2, 1]  # the TSS of a centred window
        assert middle.spec.digest != load().spec.digest


def test_the_middle_of_a_published_window_is_a_card_and_has_no_windows() -> None:
    spec = encoder_spec("enformer-896", "dna", random_init=0)
    assert [spec.n_tokens("A" * letters) for letters in (12_288, 196_608)] == [96, 896]
    assert spec.spans("A" * 196_608)[[0, -1]].tolist() == [[320 * 128, 321 * 128], [1215 * 128, 1216 * 128]]
    with pytest.raises(InvalidInputError, match=r"keeps the centre .* windows cannot be stitched"):
        encoder_spec("enformer-896", "dna", random_init=0, crop="windows", max_tokens=100)


@pytest.mark.parametrize("letters", [12_288, 196_608])
def test_windows_of_the_application_are_embedded_whole(letters: int) -> None:
    encoder = load()
    sequence = window(letters)
    (rows,) = encoder.encode([sequence])
    assert rows.shape == (letters // 128, 192)
    (changed,) = encoder.encode(["G" * 128 + sequence[128:]])
    assert not np.array_equal(rows[-1], changed[-1])  # the last bin sees the first
