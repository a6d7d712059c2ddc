"""The grid of a sweep: a TOML file that names arms, seeds and folds. Imports nothing slow.

name = "modalities"              # of the sweep; default: the name of the file
seeds = [0, 1, 2, 3, 4]          # every arm is trained with each; initial weights and dropout
folds = 5                        # optional: each arm is trained once a fold, and scored on all of them together
reference = "dna,rna,protein"    # optional: the arm that all others are compared with

[base]                           # settings of all arms: any option of `heads train`, - written _
aggregator = "concat"
encoder.rna = "nt-v2-250m"       # of the arms that read RNA; an arm that does not must not name one itself

[grid]                           # every combination of these lists is an arm
modalities = [["dna"], ["rna"], ["dna", "rna", "protein"]]

[[arms]]                         # or, and, arms one by one; with a [grid] every arm in every combination
name = "wide"
width = 256

[tune]                           # optional: each arm picks among these by its validation loss, never by the test rows
learning_rate = [3e-4, 1e-3, 3e-3]
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from heads.checks import MANY
from heads.settings import FIELDS, RunSettings
from heads.sweep.grid_checks import MOST_RUNS, check_encoders_read, check_name, check_one_split, check_size, check_tuned
from heads.sweep.tuning import Tuning, read_tuning, words_of

__all__ = ["Arm", "Grid", "read_grid"]

_SECTIONS = ("name", "seeds", "folds", "reference", "base", "grid", "arms", "tune")
_RESERVED = {
    "seed": "seeds = [0, 1, ...] at the top",
    "fold": "folds = 5 at the top",
    "folds": "folds = 5 at the top",
    "device": "--device on the command line",
}


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
        _make_settings(grid)
    except (UnknownNameError, InvalidSettingError) as error:
        raise InvalidInputError(f"{path}: {error}") from error
    return grid


def _make_settings(grid: Grid) -> None:
    """Make the settings of every arm, with every listed trial, once; the last fold is 0 where there are none."""
    tuned = [] if grid.tuning is None else [*grid.tuning.choices, *grid.tuning.ranges]
    trials = [{}] if grid.tuning is None else grid.tuning.combinations()
    made: dict[str, RunSettings] = {}
    reads: dict[str, set[str]] = {}
    for arm in grid.arms:
        check_tuned(arm.name, arm.differs, tuned)
        for more in trials:
            made[arm.name] = _settings(arm, grid, more)
            reads.setdefault(arm.name, set()).update(made[arm.name].model.modalities)
    check_one_split(made)
    check_encoders_read({arm.name: arm.differs for arm in grid.arms}, {*tuned, *grid.arms[0].flat}, reads)


def _settings(arm: Arm, grid: Grid, more: Mapping[str, Any]) -> RunSettings:
    """Settings of an arm with what a trial chose.

    Raises:
        InvalidSettingError: Names the trial.
    """
    try:
        return arm.settings(grid.seeds[0], grid.fold_numbers[-1], grid.folds, more)
    except InvalidSettingError as error:
        if not more:
            raise
        raise InvalidSettingError(f"tune: arm {arm.name!r} may be tried with {words_of(more)}: {error}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors put a mark first
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
    if not found:
        raise InvalidSettingError("the file says nothing. Give [[arms]], a [grid] or a [base].")
    name = check_name("name", found.get("name", default_name))
    if {"/", "\\"} & set(name) or name in (".", ".."):
        raise InvalidSettingError(f"name is {name!r}, which leads to another directory. Leave out / and \\.")
    folds = found.get("folds")
    if folds is not None and (type(folds) is not int or not 2 <= folds <= 1000):
        raise InvalidSettingError(f"folds is {folds!r}. Give a whole number from 2 to 1000, or leave it out.")
    tuning = read_tuning(_table(found, "tune")) if "tune" in found else None
    seeds = _seeds(found)
    lists, single = _lists(found), _single(found)
    check_size([*lists.values()], len(single), len(seeds), folds or 1, tuning.trials if tuning else 0)
    arms = tuple(_arms(_flatten(_table(found, "base")), lists, single))
    reference = found.get("reference")
    if reference is not None and reference not in [arm.name for arm in arms]:
        raise UnknownNameError("reference arm", str(reference), [arm.name for arm in arms])
    return Grid(name=name, arms=arms, seeds=seeds, folds=folds, reference=reference, tuning=tuning)


def _seeds(found: Mapping[str, Any]) -> tuple[int, ...]:
    seeds = found.get("seeds", [0])
    if type(seeds) is int and 1 <= seeds <= MOST_RUNS:
        seeds = list(range(seeds))
    fine = isinstance(seeds, list) and all(type(seed) is int and 0 <= seed <= MANY for seed in seeds)
    if not fine or not seeds or len(set(seeds)) < len(seeds):
        raise InvalidSettingError(
            f"seeds is {seeds!r}. Give a list of different whole numbers, or how many there are, up to {MOST_RUNS:,}."
        )
    return tuple(seeds)


def _lists(found: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lists of the grid, by setting."""
    lists = _flatten(_table(found, "grid"))
    for name, values in lists.items():
        if not isinstance(values, list) or not values:
            raise InvalidSettingError(f"grid: {name} is {values!r}. Give a list of values, each of which makes an arm.")
    return lists


def _single(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arms that are written one by one; without any, one that sets nothing."""
    single = found.get("arms", [{}])
    if not isinstance(single, list) or not all(isinstance(one, dict) for one in single) or not single:
        raise InvalidSettingError("arms is not a list of tables. Write each arm under [[arms]].")
    return single


def _arms(
    base: Mapping[str, Any], lists: Mapping[str, list[Any]], single: Sequence[Mapping[str, Any]]
) -> Iterator[Arm]:
    """Every combination of the grid with every arm of the list."""
    seen: set[str] = set()
    for one in single:
        own = _flatten({name: value for name, value in one.items() if name != "name"})
        for values in product(*lists.values()):
            differs = {**own, **dict(zip(lists, values, strict=True))}
            _refuse_reserved({**base, **differs})
            parts = [_word(name, value) for name, value in own.items()]
            if "name" in one:
                parts = [check_name("name of an arm", one["name"])]
            parts += [_word(name, value) for name, value in zip(lists, values, strict=True)]
            name = check_name("name of an arm", ", ".join(parts) or "base")
            if name in seen:
                raise InvalidSettingError(f"Two arms are named {name!r}. Give each a name of its own.")
            seen.add(name)
            yield Arm(name=name, differs=differs, flat={**base, **differs})


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
