"""Gamma position features of the original Enformer, or of enformer-pytorch and its stored table.

``python gamma_reference.py original|enformer-pytorch FOLDER`` in the environment ``tensorflow`` (with the two files of
the original on the path) or ``enformer-pytorch``; writes ``<name>.npz`` with (2 * bins - 1, 32) tables by their bins.
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BINS, FEATURES = (96, 896, 1536), 32
Tables = dict[str, NDArray[np.float32]]


def original() -> Tables:
    import attention_module
    import tensorflow as tf

    tables = {}
    for bins in BINS:
        positions = tf.range(-bins + 1, bins, dtype=tf.float32)[tf.newaxis]  # as its attention makes them
        tables[str(bins)] = attention_module.positional_features_gamma(positions, FEATURES, bins)[0].numpy()
    return tables


def enformer_pytorch() -> Tables:
    import torch
    from enformer_pytorch import modeling_enformer

    tables = {"stored 1536": modeling_enformer.TF_GAMMAS.numpy()}
    for bins in BINS:
        positions = torch.arange(-bins + 1, bins)
        tables[str(bins)] = modeling_enformer.get_positional_features_gamma(positions, FEATURES, bins).numpy()
    return tables


if __name__ == "__main__":
    found = {"original": original, "enformer-pytorch": enformer_pytorch}[sys.argv[1]]()
    np.savez(Path(sys.argv[2]) / f"{sys.argv[1]}.npz", **found)
