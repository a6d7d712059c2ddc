"""The directory of a sweep.

sweep.json               the grid, and which runs each arm has
runs/<digest>/           a run each, as `heads train` writes it, and its predictions for the test rows
baselines/<name>.parquet what each baseline predicts for the test rows
table.json               scores of all arms, with intervals; written when all runs have ended
.cohorts/                locks: who trains which runs now
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedcache.store.files import replace_file
from heads.checkpoint import CheckpointError, writing
from heads.directory import RunDirectory
from heads.settings import RunSettings

__all__ = ["SweepDirectory"]

_VERSION = 1


class SweepDirectory:
    """Files of a sweep by name."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.plan = self.path / "sweep.json"
        self.table = self.path / "table.json"

    def run(self, settings: RunSettings) -> RunDirectory:
        """Directory of a run, which has the digest of its settings for a name: equal runs are trained once."""
        return RunDirectory(self.path / "runs" / settings.digest())

    def predictions(self, settings: RunSettings) -> Path:
        """What a run predicts for its test rows."""
        return self.run(settings).path / "test_predictions.parquet"

    def baseline(self, name: str, fold: int | None) -> Path:
        """What a baseline predicts for the test rows of a fold."""
        words = "-".join("".join(c if c.isalnum() else " " for c in name).split())
        return self.path / "baselines" / f"{words}{'' if fold is None else f'-fold{fold}'}.parquet"

    def settle(self, described: Mapping[str, Any]) -> None:
        """Write ``sweep.json``, or check that the one that is there is of the same grid and data.

        Raises:
            CheckpointError: The directory holds another sweep, or something else, or cannot be written.
        """
        if self.plan.exists():
            found = self.read_plan()
            different = [name for name in ("name", "grid") if found.get(name) != described[name]]
            if found.get("dataset", {}).get("digest") != described["dataset"]["digest"]:
                different.append("dataset")
            if different:
                raise CheckpointError(
                    f"{self.path} holds a sweep with another {' and '.join(different)}. "
                    "Choose another --output, or give the grid and the data of this one to go on."
                )
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            strange = [path.name for path in self.path.iterdir() if not path.name.startswith(".")]
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be written: {error.strerror}. Choose another --output."
            ) from error
        if strange:
            raise CheckpointError(
                f"{self.path} has no sweep.json and is not empty ({sorted(strange)[0]}). Choose another --output."
            )
        self.write_plan(described)

    def write_plan(self, described: Mapping[str, Any]) -> None:
        """Write or replace ``sweep.json``."""
        self.write(self.plan, {"format": "isoheads-sweep", "version": _VERSION, **described})

    def read_plan(self) -> dict[str, Any]:
        """What ``write_plan`` wrote.

        Raises:
            CheckpointError: There is no sweep, or one of another version, or the file is damaged.
        """
        try:
            found = json.loads(self.plan.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(f"There is no sweep at {self.path}. Make one with `heads sweep`.") from error
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.plan} cannot be read: {error}. Restore it from a copy.") from error
        if not isinstance(found, dict) or (found.get("format"), found.get("version")) != ("isoheads-sweep", _VERSION):
            raise CheckpointError(f"{self.plan} is not a sweep of this version. Use the release that wrote it.")
        return found

    def write(self, path: Path, values: Mapping[str, Any]) -> None:
        """Write or replace a JSON file of the sweep in one step."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, [(json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()])

    @contextmanager
    def claimed(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Whether this process may do a piece of work now; the claim goes with the process.

        Args:
            name: Of the piece.
            wait: Until another process is done with it.
        """
        folder = self.path / ".cohorts"
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / name).open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True
