"""What every explanation starts from: a run with live encoders, a transcript of a dataset, and their provenance."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.dataset import Dataset, read_dataset
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.prepare.common import without_version
from embedcache.sequences import MODALITIES, Modality
from heads.interpret.explain.live_model import LiveModel, Sequences, open_live
from heads.setup import provenance

__all__ = [
    "Subject",
    "all_labels",
    "asked",
    "find_row",
    "genetic_code",
    "open_dataset",
    "open_subject",
    "parse_region",
    "read_sequences",
    "story",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One transcript and the model that it is explained to."""

    live: LiveModel
    dataset: Dataset
    row: int
    sequences: Sequences
    """Of the modalities that the dataset has; None where the transcript lacks one."""

    @property
    def transcript(self) -> str:
        """Its ID."""
        return str(self.dataset.samples["transcript_id"].iloc[self.row])

    @property
    def cds(self) -> tuple[int, int] | None:
        """Bounds of its coding part on the RNA, without the stop codon; None without a protein."""
        start, end = self.dataset.samples[["cds_start", "cds_end"]].iloc[self.row]
        return (int(start), int(end)) if known(start) and known(end) else None

    @property
    def genetic_code(self) -> int:
        """NCBI table of its contig."""
        return genetic_code(self.dataset, self.row)

    @property
    def labels(self) -> tuple[str, ...]:
        """Words that stand beside every result."""
        return all_labels(self.live, self.dataset)

    def sequence(self, modality: Modality) -> str:
        """Letters of one modality.

        Raises:
            InvalidSettingError: The model does not read it, or the transcript has none.
        """
        if modality not in self.live.modalities:
            raise InvalidSettingError(
                f"{self.live.trained.directory.path} does not read {modality}, only {', '.join(self.live.modalities)}. "
                "Choose another --modality."
            )
        sequence = self.sequences.get(modality)
        if sequence is None:
            raise InvalidSettingError(
                f"{self.transcript} of {self.dataset.path} has no {modality}. Choose another --modality."
            )
        return sequence


def open_subject(
    run: Path | str,
    transcript: str,
    *,
    dataset: Path | str | None = None,
    device: str = "auto",
    weights: Mapping[Modality, Path] | None = None,
) -> Subject:
    """Open a run with live encoders, and a transcript.

    Args:
        run: Directory of a finished run.
        transcript: ID in the dataset.
        dataset: Any dataset; that of the run without it.
        device: Where encoders and model run.
        weights: Directories of published weights, see ``open_live``.

    Raises:
        InvalidInputError: The dataset has no such transcript.
        EmbedCacheError: What ``open_live`` and ``read_dataset`` raise.
    """
    live = open_live(run, device, weights)
    opened = open_dataset(live, dataset)
    row = find_row(opened, transcript)
    return Subject(live=live, dataset=opened, row=row, sequences=read_sequences(opened, [row])[row])


def open_dataset(live: LiveModel, dataset: Path | str | None) -> Dataset:
    """The dataset asked for, else that of the run."""
    return read_dataset(dataset or live.trained.description["dataset"]["path"])


def find_row(dataset: Dataset, transcript: str) -> int:
    """Row of a transcript.

    Raises:
        InvalidInputError: The dataset does not have it.
    """
    ids = dataset.samples["transcript_id"].tolist()
    if transcript in ids:
        return int(ids.index(transcript))
    bare = without_version(transcript)
    close = next((one for one in ids if without_version(one) == bare), None)
    hint = f"Did you mean {close!r}?" if close else f"IDs look like {ids[0]!r}." if ids else "It has none."
    raise InvalidInputError(f"{dataset.path} has no transcript {transcript!r}. {hint}")


def genetic_code(dataset: Dataset, row: int) -> int:
    """NCBI table that a row of a dataset is read with; 1 where it does not say."""
    code = dataset.samples["genetic_code"].iloc[row]
    return int(code) if known(code) else 1


def read_sequences(dataset: Dataset, rows: Sequence[int]) -> dict[int, Sequences]:
    """Letters of some rows by modality; None where a row lacks one."""
    found: dict[int, dict[Modality, str | None]] = {row: dict.fromkeys(dataset.modalities) for row in rows}
    for modality in dataset.modalities:
        keys = dataset.keys(modality)
        wanted = {key for row in rows if (key := keys[row]) is not None}
        letters = {key: sequence for key, sequence in dataset.sequences(modality) if key in wanted}
        for row in rows:
            if (key := keys[row]) is not None:
                found[row][modality] = letters[key]
    return dict(found)


def parse_region(text: str) -> tuple[int, int]:
    """``start:end``, 0-based, the end left out.

    Raises:
        InvalidSettingError: It is written in another way, or empty.
    """
    found = re.fullmatch(r"(\d{1,12}):(\d{1,12})", text)
    if not found or int(found[1]) >= int(found[2]):
        raise InvalidSettingError(f"--region {text!r} is not START:END with START below END. Write it as in 120:180.")
    return int(found[1]), int(found[2])


def all_labels(live: LiveModel, dataset: Dataset) -> tuple[str, ...]:
    """Labels of the run and of the dataset, each once: a simulated study stays one."""
    return tuple(dict.fromkeys([*live.trained.labels, *dataset.labels]))


def story(kind: str, live: LiveModel, dataset: Dataset, **more: Any) -> dict[str, Any]:
    """Where numbers came from, for the header of a file."""
    trained = live.trained
    return {
        "format": "isoheads-explain",
        "version": 1,
        "kind": kind,
        "run": str(trained.directory.path.absolute()),
        "best_epoch": trained.best_epoch,
        "labels": list(all_labels(live, dataset)),
        "encoders": {m: trained.description["encoders"][m] for m in MODALITIES if m in live.modalities},
        "trained_on": trained.description["dataset"]["digest"],
        "dataset": {"path": str(dataset.path.absolute()), "digest": dataset.digest},
        "unit": live.unit,
        "software": provenance(),
        **more,
    }


def asked(run: Path | str, dataset: Path | str | None, tissues: Sequence[str], **more: Any) -> dict[str, Any]:
    """What was asked, by which a file of answers is found again; see ``Outputs``."""
    whole = {"run": run, "dataset": dataset}
    return {
        **{name: None if path is None else str(Path(path).absolute()) for name, path in whole.items()},
        "tissues": list(tissues),
        **more,
    }


def known(value: Any) -> bool:
    """Whether a cell of a table is filled."""
    import pandas as pd

    return not pd.isna(value)
