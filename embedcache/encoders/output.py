"""From tensors on a device to the arrays that are stored."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import EmbedCacheError
from embedcache.ragged import Ragged

__all__ = ["PendingRows", "to_device"]


class PendingRows:
    """Rows that a device computes and copies while the caller does something else; see ``spec.Pending``.

    On a GPU the copy goes to pinned memory behind the computation on the current stream, and ``result`` waits
    for the event after it. Numbers travel in the compute dtype and become float32 here, which changes none; the
    store rounds later, since means are taken of what was not rounded. On a CPU all is there already.
    """

    def __init__(self, spec: EncoderSpec, layers: Mapping[int, Ragged]) -> None:
        self._spec = spec
        self._layers = {layer: (*_to_host(packed.values), packed.offsets) for layer, packed in layers.items()}
        self._copied: Any = None
        if any(packed.values.is_cuda for packed in layers.values()):
            cuda: Any = torch.cuda  # its events have no types
            self._copied = cuda.Event()
            self._copied.record()

    def result(self) -> dict[int, list[NDArray[np.float32]]]:
        """Wait, and give one float32 array (tokens, width) a sequence, for each layer.

        Raises:
            EmbedCacheError: A number is not finite; names the encoder.
        """
        if self._copied is not None:
            self._copied.synchronize()
        with torch.inference_mode():
            return {layer: self._arrays(*one) for layer, one in self._layers.items()}

    def _arrays(self, values: Tensor, total: Tensor, offsets: Tensor) -> list[NDArray[np.float32]]:
        # the sum is finite if all values are; only where it is not, each one is looked at
        if not total.isfinite() and not (finite := values.isfinite().all(dim=1)).all():
            raise EmbedCacheError(
                f"Encoder {self._spec.name} gave values that are not finite for {int((~finite).sum())} of "
                f"{len(finite)} tokens in {self._spec.compute_dtype}. Compute in float32 or bfloat16, or check the "
                "weights."
            )
        return np.split(values.float().numpy(), offsets[1:-1].tolist())


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A tensor of an array; on a GPU without waiting for what it computes."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _to_host(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values and their sum on the CPU, or on their way to it."""
    total = values.sum(dtype=torch.float32)
    if not values.is_cuda:
        return values.cpu(), total.cpu()
    copies = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in (values, total)]
    return copies[0].copy_(values, non_blocking=True), copies[1].copy_(total, non_blocking=True)
