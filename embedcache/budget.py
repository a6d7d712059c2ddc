"""How many tokens one call of an encoder takes: on a CPU what its caches like, on a GPU what its memory holds."""

from typing import Protocol

from embedcache.encoders.spec import Encoder

__all__ = ["CPU_TOKENS", "CudaMemory", "Memory", "find_budget"]

CPU_TOKENS = 2048
"""For each thread of a CPU: a call of about two passes; more tokens gain nothing, for a pass takes what caches like."""
TRIAL_TOKENS = 4096
LEAST, MOST = 2048, 131_072
"""A GPU is filled long before the upper bound; more would only make what a killed worker loses larger."""
SHARE = 0.7
"""Of the free memory; the rest is for fragments, and for others on the same GPU."""
LETTERS = {"protein": "ACDEFGHIKLMNPQRSTVWY", "rna": "ACGT", "dna": "ACGT"}


class Memory(Protocol):
    """What a device tells of its memory."""

    def free_bytes(self) -> int:
        """Bytes that could be allocated now."""
        ...

    def reset_peak(self) -> int:
        """Forget the peak so far; bytes allocated now."""
        ...

    def peak_bytes(self) -> int:
        """Most bytes that were allocated at once since."""
        ...


class CudaMemory:
    """Memory of a CUDA device, see ``Memory``."""

    def __init__(self, device: str) -> None:
        self.device = device

    def free_bytes(self) -> int:  # noqa: D102
        import torch

        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(self.device)[0])

    def reset_peak(self) -> int:  # noqa: D102
        import torch

        torch.cuda.reset_peak_memory_stats(self.device)
        return int(torch.cuda.memory_allocated(self.device))

    def peak_bytes(self) -> int:  # noqa: D102
        import torch

        return int(torch.cuda.max_memory_allocated(self.device))


def find_budget(encoder: Encoder, device: str, memory: Memory | None = None) -> int:
    """Tokens of one call of an encoder on a device, from the memory that a trial call takes a token.

    Args:
        encoder: On the device.
        device: ``cpu``, ``cuda`` or ``cuda:<number>``.
        memory: Of the device; by default that of CUDA.

    Returns:
        At most ``MOST``; at least ``LEAST``, which the build halves should it be too many.
    """
    if device == "cpu":
        import torch

        return CPU_TOKENS * torch.get_num_threads()
    memory = memory or CudaMemory(device)
    sequence = _trial_sequence(encoder)
    n_tokens = encoder.spec.n_tokens(sequence)
    encoder.encode([sequence])  # the first call allocates what later ones reuse
    before = memory.reset_peak()
    tokens = n_tokens * _encode_copies(encoder, sequence, max(1, TRIAL_TOKENS // n_tokens))
    a_token = max(1.0, (memory.peak_bytes() - before) / tokens)
    return int(min(MOST, max(LEAST, SHARE * memory.free_bytes() / a_token)))


def _encode_copies(encoder: Encoder, sequence: str, copies: int) -> int:
    """Embed a sequence many times in one call; how many fitted the memory."""
    from embedcache.encoders.memory import OUT_OF_MEMORY, is_out_of_memory

    while True:
        try:
            encoder.encode([sequence] * copies)
        except OUT_OF_MEMORY as error:
            if copies == 1 or not is_out_of_memory(error):
                raise
            copies //= 2
        else:
            return copies


def _trial_sequence(encoder: Encoder) -> str:
    """A sequence of about 1,024 letters, or of as many as fit the encoder."""
    letters, spec = LETTERS[encoder.spec.modality], encoder.spec
    size = min(1024, spec.max_tokens or 1024)  # a letter is at most one token under every rule
    return (letters * -(-size // len(letters)))[:size]
