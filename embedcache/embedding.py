"""Running an encoder over the sequences of a task: batches, memory that runs out, sequences that cannot be embedded."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from traceback import clear_frames

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.failures import FAILURES, DeviceLostError, describe, raise_if_lost
from embedcache.encoders.memory import empty_cache, is_out_of_memory
from embedcache.encoders.spec import Encoder, LayeredEncoder, Pending, StartingEncoder
from embedcache.errors import EmbedCacheError, InvalidSettingError
from embedcache.plan import Plan
from embedcache.products import Product
from embedcache.store.layout import Array
from embedcache.store.quarantine import Poisoned

__all__ = ["DeviceLostError", "Embedded", "Embedder"]

log = logging.getLogger(__name__)

CONTROL = {"protein": "MKTAYIAKQR", "rna": "ACGTACGTAACCGGTTACGTACGA", "dna": "ACGTACGTAACCGGTTACGTACGA"}
Rows = dict[int, list[NDArray[np.float32]]]


def _nobody(plan: Plan, index: int, reason: Poisoned) -> None:
    raise EmbedCacheError(f"{plan.ids[index]} cannot be embedded: {reason.reason}")


@dataclass(frozen=True, slots=True)
class Embedded:
    """One sequence, as each product stores it."""

    index: int
    """In the plan."""
    stored: list[Array]
    """In the order of the products."""


@dataclass(slots=True)
class Embedder:
    """Embeds sequences of a plan for all products in one pass each.

    An encoder that can start without waiting gets its next batch before the last one is copied and rounded. A batch
    that does not fit the memory is halved and the budget with it. A batch that fails otherwise is run one by one; a
    sequence that fails alone is given up, unless the encoder fails on an ordinary sequence as well.

    Attributes:
        encoder: The network.
        products: What is made of its rows; their layers and poolings may differ, all else is as in its spec.
        tokens_per_batch: Budget of one call; it falls when memory runs out.
        give_up: Called with the index of a sequence that cannot be embedded; set by the worker.
        alone: True runs each sequence in a call of its own, and begins none before the last one is finished, so that
            whatever happens is the fault of that one.
    """

    encoder: Encoder
    products: Sequence[Product]
    tokens_per_batch: int
    give_up: Callable[[Plan, int, Poisoned], None] = _nobody
    alone: bool = False
    _layers: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._layers = sorted({product.spec.layer for product in self.products})
        if self._layers != [self.encoder.spec.layer] and not isinstance(self.encoder, LayeredEncoder):
            raise InvalidSettingError(f"Encoder {self.encoder.spec.name} gives one layer a pass. Ask for one layer.")

    def embed(self, plan: Plan, indices: Sequence[int], before: Callable[[Sequence[int]], bool]) -> Iterator[Embedded]:
        """Embed sequences of a plan, in their order, fewer if ``before`` says so.

        Args:
            plan: Gives letters and lengths.
            indices: Which sequences.
            before: Called before each batch with its sequences; False ends the work.
        """
        waiting, begun = list(indices), None
        while waiting:
            batch = self._next_batch(plan, waiting)
            if not before(batch):
                break
            del waiting[: len(batch)]
            coming = None if self.alone else self._begin(plan, batch)
            if begun is not None:
                yield from self._finish(plan, *begun)
            begun = None if coming is None else (batch, coming)
            if coming is None:
                yield from self._finish(plan, batch)
        if begun is not None:
            yield from self._finish(plan, *begun)

    def _next_batch(self, plan: Plan, waiting: Sequence[int]) -> list[int]:
        batch, used = [waiting[0]], plan.lengths[waiting[0]]
        for i in waiting[1:]:
            used += plan.lengths[i]
            if self.alone or used > self.tokens_per_batch:
                break
            batch.append(i)
        return batch

    def _begin(self, plan: Plan, batch: Sequence[int]) -> Pending[Rows] | None:
        """Start a pass that goes on beside us, on a GPU; None if it runs when its rows are wanted."""
        if not isinstance(self.encoder, StartingEncoder):
            return None
        try:
            return self.encoder.start_layers([plan.sequence(i) for i in batch], self._layers)
        except FAILURES as error:
            raise_if_lost(error)
            return None  # it fails again where that is handled, and where the batch before is out of the way

    def _finish(self, plan: Plan, batch: Sequence[int], coming: Pending[Rows] | None = None) -> Iterator[Embedded]:
        try:
            rows = self._encode([plan.sequence(i) for i in batch]) if coming is None else coming.result()
            self._check(rows, [plan.lengths[i] for i in batch])
            done = self._stored(batch, rows)
        except FAILURES as error:
            raise_if_lost(error)
            again = coming is not None and len(batch) == 1  # blamed only for what it does with nothing beside it
            yield from self._finish(plan, batch) if again else self._one_by_one(plan, batch, error)
            return
        yield from done

    def _one_by_one(self, plan: Plan, batch: Sequence[int], error: Exception) -> Iterator[Embedded]:
        if len(batch) == 1:
            if not self._control_works():
                raise error
            index = batch[0]
            log.warning("%s cannot be embedded and is skipped: %s", plan.ids[index], error)
            self.give_up(plan, index, Poisoned(plan.ids[index], describe(error)))
            return
        if not is_out_of_memory(error):
            for index in batch:
                yield from self._finish(plan, [index])
            return
        tokens = sum(plan.lengths[i] for i in batch)
        self.tokens_per_batch = min(self.tokens_per_batch, max(1, tokens // 2))
        log.warning("a batch of %d tokens does not fit the memory: from now on %d", tokens, self.tokens_per_batch)
        clear_frames(error.__traceback__)  # they hold the tensors of the pass that failed
        empty_cache()
        waiting = list(batch)
        while waiting:  # the budget may fall again on the way
            piece = self._next_batch(plan, waiting)
            del waiting[: len(piece)]
            yield from self._finish(plan, piece)

    def _control_works(self) -> bool:
        """Whether the encoder embeds an ordinary sequence, so that a failure was the fault of another one."""
        sequence = CONTROL[self.encoder.spec.modality]
        try:
            rows = self._encode([sequence])
            self._check(rows, [self.encoder.spec.n_tokens(sequence)])
            for product in self.products:
                product.stored(rows[product.spec.layer][0])
        except FAILURES as error:
            raise_if_lost(error)
            return False
        return True

    def _encode(self, sequences: Sequence[str]) -> Rows:
        """Rows of each sequence by layer."""
        if self._layers == [self.encoder.spec.layer]:
            return {self.encoder.spec.layer: self.encoder.encode(sequences)}
        assert isinstance(self.encoder, LayeredEncoder)
        return self.encoder.encode_layers(sequences, self._layers)

    def _check(self, rows: Rows, lengths: Sequence[int]) -> None:
        name, width = self.encoder.spec.name, self.encoder.spec.width
        for arrays in rows.values():
            if len(arrays) != len(lengths):
                raise EmbedCacheError(f"encoder {name} returned {len(arrays)} arrays for {len(lengths)} sequences.")
            for array, n_tokens in zip(arrays, lengths, strict=True):
                if array.shape != (n_tokens, width):
                    raise EmbedCacheError(
                        f"encoder {name} returned rows {array.shape} for a sequence of {n_tokens} tokens, expected "
                        f"{(n_tokens, width)}: special tokens dropped, nothing cut. Mend the encoder."
                    )

    def _stored(self, batch: Sequence[int], rows: Rows) -> list[Embedded]:
        for product in self.products:
            product.settle(rows[product.spec.layer])
        return [
            Embedded(index, [product.stored(rows[product.spec.layer][k]) for product in self.products])
            for k, index in enumerate(batch)
        ]
