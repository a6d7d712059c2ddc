"""Options that several commands share, and the words that users write them in. Imports nothing slow."""

import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from importlib.metadata import version
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, Protocol, get_type_hints

import typer

from embedcache.errors import InvalidSettingError, UnknownNameError
from embedcache.sequences import MODALITIES, Modality, check_modality

__all__ = [
    "CacheOption",
    "DatasetOption",
    "DeviceOption",
    "JsonOption",
    "expand_options",
    "parse_by_modality",
    "parse_modalities",
    "parse_pairs",
    "show",
    "tell_version",
]

DatasetOption = Annotated[Path, typer.Option(envvar="EMBEDCACHE_DATASET", help="Directory of the dataset.")]
CacheOption = Annotated[
    str, typer.Option(envvar="EMBEDCACHE_CACHE", help="Root of the cache: a directory, or s3://bucket/path.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, or auto: a GPU if there is one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def expand_options(function: Callable[..., None]) -> Callable[..., None]:
    """Let a command take its options as frozen dataclasses, which typer itself does not know.

    Each parameter whose type is a dataclass gives way to the fields of it, in their order; the others stay.

    Example:
        @app.command()
        @expand_options
        def build(wanted: EncodingOptions, retry: RetryOption = False) -> None: ...
    """
    kinds = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in kinds.items() if is_dataclass(kind)}
    parameters: list[Parameter] = []
    for name, parameter in signature(function).parameters.items():
        if name in groups:
            hints = get_type_hints(groups[name], include_extras=True)
            parameters += [_parameter(field, hints[field.name]) for field in fields(groups[name])]
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    @wraps(function)
    def command(**values: Any) -> None:
        made = {name: kind(**{one.name: values.pop(one.name) for one in fields(kind)}) for name, kind in groups.items()}
        function(**made, **values)

    command.__signature__ = signature(function).replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(field: "Field[Any]", hint: Any) -> Parameter:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    default = Parameter.empty if default is MISSING else default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hint)


class _Report(Protocol):
    def to_json(self) -> Any: ...


def tell_version(app: typer.Typer) -> None:
    """Add ``--version`` to a command."""

    def tell(wanted: bool) -> None:
        if wanted:
            print(version("isoheads"))
            raise typer.Exit

    @app.callback()
    def callback(
        version: Annotated[
            bool, typer.Option("--version", callback=tell, is_eager=True, help="Show the version and end.")
        ] = False,
    ) -> None: ...


def show(found: _Report, as_json: bool) -> None:
    """Print a result, as words or as JSON."""
    print(json.dumps(found.to_json(), indent=1) if as_json else found)


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


def parse_modalities(names: str) -> list[Modality]:
    """``"dna, rna"`` as a list; nothing between two commas counts for nothing.

    Raises:
        UnknownNameError: One of them is no modality.
    """
    return [check_modality(name.strip()) for name in names.split(",") if name.strip()]
