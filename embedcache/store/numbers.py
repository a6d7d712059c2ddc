"""Numbers of a store: float32 rows to what lies on disk and back, and what the rounding costs.

float32, float16  as they are
bfloat16          its 16 bits as uint16, for zarr-python 3.1 has no such type
int8              half of float16: D numbers of one byte, then the scale of the token, float32, in 4 bytes

Language models have channels that are far from zero in every token. One of them would set the scale of all tokens
and drown the rest, so int8 keeps the distance from the mean of each channel, which a store holds once.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from embedcache.errors import CacheDamagedError, CacheError

if TYPE_CHECKING:  # torch takes seconds to import, and `embedcache info` needs none of it
    from torch import Tensor

__all__ = [
    "RoundingError",
    "channel_mean",
    "decode_rows",
    "encode_rows",
    "mean_from_bytes",
    "mean_to_bytes",
    "stored_width",
]

SCALE_BYTES = 4
LARGEST = 127  # of an int8; -128 is not used, so that a row and its negative round alike
SAMPLED_TOKENS = 64


def stored_width(width: int, store_dtype: str) -> int:
    """Numbers a row has on disk: of int8, the last four are the bytes of the row's scale."""
    return width + SCALE_BYTES if store_dtype == "int8" else width


def encode_rows(
    rows: NDArray[np.float32],
    store_dtype: str,
    channel_mean: NDArray[np.float32] | None = None,
    *,
    encoder: str = "the encoder",
) -> NDArray[Any]:
    """Rows in the numbers of a store, rounded to nearest; a row does not depend on the rows beside it.

    Args:
        rows: Embeddings of tokens, (T, D).
        store_dtype: float32, float16, bfloat16 or int8.
        channel_mean: (D,), subtracted before int8; None subtracts nothing. The float types do not use it.
        encoder: Name for the error.

    Returns:
        (T, ``stored_width(D)``): float32, float16, the bits of bfloat16 as uint16, or int8.

    Raises:
        CacheError: A value is not finite, or too large for the stored type.
    """
    import torch

    values = torch.from_numpy(np.ascontiguousarray(rows))
    if store_dtype == "int8":
        stored = _to_int8(values, channel_mean)
        finite = stored is not None
    else:
        stored = values.to(getattr(torch, store_dtype))
        # the sum, without a copy, is finite if all values are; only where it is not, each one is looked at
        finite = math.isfinite(stored.sum(dtype=torch.float32)) or bool(torch.isfinite(stored).all())
    if stored is None or not finite:
        raise _refusal(rows, store_dtype, encoder)
    return (stored.view(torch.uint16) if store_dtype == "bfloat16" else stored).numpy()


def _refusal(rows: NDArray[np.float32], store_dtype: str, encoder: str) -> CacheError:
    """Tells what is not finite whatever the store from what is only too large for it."""
    if bad := int((~np.isfinite(rows)).any(axis=1).sum()):
        return CacheError(
            f"an embedding of {encoder} is not finite before it is stored, in {bad} of {len(rows)} rows. Compute in "
            "float32 (--dtype); if that changes nothing, the encoder or its weights are damaged."
        )
    return CacheError(
        f"an embedding of {encoder} is not finite as {store_dtype} (largest value {np.abs(rows).max():.4g}). "
        f"Use --store-dtype {'bfloat16 or float32' if store_dtype == 'float16' else 'float32'}."
    )


def _to_int8(values: "Tensor", channel_mean: NDArray[np.float32] | None) -> "Tensor | None":
    """(T, D + 4) int8; None if a value is not finite."""
    import torch

    centred = values - torch.from_numpy(channel_mean) if channel_mean is not None else values
    largest = centred.abs().amax(1)  # (T,); of a NaN it is NaN
    if not bool(torch.isfinite(largest).all()):
        return None
    scale = largest / LARGEST
    scale[scale < torch.finfo(torch.float32).tiny] = 0  # denormal scales round too coarsely; such a row reads as zeros
    codes = (centred / scale.masked_fill(scale == 0, torch.inf)[:, None]).round_()
    return torch.cat([codes.to(torch.int8), scale.view(torch.int8).view(len(values), SCALE_BYTES)], dim=1)


def decode_rows(values: "Tensor", store_dtype: str, channel_mean: "Tensor | None" = None) -> "Tensor":
    """Numbers to compute on, from rows as a store holds them. Float types come back as they are.

    Args:
        values: Rows of a store, (N, ``stored_width(D)``), on any device; of bfloat16 already that type.
        store_dtype: The type of the store.
        channel_mean: The mean that was subtracted, (D,), on the same device.

    Returns:
        (N, D): ``values`` itself for float types, float32 for int8, at most half a scale from what was encoded.
    """
    import torch

    if store_dtype != "int8":
        return values
    # a copy, for four bytes in the middle of a buffer need not be aligned as a float32
    scale = values[:, -SCALE_BYTES:].clone(memory_format=torch.contiguous_format).view(torch.float32)  # (N, 1)
    rows = values[:, :-SCALE_BYTES].float().mul_(scale)
    return rows if channel_mean is None else rows.add_(channel_mean)


@dataclass(slots=True)
class RoundingError:
    """What rounding to the stored numbers loses, on a sample of the tokens.

    At most 64 tokens a sequence, evenly spaced, are read back and compared: a sequence costs some 0.1 ms however
    long it is. Of a forward pass of ESM-2 8M on one CPU core that is 0.4 % at 50 tokens and 0.04 % at 400.
    """

    store_dtype: str
    channel_mean: NDArray[np.float32] | None = None
    _lost: float = 0.0
    _signal: float = 0.0
    _cosines: float = 0.0
    _tokens: int = 0

    def add(self, rows: NDArray[np.float32], stored: NDArray[Any]) -> None:
        """Count a sequence: its rows (T, D), and what ``encode_rows`` made of them."""
        import torch

        step = max(1, -(-len(rows) // SAMPLED_TOKENS))
        exact, kept = torch.from_numpy(rows[::step]), torch.from_numpy(stored[::step])
        if self.store_dtype == "bfloat16":
            kept = kept.view(torch.bfloat16)
        mean = None if self.channel_mean is None else torch.from_numpy(self.channel_mean)
        read = decode_rows(kept, self.store_dtype, mean).float()
        signal, lost = exact.square().sum(1), (exact - read).square_().sum(1)  # (T,)
        norms = (signal * read.square().sum(1)).sqrt_()
        # a row of zeros has no direction: it counts as kept if it stayed zero
        cosines = torch.where(norms > 0, (exact * read).sum(1) / norms, (lost == 0).float()).clamp_(-1, 1)
        self._lost += float(lost.sum())
        self._signal += float(signal.sum())
        self._cosines += float(cosines.sum())
        self._tokens += len(exact)

    @property
    def relative_l2(self) -> float:
        """Length of the error over length of the rows, all sampled tokens together; 0 before any."""
        return math.sqrt(self._lost / self._signal) if self._signal else 0.0

    def to_json(self) -> dict[str, float | int]:
        """``relative_l2``, mean ``cosine`` between a token and what is read back, number of ``tokens`` compared."""
        cosine = self._cosines / self._tokens if self._tokens else 1.0
        return {"relative_l2": self.relative_l2, "cosine": cosine, "tokens": self._tokens}


def channel_mean(rows_list: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Mean of each channel over all tokens of some sequences, (D,).

    Args:
        rows_list: At least one array (T, D); the first sequences of a build are enough, for the mean only has to
            take off what all tokens share.

    Raises:
        CacheError: A value is not finite; the mean would spoil the whole store.
    """
    total = np.sum([rows.sum(0, dtype=np.float64) for rows in rows_list], axis=0)
    mean: NDArray[np.float32] = (total / max(1, sum(map(len, rows_list)))).astype(np.float32)
    if not np.isfinite(mean).all():
        channel = int(np.flatnonzero(~np.isfinite(mean))[0])
        raise CacheError(
            f"channel {channel} (0-based) of the first {len(rows_list)} embeddings is not finite, so int8 has no mean "
            "to subtract. Check the weights, or compute in float32."
        )
    return mean


def mean_to_bytes(mean: NDArray[np.float32]) -> bytes:
    """File of a channel mean: an npy file that ``numpy.load`` reads, then its crc32c, 4 bytes little endian."""
    file = io.BytesIO()
    np.save(file, mean.astype("<f4", copy=False), allow_pickle=False)
    return file.getvalue() + int(google_crc32c.value(file.getvalue())).to_bytes(4, "little")


def mean_from_bytes(data: bytes, width: int, where: str) -> NDArray[np.float32]:
    """The channel mean (D,) in a file of ``mean_to_bytes``.

    Args:
        data: The whole file.
        width: D of the store.
        where: Name of the file, for the error.

    Raises:
        CacheDamagedError: The bytes are not those that were written, or are of another width.
    """
    body, checksum = bytes(data[:-4]), int.from_bytes(data[-4:], "little")
    is_whole = len(data) > 4 and int(google_crc32c.value(body)) == checksum
    mean = np.load(io.BytesIO(body), allow_pickle=False) if is_whole else None
    if mean is None or mean.dtype != np.dtype("<f4") or mean.shape != (width,):
        found = "its checksum does not match" if mean is None else f"it holds {mean.dtype} {mean.shape}"
        raise CacheDamagedError(
            f"{where} is damaged: {found}, expected {width} numbers of float32. Without it no embedding of this store "
            "can be read. Restore it, or run `embedcache verify --repair` and build again."
        )
    return np.asarray(mean, np.float32)
