"""Tuning inside an arm: the same number of trials for each arm, chosen between by the validation loss alone.

A trial is a run with the first seed. The best one of an arm, in each fold, gives the settings that all seeds of the arm
are trained with there. Test rows are predicted by chosen runs only.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from embedcache.errors import InvalidSettingError, MissingDependencyError, UnknownNameError
from heads.settings import FIELDS

__all__ = ["Trials", "Tuning", "read_tuning", "words_of"]

_LOOKED_AT = 500  # combinations of a search that are checked before anything is trained
_AT_ONCE = 8  # trials that Optuna names before it learns how they went; they train together


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What trials may choose."""

    method: Literal["grid", "optuna"]
    choices: Mapping[str, Sequence[Any]]
    """Values of a setting."""
    ranges: Mapping[str, tuple[float, float, bool]]
    """Least value, largest value, and whether the scale is logarithmic; of ``optuna`` only."""
    trials: int
    """Trials of an arm, in each fold."""

    def combinations(self) -> list[dict[str, Any]]:
        """What trials may choose: everything, or with more than can be looked at each listed value and drawn ones.

        A range of fractions has its ends here: no rule joins what is between them with other settings.
        """
        values: dict[str, Sequence[Any]] = dict(self.choices)
        values |= {name: range(int(low), int(high) + 1) if _is_whole(low, high) else (low, high)
                   for name, (low, high, _) in self.ranges.items()}  # fmt: skip
        if self.method == "grid" or math.prod(map(len, values.values())) <= _LOOKED_AT:
            chosen: Iterable[Sequence[Any]] = product(*values.values())
        else:
            n_listed, draw = max(map(len, self.choices.values()), default=1), random.Random(0)
            chosen = [[one[i % len(one)] for one in values.values()] for i in range(n_listed)]
            chosen += [[one[-1] for one in values.values()]]
            chosen += [[draw.choice(one) for one in values.values()] for _ in range(_LOOKED_AT)]
        return [dict(zip(values, one, strict=True)) for one in chosen]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        ranges = {name: list(one) for name, one in self.ranges.items()}
        choices = {name: list(one) for name, one in self.choices.items()}
        return {"method": self.method, "choices": choices, "ranges": ranges, "trials": self.trials}


class Trials:
    """The trials of one arm in one fold: asked for in rounds, told how they went, the same again after a kill."""

    def __init__(self, tuning: Tuning) -> None:
        self.tuning = tuning
        self.losses: list[tuple[dict[str, Any], float]] = []
        self._rounds = _grid_rounds(tuning) if tuning.method == "grid" else _optuna_rounds(tuning, self.losses)

    def ask(self) -> list[dict[str, Any]]:
        """Settings of the next round of trials; none when the budget is spent."""
        return next(self._rounds, [])

    def tell(self, trials: Sequence[dict[str, Any]], losses: Sequence[float]) -> None:
        """Validation losses of the trials of a round, infinite for one that diverged."""
        self.losses += zip(trials, losses, strict=True)

    def best(self) -> dict[str, Any]:
        """Settings with the lowest validation loss; the first of equal ones."""
        return min(self.losses, key=lambda one: one[1])[0]


def _grid_rounds(tuning: Tuning) -> Iterator[list[dict[str, Any]]]:
    yield tuning.combinations()


def _optuna_rounds(tuning: Tuning, losses: list[tuple[dict[str, Any], float]]) -> Iterator[list[dict[str, Any]]]:
    """Rounds of Optuna's TPE sampler (Bergstra et al., NeurIPS 2011); a seed of its own makes them repeatable."""
    optuna = _optuna()
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, constant_liar=True))
    left = tuning.trials
    while left:
        asked = [study.ask() for _ in range(min(left, _AT_ONCE))]
        left -= len(asked)
        told = len(losses)
        yield [_suggest(trial, tuning) for trial in asked]
        for trial, (_, loss) in zip(asked, losses[told:], strict=True):
            study.tell(trial, loss)


def _suggest(trial: Any, tuning: Tuning) -> dict[str, Any]:
    found = {name: trial.suggest_categorical(name, values) for name, values in tuning.choices.items()}
    for name, (low, high, log) in tuning.ranges.items():
        suggest = trial.suggest_int if _is_whole(low, high) else trial.suggest_float
        found[name] = suggest(name, low, high, log=log)
    return found


def _is_whole(low: float, high: float) -> bool:
    return isinstance(low, int) and isinstance(high, int)


def words_of(trial: Mapping[str, Any]) -> str:
    """What a trial chose, in lines about it."""
    return ", ".join(f"{name} = {value!r}" for name, value in trial.items())


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError(
            "tuning by Optuna needs optuna, which is not installed. "
            "Run `pip install 'isoheads[sweep]'`, or list the values to try."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def read_tuning(table: Mapping[str, Any]) -> Tuning:
    """The ``[tune]`` table of a grid: lists of values, or with ``method = "optuna"`` also ranges.

    Raises:
        UnknownNameError: A setting that there is not.
        InvalidSettingError: Neither a list nor a range, or a setting that cannot be tuned.
    """
    method = table.get("method", "grid")
    if method not in ("grid", "optuna"):
        raise UnknownNameError("tuning method", str(method), ("grid", "optuna"))
    choices: dict[str, list[Any]] = {}
    ranges: dict[str, tuple[float, float, bool]] = {}
    for name, value in table.items():
        if name in ("method", "trials"):
            continue
        _check_name(name)
        is_range = isinstance(value, Mapping) and {"low", "high"} <= set(value) <= {"low", "high", "log"}
        if isinstance(value, list) and value:
            choices[name] = value
        elif method == "optuna" and is_range:
            ranges[name] = _range(name, value)
        else:
            raise InvalidSettingError(
                f'tune: {name} is {value!r}. Give a list of values, or with method = "optuna" a range such as '
                "{low = 1e-4, high = 1e-2, log = true}."
            )
    if not choices and not ranges:
        raise InvalidSettingError("tune names no setting. Give one a list of values, or leave the section out.")
    n_trials = _budget(method, table.get("trials"), choices)
    if method == "optuna":
        _optuna()
    return Tuning(method=method, choices=choices, ranges=ranges, trials=n_trials)


def _check_name(name: str) -> None:
    if name not in FIELDS:
        raise UnknownNameError("setting", name, FIELDS)
    if name in ("seed", "data_seed", "device", "batch_size") or "fold" in name or "split" in name:
        raise InvalidSettingError(f"{name} cannot be tuned: trials may differ in the model and in how it learns.")


def _budget(method: str, trials: Any, choices: Mapping[str, Sequence[Any]]) -> int:
    """Trials of an arm in each fold."""
    if method == "optuna":
        if type(trials) is not int or trials < 1:
            raise InvalidSettingError(f"trials is {trials!r}. Say how many trials each arm has, such as trials = 16.")
        return trials
    if trials is not None:
        raise InvalidSettingError('trials is for method = "optuna"; without it every combination is tried.')
    return math.prod(map(len, choices.values()))


def _range(name: str, value: Mapping[str, Any]) -> tuple[float, float, bool]:
    low, high, log = value["low"], value["high"], value.get("log", False)
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (low, high))
    if not numbers or not isinstance(log, bool) or not low < high or (log and low <= 0):
        raise InvalidSettingError(f"tune: the range of {name} is {dict(value)}. Give low below high, above 0 with log.")
    return low, high, log
