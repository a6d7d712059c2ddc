"""Memory that runs out during a pass: how to know it, and how to have as much as possible for the next one."""

__all__ = ["OUT_OF_MEMORY", "empty_cache", "is_out_of_memory"]

OUT_OF_MEMORY = (RuntimeError, MemoryError)
"""Types of errors among which those of memory are."""

SIGNS = ("can't allocate memory", "not enough memory", "CUDA error: out of memory")
"""In the text of other errors: of an allocation on the host, and of pinned memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an encoder ran out of memory, on a GPU or on the host."""
    import torch  # `embedcache --help` comes by this module

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def empty_cache() -> None:
    """Give back what torch keeps of a GPU for later, so that the next pass finds it in one piece."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
