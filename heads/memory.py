"""Memory that runs out while a head or an encoder is trained, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from embedcache.encoders.memory import OUT_OF_MEMORY, is_out_of_memory
from embedcache.errors import EmbedCacheError

__all__ = ["NoMemoryLeftError", "memory_told"]


class NoMemoryLeftError(EmbedCacheError):
    """A model, or what a step computes, does not fit the memory."""


@contextmanager
def memory_told(what: str) -> Iterator[None]:
    """Turn what torch raises into one line that says what to do; ``what`` begins it.

    Raises:
        NoMemoryLeftError: Memory ran out, of a GPU or of the host.
    """
    try:
        yield
    except OUT_OF_MEMORY as error:
        if not is_out_of_memory(error):
            raise
        raise NoMemoryLeftError(
            f"{what} does not fit the memory; what was saved is kept. Lower --max-tokens-per-batch, --width, --hidden "
            "or --batch-size; with --finetune add --checkpointing or use --method lora."
        ) from error
