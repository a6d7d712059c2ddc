"""Several layers from one pass, each bit for bit what an encoder of that layer alone gives."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_encoders import FAMILIES, load_small, sequences_for
from test_registry import Composition

from embedcache.encoders import registry, weights
from embedcache.encoders.cards import CARDS, EncoderCard
from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.registry import encoder_spec, layer_specs, load_encoder, load_layers, register_encoder
from embedcache.encoders.spec import LayeredEncoder
from embedcache.errors import InvalidSettingError


def load_small_layers(name: str, layers: Sequence[int], **options: Any) -> PackedEncoder:
    register_encoder(FAMILIES[name])
    loaded = load_layers(name, "protein" if "esm" in name else "rna", layers, **{"random_init": 1, **options})
    assert isinstance(loaded, PackedEncoder)
    return loaded


@pytest.mark.parametrize("layers", [[1, 2, -1], [2, 1], [1], [-1]], ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_layer_of_several_equals_the_encoder_of_that_layer(name: str, layers: list[int]) -> None:
    together = load_small_layers(name, layers)
    sequences = sequences_for(together)
    found = together.encode_layers(sequences, layers)
    assert list(found) == layers
    for layer in layers:
        single = load_small(name, layer=layer)
        for one, other in zip(found[layer], single.encode(sequences), strict=True):
            assert np.array_equal(one, other)
    assert together.encode_layers([], layers) == {layer: [] for layer in layers}


def test_one_pass_runs_each_block_once_and_none_behind_the_deepest_layer() -> None:
    encoder = load_small_layers("test-esm2", [1, 2])
    assert len(encoder.model.encoder.layer) == 2 and encoder.spec.layer == 2
    calls: list[int] = []
    for number, block in enumerate(encoder.model.encoder.layer, 1):
        block.LayerNorm.register_forward_hook(lambda *_, number=number: calls.append(number))
    encoder.encode_layers(["MKV", "MKVL"], [1, 2])
    assert calls == [1, 2]


def test_specs_are_those_of_the_single_layers_under_whatever_number() -> None:
    spec = encoder_spec("esm2-8m", "protein", random_init=0)
    found = layer_specs("esm2-8m", spec, [3, -3, 6, -1, 1])
    assert [one.layer for one in found] == [3, 4, -1, 1]
    assert found == [encoder_spec("esm2-8m", "protein", random_init=0, layer=n) for n in (3, 4, 6, 1)]
    assert len({one.digest for one in found}) == 4


def test_layers_that_are_not_there_are_refused() -> None:
    spec = encoder_spec("esm2-8m", "protein", random_init=0)
    with pytest.raises(InvalidSettingError, match=r"esm2-8m has no layer 7\. Give 1 to 6, or -1"):
        layer_specs("esm2-8m", spec, [7])
    with pytest.raises(InvalidSettingError, match=r"No layer of esm2-8m is asked for\. Give 1 to 6"):
        layer_specs("esm2-8m", spec, [])
    up_to_two = load_small_layers("test-esm2", [2])
    for layer in (3, -1, 0):
        with pytest.raises(InvalidSettingError, match=rf"gives no layer {layer}\. Ask for 1 to 1 or 2\."):
            up_to_two.encode_layers(["MKV"], [layer])
    with pytest.raises(InvalidSettingError, match=r"gives no layer 3\. Ask for 1 to 2 or -1\."):
        load_small("test-esm2").encode_layers(["MKV"], [3])  # the third is the last: -1, behind its normalisation


def test_enformer_gives_its_last_layer_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"key_dim": 8, "divisor": 6, "gamma": "position"}
    small = replace(CARDS["enformer"], width=48, layers=1, feed_forward=48, heads=4, settings=settings)
    monkeypatch.setattr(registry, "CARDS", CARDS | {"enformer": small})
    encoder = load_layers("enformer", "dna", [-1, 1], random_init=0)
    sequence = "ACGT" * 100
    (rows,) = encoder.encode_layers([sequence], [-1])[-1]
    assert np.array_equal(rows, encoder.encode([sequence])[0])
    with pytest.raises(InvalidSettingError, match=r"gives no layer 1\. Ask for -1 only"):
        encoder.encode_layers([sequence], [1])
    with pytest.raises(InvalidSettingError, match="gives its last layer only, not 2"):
        load_layers("enformer", "dna", [2, -1], random_init=0)


def test_a_plug_in_with_encode_alone_serves_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", dict(CARDS))
    mine = replace(CARDS["tiny-random-dna"], name="one-hot", width=4, tokens="letter", layers=3)
    register_encoder(mine, lambda spec, weights, device: Composition(spec))
    encoder: LayeredEncoder = load_layers("one-hot", "dna", [2])
    assert encoder.spec == load_encoder("one-hot", "dna", layer=2).spec
    assert encoder.encode_layers(["AC"], [2])[2][0].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    with pytest.raises(InvalidSettingError, match="gives one layer a pass, not 2"):
        load_layers("one-hot", "dna", [1, 2])


def test_files_are_read_and_hashed_once_and_say_how_many_layers_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "CARDS", dict(CARDS))
    guessed: EncoderCard = replace(FAMILIES["test-nt-v1"], name="guessed", layers=2, from_memory=True)
    register_encoder(guessed)
    drawn = load_small("test-nt-v1")
    torch.save(
        {f"esm.{name}": value for name, value in drawn.model.state_dict().items()}, tmp_path / "pytorch_model.bin"
    )
    drawn.model.config.save_pretrained(tmp_path)
    reads: list[str] = []
    monkeypatch.setattr(weights, "weights_digest", lambda tensors: reads.append("") or weights_digest(tensors))
    found = load_layers("guessed", "rna", [2, 3], weights=tmp_path)
    assert len(reads) == 1
    specs = layer_specs("guessed", found.spec, [2, 3])
    assert [spec.layer for spec in specs] == [2, -1]  # the card says that 2 is the last
    assert specs[0] == encoder_spec("guessed", "rna", weights=tmp_path, layer=2)
    got = found.encode_layers(["ACGT" * 40], [2, -1])
    assert np.array_equal(got[-1][0], drawn.encode(["ACGT" * 40])[0])
    assert np.array_equal(got[2][0], load_small("test-nt-v1", layer=2).encode(["ACGT" * 40])[0])


weights_digest = weights.weights_digest
