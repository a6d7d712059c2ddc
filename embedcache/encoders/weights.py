"""Weights: where they are, what is read of them, their digest, and loading them strictly.

Looked for in a directory the user names, then in the Hugging Face hub cache; never on the network unless
asked. Read: ``model.safetensors``, ``pytorch_model.bin`` (tensors only, no code), and both split into
files by an index. Drawn weights come from the seed and the name of each tensor, so that they depend
neither on the order of construction nor on the version of a library.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.fetching import WEIGHT_FILES, how_to_fetch, hub_snapshot
from embedcache.encoders.names import one_name_each, setting
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import InvalidInputError, MissingDependencyError

__all__ = [
    "Weights",
    "cast_weights",
    "draw_normal",
    "draw_weights",
    "fill_weights",
    "find_weights",
    "seed_of",
    "weights_digest",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Published weights, read from a directory."""

    directory: Path
    revision: str
    """Commit in the hub cache; empty for a directory of the user."""
    tensors: dict[str, Tensor]
    """By name, without the prefix of the files and without the tensors that play no part."""
    architecture: dict[str, Any]
    """What ``config.json`` says of the shape of the network."""


def find_weights(card: EncoderCard, directory: Path | None = None, *, download: bool = False) -> Weights:
    """Find and read the published weights of an encoder.

    Args:
        card: The encoder.
        directory: Where they are; without it they are those of the package, or the hub cache is searched.
        download: Whether they may be fetched into the hub cache.

    Raises:
        MissingDependencyError: They are not on this machine; says how to fetch them.
        InvalidInputError: The files are those of another model, or damaged.
    """
    revision = ""
    if directory is None and card.bundled:
        directory = Path(str(files(card.bundled))) / card.name
    elif directory is None:
        directory = hub_snapshot(card, download=download)
        revision = directory.name  # a snapshot is named by its commit
    if not directory.is_dir():
        raise MissingDependencyError(f"{directory} is not a directory. {how_to_fetch(card)}")
    architecture = _architecture(card, directory)
    tensors = {}
    for key, tensor in one_name_each(_read_tensors(card, directory), card.same, directory).items():
        name = key.removeprefix(card.key_prefix)
        if not name.startswith(card.unused):
            tensors[name] = tensor
    return Weights(directory=directory, revision=revision, tensors=tensors, architecture=architecture)


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """``blake2b:<32 hexadecimal digits>`` over name, dtype, shape and bytes of every tensor, by name."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return f"blake2b:{digest.hexdigest()}"


def fill_weights(model: nn.Module, spec: EncoderSpec, weights: Weights | None) -> nn.Module:
    """Give a new model its weights, published or drawn, and the compute dtype of the spec.

    Raises:
        InvalidInputError: Tensors are missing, unknown or of another shape.
    """
    seed = seed_of(spec)
    if seed is not None:
        draw_weights(model, seed)
    else:
        assert weights is not None, "weights that are not drawn come from files"
        _load_strictly(model, weights)
    return cast_weights(model, getattr(torch, spec.compute_dtype))


def seed_of(spec: EncoderSpec) -> int | None:
    """Seed of drawn weights; None if files hold them."""
    found = re.fullmatch(r"seed:(\d+)", spec.weights)
    return int(found[1]) if found else None


@torch.no_grad()
def draw_weights(model: nn.Module, seed: int) -> None:
    """Draw all parameters: embeddings with deviation 1, matrices with one over the root of their inputs.

    That keeps every block at the scale of its input: the letters stay visible behind the last layer, and
    so does their context. The usual 0.02 of training would leave neither at small widths. Queries and keys
    are half as large again, else attention were close to a plain mean. Biases are 0, normalisations 1.
    """
    scales = {f"{prefix}.weight": 1.0 for prefix, module in model.named_modules() if isinstance(module, nn.Embedding)}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            scale = scales.get(name, parameter[0].numel() ** -0.5)
            if name.endswith(("query.weight", "key.weight")):
                scale *= 1.5
            parameter.copy_(draw_normal(parameter.shape, seed, name) * scale)


def draw_normal(shape: Iterable[int], seed: int, name: str) -> Tensor:
    """Standard normal numbers, the same for a seed and a name on every machine."""
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    return torch.from_numpy(np.random.default_rng([seed, key]).standard_normal(tuple(shape), np.float32))


def cast_weights(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """``model.to(dtype)`` that leaves rotary frequencies alone: rounded, they turn by up to half a radian."""
    kept = [
        (module, name, value)
        for module in model.modules()
        for name, value in module.named_buffers(recurse=False)
        if name.endswith("inv_freq")
    ]
    model.to(dtype)
    for module, name, value in kept:
        setattr(module, name, value)
    return model


def _load_strictly(model: nn.Module, weights: Weights) -> None:
    wanted = model.state_dict()
    wrong = [
        f"{name} is {list(tensor.shape)}, not {list(wanted[name].shape)}"
        for name, tensor in weights.tensors.items()
        if name in wanted and tensor.shape != wanted[name].shape
    ]
    if not wrong:
        report = model.load_state_dict(dict(weights.tensors), strict=False)  # its hooks rename in the dict
        # frequencies follow from the shape; files without them lose nothing, nor do networks that keep none
        wrong = [f"{name} is missing" for name in report.missing_keys if not name.endswith("inv_freq")]
        wrong += [f"{name} is unknown" for name in report.unexpected_keys if not name.endswith("inv_freq")]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InvalidInputError(
            f"Weights in {weights.directory} do not fit: {'; '.join(wrong[:3])}{more}. "
            "Give the complete published files of this encoder."
        )


def _architecture(card: EncoderCard, directory: Path) -> dict[str, Any]:
    """Shape of the network by ``config.json``, compared with the card."""
    if not card.config:
        return {}
    found = _read_json(directory / "config.json", card)
    expected = dict(card.config)
    if "width" in card.shape:
        expected[card.shape["width"]] = card.width
    if not card.from_memory:
        shape = {"layers": card.layers, "heads": card.heads, "feed_forward": card.feed_forward}
        expected |= {card.shape[name]: value for name, value in shape.items() if name in card.shape}
    for name, value in expected.items():
        is_there = found.get(name, False) if isinstance(value, bool) else found.get(name)
        if (bool(is_there) if isinstance(value, bool) else is_there) != value:
            raise InvalidInputError(
                f"{directory / 'config.json'} is not that of {card.name}: {name} is {found.get(name)!r}, expected "
                f"{value!r}. Give the files of {card.repository}, or the encoder that they belong to."
            )
    said = {ours: setting(found, theirs) for ours, theirs in card.shape.items() if ours != "width"}
    return {ours: value for ours, value in said.items() if value is not None}


def _read_json(path: Path, card: EncoderCard) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingDependencyError(f"{path} does not exist. {how_to_fetch(card)}") from error
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}. Download it again.") from error
    except ValueError as error:
        raise InvalidInputError(f"{path} is not JSON: {error}. Download it again.") from error
    if not isinstance(found, dict):
        raise InvalidInputError(f"{path} is not a JSON object. Download it again.")
    return found


def _read_tensors(card: EncoderCard, directory: Path) -> dict[str, Tensor]:
    """All tensors of the first kind of file that is there; big files are mapped, not copied."""
    name = next((name for name in WEIGHT_FILES if (directory / name).exists()), None)
    if name is None:
        raise MissingDependencyError(
            f"{directory} has no weights ({' or '.join(WEIGHT_FILES[::2])}). {how_to_fetch(card)}"
        )
    if not name.endswith(".index.json"):
        return _read_file(directory / name)
    shards = _read_json(directory / name, card).get("weight_map")
    names = list(shards.values()) if isinstance(shards, dict) else []
    files = sorted({file for file in names if isinstance(file, str) and Path(file).name == file})
    if not files or len(files) < len(set(map(str, names))):
        raise InvalidInputError(f"{directory / name} names no files of its own directory. Download it again.")
    tensors: dict[str, Tensor] = {}
    for file in files:
        if not (directory / file).exists():
            raise MissingDependencyError(f"{directory / file} is missing. {how_to_fetch(card)}")
        tensors |= _read_file(directory / file)
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    import pickle

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with path.open("rb") as file:  # files from before torch 1.6 are a plain pickle, which cannot be mapped
            can_map = file.read(1) != b"\x80"
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=can_map)
    except pickle.UnpicklingError as error:
        raise InvalidInputError(
            f"{path} holds more than tensors, or is damaged; nothing of it was run. Give model.safetensors instead."
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0][:100]
        raise InvalidInputError(f"{path} cannot be read: {reason}. Download it again.") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise InvalidInputError(f"{path} holds more than tensors by name. Give the published weights.")
    return found
