"""What a build will cost, before anything is spent: tokens exactly, bytes exactly, time from a short trial."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import read_dataset
from embedcache.encoders.registry import EncoderOptions, encoder_spec, load_encoder
from embedcache.encoders.spec import Encoder
from embedcache.info import format_bytes
from embedcache.modality import choose_encoder, dataset_records, resolve_device
from embedcache.plan import Plan, make_plan
from embedcache.sequences import Modality
from embedcache.store.layout import INNER_ROWS, SHARD_BYTES, Layout

__all__ = ["Estimate", "estimate_modality"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Cost of embedding one modality of a dataset with one encoder, from nothing."""

    encoder: str
    modality: Modality
    sequences: int
    """Distinct sequences."""
    repeated: int
    cropped: int
    tokens: int
    longest_tokens: int
    size_bytes: int
    """Embeddings on disk."""
    shards: int
    seconds: float | None
    """On ``device``; None if no trial was asked for."""
    device: str
    trial_tokens: int
    """Tokens that the trial embedded."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        time_line = "time       not tried"
        if self.seconds is not None:
            time_line = (
                f"time       about {_duration(self.seconds)} on {self.device} (from {self.trial_tokens:,} tokens tried)"
            )
        return (
            f"encoder    {self.encoder}\n"
            f"sequences  {self.sequences:,} distinct {self.modality} ({self.repeated:,} repeated, "
            f"{self.cropped:,} to be cropped, longest {self.longest_tokens:,} tokens)\n"
            f"tokens     {self.tokens:,}\n"
            f"disk       {format_bytes(self.size_bytes)} in about {self.shards:,} shards\n{time_line}"
        )


def estimate_modality(
    *,
    dataset: Path,
    modality: Modality,
    encoder: str | None = None,
    options: EncoderOptions | None = None,
    device: str = "auto",
    trial_seconds: float = 5.0,
) -> Estimate:
    """Count what ``build_modality`` would do on an empty cache.

    The trial runs the real architecture with random weights (they take the same time) on sequences of
    lengths from all over the dataset, so that neither the weights nor the cache are touched.

    Args:
        dataset: Directory of the dataset.
        modality: Which sequences.
        encoder: Name of a card; else the dataset's default, else the paper's.
        options: Settings of the encoder; its weights are not read.
        device: Where the trial runs.
        trial_seconds: About how long the trial may compute; 0 leaves the time out.
    """
    found, given = read_dataset(dataset), options or {}
    name = choose_encoder(found, modality, encoder)
    drawn: EncoderOptions = {**given, "weights": None, "random_init": given.get("random_init") or 0}
    spec = encoder_spec(name, modality, **drawn)
    with make_plan(dataset_records(found, modality), spec) as plan:
        seconds, trial_tokens, place = None, 0, device
        if trial_seconds > 0 and plan.keys:
            place = resolve_device(device)
            loaded = load_encoder(name, modality, device=place, **drawn)
            seconds, trial_tokens = _trial(plan, loaded, trial_seconds)
    size_bytes = plan.total_tokens * Layout(spec=spec, shard_rows=INNER_ROWS).row_bytes
    return Estimate(
        encoder=name,
        modality=modality,
        sequences=plan.distinct,
        repeated=plan.repeated,
        cropped=plan.cropped,
        tokens=plan.total_tokens,
        longest_tokens=max(plan.lengths, default=0),
        size_bytes=size_bytes,
        shards=-(-size_bytes // SHARD_BYTES),
        seconds=seconds,
        device=place,
        trial_tokens=trial_tokens,
    )


def _trial(plan: Plan, encoder: Encoder, trial_seconds: float) -> tuple[float, int]:
    """Seconds for the whole plan, from sequences at evenly spaced ranks of length, and tokens embedded."""
    n_tokens = plan.n_tokens
    by_rank = np.argsort(n_tokens, kind="stable")
    encoder.encode([plan.sequence(int(by_rank[0]))])  # the first call pays for what later ones do not
    tokens, seconds = list[int](), list[float]()
    for i in _spread(len(by_rank)):
        sequence, started = plan.sequence(int(by_rank[i])), time.perf_counter()
        encoder.encode([sequence])
        seconds.append(time.perf_counter() - started)
        tokens.append(int(n_tokens[by_rank[i]]))
        if sum(seconds) > trial_seconds and len(seconds) > 2:
            break
    rate = _seconds_a_token(np.array(tokens), np.array(seconds))
    return float((rate(n_tokens) * n_tokens).sum()), sum(tokens)


def _spread(n: int) -> list[int]:
    """Ranks from 0 to n - 1 such that any beginning of the list is spread over all of them."""
    order, step = [n // 2, 0, n - 1], n
    while step > 1 and len(order) < min(n, 64):
        order += range(step // 2, n, step)
        step //= 2
    return list(dict.fromkeys(order))[:64]


def _seconds_a_token(tokens: NDArray[np.int64], seconds: NDArray[np.float64]) -> Any:
    """Seconds a token as a function of length, straight between the lengths that were tried."""
    order = np.argsort(tokens, kind="stable")
    lengths, first = np.unique(tokens[order], return_index=True)
    rates = [float(np.median(part)) for part in np.split((seconds / tokens)[order], first[1:])]
    return lambda n_tokens: np.interp(n_tokens, lengths, rates)


def _duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, whichever reads best."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
