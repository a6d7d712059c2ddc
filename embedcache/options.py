"""Options that several commands share, and the words that users write them in. Imports nothing slow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from embedcache.errors import InvalidSettingError, UnknownNameError
from embedcache.sequences import MODALITIES, Modality

__all__ = ["CacheOption", "DatasetOption", "DeviceOption", "JsonOption", "parse_by_modality", "parse_pairs"]

DatasetOption = Annotated[Path, typer.Option(envvar="EMBEDCACHE_DATASET", help="Directory of the dataset.")]
CacheOption = Annotated[
    str, typer.Option(envvar="EMBEDCACHE_CACHE", help="Root of the cache: a directory, or s3://bucket/path.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto: a GPU if there is one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def parse_pairs(option: str, values: Sequence[str], example: str = "A=B") -> dict[str, str]:
    """``["rna=x", "dna=y"]`` as a mapping.

    Raises:
        InvalidSettingError: A value without ``=``, with an empty side, or a name that comes twice.
    """
    pairs: dict[str, str] = {}
    for value in values:
        name, sign, chosen = value.partition("=")
        if not (name and sign and chosen) or name in pairs:
            raise InvalidSettingError(
                f"{option} {value!r} is not NAME=VALUE with each name once. Write {option} {example}."
            )
        pairs[name] = chosen
    return pairs


def parse_by_modality(option: str, values: Sequence[str]) -> dict[Modality, str]:
    """``["rna=x"]`` as a mapping from modality.

    Raises:
        UnknownNameError: Something else than a modality stands on the left.
    """
    pairs = parse_pairs(option, values, "rna=VALUE")
    if unknown := set(pairs) - set(MODALITIES):
        raise UnknownNameError("modality", min(unknown), MODALITIES)
    return {modality: pairs[modality] for modality in MODALITIES if modality in pairs}
