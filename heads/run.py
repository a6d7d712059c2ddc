"""One configuration with all that changes while it trains. Runs that share batches are a cohort; see ``train.py``.

Shapes: N rows, K tissues.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from embedcache.sequences import Modality
from heads.checkpoint import nested
from heads.config import ModelConfig, TrainConfig
from heads.data import Batch
from heads.metrics import Array, score
from heads.model import ExpressionModel
from heads.pooling import fitting
from heads.rng import PrivateRng

__all__ = ["Run"]


class Run:
    """Model, optimiser, random stream and history of one configuration.

    Args:
        model: What to train.
        config: How.
        widths: Width of the token embeddings of each modality.
        n_tissues: Outputs.
        device: Where it trains.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainConfig,
        *,
        widths: Mapping[Modality, int],
        n_tissues: int,
        device: torch.device,
    ) -> None:
        self.config, self.device = config, device
        self.rng = PrivateRng(config.seed, device)
        with self.rng.active():  # made on the CPU: the same initial weights on every device
            self.model = ExpressionModel(model, widths, n_tissues).to(device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.epoch, self.step = 0, 0
        """Epochs finished, and batches of the next one."""
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        """Epoch with the lowest validation loss, from 1 on; 0 while there is none."""
        self.best: dict[str, Tensor] = {}
        self.stopped = ""
        """Why training ended; empty while it goes on."""
        self._loss = torch.zeros(2, dtype=torch.float64, device=device)  # squared errors of this epoch, and cells

    @torch.no_grad()
    def measure_scales(self, batches: Iterable[Batch]) -> None:
        """Fix shift and scale of pooled vectors on training batches; once, before the first step."""
        self.model.eval()
        with fitting(self.model):
            for batch in batches:
                self.model(batch.tokens)

    def accumulate(self, batch: Batch, n_cells: int) -> None:
        """Add the gradients of a batch, or of a part of one.

        Args:
            batch: Not written to.
            n_cells: Measured cells of the whole batch.
        """
        self.model.train()
        with self.rng.active():
            errors = (self.model(batch.tokens) - batch.targets) * batch.measured  # (B, K)
            loss = errors.square().sum() / n_cells
            loss.backward()
        self._loss += torch.stack([loss.detach().double() * n_cells, batch.measured.sum().double()])

    def update(self) -> None:
        """Take a step along the gradients that were added up."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def end_epoch(self, targets: Array, predictions: Array) -> None:
        """Score the validation rows, keep the best weights, and decide whether to go on.

        Args:
            targets: (N, K), NaN where not measured.
            predictions: (N, K).
        """
        squares, cells = self._loss.tolist()
        self._loss.zero_()
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
            self.best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        if self.epoch - self.best_epoch >= self.config.patience:
            self.stopped = f"no better for {self.config.patience} epochs"
        elif self.epoch >= self.config.epochs:
            self.stopped = f"all {self.config.epochs} epochs done"

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that another process needs to go on to the same numbers: tensors, and JSON values."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"rng.{name}": tensor for name, tensor in self.rng.state().items()}
        for name, parameter in self.model.named_parameters():
            for field, value in self.optimizer.state[parameter].items() if parameter in self.optimizer.state else ():
                tensors[f"adam.{field}.{name}"] = value
        tensors["loss"] = self._loss
        names = ("epoch", "step", "history", "best_epoch", "stopped")
        return tensors, {name: getattr(self, name) for name in names}

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self.model.load_state_dict(nested(tensors, "model"))
        self.best = {name: tensor.to(self.device) for name, tensor in nested(tensors, "best").items()}
        self.rng.load(nested(tensors, "rng"))
        state = nested(tensors, "adam")
        for name, parameter in self.model.named_parameters():
            found = {field: state[f"{field}.{name}"] for field in ("step", "exp_avg", "exp_avg_sq")
                     if f"{field}.{name}" in state}  # fmt: skip
            if found:  # the count of steps stays on the CPU, as AdamW keeps it
                self.optimizer.state[parameter] = {
                    field: value if field == "step" else value.to(self.device) for field, value in found.items()
                }
        self._loss = tensors["loss"].to(self.device)
        self.epoch, self.step, self.best_epoch = values["epoch"], values["step"], values["best_epoch"]
        self.history, self.stopped = list(values["history"]), values["stopped"]
