"""Which transcripts an analysis of attention looks at, and what is said of those that it leaves out."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.tokens import count_tokens
from embedcache.errors import InvalidSettingError
from embedcache.sequences import Modality
from heads.config import SplitConfig
from heads.interpret.attention.regions import Case, has_regions
from heads.splits import rows_by_split

__all__ = ["AttentionSettings", "fits", "rows_of", "say_left_out", "say_used"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSettings:
    """What is looked at, and how it is measured."""

    split: Literal["train", "validation", "test", "all"] = "test"
    transcripts: int = 200
    """Most of them, 0 for all; which ones, their IDs decide."""
    threshold: float | None = None
    """Share of the weights above it, in place of the attention mass."""

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            InvalidSettingError: A threshold that no weight can pass, or that all pass; a negative count.
        """
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise InvalidSettingError(f"threshold is {self.threshold}, expected between 0 and 1, such as 0.01.")
        if self.transcripts < 0:
            raise InvalidSettingError(f"transcripts is {self.transcripts}, expected 0 for all, or more.")


def fits(case: Case, spec: EncoderSpec) -> bool:
    """Whether an encoder that never cuts takes a sequence."""
    return spec.crop != "error" or not spec.max_tokens or count_tokens(case.sequence, spec.tokens) <= spec.max_tokens


def say_left_out(dataset: Dataset, rows: Rows, modality: Modality, not_drawn: int, too_long: int) -> str:
    """What became of the rows of one modality, as a sentence."""
    present = np.asarray(dataset.samples[f"{modality}_key"].notna(), dtype=np.bool_)[rows]
    lacking = int((~present).sum())
    without_cds = int((present & ~has_regions(dataset, modality)[rows]).sum())
    left = {
        f"without {modality}": lacking,
        "without a CDS": without_cds,
        "not drawn": not_drawn,
        "too long for the encoder": too_long,
    }
    return f"{modality}: {say_used(len(rows) - sum(left.values()), len(rows), left)}"


def say_used(used: int, total: int, left: dict[str, int]) -> str:
    """``90 of 100 transcripts; left out: 10 without rna.``."""
    said = ", ".join(f"{count:,} {reason}" for reason, count in left.items() if count)
    return f"{used:,} of {total:,} transcripts{f'; left out: {said}' if said else ''}."


def rows_of(dataset: Dataset, settings: AttentionSettings, split: SplitConfig) -> Rows:
    """Rows of the part that is looked at.

    Args:
        dataset: Whose rows.
        settings: Which part.
        split: How a run divided the rows.
    """
    if settings.split == "all":
        return np.arange(len(dataset.samples), dtype=np.int64)
    return rows_by_split(dataset, split)[settings.split]
