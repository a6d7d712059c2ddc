"""Packed inference: sequences of any lengths in one row of tokens, without padding.

Positions restart at every sequence and a registered attention function keeps each sequence to itself, so
that a sequence sees the kernels it would see alone and its numbers do not depend on its neighbours: bit for
bit on one CPU thread; with more threads or on a GPU the rounding of a few numbers may differ, within
``TOLERANCE`` of the largest. On a CPU they are those of the plain pass of transformers up to the last digits, and
in half precision nearer to float32 than those (see ``blocks``). Matrix products of very few rows round in another
way, so very short sequences run alone. Fits transformers models that use the attention interface and mix tokens
in attention only, with positions that a pack can restart: ESM-2, ESM C, the Nucleotide Transformers, and T5, whose
distances count within a sequence. It does not fit inputs with ``<mask>`` in models with ``token_dropout``: their
rescaling would run over the whole pack.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedcache.encoders.attention import ATTENTION
from embedcache.encoders.blocks import run_blocks
from embedcache.encoders.layers import Done, Starting, check_layers
from embedcache.encoders.output import PendingRows, to_device
from embedcache.encoders.spec import EncoderSpec, Pending
from embedcache.errors import EmbedCacheError
from embedcache.ragged import Ragged

__all__ = ["ESM", "Network", "PackedEncoder", "Vocabulary", "about_pack", "check_packing", "pack_inputs"]

CPU_PACK_TOKENS = 1024
"""Tokens of one pass, about, for each thread of a CPU; more are slower, for activations leave its cache."""
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03, torch.float16: 0.01}
"""Largest difference between a pack and single runs, relative to the largest value, by compute dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """How a family writes a sequence as token ids."""

    ids: Callable[[str], NDArray[np.int64]]
    """Ids of a normalised sequence, without special tokens."""
    before: int | None
    """Id of the special token in front, if the family has one."""
    after: int | None = None
    """Id of the special token at the end, if the family has one."""
    first_position: int = 0
    """Position of the first token: 0, or one past the padding id in tables of learned positions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """How a pack goes through the models of a family, and where they keep their blocks."""

    run: Callable[[Any, dict[str, Any], Sequence[int]], dict[int, Tensor]]
    """Takes the model, the inputs of a pack and the layers asked for; see ``blocks.run_blocks``."""
    blocks: str
    """Path from the model to the list of its blocks, with dots."""
    norm: str
    """Path to the normalisation behind the last one."""

    def get(self, model: Any, path: str) -> Any:
        """The part of the model at a path."""
        return attrgetter(path)(model)

    def put(self, model: Any, path: str, part: Any) -> None:
        """Another part in its place."""
        parent, _, name = path.rpartition(".")
        setattr(attrgetter(parent)(model) if parent else model, name, part)


ESM = Network(run=run_blocks, blocks="encoder.layer", norm="encoder.emb_layer_norm_after")
"""ESM-2 and the Nucleotide Transformers."""


class PackedEncoder(Starting):
    """An encoder that runs packs: see ``spec.Encoder``; also gives tensors, for training.

    Attributes:
        spec: What it is.
        model: The torch module. Its parameters may be trained; ``encode`` always sees their present values.
        packing_error: What ``check_packing`` found when it was loaded: about 1e-6 in float32.
        checkpointing: Whether the backward pass runs blocks again instead of keeping what is inside them.
    """

    def __init__(
        self, spec: EncoderSpec, model: nn.Module, vocabulary: Vocabulary, device: str = "cpu", network: Network = ESM
    ) -> None:
        self.spec = spec
        self.vocabulary = vocabulary
        self.network = network
        self.checkpointing = False
        specials = [int(one is not None) for one in (vocabulary.before, vocabulary.after)]
        assert spec.special_tokens == "dropped" or [*spec.kept_special] == specials, "the card says how many there are"
        self.model = cast(Any, model).to(device).eval()
        self.packing_error = check_packing(self.model, vocabulary, spec.name, network)
        _keep_layers(self.model, spec.layer, network)

    def start_layers(
        self, sequences: Sequence[str], layers: Sequence[int]
    ) -> Pending[dict[int, list[NDArray[np.float32]]]]:
        """Begin what ``encode_layers`` does, see ``spec.StartingEncoder``."""
        check_layers(self.spec, layers)
        if not sequences:
            return Done({layer: [] for layer in layers})
        with torch.inference_mode():
            return PendingRows(self.spec, self._pack(sequences, layers))

    def encode_packed(self, sequences: Sequence[str]) -> Ragged:
        """Embed sequences, at least one, on the device and in the compute dtype, open to gradients.

        Returns:
            Rows of residues or tokens only, sequences in their order.
        """
        return self._pack(sequences, [self.spec.layer])[self.spec.layer]

    def continue_packed(self, rows: Ragged, done: int) -> Ragged:
        """Run the blocks that are left, open to gradients.

        Args:
            rows: Rows behind block ``done``, those of special tokens among them, (N, D); at least one sequence.
            done: Blocks that they have behind them.

        Returns:
            Rows of ``spec.layer``, as ``encode_packed`` gives them.
        """
        lengths = rows.lengths.tolist()
        parts = rows.to_list()

        def inputs(pack: list[int]) -> dict[str, Any]:
            of_pack = about_pack([lengths[i] for i in pack], self.vocabulary, self.model.device)
            return {**of_pack, "rows": torch.cat([parts[i] for i in pack])[None], "done": done}

        return self._run(lengths, inputs, [self.spec.layer])[self.spec.layer]

    def _pack(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, Ragged]:
        ids = [self._with_special(sequence) for sequence in sequences]

        def inputs(pack: list[int]) -> dict[str, Any]:
            return pack_inputs([ids[i] for i in pack], self.vocabulary, self.model.device)

        return self._run([len(one) for one in ids], inputs, layers)

    def _run(
        self, lengths: Sequence[int], inputs: Callable[[list[int]], dict[str, Any]], layers: Sequence[int]
    ) -> dict[int, Ragged]:
        """Split sequences of these lengths, special tokens counted, into packs, run them, and put rows in order."""
        order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)  # equal neighbours share a call
        budget, shortest = sum(lengths), 0
        if self.model.device.type == "cpu":
            threads = torch.get_num_threads()
            budget, shortest = CPU_PACK_TOKENS * threads, _shortest_in_pack(threads)
        passes = [
            self.network.run(self.model, {**inputs(pack), "checkpointing": self.checkpointing}, layers)
            for pack in _packs(order, lengths, budget, shortest)
        ]
        starts = np.empty(len(lengths), np.int64)
        starts[order] = np.cumsum([0, *(lengths[i] for i in order[:-1])])
        before, after = (int(one is not None) for one in (self.vocabulary.before, self.vocabulary.after))
        if self.spec.special_tokens != "dropped":
            before, after = 0, 0
        counts = np.array(lengths) - before - after
        offsets = np.append(0, np.cumsum(counts))
        kept = np.arange(offsets[-1]) + np.repeat(starts + before - offsets[:-1], counts)
        rows, bounds = to_device(kept, self.model.device), torch.from_numpy(offsets)
        # all tokens with special ones, longest sequence first, (N, D), to residues in the order of the batch
        return {layer: Ragged(torch.cat([one[layer] for one in passes])[rows], bounds) for layer in layers}

    def _with_special(self, sequence: str) -> NDArray[np.int64]:
        before, after = ([] if one is None else [one] for one in (self.vocabulary.before, self.vocabulary.after))
        return np.concatenate([before, self.vocabulary.ids(sequence), after]).astype(np.int64)


def check_packing(model: Any, vocabulary: Vocabulary, name: str, network: Network = ESM) -> float:
    """Compare a pack with plain single runs in the first two layers, and leave the model on packed attention.

    Returns:
        The largest difference over the largest value.

    Raises:
        EmbedCacheError: Sequences of a pack see each other, or their positions do not restart.
    """
    draw = np.random.default_rng(0)
    words = draw.integers(6, 24, size=(4, 120))  # ordinary tokens in every vocabulary
    ids = [words[i, :n] for i, n in enumerate((120, 37, 12, 12))]
    layers = network.get(model, network.blocks)
    network.put(model, network.blocks, layers[:2])  # a fault shows in the first attention that mixes tokens
    try:
        with torch.inference_mode():
            model.set_attn_implementation("sdpa")
            single = torch.cat(
                [model(input_ids=torch.from_numpy(one)[None].to(model.device)).last_hidden_state[0] for one in ids]
            )
            model.set_attn_implementation(ATTENTION)
            packed = network.run(model, pack_inputs(ids, vocabulary, model.device), [-1])[-1]
    finally:
        network.put(model, network.blocks, layers)
    error = ((packed - single).abs().max() / single.abs().max()).item()
    tolerance = TOLERANCE[packed.dtype]
    if not error <= tolerance:
        raise EmbedCacheError(
            f"Encoder {name}: packed and single runs differ by {error:.2g} of the largest value, over {tolerance:g}. "
            "Its numbers would depend on the batch: use another version of transformers or torch."
        )
    return float(error)


def pack_inputs(ids: Sequence[NDArray[np.int64]], vocabulary: Vocabulary, device: torch.device) -> dict[str, Any]:
    """Arguments of the model for one pack."""
    return {
        "input_ids": to_device(np.concatenate(ids)[None], device),  # (1, N)
        **about_pack([len(one) for one in ids], vocabulary, device),
    }


def about_pack(lengths: Sequence[int], vocabulary: Vocabulary, device: torch.device) -> dict[str, Any]:
    """What blocks need to know of sequences of these lengths, none of which is done."""
    bounds = np.cumsum([0, *lengths])
    positions = np.arange(bounds[-1]) - np.repeat(bounds[:-1] - vocabulary.first_position, lengths)
    return {
        "position_ids": to_device(positions[None], device),  # (1, N)
        "runs": [(length, len(list(same))) for length, same in groupby(lengths)],
        "bounds": to_device(bounds.astype(np.int32), device),
        "longest": max(lengths),
        "done": 0,
        "checkpointing": False,
    }


def _shortest_in_pack(threads: int) -> int:
    """Rows from which a matrix product on a CPU rounds as one of many rows does.

    Measured with MKL: up to 3 rows go another way, and a product over two threads is cut so that up to 11
    rows may leave one of them 3 or fewer.
    """
    return min(4 + 8 * (threads - 1), 64)


def _packs(order: Sequence[int], lengths: Sequence[int], budget: int, shortest: int) -> Iterator[list[int]]:
    """Split the order into packs of about ``budget`` tokens, as equal as whole sequences allow.

    What is left over when packs are filled one by one would be a small pack, and small ones are slow. A sequence
    that is longer than its pack should be has one of its own, and so has one shorter than ``shortest``.
    """
    pack: list[int] = []
    used, share, left = 0, 0.0, sum(lengths)
    for i in order:
        if pack and (used + lengths[i] / 2 > share or lengths[i] < shortest):
            yield pack
            pack, used = [], 0
        if not pack:
            share = left / max(1, round(left / budget))
        pack.append(i)
        used += lengths[i]
        left -= lengths[i]
    yield pack


def _keep_layers(model: Any, layer: int, network: Network) -> None:
    """Cut the model after a layer; only the last one has the final normalisation behind it."""
    if layer != -1:
        network.put(model, network.blocks, network.get(model, network.blocks)[:layer])
        network.put(model, network.norm, nn.Identity())
