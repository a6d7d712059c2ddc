"""Which stores a cache holds, and the one that a name means."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheError, EmbedCacheError, UnknownNameError
from embedcache.place import Place, parse_place
from embedcache.sequences import MODALITIES, Modality
from embedcache.store.files import open_files
from embedcache.store.layout import read_layout

__all__ = ["find_store", "lacks", "list_stores", "store_path", "stores_or_none"]


def store_path(cache: str | Place, spec: EncoderSpec) -> Place:
    """Where the store of a spec lies in a cache."""
    return parse_place(cache) / spec.modality / spec.directory


def list_stores(cache: str | Place, modality: Modality | None = None) -> Iterator[Place]:
    """Places of all stores of a cache, in the order of modalities and names."""
    cache = parse_place(cache)
    files = open_files(cache)
    for branch in MODALITIES if modality is None else (modality,):
        try:
            names = files.names(branch)
        except (FileNotFoundError, NotADirectoryError):
            continue
        yield from (cache / branch / name for name in names if files.exists(f"{branch}/{name}/zarr.json"))


def stores_or_none(cache: Place) -> list[Place]:
    """All stores of a cache; none where it is empty.

    Raises:
        CacheError: There is something, and no store: the directory above or below was meant.
    """
    found = list(list_stores(cache))
    if not found and set(open_files(cache).names("")) - set(MODALITIES):
        raise CacheError(f"{cache} holds no stores. Give the root of a cache, the directory above dna, rna, protein.")
    return found


def lacks(cache: str | Place, what: str) -> str:
    """How an error begins where a cache holds nothing of a kind: a wrong path is told from an empty cache."""
    place = parse_place(cache)
    missing = isinstance(place, Path) and not place.exists()
    return f"{cache} does not exist." if missing else f"{cache} holds no {what}."


def find_store(cache: str | Place, modality: Modality, encoder: str | None = None) -> Place:
    """The store that an encoder's name means.

    Args:
        cache: Root of the cache.
        modality: Which branch of it.
        encoder: ``rna-encoder`` or, where several settings of it were built, ``rna-encoder-<digest>``; or the place
            of an encoder, as it was built with. None takes the only store there is.

    Raises:
        CacheError: Nothing was built, or not with this encoder, or the name means several stores.
        UnknownNameError: No encoder and no store has this name.
    """
    if encoder is not None and ":" in encoder:
        from embedcache.encoders.registry import card

        encoder = card(encoder).name
    stores = list(list_stores(cache, modality))
    if not stores:
        raise CacheError(
            f"{lacks(cache, f'{modality} embeddings')} Run `embedcache build --modality {modality} --cache {cache}`, "
            "or give the --cache that has them."
        )
    matches = [path for path in stores if encoder in (None, path.name, path.name.rpartition("-")[0])]
    if not matches:
        raise _not_built(cache, modality, str(encoder), sorted({path.name.rpartition("-")[0] for path in stores}))
    if len(matches) > 1:  # stores for fine-tuning are meant only by their whole names
        dropped = [one for one in matches if read_layout(open_files(one)).spec.special_tokens == "dropped"]
        matches = dropped or matches
    if len(matches) > 1:
        said = f"encoder {encoder}" if encoder else "no --encoder is given, which"
        raise CacheError(
            f"{said} could mean {len(matches)} {modality} stores in {cache}: {_told_apart(matches)}. Give --encoder "
            f"the whole name of one; with `heads`: --encoder {modality}={matches[0].name}. In a grid: "
            f'encoder.{modality} = "{matches[0].name}".'
        )
    return matches[0]


def _not_built(cache: str | Place, modality: Modality, encoder: str, built: Sequence[str]) -> EmbedCacheError:
    from embedcache.encoders.cards import CARDS

    if encoder not in CARDS or modality not in CARDS[encoder].modalities:
        return UnknownNameError(f"{modality} encoder in {cache}", encoder, built)
    return CacheError(
        f"{cache} holds no {modality} embeddings of {encoder}, only of {', '.join(built)}. Run `embedcache build "
        f"--modality {modality} --encoder {encoder} --cache {cache}`, or choose one that is there."
    )


def _told_apart(places: Sequence[Place]) -> str:
    """Each store, with the settings in which it differs from another one of its encoder."""
    specs = [read_layout(open_files(place)).spec for place in places]
    told = []
    for place, spec in zip(places, specs, strict=True):
        others = [one for one in specs if one.name == spec.name]
        different = sorted({name for one in others for name in one.differing(others[0])} - {"architecture"})
        settings = ", ".join(f"{name} {value}" for name in different if (value := getattr(spec, name)) != "")
        told.append(f"{place.name} ({settings})" if settings else place.name)
    return "; ".join(told)
