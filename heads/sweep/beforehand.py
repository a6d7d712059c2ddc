"""What the runs of a sweep would fail of, told before anything is trained: what they read, their models and losses."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from heads.losses import Criterion
from heads.model import ExpressionModel
from heads.rng import PrivateRng
from heads.setup import Study
from heads.sweep.plan import NamedRun, told_of
from heads.sweep.work import Opened

__all__ = ["check_runs"]

_MOST_MODELS = 256  # that are laid out; those of larger searches are told of when their turn comes


def check_runs(runs: Sequence[NamedRun], opened: Opened) -> None:
    """Open what each run reads, and lay out its model and its loss, each kind once.

    Args:
        runs: Of all arms and folds, with what is tuned.
        opened: Dataset and stores, which stay open.

    Raises:
        EmbedCacheError: A run cannot be; names it where its settings are the reason.
    """
    studies: dict[Any, Study] = {}
    seen: set[Any] = set()
    for run in runs:
        settings = run.settings
        reads = (settings.model.modalities, tuple(sorted(settings.encoders.items())))
        if (reads, settings.split) not in studies:
            studies[reads, settings.split] = opened.study(run)
        study = studies[reads, settings.split]
        # these two widths are never joined with those of encoders
        model, loss = (
            replace(settings.model, hidden=1, rank=1),
            (settings.training.loss, settings.training.tissue_weights),
        )
        with told_of(run.name):
            if (loss, settings.split) not in seen:
                Criterion(settings.training, study.scaler, study.data.targets[study.rows["train"]])
            if (model, reads) not in seen and len(seen) < _MOST_MODELS:
                with _undrawn():
                    ExpressionModel(model, study.widths, len(study.dataset.tissues), study.layers)
        seen |= {(loss, settings.split), (model, reads)}


class _Undrawn(TorchFunctionMode):
    """Leaves weights as memory was, which is a hundred times faster than to draw them and touches no page."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and getattr(func, "__name__", "").endswith(("uniform_", "normal_")):
            return args[0]
        return func(*args, **(kwargs or {}))


@contextmanager
def _undrawn() -> Iterator[None]:
    """While a model is only laid out; what is drawn nevertheless leaves the caller's stream as it was."""
    with PrivateRng(0, torch.device("cpu")).active(), _Undrawn():
        yield
