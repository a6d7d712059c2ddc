"""The subcommands that look after a cache. Each one translates its options and calls one public function."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from embedcache.choices import StoreDtype
from embedcache.errors import InvalidSettingError
from embedcache.options import CacheOption, JsonOption, show
from embedcache.sequences import Modality

__all__ = ["convert", "encoders", "gc", "info", "merge", "remove", "verify"]

EncoderOption = Annotated[
    str | None,
    typer.Option(help="Name of the store: of its encoder or, where it has several, of its directory. See info."),
]


def info(
    cache: CacheOption = "cache",
    dataset: Annotated[
        Path | None, typer.Option(help="Also tell what each store has of this dataset, and what repeats saved.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the stores of a cache and what each holds.

    Also what rounding cost, when a store was last written, and who works on it now.

    ``rounding`` is the length of the error over the length of the embeddings, measured when they were written.
    """
    from embedcache.info import describe_cache, format_cache

    stores = describe_cache(cache, dataset=dataset)
    print(json.dumps([store.to_json() for store in stores], indent=1) if as_json else format_cache(stores))


def encoders(
    name: Annotated[
        str | None, typer.Argument(help="Show this one in full: a name, hf:OWNER/NAME, or module:Class.")
    ] = None,
    modality: Annotated[Modality | None, typer.Option(help="Only those that read it.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the encoders that can be used.

    With width, limit, licence, and whether their weights are on this machine.

    Looks at the Hugging Face cache without the network. With a name: one card in full, and how to fetch its weights.
    """
    from embedcache.encoders.listing import describe_card, format_card, format_cards, list_cards
    from embedcache.encoders.registry import card

    if name is not None:
        found = describe_card(card(name))
        print(json.dumps(found, indent=1) if as_json else format_card(found))
        return
    cards = list_cards(modality)
    print(json.dumps(cards, indent=1) if as_json else format_cards(cards))


def verify(
    cache: CacheOption = "cache",
    dataset: Annotated[
        Path | None,
        typer.Option(
            help="Also look whether every sequence of this dataset is there, and name damaged ones by transcript."
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option(help="Withdraw damaged commits, so that the next build computes them. Not during a build.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Read every byte of a cache and compare its checksum. Exit code 1 if any is wrong."""
    from embedcache.care import verify_cache

    report = verify_cache(cache, dataset=dataset, repair=repair)
    show(report, as_json)
    report.raise_if_damaged()


def gc(
    cache: CacheOption = "cache",
    older_than_hours: Annotated[
        float,
        typer.Option(
            min=0, help="Spare younger files: a build may be about to commit them. Under 12 only while nothing builds."
        ),
    ] = 12.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what killed builds left behind.

    Orphan shards, temporary files, expired leases, plans that are done.
    """
    from embedcache.care import collect_cache

    found = collect_cache(cache, older_than_hours, dry_run=dry_run)
    print(
        json.dumps([one.to_json() for one in found], indent=1)
        if as_json
        else "\n".join(map(str, found)) or "No stores."
    )


def convert(
    modality: Annotated[Modality, typer.Option(help="Of the store to convert.")],
    store_dtype: Annotated[
        StoreDtype,
        typer.Option(help="Numbers of the new store. float16 and bfloat16 take half of float32, int8 a quarter."),
    ],
    encoder: EncoderOption = None,
    cache: CacheOption = "cache",
    output: Annotated[
        str | None, typer.Option(help="Root of the cache that gets the new store, by default the same.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a store in another number format. Its encoder is not run again; the old store stays."""
    from embedcache.convert import convert_store

    report = convert_store(cache, modality, store_dtype, encoder=encoder, output=output)
    show(report, as_json)
    report.raise_if_damaged()


def merge(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE", help="Roots of the caches to copy from; they stay as they are.")
    ],
    cache: CacheOption = "cache",
    dataset: Annotated[
        Path | None,
        typer.Option(help="Copy only sequences of this dataset: into an empty cache, what an old one has of use."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make one cache of several that were built apart.

    What --cache lacks is copied; every checksum is compared on the way.
    """
    from embedcache.merge import merge_caches

    report = merge_caches(sources, cache, dataset=dataset)
    show(report, as_json)
    report.raise_if_incomplete()


def remove(
    modality: Annotated[Modality, typer.Option(help="Of the store to remove.")],
    encoder: Annotated[str, typer.Option(help="Which one: the name of its encoder or, of several, its directory.")],
    cache: CacheOption = "cache",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove one store, with all its embeddings, for ever.

    Refused while somebody builds it.

    To keep a part of it, first `embedcache merge --dataset` into another cache.
    """
    from embedcache.remove import describe_removal, remove_store
    from embedcache.store.find import find_store

    store = find_store(cache, modality, encoder)
    if not yes:
        print(describe_removal(store), file=sys.stderr)
        if not sys.stdin.isatty():
            raise InvalidSettingError("Nothing was removed: there is no terminal to ask on. Add --yes.")
        typer.confirm("Remove it for ever?", abort=True)
    removal = remove_store(store)
    show(removal, as_json)
