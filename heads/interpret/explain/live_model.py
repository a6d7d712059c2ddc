"""A trained run with its encoders run live in place of the cache: from letters to expression.

Shapes: B or N samples, D width, K tissues.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embedcache.encoders.of_spec import encoder_of_spec
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.checkpoint import CheckpointError
from heads.data import cut
from heads.inference import choose_device
from heads.interpret.explain.live_tokens import LiveEncoder, LiveTokens
from heads.pooling import summarise
from heads.trained import TrainedRun, load_trained

__all__ = ["LiveModel", "Sequences", "Shelf", "open_live", "tuned_or_frozen"]

Sequences = Mapping[Modality, str | None]
"""Normalised letters of one sample; a modality that is None or not there is missing."""
Shelf = dict[tuple[Modality, str], Tensor]
"""What the model reads of sequences: their tokens, or the summary of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """A finished run and the encoders that its tokens came from."""

    trained: TrainedRun
    tokens: Mapping[Modality, LiveTokens]

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model reads."""
        return tuple(self.trained.model.config.modalities)

    @property
    def tissues(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.trained.scaler.tissues

    @property
    def unit(self) -> str:
        """Of the predictions: that of the targets of training, such as ``log1p_tpm``."""
        return str(self.trained.description["dataset"]["target_unit"])

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self.trained.model.parameters()).device

    def columns(self, tissues: Sequence[str]) -> list[int]:
        """Columns of the predictions of some tissues; of all if none are named.

        Raises:
            UnknownNameError: The run does not predict one of them.
        """
        for name in tissues:
            if name not in self.tissues:
                raise UnknownNameError("tissue", name, self.tissues)
        return [self.tissues.index(name) for name in tissues or self.tissues]

    def embed(self, modality: Modality, sequences: Sequence[str | None]) -> Ragged:
        """Token embeddings as the store of the run has them before it rounds: cropped and pooled by its spec.

        Open to gradients; where they are off (``torch.no_grad``), computed just as a build does. Each distinct
        sequence is embedded once.

        Args:
            modality: One that the model reads.
            sequences: Normalised letters of each sample; None has no rows.

        Raises:
            InvalidSequenceError: A sequence is longer than the encoder takes, and the spec has no crop.
            InvalidSettingError: Gradients are on, and the encoder gives none.
        """
        live = self.tokens[modality]
        distinct = list(dict.fromkeys(one for one in sequences if one is not None))
        found: dict[str, Tensor] = {}
        for call in live.calls(distinct):
            open_to_gradients = torch.is_grad_enabled()
            rows = live.tensors(call) if open_to_gradients else [torch.from_numpy(one) for one in live.rows(call)]
            found |= dict(zip(call, rows, strict=True))
        none = torch.zeros(0, live.width)
        parts = [none if one is None else found[one] for one in sequences]
        return Ragged.from_list([part.to(self.device) for part in parts])

    def forward(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Predictions (B, K) in the unit of the targets, from embeddings, open to gradients."""
        scaler, config = self.trained.scaler, self.trained.config
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            scaled = self.trained.model(tokens, {m: part.lengths for m, part in tokens.items()})
        mean, sd = (torch.tensor(one, device=self.device) for one in (scaler.mean, scaler.sd))
        predicted: Tensor = scaled.float() * sd + mean
        return predicted

    def predict(self, inputs: Sequence[Sequences], known: Shelf | None = None) -> NDArray[np.float64]:
        """Predict samples from their letters.

        The same samples in the same order give what ``heads predict`` gives from a float32 store, bit for bit on one
        CPU thread, and nearly so from a store that rounds. Each distinct sequence is embedded once.

        Args:
            inputs: N samples.
            known: Sequences that need not be embedded, from ``shelve``.

        Returns:
            (N, K), in the unit of the targets.

        Raises:
            InvalidInputError: A prediction is no finite number.
            InvalidSequenceError: See ``embed``.
        """
        model, config = self.trained.model, self.trained.config
        lengths = {m: np.array([self._n_rows(m, one) for one in inputs], np.int64) for m in self.modalities}
        limit = config.max_tokens_per_batch if model.reads == "tokens" else None
        total: NDArray[np.int64] = np.stack(list(lengths.values())).sum(axis=0)
        parts = cut(np.arange(len(inputs), dtype=np.int64), total, config.batch_size, limit)
        found = [np.zeros((0, len(self.tissues)))]
        with torch.no_grad():
            for rows, tokens in zip(parts, self._batches(inputs, parts, known or {}), strict=True):
                counts = {m: torch.from_numpy(lengths[m][rows]) for m in self.modalities}
                with torch.autocast(self.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                    found.append(model(tokens, counts).cpu().double().numpy())
        predicted = np.concatenate(found)
        if wrong := int((~np.isfinite(predicted)).any(axis=1).sum()):
            raise InvalidInputError(
                f"Predictions of {wrong} of {len(inputs)} sequences are no finite numbers. Train the run "
                f"{self.trained.directory.path} again with a lower --learning-rate."
            )
        return self.trained.scaler.undo(predicted)

    def shelve(self, inputs: Sequence[Sequences]) -> Shelf:
        """Embed sequences that many calls of ``predict`` share, such as those that no mutant changes."""
        shelf: Shelf = {}
        with torch.no_grad():
            for m in self.modalities:
                self._fill(shelf, m, [one for sample in inputs if (one := sample.get(m)) is not None])
        return shelf

    def _batches(
        self, inputs: Sequence[Sequences], parts: Sequence[NDArray[np.int64]], known: Shelf
    ) -> Iterator[dict[Modality, Ragged]]:
        """What the model reads of each part; what is embedded stays until the last part that has it."""
        last = {
            (m, sequence): i
            for i, rows in enumerate(parts)
            for row in rows
            for m in self.modalities
            if (sequence := inputs[row].get(m)) is not None
        }
        shelf: Shelf = dict(known)
        for i, rows in enumerate(parts):
            batch: dict[Modality, Ragged] = {}
            for m in self.modalities:
                sequences = [inputs[row].get(m) for row in rows]
                self._fill(shelf, m, [one for one in sequences if one is not None])
                none = torch.zeros(0, self.tokens[m].width)
                if self.trained.model.reads != "tokens":
                    none = summarise(Ragged.from_list([none]), self.trained.model.reads)[0, :0]
                parts_m = [none if one is None else shelf[m, one] for one in sequences]
                batch[m] = Ragged.from_list(parts_m).to(self.device)
            yield batch
            shelf = {name: kept for name, kept in shelf.items() if name in known or last[name] > i}

    def _fill(self, shelf: Shelf, modality: Modality, sequences: Sequence[str]) -> None:
        """Embed what is not on the shelf; where the model reads summaries, only these are kept."""
        reads, live = self.trained.model.reads, self.tokens[modality]
        wanted = [one for one in dict.fromkeys(sequences) if (modality, one) not in shelf]
        for call in live.calls(wanted):
            rows = [torch.from_numpy(one) for one in live.rows(call)]
            if reads != "tokens":
                summaries = summarise(Ragged.from_list(rows), reads)
                rows = [one if len(own) else one[:0] for one, own in zip(summaries, rows, strict=True)]
            shelf.update({(modality, one): own for one, own in zip(call, rows, strict=True)})

    def _n_rows(self, modality: Modality, sample: Sequences) -> int:
        sequence = sample.get(modality)
        return 0 if sequence is None else self.tokens[modality].n_rows(sequence)


def open_live(run: Path | str, device: str = "auto", weights: Mapping[Modality, Path] | None = None) -> LiveModel:
    """Open a finished run with its encoders.

    Args:
        run: Directory of the run.
        device: Where the encoders and the model run.
        weights: Directory with the published weights of a modality's encoder; the hub cache is searched without it.

    Raises:
        CheckpointError: The run is missing, unfinished, damaged, or does not say what its encoders were.
        CacheMismatchError: The weights are not those that the store was built with.
        EmbedCacheError: An encoder that cannot be run, or whose weights are not here.
    """
    trained = load_trained(run, device)
    for modality in weights or {}:
        if modality not in trained.model.config.modalities:
            raise InvalidSettingError(
                f"Weights are given for {modality}, which {trained.directory.path} does not read. Leave them out."
            )
    specs = trained.description.get("specs")
    if not specs:
        raise CheckpointError(
            f"{trained.directory.path} does not say how its encoders were run: it was trained by an older version. "
            "Train it again."
        )
    where, tokens = str(choose_device(device)), {}
    for modality in trained.model.config.modalities:
        layers = specs[modality] if isinstance(specs[modality], list) else [specs[modality]]
        path = (weights or {}).get(modality)
        tokens[modality] = LiveTokens(
            [
                tuned_or_frozen(
                    trained, EncoderSpec.from_json(layer, str(trained.directory.config)), device=where, weights=path
                )
                for layer in layers
            ]
        )
    return LiveModel(trained=trained, tokens=tokens)


def tuned_or_frozen(trained: TrainedRun, spec: EncoderSpec, *, device: str, weights: Path | None) -> LiveEncoder:
    """The encoder of one layer that a run reads: all encoders of live models come from here."""
    if spec.modality in trained.learned:
        return trained.encoder(spec.modality, weights)
    return encoder_of_spec(spec, device=device, weights=weights)
