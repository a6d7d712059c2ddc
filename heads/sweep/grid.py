"""The grid of a sweep: a TOML file that names arms, seeds and folds. Imports nothing slow.

name = "modalities"              # of the sweep; default: the name of the file
seeds = [0, 1, 2, 3, 4]          # every arm is trained with each; initial weights and dropout
folds = 5                        # optional: each arm is trained once a fold, and scored on all of them together
reference = "dna,rna,protein"    # optional: the arm that all others are compared with

[base]                           # settings of all arms: any option of `heads train`, - written _
aggregator = "concat"
encoder.rna = "nt-v2-250m"

[grid]                           # every combination of these lists is an arm
modalities = [["dna"], ["rna"], ["dna", "rna", "protein"]]

[[arms]]                         # or, and, arms one by one; with a [grid] every arm in every combination
name = "wide"
width = 256

[tune]                           # optional: each arm picks among these by its validation loss, never by the test rows
learning_rate = [3e-4, 1e-3, 3e-3]
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from heads.checks import MANY
from heads.settings import FIELDS, RunSettings
from heads.sweep.tuning import Tuning, read_tuning

__all__ = ["Arm", "Grid", "read_grid"]

_SECTIONS = ("name", "seeds", "folds", "reference", "base", "grid", "arms", "tune")
_RESERVED = {"seed": "seeds = [0, 1, ...] at the top", "fold": "folds = 5 at the top", "folds": "folds = 5 at the top"}
_MOST_RUNS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One configuration of a table, to be trained with every seed and fold."""

    name: str
    differs: Mapping[str, Any]
    """Settings in which it differs from the base, as written."""
    flat: Mapping[str, Any]
    """All its settings."""

    def settings(
        self, seed: int, fold: int | None, folds: int | None, more: Mapping[str, Any] | None = None
    ) -> RunSettings:
        """Settings of one run of this arm."""
        values = {**self.flat, **(more or {}), "seed": seed}
        if folds is not None:
            values |= {"split": self.flat.get("split", "gene"), "folds": folds, "fold": fold}
        return RunSettings.from_flat(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What a sweep trains."""

    name: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    folds: int | None
    reference: str | None
    tuning: Tuning | None

    @property
    def fold_numbers(self) -> tuple[int | None, ...]:
        """The folds, or None once."""
        return (None,) if self.folds is None else tuple(range(self.folds))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values: what a sweep is recognised by."""
        return {
            "name": self.name,
            "arms": [{"name": arm.name, "differs": dict(arm.differs), "settings": dict(arm.flat)} for arm in self.arms],
            "seeds": list(self.seeds),
            "folds": self.folds,
            "reference": self.reference,
            "tune": None if self.tuning is None else self.tuning.to_json(),
        }


def read_grid(path: Path) -> Grid:
    """Read and check a grid; every run of it is made once, so that no setting fails later.

    Raises:
        InvalidInputError: The file is missing or no TOML, or holds something else than a grid.
        UnknownNameError: A section or a setting that there is not.
        InvalidSettingError: A value that a setting does not take, arms of one name, or none.
    """
    found = _read_toml(path)
    try:
        grid = _read(found, path.stem)
        for arm in grid.arms:
            arm.settings(grid.seeds[0], grid.fold_numbers[0], grid.folds)
    except (UnknownNameError, InvalidSettingError) as error:
        raise InvalidInputError(f"{path}: {error}") from error
    return grid


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"There is no grid at {path}. Give a TOML file; grids/ has some to start from."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} cannot be read: {error}. Give a TOML file.") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{path} is no TOML: {error}. Mend that line.") from error


def _read(found: Mapping[str, Any], default_name: str) -> Grid:
    if unknown := [name for name in found if name not in _SECTIONS]:
        hint = " Settings of all arms go under [base]." if unknown[0] in FIELDS else ""
        raise InvalidSettingError(f"{unknown[0]!r} is no section of a grid. Choose from: {', '.join(_SECTIONS)}.{hint}")
    name = found.get("name", default_name)
    if not isinstance(name, str) or not name:
        raise InvalidSettingError(f"name is {name!r}. Give a text in quotes.")
    folds = found.get("folds")
    if folds is not None and (type(folds) is not int or not 2 <= folds <= 1000):
        raise InvalidSettingError(f"folds is {folds!r}. Give a whole number from 2 to 1000, or leave it out.")
    arms = tuple(_arms(found))
    tuning = read_tuning(_table(found, "tune")) if "tune" in found else None
    reference = found.get("reference")
    if reference is not None and reference not in [arm.name for arm in arms]:
        raise UnknownNameError("reference arm", str(reference), [arm.name for arm in arms])
    grid = Grid(name=name, arms=arms, seeds=_seeds(found), folds=folds, reference=reference, tuning=tuning)
    n_runs = len(arms) * len(grid.seeds) * len(grid.fold_numbers)
    if n_runs > _MOST_RUNS:
        raise InvalidSettingError(
            f"The grid has {n_runs:,} runs, at most {_MOST_RUNS:,} are taken. Cut it into several."
        )
    return grid


def _seeds(found: Mapping[str, Any]) -> tuple[int, ...]:
    seeds = found.get("seeds", [0])
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = list(range(seeds))
    fine = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed <= MANY for seed in seeds)
    if not fine or not seeds or len(set(seeds)) < len(seeds):
        raise InvalidSettingError(f"seeds is {seeds!r}. Give a list of different whole numbers, or how many there are.")
    return tuple(seeds)


def _arms(found: Mapping[str, Any]) -> Iterator[Arm]:
    """Every combination of the grid with every arm of the list."""
    base = _flatten(_table(found, "base"))
    lists = _flatten(_table(found, "grid"))
    for name, values in lists.items():
        if not isinstance(values, list) or not values:
            raise InvalidSettingError(f"grid: {name} is {values!r}. Give a list of values, each of which makes an arm.")
    single = found.get("arms", [{}])
    if not isinstance(single, list) or not all(isinstance(one, dict) for one in single) or not single:
        raise InvalidSettingError("arms is not a list of tables. Write each arm under [[arms]].")
    seen: dict[str, Mapping[str, Any]] = {}
    for one in single:
        own = _flatten({name: value for name, value in one.items() if name != "name"})
        for values in product(*lists.values()):
            differs = {**own, **dict(zip(lists, values, strict=True))}
            _refuse_reserved({**base, **differs})
            parts = [str(one["name"])] if "name" in one else [_word(name, value) for name, value in own.items()]
            parts += [_word(name, value) for name, value in zip(lists, values, strict=True)]
            arm = Arm(name=", ".join(parts) or "base", differs=differs, flat={**base, **differs})
            if arm.name in seen:
                raise InvalidSettingError(f"Two arms are named {arm.name!r}. Give each a name of its own.")
            seen[arm.name] = arm.flat
            yield arm


def _word(name: str, value: Any) -> str:
    """A setting in the name of an arm; modalities speak for themselves."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if name in ("modalities", "aggregator") else f"{name}={text}"


def _refuse_reserved(flat: Mapping[str, Any]) -> None:
    for name, instead in _RESERVED.items():
        if name in flat:
            raise InvalidSettingError(f"{name!r} cannot be set for an arm. Write {instead}.")


def _table(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = found.get(name, {})
    if not isinstance(table, dict):
        raise InvalidSettingError(f"{name} is not a table. Write its settings under [{name}].")
    return table


def _flatten(table: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by flat name: ``encoder.rna`` of the table ``encoder``, or of a quoted name with a dot."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if name == "encoder" and isinstance(value, dict):
            flat |= {f"encoder.{modality}": one for modality, one in value.items()}
        else:
            flat[name] = value
    if unknown := [name for name in flat if name not in FIELDS]:
        raise UnknownNameError("setting", unknown[0], FIELDS)
    return flat
