"""The directory of a run: what it was, how it went, and the best model.

config.json              everything needed to make the run again, written before the first step
checkpoint.safetensors   where training stands; replaced after an epoch, and in between where epochs are long
history.jsonl            losses and validation scores, a line an epoch
model.safetensors        the best epoch; there when training is finished
start.json               of a fine-tuning: scores before its first step, beside those of the run it comes from
test.json                scores of the test rows; written once, by ``heads evaluate``
test_predictions.parquet its predictions for them, written with the scores
events.out.tfevents...   the history for TensorBoard, where that is installed
"""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedcache.store.files import create_file, replace_file
from heads.checkpoint import CheckpointError, writing
from heads.config import ModelConfig, SplitConfig, TrainConfig
from heads.tensorboard import write_scalars
from heads.text import how_again

__all__ = ["CONFIG_VERSION", "RunDirectory"]

CONFIG_VERSION = 1

_SETTINGS = ("model", "training", "split", "encoders", "finetune", "tissues", "scaler", "labels")
_ENTRIES = dict.fromkeys(("model", "training", "encoders", "scaler", "dataset"), dict) | {
    "tissues": list,
    "labels": list,
    "cache": str,
}


class RunDirectory:
    """Files of a run by name."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.history = self.path / "history.jsonl"
        self.model = self.path / "model.safetensors"
        self.start = self.path / "start.json"
        self.test = self.path / "test.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory and keep other trainings out of it. The lock goes with the process.

        Raises:
            CheckpointError: Another process trains here, or something else stands in the way.
        """
        self._refuse_a_file()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / ".lock").open("a")
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be written: {error.strerror}. "
                "Make room or give write permission, or choose another run directory."
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CheckpointError(
                    f"Another process trains {self.path} now. Wait for it, or choose another run directory."
                ) from error
            for file_name in (self.config, self.checkpoint, self.history, self.model, self.start):
                for leftover in self.path.glob(f".{file_name.name}.*"):  # half-written by a process that was killed
                    leftover.unlink(missing_ok=True)
            yield

    def settle(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write ``config.json``, or check that the one that is there says the same.

        Returns:
            What the file holds. Paths and versions in it are those of the first call.

        Raises:
            CheckpointError: The directory holds another run, or files of something else.
        """
        if not self.config.exists():
            strange = [path.name for path in self.path.iterdir() if not path.name.startswith(".")]
            if strange:
                raise CheckpointError(
                    f"{self.path} has no config.json and is not empty ({sorted(strange)[0]}). Choose another directory."
                )
            with writing(self.config):
                create_file(self.config, [_encode(config)])
            return config
        found = self.read_config()
        different = [*_differences(found, config)]
        if different:
            raise CheckpointError(
                f"{self.path} holds a run with other settings: {'; '.join(different)}. "
                "Choose another run directory, or repeat the settings of this one to continue it."
            )
        return found

    def read_config(self) -> dict[str, Any]:
        """What ``settle`` wrote.

        Raises:
            CheckpointError: There is no run, or one of another version.
        """
        self._refuse_a_file()
        if (self.path / "sweep.json").is_file():
            raise CheckpointError(
                f"{self.path} is a sweep. Give one of its runs, in {self.path / 'runs'}; `heads report {self.path}` "
                "shows them all."
            )
        try:
            found = json.loads(self.config.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            if self.checkpoint.exists() or self.model.exists():
                raise CheckpointError(f"{self.path} has lost its config.json. {how_again(self.path)}") from error
            raise CheckpointError(f"There is no run at {self.path}. Train one with `heads train`.") from error
        except OSError as error:
            raise CheckpointError(f"{self.config} cannot be read: {error.strerror}. Mend its permissions.") from error
        except ValueError as error:
            raise CheckpointError(f"{self.config} is damaged: {error}. {how_again(self.path)}") from error
        if not isinstance(found, dict) or found.get("format") != "isoheads-run" or "version" not in found:
            raise CheckpointError(f"{self.config} does not describe a run. Give the directory of `heads train`.")
        if found["version"] != CONFIG_VERSION:
            raise CheckpointError(
                f"{self.config} has format version {found['version']}, this program reads {CONFIG_VERSION}. "
                f"Use the release that wrote it, or train anew. {how_again(self.path)}"
            )
        kinds = {**_ENTRIES, **{name: dict for name in ("finetune", "split") if name in found}}
        if wrong := [name for name, kind in kinds.items() if not isinstance(found.get(name), kind)]:
            raise CheckpointError(f"{self.config} is damaged: {', '.join(wrong)} is not there. {how_again(self.path)}")
        return found

    def _refuse_a_file(self) -> None:
        if self.path.is_file():
            raise CheckpointError(f"{self.path} is a file. Give the directory of a run.")

    def write_history(self, records: list[dict[str, Any]]) -> None:
        """Write a line an epoch, in place of the older file."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        with writing(self.history):
            replace_file(self.history, [text.encode()])
        write_scalars(self.path, records)


def _encode(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """What differs among the settings that fix the numbers of a run, as ``name: found, now wanted``."""
    if found["dataset"].get("digest") != wanted["dataset"]["digest"]:
        yield f"dataset: {found['dataset'].get('path')}, now {wanted['dataset']['path']} or changed in place"
    for name in _SETTINGS:
        before, now = _as_written_now(name, found.get(name, {})), _as_written_now(name, wanted.get(name, {}))
        if before == now:
            continue
        if name in ("tissues", "scaler", "labels"):
            yield f"{name} differ"
            continue
        for key in sorted({*before, *now}):
            if before.get(key) != now.get(key):
                yield f"{key}: {_short(before.get(key))}, now {_short(now.get(key))}"


def _as_written_now(name: str, settings: Any) -> Any:
    """Settings of a run of an older version, with those it did not have at what it did; without where others lie."""
    kinds: dict[str, type[ModelConfig | TrainConfig | SplitConfig]] = {
        "model": ModelConfig,
        "training": TrainConfig,
        "split": SplitConfig,
    }
    if name == "finetune":  # digests say which head and weights it began with, paths do not
        begun = {key: one for key, one in settings.get("from", {}).items() if key != "run"}
        return {**{key: one for key, one in settings.items() if key != "weights"}, "from": begun}
    return kinds[name].from_json(settings).to_json() if name in kinds else settings


def _short(value: Any) -> str:
    return str(value["directory"]) if isinstance(value, dict) and "directory" in value else str(value)
