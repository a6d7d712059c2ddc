"""Enformer of enformer-pytorch: its trunk without crop and heads."""

import cases
import numpy as np
import reference
import torch
from enformer_pytorch import Enformer, str_to_one_hot


def load(case: cases.Case, tensors: reference.Tensors) -> reference.Embed:
    """The network with the tensors under its own names, every one of which must fit."""
    sizes = case.sizes
    model = Enformer.from_hparams(
        dim=sizes["width"] // 2,
        depth=sizes["layers"],
        heads=sizes["heads"],
        attn_dim_key=sizes["key_dim"],
        dim_divisible_by=sizes["divisor"],
        output_heads={"human": 2},
        target_length=-1,
        **case.settings,
    )
    state = {name: torch.from_numpy(np.asarray(tensor)) for name, tensor in tensors.items()}
    report = model.load_state_dict(state, strict=False)
    assert not report.unexpected_keys, report.unexpected_keys
    left = [name for name in report.missing_keys if not name.startswith(("_trunk.", "_heads."))]
    assert not left, left  # the trunk is there twice, under two names
    model.eval()

    def embed(sequence: str) -> reference.Rows:
        with torch.inference_mode():
            return {-1: model(str_to_one_hot(sequence)[None], return_only_embeddings=True)[0].numpy()}

    return embed


if __name__ == "__main__":
    reference.run(load, ["enformer-pytorch", "transformers", "torch"], "enformer_pytorch.Enformer")
