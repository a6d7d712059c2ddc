"""What an aggregator is, and which one a configuration means. Shapes: B samples, D_m width of modality m.

A new one is a module with the attributes and the method of ``Aggregator``, and a line in ``AGGREGATORS``
(``heads/model_config.py``).
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

from torch import Tensor, nn

from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.config import AGGREGATORS, ModelConfig

__all__ = ["Aggregator", "build_aggregator", "what_it_reads"]


class Aggregator(Protocol):
    """What the model asks of an aggregator, which is also a ``torch.nn.Module``."""

    features: int
    """Numbers a sample that come out."""

    @staticmethod
    def reads(config: ModelConfig) -> str:
        """What of a sample's tokens is enough: all ``tokens``, or a summary of them.

        ``means``, ``bins-K`` (means of K equal parts), ``max-means`` (largest values and means side by side) or
        ``mean-bins-K`` (mean, and mean of the means of K parts); see ``heads.summaries.summarise``. Models that need
        a summary only never read tokens twice.
        """
        ...

    def __call__(self, tokens: Mapping[Modality, Ragged]) -> Tensor:
        """Mix tokens, or their summaries, values (N_m, D_m) of each modality, to (B, features)."""
        ...


def build_aggregator(config: ModelConfig, widths: Mapping[Modality, int]) -> Aggregator:
    """Make the aggregator that ``config`` names; weights are drawn from torch's generator."""
    return cast(Aggregator, _aggregator_class(config)(config, widths))


def what_it_reads(config: ModelConfig, layers: Mapping[Modality, int] | None = None) -> str:
    """Whether a model needs all tokens, or which summary of them; see ``Aggregator.reads``.

    Args:
        config: The model.
        layers: Cached layers of each modality that are mixed; None for one of each.
    """
    reads = cast(type[Aggregator], _aggregator_class(config)).reads(config)
    mixes = any(n > 1 for m, n in (layers or {}).items() if m in config.modalities)
    # means of mixed layers are mixed means; the largest value of a mix is not a mix of largest values
    return "tokens" if mixes and reads == "max-means" else reads


def _aggregator_class(config: ModelConfig) -> type[nn.Module]:
    module, _, name = AGGREGATORS[config.aggregator].partition(":")
    return cast(type[nn.Module], getattr(import_module(module), name))
