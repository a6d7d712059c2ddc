"""A trained mini encoder as a directory that transformers and ``weights`` read."""

import json
from pathlib import Path
from typing import Any

import torch

from embedcache.encoders.mini.network import names_of_tokens
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import InvalidInputError

__all__ = ["read_shape", "read_trained", "save_trained"]

_TIED = "lm_head.decoder.weight"
_SHAPE = {"width": "hidden_size", "layers": "num_hidden_layers", "tokens": "token_rule"}


def save_trained(model: Any, spec: EncoderSpec, folder: Path) -> None:
    """Write ``config.json``, ``model.safetensors`` in half precision and ``vocab.txt``.

    Args:
        model: An ``EsmForMaskedLM``.
        spec: Its rule of tokens names them.
        folder: Made if it is not there; files in it are replaced.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict() | {
        "architectures": ["EsmForMaskedLM"],
        "dtype": "float16",
        "token_rule": spec.tokens,
    }
    kept = {key: value for key, value in sorted(config.items()) if value is not None and not key.startswith("_")}
    (folder / "config.json").write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    (folder / "vocab.txt").write_text("\n".join(names_of_tokens(spec.tokens)) + "\n")
    tensors = {
        name: tensor.detach().to(torch.float16).contiguous()
        for name, tensor in model.state_dict().items()
        # the one is tied to the embeddings, the other follows from the shape
        if name != _TIED and not name.endswith("inv_freq")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def read_shape(folder: Path) -> dict[str, Any]:
    """Width, layers and rule of tokens of such a directory.

    Raises:
        InvalidInputError: It holds no mini encoder.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        return {name: config[key] for name, key in _SHAPE.items()}
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInputError(
            f"{folder} holds no mini encoder ({error!r}). Give a directory that `train` wrote."
        ) from error


def read_trained(folder: Path, spec: EncoderSpec) -> Any:
    """The encoder and its head from such a directory, in float32, to go on or to measure.

    Raises:
        RuntimeError: Tensors are missing, unknown or of another shape.
    """
    from safetensors.torch import load_file

    from embedcache.encoders.attention import ATTENTION
    from embedcache.encoders.mini.network import build

    model = build(spec)
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    tensors[_TIED] = tensors["esm.embeddings.word_embeddings.weight"]
    tensors |= {name: value for name, value in model.state_dict().items() if name.endswith("inv_freq")}
    model.load_state_dict(tensors)
    model.esm.set_attn_implementation(ATTENTION)
    return model
