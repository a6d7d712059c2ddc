"""What is refused of a grid as a whole: names that mislead, too many runs, arms that cannot stand in one table.

Imports nothing slow.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from embedcache.errors import InvalidSettingError
from heads.baseline_names import BASELINES
from heads.settings import RunSettings

__all__ = ["MOST_RUNS", "check_encoders_read", "check_name", "check_one_split", "check_size", "check_tuned"]

MOST_RUNS = 100_000
"""Runs of a sweep, trials included."""


def check_name(what: str, name: Any) -> str:
    """A name of a sweep or an arm, which stands in tables and on terminals.

    Raises:
        InvalidSettingError: No text, empty, with line breaks or control characters, or the name of a baseline.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise InvalidSettingError(f"{what} is {name!r}. Give a text in quotes, of characters that can be printed.")
    if name in BASELINES:
        raise InvalidSettingError(f"{what} is {name!r}, which is a baseline of every table. Choose another name.")
    return name


def check_size(lists: Sequence[Sequence[Any]], arms: int, seeds: int, folds: int, trials: int) -> None:
    """Refuse a grid before its combinations are made, which may take longer than anybody waits.

    Args:
        lists: Of the grid; each combination makes an arm.
        arms: Written one by one.
        seeds: Of each arm.
        folds: Of each arm and seed.
        trials: Of each arm and fold.

    Raises:
        InvalidSettingError: It has too many runs.
    """
    n_runs = math.prod(map(len, lists)) * arms * folds * (seeds + trials)
    if n_runs > MOST_RUNS:
        raise InvalidSettingError(
            f"The grid has {n_runs:,} runs, at most {MOST_RUNS:,} are taken. Cut it into several."
        )


def check_tuned(arm: str, differs: Mapping[str, Any], tuned: Sequence[str]) -> None:
    """Refuse an arm whose name tells a value that tuning would replace.

    Raises:
        InvalidSettingError: Names the setting.
    """
    if both := [name for name in differs if name in tuned]:
        raise InvalidSettingError(f"{both[0]} is set by arm {arm!r} and chosen by [tune]. Leave it out of one of them.")


def check_one_split(settings: Mapping[str, RunSettings]) -> None:
    """Refuse arms that would be tested on other rows, or scaled by other rows, than the first one.

    Args:
        settings: Of each arm, by its name.

    Raises:
        InvalidSettingError: Names two arms and what differs.
    """
    (first, one), *others = settings.items()
    for name, other in others:
        if one.split != other.split:
            before, now = one.split.to_json(), other.split.to_json()
            key = next(key for key in ("unit", *sorted(now)) if before.get(key) != now.get(key))
            raise InvalidSettingError(
                f"Arms {first!r} and {name!r} divide the rows differently ({key} of the split is {before.get(key)!r} "
                f"and {now.get(key)!r}): one table cannot compare them. Set it under [base], or make two sweeps."
            )


def check_encoders_read(
    differs: Mapping[str, Mapping[str, Any]], shared: Collection[str], reads: Mapping[str, Collection[str]]
) -> None:
    """Refuse encoders that nobody reads, as ``heads train`` does; arms may share one that some of them read.

    Args:
        differs: What each arm sets itself, by its name.
        shared: Names of settings that are set for all arms.
        reads: Modalities that each arm may read.

    Raises:
        InvalidSettingError: Names the arm and the modality.
    """
    for arm, own in differs.items():
        if unread := [name for name in own if name.startswith("encoder.") and name[8:] not in reads[arm]]:
            raise InvalidSettingError(
                f"Arm {arm!r} names an encoder for {unread[0][8:]}, which it does not read. Add it to its modalities, "
                "or name it under [base] or in the arms that read it."
            )
    together = {modality for several in reads.values() for modality in several}
    if unread := sorted(name for name in shared if name.startswith("encoder.") and name[8:] not in together):
        raise InvalidSettingError(
            f"An encoder is named for {unread[0][8:]}, which no arm reads. Add it to modalities, or leave it out."
        )
