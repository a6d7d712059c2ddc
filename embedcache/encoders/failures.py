"""What an encoder may raise about a sequence, how it is told in one line, and a GPU that is lost."""

import torch

from embedcache.encoders.memory import is_out_of_memory
from embedcache.errors import EmbedCacheError

__all__ = ["FAILURES", "DeviceLostError", "describe", "raise_if_lost"]

FAILURES = (
    EmbedCacheError,
    RuntimeError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    AssertionError,
    AttributeError,
    MemoryError,
)
"""What an encoder may raise about a sequence. Whether it is the sequence's fault is then tried, never assumed."""


class DeviceLostError(EmbedCacheError):
    """A GPU answers nothing but errors: the process must end, and another one can go on."""


def raise_if_lost(error: Exception) -> None:
    """After a failed kernel a GPU answers nothing but errors: the process must end, or every sequence looks bad."""
    if is_out_of_memory(error):
        return
    lost = getattr(torch, "AcceleratorError", ())
    if (lost and isinstance(error, lost)) or (isinstance(error, RuntimeError) and "CUDA error" in str(error)):
        raise DeviceLostError(
            f"the GPU failed and this process cannot use it any more ({describe(error)}). What was finished is in "
            "the cache. Run the same command again; a sequence that is to blame is found out and skipped."
        ) from error


def describe(error: Exception) -> str:
    """One line of an error, and where it was raised if it is not one of ours."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, EmbedCacheError):
        return text
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({trace.tb_frame.f_code.co_name}, line {trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"
