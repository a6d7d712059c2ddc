"""Running a trained model, and where it runs. Shapes: N rows, K tissues."""

import os

import numpy as np
import torch
from numpy.typing import NDArray

from embedcache.errors import InvalidInputError, InvalidSettingError
from heads.config import TrainConfig
from heads.data import CachedDataset, Rows, cut
from heads.model import ExpressionModel

__all__ = ["choose_device", "predict_finite", "predict_rows"]


def choose_device(name: str) -> torch.device:
    """The device that a setting means; ``auto`` is the first GPU, else the CPU.

    Raises:
        InvalidSettingError: There is no such GPU here, or it is the name of none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidSettingError(f"device is {name!r}. Give auto, cpu, cuda or cuda:NUMBER.") from error
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise InvalidSettingError(
                f"device is {name!r}, this machine has {torch.cuda.device_count()} GPUs. Use cpu."
            )
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to repeat its results
    return device


def predict_finite(model: ExpressionModel, data: CachedDataset, rows: Rows, config: TrainConfig) -> NDArray[np.float64]:
    """As ``predict_rows``, for results that leave the program.

    Raises:
        InvalidInputError: A prediction is no finite number.
    """
    found = predict_rows(model, data, rows, config)
    if wrong := int((~np.isfinite(found)).any(axis=1).sum()):
        raise InvalidInputError(
            f"Predictions of {wrong} of {len(rows)} transcripts of {data.dataset.path} are no finite numbers. "
            "Look for damaged embeddings, or train the run again with a lower --learning-rate."
        )
    return found


@torch.no_grad()
def predict_rows(model: ExpressionModel, data: CachedDataset, rows: Rows, config: TrainConfig) -> NDArray[np.float64]:
    """Predictions on the z-scale for some rows, (N, K), in their order. Draws no random numbers."""
    device, reads = next(model.parameters()).device, model.reads
    limit = config.max_tokens_per_batch if reads == "tokens" else None
    parts = cut(rows, data.lengths, config.batch_size, limit)
    model.eval()
    found = []
    for batch in data.batches(parts, reads=reads, device=device):
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            found.append(model(batch.tokens, batch.lengths).cpu().double().numpy())
    return np.concatenate(found) if found else np.zeros((0, model.n_tissues))
