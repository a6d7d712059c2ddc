"""One configuration with all that changes while it trains. Runs that share batches are a cohort; see ``fit.py``.

Shapes: N rows, K tissues.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.adam import Adam
from heads.aggregators import what_it_reads
from heads.checkpoint import nested
from heads.config import ModelConfig, TrainConfig
from heads.data import Batch, cut
from heads.losses import Criterion
from heads.metrics import Array, score
from heads.model import ExpressionModel
from heads.rng import PrivateRng
from heads.schedule import rate_factor
from heads.setup import Study
from heads.shards import part_of
from heads.team import Alone

__all__ = ["Run"]


class Run:
    """Model, optimiser, random stream and history of one configuration.

    Args:
        model: What to train.
        config: How.
        study: What it reads, its scaler and its training rows.
        device: Where it trains.
        inputs: Name of the source in a batch that each modality is read from; None where it is the modality's name.
        name: Stands in lines about it; empty for a run alone.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainConfig,
        *,
        study: Study,
        device: torch.device,
        inputs: Mapping[Modality, str] | None = None,
        name: str = "",
    ) -> None:
        self.config, self.device, self.name = config, device, name
        self.inputs = dict(inputs or {m: m for m in model.modalities})
        self.reads = what_it_reads(model, study.layers)
        self.rng = PrivateRng(config.seed, device)
        with self.rng.active():  # made on the CPU: the same initial weights on every device
            made = ExpressionModel(model, study.widths, len(study.dataset.tissues), study.layers)
        self.model = made.to(device)
        self.criterion = Criterion(config, study.scaler, study.data.targets[study.rows["train"]]).to(device)
        self.groups = [(Adam(self.model.parameters(), config.weight_decay), config.learning_rate)]
        """Optimisers of all that is trained, and the learning rate of each at the top of the schedule."""
        self.steps_per_epoch = math.ceil(len(study.rows["train"]) / config.batch_size)
        self.epoch, self.step = 0, 0
        """Epochs finished, and batches of the next one."""
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        """Epoch with the lowest validation loss, from 1 on; 0 while there is none."""
        self.best: dict[str, Tensor] = {}
        self.measured = False
        """Whether the model came with the scales of its pools; else they are measured before the first step."""
        self.stopped = ""
        """Why training ended; empty while it goes on."""
        self._loss = torch.zeros(2, dtype=torch.float64, device=device)  # losses of this epoch, and cells
        self._shared = torch.zeros_like(self._loss)  # of them, those that all processes of a team know

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All that the optimisers change, by name."""
        yield from self.model.named_parameters()

    def trained(self) -> dict[str, Tensor]:
        """All tensors that training changes or measures, by name: what a checkpoint and the best model hold."""
        return dict(self.model.state_dict())

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Put what ``trained`` gave in place."""
        self.model.load_state_dict(tensors)

    def set_training(self, mode: bool) -> None:
        """Switch dropout on or off; setting it walks through all layers, so only where it changes."""
        if self.model.training != mode:
            self.model.train(mode)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """While validation rows are predicted and the best weights kept."""
        self.set_training(False)
        yield

    def tokens(self, batch: Batch) -> dict[Modality, Ragged]:
        """Tokens of a batch, or summaries of them, of each modality that the model reads."""
        return {m: batch.tokens[name] for m, name in self.inputs.items()}

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """A batch in parts of as many tokens as may be computed on at a time, counting those that this run reads."""
        if self.reads != "tokens":
            yield batch
            return
        lengths = sum(batch.lengths[name] for name in self.inputs.values())
        assert isinstance(lengths, Tensor)
        rows = np.arange(len(lengths), dtype=np.int64)
        for part in cut(rows, lengths.numpy(), len(rows), self.config.max_tokens_per_batch):
            yield batch.part(int(part[0]), int(part[-1]) + 1)

    def predict(self, batch: Batch) -> Tensor:
        """Predictions for a batch, (B, K), float32."""
        lengths = {m: batch.lengths[name] for m, name in self.inputs.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            predicted: Tensor = self.model(self.tokens(batch), lengths)
        return predicted.float()

    @torch.no_grad()
    def measure(self, batch: Batch) -> None:
        """Let the model see training rows within ``fitting``, before the first step."""
        for part in self.parts(batch):
            self.predict(part)

    def begin_step(self, team: Alone) -> None:
        """Take the random stream of the step, where a team gives one."""
        seed = team.stream(self.config.seed, self.epoch, self.step)
        if seed is not None:
            self.rng.begin(seed)

    def accumulate(self, batch: Batch, n_cells: int) -> None:
        """Add the gradients of a batch, or of some rows of one.

        Args:
            batch: Not written to.
            n_cells: Measured cells of the whole batch.
        """
        self.set_training(True)
        with self.rng.active():
            for part in self.parts(batch):
                loss = self.criterion(self.predict(part), part.targets, part.measured)
                self.descend(loss / n_cells)
                self._loss[0] += loss.detach()
                self._loss[1] += part.measured.sum()

    def descend(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        torch.autograd.backward(loss)

    def catch_up(self) -> None:
        """Where all processes of a team have to compute together: until the others are through this piece of work."""

    def gather_best(self) -> None:
        """Bring the best weights together, where they lie in parts; ends the training of this process."""

    def update(self, team: Alone | None = None) -> None:
        """Take a step along the gradients that were added up, by all processes of a team."""
        team = team or Alone()
        self.catch_up()
        if team.size > 1:
            losses = self._loss - self._shared
            team.add_up([one for _, one in self.named_parameters()], losses)
            self._shared += losses
            self._loss.copy_(self._shared)
        done = self.epoch * self.steps_per_epoch + self.step
        factor = rate_factor(self.config, done, self.config.epochs * self.steps_per_epoch)
        if self.config.clip is not None:
            team.clip([one for _, one in self.named_parameters()], self.config.clip)
        for optimizer, rate in self.groups:
            optimizer.step(rate * factor)
        self.step += 1

    def end_epoch(self, targets: Array, predictions: Array) -> None:
        """Score the validation rows, keep the best weights, and decide whether to go on.

        Args:
            targets: (N, K), NaN where not measured.
            predictions: (N, K).
        """
        squares, cells = self._loss.tolist()
        self._loss.zero_()
        self._shared.zero_()
        self.epoch, self.step = self.epoch + 1, 0
        scores = score(targets, predictions).to_json()
        record = {name: scores[name] for name in ("r2", "spearman", "r2_pooled", "spearman_pooled")}
        losses = {"train_loss": squares / cells, "validation_loss": scores["mse"]}
        finite = {name: x if x is not None and math.isfinite(x) else None for name, x in losses.items()}
        self.history.append({"epoch": self.epoch, **finite, **record})
        if None in finite.values():
            self.stopped = "the loss is not a finite number"
            return
        if not self.best_epoch or losses["validation_loss"] < self.history[self.best_epoch - 1]["validation_loss"]:
            self.best_epoch = self.epoch
            self.best = {name: tensor.detach().clone() for name, tensor in self.trained().items()}
        if self.epoch - self.best_epoch >= self.config.patience:
            self.stopped = f"no better for {self.config.patience} epochs"
        elif self.epoch >= self.config.epochs:
            self.stopped = f"all {self.config.epochs} epochs done"

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that another process needs to go on to the same numbers: tensors, and JSON values."""
        tensors = {f"model.{name}": tensor for name, tensor in self.trained().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"rng.{name}": tensor for name, tensor in self.rng.state().items()}
        held = self._held()
        for name, parameter in self.named_parameters():
            if parameter in (state := held[id(parameter)]) and not self.stopped:
                tensors |= {f"adam.{field}.{name}": value for field, value in state[parameter].items()}
        tensors["loss"] = self._loss
        names = ("epoch", "step", "history", "best_epoch", "stopped")
        return tensors, {name: getattr(self, name) for name in names}

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.load_trained(nested(tensors, "model"))
        like = dict(self.named_parameters())  # what is no parameter is whole
        self.best = {
            name: part_of(one, like[name]) if name in like else one.to(self.device)
            for name, one in nested(tensors, "best").items()
        }
        self.rng.load(nested(tensors, "rng"))
        state = nested(tensors, "adam")
        held = self._held()
        for name, parameter in self.named_parameters():
            found = {field: state[f"{field}.{name}"] for field in ("step", "exp_avg", "exp_avg_sq")
                     if f"{field}.{name}" in state}  # fmt: skip
            if found:
                held[id(parameter)][parameter] = {field: part_of(value, parameter) for field, value in found.items()}
        self._loss = tensors["loss"].to(self.device)
        self._shared = self._loss.clone()
        self.epoch, self.step, self.best_epoch = values["epoch"], values["step"], values["best_epoch"]
        self.history, self.stopped = list(values["history"]), values["stopped"]

    def _held(self) -> dict[int, dict[Tensor, dict[str, Tensor]]]:
        """The state of the optimiser of each parameter, by its identity."""
        return {id(parameter): optimizer.state for optimizer, _ in self.groups for parameter in optimizer.parameters}
