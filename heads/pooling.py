"""From tokens to one vector a sample: a pool, and a fixed scale for what follows.

A pool takes tokens, or the summary of them that it needs (``heads/summaries.py``), and gives the same for both.
Shapes: B samples, N packed tokens, D width, C numbers of a pooled vector.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embedcache.ragged import Ragged
from heads.config import ModelConfig
from heads.summaries import bin_means, mean_tokens, summarise

__all__ = [
    "AttentionPool",
    "BinPool",
    "MaxMeanPool",
    "MeanPool",
    "Pool",
    "Pooled",
    "Standardised",
    "build_pool",
    "fitting",
    "mean_tokens",
    "summarise",
    "summary_of_pool",
]


class Pooled(NamedTuple):
    """One vector a sample. Rows of samples that lack the modality are zeros, and False in ``present``."""

    values: Tensor  # (B, C)
    present: Tensor  # (B,) bool


class Standardised(nn.Module):
    """Shifts and scales each channel to mean 0 and sd 1 over training samples.

    The shift and the scale are constants, measured once before training (see ``fitting``) and saved with the
    model. A linear layer that follows could hold them itself, so they change how fast it learns and not what it
    can express. Samples that lack the modality stay out of the measurement and come out as zeros.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = width
        """Numbers that come out."""
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.sums: tuple[int, Tensor, Tensor] | None = None
        """Count, sum and sum of squares while fitting, None otherwise."""

    def standardise(self, values: Tensor, present: Tensor) -> Pooled:
        """Measure (B, C) while fitting; shift, scale, and zero where ``present`` (B,) is False."""
        if self.sums is not None:
            seen = values.detach()[present].double()
            count, total, squares = self.sums
            self.sums = (count + len(seen), total + seen.sum(0), squares + seen.square().sum(0))
        return Pooled((values - self.mean) * self.scale * present[:, None], present)

    def begin(self) -> None:
        """Start measuring; nothing is shifted or scaled until ``finish``."""
        zeros = torch.zeros_like(self.mean, dtype=torch.float64)
        self.mean.zero_()
        self.scale.fill_(1)
        self.sums = (0, zeros, zeros)

    def finish(self) -> None:
        """Fix shift and scale. A channel that does not vary keeps scale 1; so do all if nothing was seen."""
        assert self.sums is not None, "finish() without begin()"
        count, total, squares = self.sums
        self.sums = None
        if count < 2:
            return
        mean = total / count
        sd = (squares / count - mean.square()).clamp(min=0).sqrt()
        varies = sd > 1e-6 * mean.abs().clamp(min=1e-6)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, 1 / sd.clamp(min=1e-12), 1.0))


@contextmanager
def fitting(model: nn.Module) -> Iterator[None]:
    """While this is open, every ``Standardised`` of the model measures what passes through; then it is fixed."""
    measured = [module for module in model.modules() if isinstance(module, Standardised)]
    for module in measured:
        module.begin()
    yield
    for module in measured:
        module.finish()


class Pool(Protocol):
    """What aggregators ask of a pool, which is also a ``Standardised``."""

    features: int
    """Numbers of a pooled vector, C."""

    def __call__(self, tokens: Ragged) -> Pooled:
        """Pool tokens (N, D) to (B, C)."""
        ...


class MeanPool(Standardised):
    """Mean over tokens, standardised."""

    def forward(self, tokens: Ragged) -> Pooled:
        """Pool tokens (N, D), or means, to (B, D)."""
        return self.standardise(mean_tokens(tokens), _present(tokens))


class BinPool(Standardised):
    """Means of ``bins`` equal parts of the sequence side by side, so that it matters where on it something is."""

    def __init__(self, width: int, bins: int) -> None:
        super().__init__(bins * width)
        self.bins = bins

    def forward(self, tokens: Ragged) -> Pooled:
        """Pool tokens (N, D), or their means of parts, to (B, bins * D)."""
        return self.standardise(bin_means(tokens, self.bins).flatten(1), _present(tokens))


class MaxMeanPool(Standardised):
    """Largest value of each channel, and mean, side by side."""

    def __init__(self, width: int) -> None:
        super().__init__(2 * width)

    def forward(self, tokens: Ragged) -> Pooled:
        """Pool tokens (N, D), or one row (2D) a sample that holds both already, to (B, 2D)."""
        is_summary = tokens.values.shape[-1] == self.features
        values = mean_tokens(tokens) if is_summary else summarise(tokens, "max-means").squeeze(1)
        return self.standardise(values, _present(tokens))


class AttentionPool(Standardised):
    """Weighted mean over tokens; each of several learned queries weighs its own share of the channels.

    The score of a token is the dot product of its channels, each over its standard deviation among training tokens,
    with the query; weights are a softmax within the sample. Queries start at zero: the pool starts as the mean, its
    shift and scale are measured there, and it departs from the mean only as training finds a reason to.

    Args:
        width: D. Channel c belongs to query ``floor(c * queries / D)``.
        queries: Learned queries.
    """

    token_scale: Tensor

    def __init__(self, width: int, queries: int) -> None:
        super().__init__(width)
        self.query = nn.Parameter(torch.zeros(queries, width))
        self.register_buffer("token_scale", torch.ones(width))
        self.register_buffer("owner", torch.arange(width) * queries // width, persistent=False)
        self.of_tokens: Standardised | None = None
        """Measures tokens while fitting, None otherwise."""

    def forward(self, tokens: Ragged) -> Pooled:
        """Pool tokens (N, D) to (B, D)."""
        values = tokens.values
        if self.of_tokens is not None and len(values):
            self.of_tokens.standardise(values, torch.ones(len(values), dtype=torch.bool, device=values.device))
        query = self.query * self.token_scale * self.features**-0.5
        scores = F.linear(values, query.to(values.dtype)).float()  # (N, queries)
        pooled = []
        parts = Ragged(scores, tokens.offsets).to_list()
        for part, score in zip(tokens.to_list(), parts, strict=True):
            if not len(part):
                pooled.append(values.new_zeros(self.features, dtype=torch.float32))
                continue
            by_query = score.softmax(0).T @ part.float()  # (queries, D)
            pooled.append(by_query.gather(0, cast(Tensor, self.owner)[None]).squeeze(0))
        return self.standardise(torch.stack(pooled), _present(tokens))

    def begin(self) -> None:
        """Start measuring, of tokens too."""
        super().begin()
        self.token_scale.fill_(1)
        self.of_tokens = Standardised(self.features).to(self.mean.device)
        self.of_tokens.begin()

    def finish(self) -> None:
        """Fix shift and scale of what comes out, and the scale of tokens."""
        super().finish()
        assert self.of_tokens is not None, "finish() without begin()"
        self.of_tokens.finish()
        self.token_scale.copy_(self.of_tokens.scale)
        self.of_tokens = None


def build_pool(config: ModelConfig, width: int, bins: int = 1) -> Pool:
    """The pool that ``config.pooling`` names, of tokens ``width`` wide; of their means of ``bins`` parts if not 1."""
    if bins > 1:
        return BinPool(width, bins)
    if config.pooling == "attention":
        return AttentionPool(width, config.heads)
    return MaxMeanPool(width) if config.pooling == "max-mean" else MeanPool(width)


def summary_of_pool(config: ModelConfig, bins: int = 1) -> str:
    """Which summary of tokens is enough for ``build_pool``; see ``Aggregator.reads``."""
    if bins > 1:
        return f"bins-{bins}"
    return {"mean": "means", "max-mean": "max-means", "attention": "tokens"}[config.pooling]


def _present(tokens: Ragged) -> Tensor:
    return (tokens.lengths > 0).to(tokens.values.device)  # (B,)
