"""Batches: packed tokens of every modality, scaled targets, and which cells were measured.

Shapes: B samples, N_m packed tokens of modality m, D_m its width, K tissues.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedcache.dataset import Dataset
from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.config import TrainConfig
from heads.copies import copied_ahead
from heads.scaling import TissueScaler
from heads.sources import TokenSource

__all__ = ["Batch", "CachedDataset", "Sample", "collate", "cut", "epoch_order", "epoch_steps"]

Rows = NDArray[np.int64]

_BUCKET_BATCHES = 32  # rows of so many batches are put in order of length


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One transcript: tokens (T_m, D_m) of each modality, no rows where it lacks one, and targets (K,)."""

    row: int
    tokens: Mapping[str, Tensor]
    targets: Tensor
    """NaN where not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Several samples. Shared by all runs of a cohort, so nobody may write to it."""

    tokens: Mapping[str, Ragged]
    """By source: values (N, D), float32; the same B samples in every source. A source has the name of its modality,
    unless runs that read different ones share the batch."""
    lengths: Mapping[str, Tensor]
    """By source: tokens of each sample, (B,) int64 on the CPU, also where ``tokens`` holds a summary of them."""
    targets: Tensor
    """(B, K), 0 where not measured."""
    measured: Tensor
    """(B, K), True where a target was measured."""
    rows: Tensor
    """(B,) int64: rows of the dataset."""

    def versions(self) -> list[int]:
        """Counters that any write to a tensor of the batch raises."""
        tensors = (*(ragged.values for ragged in self.tokens.values()), self.targets, self.measured)
        return [tensor._version for tensor in tensors]

    def part(self, start: int, end: int) -> "Batch":
        """Samples ``start`` to ``end``, as views."""
        if (start, end) == (0, len(self.rows)):
            return self
        tokens = {}
        for name, ragged in self.tokens.items():
            first, last = int(ragged.offsets[start]), int(ragged.offsets[end])
            tokens[name] = Ragged(ragged.values[first:last], ragged.offsets[start : end + 1] - first)
        return Batch(
            tokens=tokens,
            lengths={name: lengths[start:end] for name, lengths in self.lengths.items()},
            targets=self.targets[start:end],
            measured=self.measured[start:end],
            rows=self.rows[start:end],
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Pack samples, for use as ``DataLoader(CachedDataset(...), collate_fn=collate)``."""
    targets = torch.stack([sample.targets for sample in samples])
    tokens = {m: Ragged.from_list([sample.tokens[m].float() for sample in samples]) for m in samples[0].tokens}
    return Batch(
        tokens=tokens,
        lengths={m: ragged.lengths for m, ragged in tokens.items()},
        targets=targets.nan_to_num(0.0),
        measured=~targets.isnan(),
        rows=torch.tensor([sample.row for sample in samples]),
    )


class CachedDataset(torch.utils.data.Dataset[Sample]):
    """The rows of a dataset with their token embeddings.

    A torch dataset of single samples, to be used with ``collate``. Training reads whole batches with
    ``batches`` instead, which is faster.

    Args:
        dataset: Rows and targets.
        sources: Tokens of each modality that is read; or of several sources a modality, by names of their own.
        scaler: Takes targets to the z-scale; None leaves them as they are.
        targets: False to read tokens only, with K = 0; so it is too where the dataset has no targets.
    """

    def __init__(
        self,
        dataset: Dataset,
        sources: Mapping[Modality, TokenSource] | Mapping[str, TokenSource],
        scaler: TissueScaler | None = None,
        *,
        targets: bool = True,
    ) -> None:
        self.dataset = dataset
        self.sources: dict[str, TokenSource] = {str(name): source for name, source in sources.items()}
        self.lengths: Rows = np.sum([source.lengths for source in self.sources.values()], axis=0, dtype=np.int64)
        """Tokens of each row over all sources."""
        known = np.zeros((len(dataset.samples), 0))
        if targets and dataset.targets is not None:
            known = dataset.targets.to_numpy(dtype=np.float64)
            known = known if scaler is None else scaler.apply(known)
        self.targets: NDArray[np.float64] = known
        """(rows, K), on the z-scale if there is a scaler; NaN where not measured."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Sample:
        where = np.array([row], dtype=np.int64)
        tokens = {name: source.decode(source.packed(where).values) for name, source in self.sources.items()}
        return Sample(row=row, tokens=tokens, targets=torch.tensor(self.targets[row], dtype=torch.float32))

    def batches(
        self, parts: Sequence[Rows], *, reads: str = "tokens", device: torch.device | str = "cpu"
    ) -> Iterator[Batch]:
        """One batch a part, in order; tokens are read ahead. A batch is valid until the next is asked for.

        Args:
            parts: Row numbers of each batch.
            reads: ``tokens``, or a summary of them that is read from memory: ``means``, ``bins-K``, ... (see
                ``summarise`` in ``heads.pooling``), each sample having as many rows as the summary.
            device: Where values, targets and masks go; offsets and row numbers stay on the CPU.
        """
        as_tokens = {name: reads == "tokens" or source.tokens_only for name, source in self.sources.items()}
        is_gpu = torch.device(device).type == "cuda"
        streams = [
            source.stream(parts, pinned=is_gpu) if as_tokens[name] else _stream_summaries(source, reads, parts)
            for name, source in self.sources.items()
        ]
        if is_gpu:
            streams = [copied_ahead(stream, torch.device(device)) for stream in streams]
        decoders = {name: _Decoder(source, parts) for name, source in self.sources.items()}
        for rows, *ragged in zip(parts, *streams, strict=True):
            targets = torch.from_numpy(self.targets[rows]).float()
            tokens = {
                name: decode(part.to(device)) if as_tokens[name] else part.to(device)
                for (name, decode), part in zip(decoders.items(), ragged, strict=True)
            }
            yield Batch(
                tokens=tokens,
                lengths={name: torch.from_numpy(source.lengths[rows]) for name, source in self.sources.items()},
                targets=targets.nan_to_num(0.0).to(device),
                measured=(~targets.isnan()).to(device),
                rows=torch.from_numpy(rows),
            )


def _stream_summaries(source: TokenSource, reads: str, parts: Sequence[Rows]) -> Iterator[Ragged]:
    summaries = source.summaries(reads)  # (rows, R, C)
    for rows in parts:
        present = source.lengths[rows] > 0
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(present)]).astype(np.int64)) * summaries.shape[1]
        yield Ragged(summaries[torch.from_numpy(rows[present])].flatten(0, 1), offsets)


class _Decoder:
    """Tokens to compute on, float32; called on the device, for stored numbers are fewer bytes to send there.

    On a CPU they lie in memory that is used again: the system would take as long to find new memory for every batch as
    the reader takes to read it. The allocator of a GPU keeps its own.
    """

    def __init__(self, source: TokenSource, parts: Sequence[Rows]) -> None:
        self.source = source
        self.most_tokens = max((int(source.lengths[rows].sum()) for rows in parts), default=0)
        self.memory: Tensor | None = None

    def __call__(self, tokens: Ragged) -> Ragged:
        values = self.source.decode(tokens.values)
        if values.dtype == torch.float32 or values.device.type != "cpu":
            return tokens._replace(values=values.float())
        if self.memory is None or len(self.memory) < len(values):  # inner layers may have special tokens as well
            most = max(self.most_tokens, len(values))
            self.memory = torch.from_numpy(np.empty((most, values.shape[1]), np.float32))
        return tokens._replace(values=self.memory[: len(values)].copy_(values))


def epoch_order(rows: Rows, data_seed: int, epoch: int) -> Rows:
    """Training rows in the order of an epoch, which depends on nothing but its arguments."""
    order: Rows = np.random.default_rng((data_seed, epoch)).permutation(rows)
    return order


def epoch_steps(rows: Rows, config: TrainConfig, epoch: int, lengths: Rows) -> list[Rows]:
    """Rows of each step of an epoch.

    Args:
        rows: Training rows.
        config: Its data_seed, batch size, and whether batches are bucketed.
        epoch: From 0 on.
        lengths: Tokens of every row of the dataset, for buckets.
    """
    order = epoch_order(rows, config.data_seed, epoch)
    if not config.bucketed:
        return cut(order, lengths, config.batch_size)
    window = _BUCKET_BATCHES * config.batch_size
    windows = [order[start : start + window] for start in range(0, len(order), window)]
    steps = [
        step
        for one in windows
        for step in cut(one[np.argsort(lengths[one], kind="stable")], lengths, config.batch_size)
    ]
    shuffled = np.random.default_rng((config.data_seed, epoch, 1)).permutation(len(steps))
    return [steps[i] for i in shuffled]


def cut(rows: Rows, lengths: Rows, size: int, max_tokens: int | None = None) -> list[Rows]:
    """Cut rows into parts of at most ``size`` rows and ``max_tokens`` tokens; a longer row is alone.

    Args:
        rows: Row numbers, kept in their order; each lands in exactly one part.
        lengths: Tokens of every row of the dataset.
        size: Most rows of a part.
        max_tokens: Most tokens of a part; None for no limit.
    """
    parts: list[Rows] = []
    start, tokens = 0, 0
    for i, row in enumerate(rows):
        length = int(lengths[row])
        if i > start and (i - start == size or (max_tokens is not None and tokens + length > max_tokens)):
            parts.append(rows[start:i])
            start, tokens = i, 0
        tokens += length
    return [*parts, rows[start:]] if len(rows) else []
