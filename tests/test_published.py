"""Networks of the published width, saved by transformers itself, against its own classes on the same numbers."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    EsmcForMaskedLM,
    EsmConfig,
    EsmForMaskedLM,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)
from transformers.models.esmc import EsmcConfig, EsmcTokenizer

from embedcache.encoders import registry
from embedcache.encoders.cards import CARDS, EncoderCard
from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.registry import encoder_spec, load_encoder
from embedcache.encoders.tokens import esm_ids
from embedcache.errors import InvalidInputError

LAYERS = 2
LENGTHS = [80, 33, 50, 50, 5, 24]
TOLERANCE = 1e-5
"""Largest difference in float32, relative to the largest value."""
HALF = {"bfloat16": 0.02, "float16": 0.003}
"""Norm of the difference from float32 rows, relative to theirs."""


def esm(card: EncoderCard) -> Any:
    settings = {key: value for key, value in card.config.items() if key != "model_type"}
    return EsmForMaskedLM(
        EsmConfig(
            **settings,
            pad_token_id=1,
            mask_token_id=32 if card.tokens == "letter" else 2,
            hidden_size=card.width,
            num_hidden_layers=LAYERS,
            num_attention_heads=card.heads,
            intermediate_size=card.feed_forward,
            layer_norm_eps=card.settings["layer_norm_eps"],
            max_position_embeddings=1026 if card.tokens == "letter" else 1002,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )


def esmc(card: EncoderCard) -> Any:
    sizes = {"hidden_size": card.width, "intermediate_size": card.feed_forward, "num_attention_heads": card.heads}
    return EsmcForMaskedLM(EsmcConfig(num_hidden_layers=LAYERS, **sizes))


def t5(card: EncoderCard, kind: type[Any] = T5EncoderModel) -> Any:
    return kind(
        T5Config(
            vocab_size=card.config["vocab_size"],
            d_model=card.width,
            d_kv=card.settings["key_dim"],
            d_ff=card.feed_forward,
            num_layers=LAYERS,
            num_decoder_layers=1,
            num_heads=card.heads,
            relative_attention_num_buckets=card.settings["buckets"],
            feed_forward_proj=card.settings["activation"],
            dropout_rate=0.0,
        )
    )


def whole_t5(card: EncoderCard) -> Any:
    return t5(card, T5ForConditionalGeneration)


@dataclass(frozen=True)
class Published:
    """A directory as published, and the network of transformers that wrote it."""

    card: EncoderCard
    folder: Path
    model: Any

    @property
    def modality(self) -> Any:
        return self.card.modalities[-1]

    @torch.inference_mode()
    def rows(self, encoder: PackedEncoder, sequence: str) -> Tensor:
        """Residues' rows of one sequence alone, by transformers."""
        before, after = ([] if one is None else [one] for one in (encoder.vocabulary.before, encoder.vocabulary.after))
        ids = torch.tensor([[*before, *encoder.vocabulary.ids(sequence).tolist(), *after]])
        network = self.model.get_encoder() if self.card.adapter.startswith("t5") else self.model.base_model
        rows: Tensor = network(input_ids=ids).last_hidden_state[0, len(before) : ids.shape[1] - len(after)]
        return rows


@torch.no_grad()
def draw(model: nn.Module) -> None:
    """Numbers that keep every block at the scale of its input, so that each part shows in the rows."""
    generator = torch.Generator().manual_seed(0)
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.copy_(name.endswith("weight") + 0.1 * torch.randn(parameter.shape, generator=generator))
            continue
        scale = 1.0 if id(parameter) in tables else parameter.shape[1] ** -0.5
        if name.endswith("SelfAttention.q.weight"):
            scale *= model.config.d_kv**-0.5  # T5 has it in its weights
        parameter.normal_(0, scale, generator=generator)


BUILDERS: dict[str, Callable[[EncoderCard], Any]] = {
    "esm2-150m": esm,
    "esm2-650m": esm,
    "nt-v1-500m-human-ref": esm,
    "esmc-300m": esmc,
    "esmc-600m": esmc,
    "prott5-xl-half": t5,
    "ankh-base": whole_t5,
}
SMALLEST = ["esm2-150m", "esmc-300m", "ankh-base"]


@pytest.fixture(params=BUILDERS, scope="module")
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    card = replace(CARDS[request.param], layers=LAYERS)
    folder = tmp_path_factory.mktemp(card.name)
    with torch.random.fork_rng():
        model = BUILDERS[card.name](card).eval()
    draw(model)
    if card.name == "prott5-xl-half":
        model = model.half().float()  # numbers of the file are those of float16
        save_file({name: tensor.half() for name, tensor in tensors(model).items()}, folder / "model.safetensors")
        model.config.save_pretrained(folder)
    else:
        model.save_pretrained(folder, save_original_format=False)
    yield Published(card, folder, model)
    shutil.rmtree(folder)  # up to half a gigabyte


@pytest.fixture(autouse=True)
def shallow_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real names with two layers."""
    shallow = {name: replace(CARDS[name], layers=LAYERS, from_memory=False) for name in BUILDERS}
    monkeypatch.setattr(registry, "CARDS", CARDS | shallow)


def tensors(model: Any) -> dict[str, Tensor]:
    """State without the second name of tied embeddings, as transformers saves it."""
    return {name: tensor for name, tensor in model.state_dict().items() if name != "encoder.embed_tokens.weight"}


def sequences(modality: str, lengths: Sequence[int] = LENGTHS) -> list[str]:
    rng = np.random.default_rng(1)
    letters = list("LAGVSERTIDPKQNFYMHWCXBUZO" if modality == "protein" else "ACGTACGTACGTN")
    return ["".join(rng.choice(letters, size=length)) for length in lengths]


def loaded(published: Published, **options: Any) -> PackedEncoder:
    encoder = load_encoder(published.card.name, published.modality, weights=published.folder, **options)
    assert isinstance(encoder, PackedEncoder)
    return encoder


def test_a_pack_gives_the_rows_of_transformers_at_full_width(published: Published) -> None:
    encoder, of = loaded(published), sequences(published.modality)
    worst = 0.0
    for sequence, got in zip(of, encoder.encode(of), strict=True):
        want = published.rows(encoder, sequence).numpy()
        worst = max(worst, float(np.abs(got - want).max() / np.abs(want).max()))
    assert worst <= TOLERANCE
    assert not encoder.spec.is_random
    # every tensor of the encoder came from the files
    given = {name: value for name, value in published.model.state_dict().items() if "decoder" not in name}
    for name, tensor in encoder.model.state_dict().items():
        if not name.endswith("inv_freq"):
            assert any(torch.equal(tensor, given[of]) for of in given if of.endswith(name.split(".", 1)[-1])), name


@pytest.mark.parametrize("published", SMALLEST, indirect=True)
@pytest.mark.parametrize("dtype", list(HALF))
def test_half_precision_is_near_the_rows_of_transformers(published: Published, dtype: Any) -> None:
    encoder, of = loaded(published, dtype=dtype), sequences(published.modality, [70, 12])
    for sequence, got in zip(of, encoder.encode(of), strict=True):
        want = published.rows(encoder, sequence).numpy()
        assert np.linalg.norm(got - want) <= HALF[dtype] * np.linalg.norm(want)


def rewritten(published: Published, folder: Path, kind: str) -> Path:
    """The same tensors in another kind of files."""
    shutil.copy(published.folder / "config.json", folder / "config.json")
    state = load_file(published.folder / "model.safetensors")
    if kind == "bin":
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    names = sorted(state)
    files = {name: f"pytorch_model-{1 + 2 * i // len(names)}-of-2.bin" for i, name in enumerate(names)}
    for file in set(files.values()):
        torch.save({name: state[name] for name in names if files[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    return folder


@pytest.mark.parametrize("published", SMALLEST, indirect=True)
def test_the_kind_of_files_changes_nothing(published: Published, tmp_path: Path) -> None:
    want = encoder_spec(published.card.name, published.modality, weights=published.folder)
    for kind in ("bin", "sharded-bin"):
        folder = tmp_path / kind
        folder.mkdir()
        rewritten(published, folder, kind)
        assert encoder_spec(published.card.name, published.modality, weights=folder) == want
    published.model.save_pretrained(tmp_path / "sharded", save_original_format=False, max_shard_size="20MB")
    assert (tmp_path / "sharded" / "model.safetensors.index.json").exists()
    assert encoder_spec(published.card.name, published.modality, weights=tmp_path / "sharded") == want
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("published", ["ankh-base"], indirect=True)
@pytest.mark.parametrize(
    "names",
    [
        ["encoder.embed_tokens.weight"],
        ["decoder.embed_tokens.weight"],
        ["shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"],
    ],
    ids=["encoder", "decoder", "all"],
)
def test_embeddings_of_t5_are_the_same_under_any_of_their_names(
    published: Published, names: list[str], tmp_path: Path
) -> None:
    state = load_file(published.folder / "model.safetensors")
    table = state.pop("shared.weight")
    shutil.copy(published.folder / "config.json", tmp_path)
    torch.save(state | dict.fromkeys(names, table), tmp_path / "pytorch_model.bin")
    want = encoder_spec("ankh-base", "protein", weights=published.folder)
    assert encoder_spec("ankh-base", "protein", weights=tmp_path) == want
    load_encoder("ankh-base", "protein", weights=tmp_path)
    torch.save(state | {"shared.weight": table, names[-1]: table + 1}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InvalidInputError, match=r"shared\.weight.* differ, expected one tensor under both names"):
        encoder_spec("ankh-base", "protein", weights=tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()


@pytest.mark.parametrize("published", ["esmc-300m", "ankh-base"], indirect=True)
def test_files_decide_on_settings_and_what_is_null_says_nothing(published: Published, tmp_path: Path) -> None:
    want = encoder_spec(published.card.name, "protein", weights=published.folder)
    settings = json.loads((published.folder / "config.json").read_text())
    shutil.copy(published.folder / "model.safetensors", tmp_path)

    def spec(**changes: Any) -> Any:
        (tmp_path / "config.json").write_text(json.dumps(settings | changes))
        return encoder_spec(published.card.name, "protein", weights=tmp_path)

    if published.card.name == "esmc-300m":
        assert spec(rope_parameters=None) == want
        assert spec(rope_parameters={"rope_theta": 500.0}).architecture["rope_theta"] == 500.0
    else:
        assert spec(tie_word_embeddings=None, feed_forward_proj=None, relative_attention_max_distance=None) == want
        assert spec(relative_attention_max_distance=200).architecture["max_distance"] == 200
        with pytest.raises(InvalidInputError, match="vocab_size is 32128, expected 144"):
            spec(vocab_size=32128)
        (tmp_path / "config.json").write_text(json.dumps(settings | {"feed_forward_proj": "gated-silu"}))
        with pytest.raises(InvalidInputError, match="of the kind 'gated-silu', expected one of relu, gated-gelu"):
            load_encoder("ankh-base", "protein", weights=tmp_path)
    (tmp_path / "model.safetensors").unlink()


@pytest.mark.parametrize("published", ["esmc-300m", "ankh-base"], indirect=True)
def test_tensors_that_are_missing_or_unknown_are_named(published: Published, tmp_path: Path) -> None:
    shutil.copy(published.folder / "config.json", tmp_path)
    state = load_file(published.folder / "model.safetensors")
    ends = ("layers.1.self_attn.q_norm.weight", "encoder.final_layer_norm.weight")
    gone = next(name for name in state if name.endswith(ends) and "decoder" not in name)

    def load(changed: dict[str, Tensor]) -> None:
        torch.save(changed, tmp_path / "pytorch_model.bin")
        load_encoder(published.card.name, "protein", weights=tmp_path)

    with pytest.raises(InvalidInputError, match=r"do not fit: .*norm\.weight is missing"):
        load({name: tensor for name, tensor in state.items() if name != gone})
    with pytest.raises(InvalidInputError, match=r"do not fit: adapter\.weight is unknown"):
        load(state | {f"{published.card.key_prefix}adapter.weight": torch.zeros(2)})
    load(state | {f"{published.card.key_prefix}rotary_emb.inv_freq": torch.zeros(32)})  # is computed, not read
    (tmp_path / "pytorch_model.bin").unlink()


def test_residues_of_esm_c_have_the_ids_of_its_tokenizer() -> None:
    letters = "LAGVSERTIDPKQNFYMHWCXBUZO"
    assert EsmcTokenizer()(letters)["input_ids"][1:-1] == esm_ids(letters).tolist()
