"""Which runs share a pass over the cache.

Runs may train together if they draw the same batches: one division of the rows, batch size, order of data and device,
and all read tokens or all the same summary. They may differ in everything else, the modalities and encoders they read
included: a cohort reads what any of its runs reads, once.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from heads.aggregators import what_it_reads
from heads.settings import RunSettings

__all__ = ["Cohort", "NamedRun", "cohorts_of", "told_of"]


@contextmanager
def told_of(run: str) -> Iterator[None]:
    """Name the run in what is said of settings that it cannot have."""
    try:
        yield
    except (InvalidSettingError, InvalidInputError, UnknownNameError) as error:
        error.args = (f"{run}: {error}",)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRun:
    """A run and what it is called in lines about it."""

    name: str
    settings: RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Runs that train together."""

    reads: str
    """``tokens``, or the summary of them that is read from memory."""
    runs: tuple[NamedRun, ...]

    @property
    def name(self) -> str:
        """Depends on the runs alone."""
        return sha256(" ".join(run.settings.digest() for run in self.runs).encode()).hexdigest()[:12]


def cohorts_of(runs: Sequence[NamedRun], *, workers: int = 1, most: int = 64) -> list[Cohort]:
    """Group runs into cohorts.

    Args:
        runs: Equal settings are trained once.
        workers: At least so many cohorts are made if there are as many runs; who trains alone shares nothing.
        most: Runs of a cohort, whose models are in memory together.
    """
    grouped: dict[Any, dict[str, NamedRun]] = defaultdict(dict)
    for run in runs:
        grouped[_key(run.settings)].setdefault(run.settings.digest(), run)
    pieces: list[Cohort] = []
    for key, members in grouped.items():
        chosen = list(members.values())
        pieces += [Cohort(reads=key[0], runs=tuple(chosen[i : i + most])) for i in range(0, len(chosen), most)]
    while len(pieces) < workers and max((len(piece.runs) for piece in pieces), default=0) > 1:
        largest = max(range(len(pieces)), key=lambda i: len(pieces[i].runs))
        one = pieces.pop(largest)
        half = (len(one.runs) + 1) // 2
        parts = [Cohort(reads=one.reads, runs=part) for part in (one.runs[:half], one.runs[half:])]
        pieces[largest:largest] = parts
    return pieces


def _key(settings: RunSettings) -> tuple[Any, ...]:
    """What runs of a cohort have in common; the first entry is what they read."""
    training = settings.training
    split: Mapping[str, Any] = settings.split.to_json()
    layers = {m: 1 + settings.encoders.get(m, "").count("+") for m in settings.model.modalities}
    reads = what_it_reads(settings.model, layers)
    inputs: Any = None
    if training.bucketed:  # lengths decide which rows come together
        inputs = (settings.model.modalities, tuple(sorted(settings.encoders.items())))
    batches = (training.batch_size, training.data_seed, inputs)
    return (reads, tuple(split.items()), *batches, training.device, training.resident)
