"""From tensors on a device to the arrays that are stored."""

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import EmbedCacheError
from embedcache.ragged import Ragged

__all__ = ["to_arrays"]


def to_arrays(spec: EncoderSpec, packed: Ragged) -> list[NDArray[np.float32]]:
    """One float32 array (tokens, width) a sequence.

    Raises:
        EmbedCacheError: A number is not finite; names the encoder.
    """
    values = packed.values.float()
    # the sum, without a copy, is finite if all values are; only where it is not, each one is looked at
    if not values.sum().isfinite() and not (finite := values.isfinite().all(dim=1)).all():
        raise EmbedCacheError(
            f"Encoder {spec.name} gave values that are not finite for {int((~finite).sum())} of "
            f"{len(finite)} tokens in {spec.compute_dtype}. Compute in float32 or bfloat16, or check the weights."
        )
    return np.split(values.cpu().numpy(), packed.offsets[1:-1].tolist())
