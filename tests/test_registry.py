"""Names, cards and specs; and that none of them needs torch."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedcache.encoders.registry import (
    CARDS,
    PAPER_ENCODERS,
    TINY_ENCODERS,
    card,
    encoder_spec,
    load_encoder,
    register_encoder,
)
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import count_tokens
from embedcache.errors import InvalidInputError, UnknownNameError
from embedcache.sequences import MODALITIES, Modality


def test_specs_of_drawn_encoders_need_neither_torch_nor_transformers() -> None:
    code = (
        "import sys\n"
        "from embedcache.encoders import registry, spec, tokens\n"
        "registry.encoder_spec('tiny-random-dna', 'dna')\n"
        "registry.encoder_spec('nt-v2-250m', 'rna', random_init=3)\n"
        "slow = {'torch', 'transformers', 'huggingface_hub', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(f'imported {slow}' if slow else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CARDS)
def test_every_card_is_complete(name: str) -> None:
    found = card(name)
    assert found.name == name
    assert found.width > 0
    assert found.layers > 0
    assert found.weights or found.repository or found.bundled
    assert found.licence
    assert found.width % (2 * max(1, found.heads)) == 0  # rotary positions turn pairs
    assert ":" in found.loader
    assert count_tokens("ACGT", found.tokens) > 0
    for modality in found.modalities:
        if found.settings.get("pieces"):  # its vocabulary is in the files, also for drawn weights
            continue
        spec = encoder_spec(name, modality, random_init=0)
        assert EncoderSpec.from_json(spec.to_json()) == spec
        assert spec.is_random
        assert "random" in spec.name


@pytest.mark.parametrize("modality", MODALITIES)
def test_defaults_exist_and_read_their_modality(modality: Modality) -> None:
    assert modality in card(PAPER_ENCODERS[modality]).modalities
    assert modality in card(TINY_ENCODERS[modality]).modalities
    assert encoder_spec(TINY_ENCODERS[modality], modality).weights == "seed:0"


def test_what_the_user_chooses_is_in_the_spec_and_its_digest() -> None:
    plain = encoder_spec("nt-v2-50m", "rna", random_init=7)
    assert (plain.name, plain.weights, plain.model_id) == ("nt-v2-50m-random7", "seed:7", "random")
    assert (plain.max_tokens, plain.crop, plain.layer) == (2047, "keep-3-prime", -1)
    assert plain.architecture == {"layers": 12, "heads": 16, "feed_forward": 2048, "layer_norm_eps": 1e-12}
    others = [
        encoder_spec("nt-v2-50m", "rna", random_init=8),
        encoder_spec("nt-v2-50m", "dna", random_init=7),
        encoder_spec("nt-v2-100m", "rna", random_init=7),
        encoder_spec("nt-v2-50m", "rna", random_init=7, dtype="bfloat16"),
        encoder_spec("nt-v2-50m", "rna", random_init=7, store_dtype="float32"),
        encoder_spec("nt-v2-50m", "rna", random_init=7, crop="center"),
        encoder_spec("nt-v2-50m", "rna", random_init=7, max_tokens=100),
        encoder_spec("nt-v2-50m", "rna", random_init=7, layer=6),
    ]
    assert len({spec.digest for spec in [plain, *others]}) == 1 + len(others)


def test_two_ways_to_say_one_thing_are_one_store() -> None:
    assert encoder_spec("nt-v2-50m", "rna", random_init=0, layer=12) == encoder_spec("nt-v2-50m", "rna", random_init=0)
    assert encoder_spec("nt-v2-50m", "dna", random_init=0, layer=-2).layer == 11
    tiny = encoder_spec("tiny-random-rna", "rna")
    assert encoder_spec("tiny-random-rna", "rna", crop="center") == tiny  # no limit: nothing to crop
    assert encoder_spec("tiny-random-rna", "rna", random_init=0) == tiny
    assert encoder_spec("tiny-random-rna", "rna", random_init=4).name == "tiny-random-rna-seed4"


def test_a_dna_window_of_2048_tokens_loses_one_and_too_long_protein_is_an_error() -> None:
    spec = encoder_spec("nt-v2-250m", "dna", random_init=0)
    assert len(spec.cropped("ACGTTA" * 2048)) == 12_282
    short = encoder_spec("esm2-8m", "protein", random_init=0, max_tokens=10)
    with pytest.raises(ValueError, match="11 letters are 11 tokens"):
        short.cropped("M" * 11)
    assert encoder_spec("esm2-8m", "protein", random_init=0).cropped("M" * 5000) == "M" * 5000


def test_wrong_names_and_settings_say_what_is_right() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'esm2-150m'"):
        card("esm2-15om")
    with pytest.raises(InvalidInputError, match=r"esm2-8m reads protein, not rna\. Choose one of: nt-v2-50m"):
        encoder_spec("esm2-8m", "rna", random_init=0)
    with pytest.raises(InvalidInputError, match=r"cannot take 5000 tokens\. Give 1 to 2047"):
        encoder_spec("nt-v2-50m", "rna", random_init=0, max_tokens=5000)
    with pytest.raises(InvalidInputError, match=r"has no layer 13\. Give 1 to 12, or -1"):
        encoder_spec("nt-v2-50m", "rna", random_init=0, layer=13)
    with pytest.raises(InvalidInputError, match="takes no files"):
        encoder_spec("nt-v2-50m", "rna", random_init=0, weights=Path("somewhere"))
    with pytest.raises(InvalidInputError, match="Seed -1"):
        encoder_spec("nt-v2-50m", "rna", random_init=-1)
    with pytest.raises(UnknownNameError, match="Did you mean 'bfloat16'"):
        encoder_spec("nt-v2-50m", "rna", random_init=0, dtype="bfloat")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match=r"modality 'proteins'\. Did you mean 'protein'"):
        encoder_spec("esm2-8m", "proteins", random_init=0)  # type: ignore[arg-type]


def test_a_spec_made_without_loading_is_that_of_the_loaded_encoder() -> None:
    for modality, name in TINY_ENCODERS.items():
        assert load_encoder(name, modality, max_tokens=9).spec == encoder_spec(name, modality, max_tokens=9)


@dataclass
class Composition:
    """A plug-in: which of four letters stands there."""

    spec: EncoderSpec

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        return [np.array([[x == y for y in "ACGT"] for x in one], np.float32) for one in sequences]


@pytest.mark.parametrize("loader", ["nowhere:load", "embedcache.encoders.esm:lode", "embedcache.encoders.esm"])
def test_a_loader_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, loader: str) -> None:
    monkeypatch.setattr("embedcache.encoders.registry.CARDS", dict(CARDS))
    register_encoder(replace(card("tiny-random-dna"), name="lost", loader=loader))
    with pytest.raises(InvalidInputError, match=f"'{loader}' from the card of lost cannot be imported.*PYTHONPATH"):
        load_encoder("lost", "dna")


def test_a_plug_in_needs_a_card_and_one_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.encoders.registry.CARDS", dict(CARDS))
    mine = replace(card("tiny-random-dna"), name="one-hot", adapter="one-hot/1", width=4, tokens="letter")
    register_encoder(mine, lambda spec, weights, device: Composition(spec))
    encoder = load_encoder("one-hot", "dna")
    assert encoder.encode(["AC"])[0].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    register_encoder(mine)  # the same card again is no fault
    with pytest.raises(InvalidInputError, match="'one-hot' is already registered"):
        register_encoder(replace(mine, width=5))
