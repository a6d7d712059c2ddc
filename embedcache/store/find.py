"""Which stores a cache holds, and the one that a name means."""

from collections.abc import Iterator
from pathlib import Path

from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheError, UnknownNameError
from embedcache.sequences import MODALITIES, Modality

__all__ = ["find_store", "list_stores", "store_path"]


def store_path(cache: Path, spec: EncoderSpec) -> Path:
    """Where the store of a spec lies in a cache."""
    return cache / spec.modality / spec.directory


def list_stores(cache: Path, modality: Modality | None = None) -> Iterator[Path]:
    """Directories of all stores of a cache, in the order of modalities and names."""
    for name in MODALITIES if modality is None else (modality,):
        parent = cache / name
        if parent.is_dir():
            yield from sorted(path.parent for path in parent.glob("*/zarr.json"))


def find_store(cache: Path | str, modality: Modality, encoder: str | None = None) -> Path:
    """The store that an encoder's name means.

    Args:
        cache: Root of the cache.
        modality: Which branch of it.
        encoder: ``rna-encoder`` or, where several settings of it were built, ``rna-encoder-<digest>``. None
            takes the only store there is.

    Raises:
        CacheError: Nothing was built, or the name means several stores.
        UnknownNameError: No store has this name.
    """
    cache = Path(cache)
    stores = list(list_stores(cache, modality))
    if not stores:
        raise CacheError(
            f"{cache} holds no {modality} embeddings. Run `embedcache build --modality {modality} --cache {cache}`."
        )
    matches = [path for path in stores if encoder in (None, path.name, path.name.rpartition("-")[0])]
    if not matches:
        raise UnknownNameError(
            f"{modality} encoder in {cache}", str(encoder), {path.name.rpartition("-")[0] for path in stores}
        )
    if len(matches) > 1:
        raise CacheError(
            f"{encoder or 'no encoder'} could mean {len(matches)} {modality} stores in {cache}: "
            f"{', '.join(path.name for path in matches)}. Name one: --encoder {modality}=NAME."
        )
    return matches[0]
