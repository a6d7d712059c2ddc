"""A run whose encoders are trained with the head. See ``heads/fit.py`` for the loop, which is the same.

Shapes: B samples, N packed tokens, D width.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.adam import Adam
from heads.checkpoint import nested
from heads.config import ModelConfig, TrainConfig
from heads.data import Batch, cut
from heads.finetune.config import FinetuneConfig
from heads.finetune.encoder import TunedEncoder
from heads.finetune.live import InnerSource, LiveRows
from heads.run import Run
from heads.setup import Study
from heads.shards import local, part_of, whole
from heads.team import Alone

__all__ = ["ENCODER", "TunedRun"]

ENCODER = "encoder"
"""Before the names of tensors of encoders, in checkpoints and models: ``encoder.<modality>.<name>``."""


class TunedRun(Run):
    """A ``Run`` that computes the tokens of some modalities itself, in every step.

    Args:
        model: As of a ``Run``.
        config: As of a ``Run``; its learning rate is that of the head.
        study: What it reads; its batches hold no tokens of the tuned modalities, or those of an inner layer.
        device: Where it trains.
        finetune: How encoders are trained.
        encoders: Of the tuned modalities.
        team: The processes that train it.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainConfig,
        *,
        study: Study,
        device: torch.device,
        finetune: FinetuneConfig,
        encoders: Mapping[Modality, TunedEncoder],
        team: Alone | None = None,
    ) -> None:
        super().__init__(model, config, study=study, device=device)
        self.finetune, self.encoders, self.team = finetune, dict(encoders), team or Alone()
        self.together = [one.together for one in self.encoders.values() if one.together is not None]
        """Of encoders that processes share the weights of: all or none."""
        self.live = {
            m: LiveRows(one, study.dataset, m)
            for m, one in self.encoders.items()
            if not isinstance(study.data.sources[m], InnerSource)
        }
        self.inner = {m: s for m in self.encoders if isinstance(s := study.data.sources[m], InnerSource)}
        learned = [one for encoder in self.encoders.values() for one in encoder.trained.values()]
        self.groups.append((Adam(learned, finetune.weight_decay), finetune.learning_rate))
        self.average: dict[str, Tensor] = {}
        """Moving average of all that is trained, by name; empty without one."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All that the optimisers change, by name."""
        yield from super().named_parameters()
        for modality, encoder in self.encoders.items():
            for name, parameter in encoder.trained.items():
                yield f"{ENCODER}.{modality}.{name}", parameter

    def trained(self) -> dict[str, Tensor]:
        """The head, and what learned in the encoders: adapters alone under ``lora``."""
        found = super().trained()
        for modality, encoder in self.encoders.items():
            found |= {f"{ENCODER}.{modality}.{name}": one.detach() for name, one in encoder.trained.items()}
        return found

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Put what ``trained`` gave in place."""
        super().load_trained({name: one for name, one in tensors.items() if not name.startswith(f"{ENCODER}.")})
        for modality, encoder in self.encoders.items():
            encoder.load(nested(tensors, f"{ENCODER}.{modality}"))

    def set_training(self, mode: bool) -> None:
        """Switch dropout on or off."""
        super().set_training(mode)
        for encoder in self.encoders.values():
            if encoder.model.training != mode:
                encoder.model.train(mode)

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """A batch in parts of as many tokens as may be computed on at a time, those of encoders counted."""
        if self.reads == "tokens":
            yield from super().parts(batch)
            return
        lengths = np.sum([batch.lengths[m].numpy() for m in self.encoders], axis=0)
        rows = np.arange(len(lengths), dtype=np.int64)
        for part in cut(rows, lengths, len(rows), self.config.max_tokens_per_batch):
            yield batch.part(int(part[0]), int(part[-1]) + 1)

    def tokens(self, batch: Batch) -> dict[Modality, Ragged]:
        """Tokens of a batch; where nothing is trained, by the kernels that the cache was built with."""
        found = super().tokens(batch)
        # the kernels of inference read weights without running the blocks, which would not bring them together
        infers = not torch.is_grad_enabled() and not self.together
        with torch.inference_mode() if infers else nullcontext():
            found |= {m: live(batch.rows.numpy()) for m, live in self.live.items()}
            found |= {m: source.tokens(self.encoders[m], batch, m) for m, source in self.inner.items()}
        return found

    def predict(self, batch: Batch) -> Tensor:
        """See ``Run.predict``; processes that share weights do it together."""
        if self.together:
            self.team.agree(True)
        return super().predict(batch)

    def descend(self, loss: Tensor) -> None:
        """Add the gradients of a loss, by way of every pass through encoders that are shared out."""
        zeros = [zero for one in self.together if (zero := one.touched()) is not None]
        total = sum(zeros, loss)
        if total.requires_grad or not self.together:
            super().descend(total)

    def catch_up(self) -> None:
        """Where weights are shared out: take part in what other processes still compute, with nothing of one's own."""
        while self.together and self.team.agree(False):
            with self.rng.active():
                for modality in self.live:
                    self.encoders[modality].rest()
                for modality, source in self.inner.items():
                    self.encoders[modality].rest(source.store.spec.layer)
                if torch.is_grad_enabled():
                    self.descend(torch.zeros((), device=self.device))

    def gather_best(self) -> None:
        """Bring the best weights together in the first process."""
        self.best = {name: whole(one, keep=self.team.is_first) for name, one in self.best.items()}

    def update(self, team: Alone | None = None) -> None:
        """Take a step, and let the moving average follow."""
        super().update(team)
        if self.finetune.ema:
            now = {name: one.detach() for name, one in self.named_parameters()}
            self.average = self.average or {name: one.clone() for name, one in now.items()}
            for name, one in now.items():
                local(self.average[name]).lerp_(local(one), 1 - self.finetune.ema)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """While validation rows are predicted and the best weights kept: those of the average, if there is one."""
        with super().scoring():
            self._swap()
            try:
                yield
            finally:
                self._swap()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """See ``Run.state``."""
        tensors, values = super().state()
        tensors |= {f"average.{name}": one for name, one in self.average.items()}
        return {name: whole(one, keep=self.team.is_first) for name, one in tensors.items()}, values

    def load(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """See ``Run.load``."""
        super().load(tensors, values)
        like = dict(self.named_parameters())
        self.average = {name: part_of(one, like[name]) for name, one in nested(tensors, "average").items()}

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self.named_parameters() if self.average else ():
            held = parameter.detach().clone()
            local(parameter).copy_(local(self.average[name]))
            self.average[name] = held
