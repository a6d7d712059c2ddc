"""Borzoi and Flashzoi of borzoi-pytorch, all bins of 32 bp.

The attention of Flashzoi is that of flash-attn, whose kernels run on a GPU and in half precision only: here its own
plain attention and its own plain rotation stand in for them, both written in it next to the kernels. The package needs
a build that is of no use without a GPU, so its unpacked sources are given with ``run.py --source flash-attn=DIR``.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import cases
import numpy as np
import reference
import torch
from borzoi_pytorch import Borzoi
from torch import Tensor

_LETTERS = "ACGT"
_BIN_BP, _MULTIPLE_BP = 32, 128


def load(case: cases.Case, tensors: reference.Tensors) -> reference.Embed:
    """The network with the tensors under its own names, every one of which must fit."""
    config = cases.config(case.family, case.sizes)
    if config["flashed"]:
        _use_plain_attention()
    model = Borzoi.from_hparams(**{**config, "bins_to_return": -1})
    model.load_state_dict({name: torch.from_numpy(np.asarray(tensor)) for name, tensor in tensors.items()})
    model.eval()

    def embed(sequence: str) -> reference.Rows:
        for layer in model.transformer:  # it keeps the offsets of its first input, and would use them for any other
            layer[0].fn[1].positions = None
        with torch.inference_mode():
            rows = model.get_embs_after_crop(_one_hot(sequence))
            if case.settings.get("final"):
                rows = model.final_joined_convs(rows)
        return {-1: rows[0].T[: -(-len(sequence) // _BIN_BP)].numpy()}

    return embed


def _one_hot(sequence: str) -> Tensor:
    """(1, 4, letters), with N at the end up to a length that the network takes."""
    padded = sequence + "N" * (-len(sequence) % _MULTIPLE_BP)
    return torch.tensor([[[letter == one for letter in padded] for one in _LETTERS]], dtype=torch.float32)


def _use_plain_attention() -> None:
    """Import flash-attn without its kernels; what it computes with is its own code."""
    sys.modules["flash_attn_2_cuda"] = ModuleType("flash_attn_2_cuda")
    kernels: Any = ModuleType("flash_attn.ops.triton.rotary")
    sys.modules[kernels.__name__] = kernels
    kernels.apply_rotary = _rotate
    mha = importlib.import_module("flash_attn.modules.mha")
    kernel_class = mha.MHA

    class PlainMHA(kernel_class):  # type: ignore[misc, valid-type]
        """The same layer, told not to use the kernels."""

        def __init__(self, *args: Any, use_flash_attn: bool, **settings: Any) -> None:
            assert use_flash_attn
            super().__init__(*args, use_flash_attn=False, **settings)

    mha.MHA = PlainMHA


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, *, inplace: bool, interleaved: bool, **kwargs: Any) -> Tensor:
    """As the kernel is called, for sequences that begin at position 0."""
    assert not kwargs.pop("seqlen_offsets", 0)
    assert not any(kwargs.values()), kwargs
    plain = importlib.import_module("flash_attn.layers.rotary").apply_rotary_emb_torch
    turned: Tensor = plain(x, cos[: x.shape[1]], sin[: x.shape[1]], interleaved)
    return x.copy_(turned) if inplace else turned


if __name__ == "__main__":
    reference.run(load, ["borzoi-pytorch", "transformers", "torch"], "borzoi_pytorch.Borzoi")
