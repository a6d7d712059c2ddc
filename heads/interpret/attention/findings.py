"""What an analysis of attention found: comparisons, what they rest on, and the long table of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedcache.sequences import Modality
from heads.interpret.attention.significance import RegionTests

__all__ = ["Analysis", "AttentionFindings", "attention_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """One comparison: all heads and layers of an encoder, or of the blocks by which one modality reads another."""

    modality: Modality
    """Whose tokens ask."""
    reads: Modality
    """Whose regions are read; the same one in an encoder."""
    weights: Literal["frozen", "tuned", "trained"]
    """Of an encoder as published, or fine-tuned; of the aggregator of a run."""
    against: Literal["uniform", "frozen"]
    """The share of tokens, or the encoder before fine-tuning."""
    tests: RegionTests

    @property
    def attention(self) -> str:
        """``rna``, or ``protein reads rna``."""
        return self.modality if self.modality == self.reads else f"{self.modality} reads {self.reads}"

    @property
    def layer_word(self) -> str:
        """What a layer is called: a round of an aggregator."""
        return "layer" if self.modality == self.reads else "round"

    @property
    def title(self) -> str:
        """In words."""
        what = f"{self.modality} encoder" if self.modality == self.reads else self.attention
        against = "share of tokens" if self.against == "uniform" else "before fine-tuning"
        return f"{what}, {self.weights}: attention against {against}"

    def more(self) -> NDArray[np.bool_]:
        """Heads with significantly more attention on a region, (L, H, R)."""
        return self.tests.significant & (self.tests.difference > 0)

    def less(self) -> NDArray[np.bool_]:
        """Heads with significantly less, (L, H, R)."""
        return self.tests.significant & (self.tests.difference < 0)

    def furthest(self, region: int) -> tuple[int, int] | None:
        """Layer and head (from 0) with the largest difference on a region, of those that differ; None without any."""
        size = np.where(self.tests.significant, np.abs(self.tests.difference), -1.0)[..., region]
        layer, head = np.unravel_index(int(size.argmax()), size.shape)
        return (int(layer), int(head)) if size[layer, head] >= 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFindings:
    """All comparisons, and what stands beside them."""

    analyses: tuple[Analysis, ...]
    labels: tuple[str, ...]
    """Words that stand beside every result, such as ``simulated``."""
    subject: str
    """What was looked at, such as ``runs/three``."""
    notes: tuple[str, ...]
    """What was left out, and what the figures mean, a sentence each."""
    threshold: float | None
    """Weights above it were counted; None where weights were added up."""
    story: Mapping[str, Any]
    """Provenance, JSON values only."""

    @property
    def measure(self) -> str:
        """What ``mass`` is."""
        if self.threshold is None:
            return "mean over queries of the attention on the region"
        return f"share of the attention weights above {self.threshold:g} that fall on the region"


def attention_table(findings: AttentionFindings) -> pa.Table:
    """One row a comparison, layer, head and region; layers and heads from 1, missing numbers null."""
    parts = [_columns(one) for one in findings.analyses]
    names = list(parts[0])
    return pa.table({name: pa.concat_arrays([part[name] for part in parts]) for name in names})


def _columns(one: Analysis) -> dict[str, pa.Array]:
    tests = one.tests
    shape = tests.mass.shape
    size = tests.mass.size
    layer, head, region = (axis.ravel() for axis in np.indices(shape))
    said = {"modality": one.modality, "reads": one.reads, "weights": one.weights, "against": one.against}
    numbers = ("mass", "uniform", "difference", "p", "p_adjusted", "effect_size")
    return {
        **{name: pa.array([value] * size, pa.string()) for name, value in said.items()},
        "layer": pa.array(layer + 1, pa.int64()),
        "head": pa.array(head + 1, pa.int64()),
        "region": pa.array(np.array(tests.regions, dtype=object)[region], pa.string()),
        **{name: pa.array(getattr(tests, name).ravel(), pa.float64(), from_pandas=True) for name in numbers},
        **{name: pa.array(getattr(tests, name).ravel(), pa.int64()) for name in ("genes", "transcripts")},
    }
