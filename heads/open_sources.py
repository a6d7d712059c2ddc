"""Which stores a run reads: found by modality and encoder, one layer or several."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from embedcache.dataset import Dataset
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.place import Place
from embedcache.sequences import Modality, check_modality
from embedcache.store import EmbeddingStore, find_store
from heads.layered import LayeredSource
from heads.mending import how_to_fill
from heads.sources import CachedSource

__all__ = ["StoredSource", "check_encoders", "layers_of", "open_source", "open_sources"]

StoredSource = CachedSource | LayeredSource


def open_sources(
    dataset: Dataset, cache: str | Place, modalities: Sequence[Modality], encoders: Mapping[Modality, str] | None = None
) -> dict[Modality, StoredSource]:
    """Open what each modality is read from.

    Args:
        dataset: Whose rows will be read.
        cache: Root of the cache.
        modalities: What a model reads; the dataset must have them.
        encoders: Encoder of a modality by name, or by name and digest, or several joined by ``+`` whose numbers are
            laid side by side; else the dataset's default, else the only one that was built.

    Raises:
        InvalidInputError: The dataset has no sequence of a modality.
        InvalidSettingError: ``encoders`` names one for a modality that is not read.
        UnknownNameError: ``encoders`` names something that is no modality, or an encoder that was not built.
        CacheError: No store, several that fit, or one that lacks sequences.
    """
    encoders = encoders or {}
    check_encoders(encoders, modalities)
    return {m: open_source(dataset, cache, m, encoders.get(m), modalities) for m in modalities}


def check_encoders(encoders: Iterable[str], modalities: Collection[Modality]) -> None:
    """Refuse an encoder that would not be read.

    Args:
        encoders: Modalities for which one is named.
        modalities: What is read.

    Raises:
        InvalidSettingError: It is named for a modality that is not read.
        UnknownNameError: It is named for something that is no modality.
    """
    for name in encoders:
        if check_modality(name) not in modalities:
            raise InvalidSettingError(
                f"An encoder is named for {name}, which is not read. Add it to --modalities, or leave it out."
            )


def open_source(
    dataset: Dataset, cache: str | Place, modality: Modality, encoder: str | None, modalities: Sequence[Modality] = ()
) -> StoredSource:
    """Open what one modality is read from; see ``open_sources``."""
    if modality not in dataset.modalities:
        raise InvalidInputError(
            f"{dataset.path} has no {modality} sequences, only {', '.join(dataset.modalities)}. "
            f"Use --modalities {','.join(m for m in modalities if m in dataset.modalities) or 'with one of them'}."
        )
    names = _layer_names(dataset.encoder(modality) or None if encoder is None else encoder, modality)
    stores = [EmbeddingStore.open(find_store(cache, modality, name)) for name in names]
    if kept := [store for store in stores if store.spec.special_tokens != "dropped"]:
        raise InvalidSettingError(
            f"{kept[0].root} holds rows of special tokens too: it is for `heads train --finetune {modality} --method "
            "last:K`, which finds it. Build a store without --keep-special for heads."
        )
    keys = dataset.keys(modality)
    layers = [CachedSource(store, keys, how_to_fill(store.spec, dataset.path, cache)) for store in stores]
    if len({store.root for store in stores}) < len(stores):
        raise InvalidSettingError(f"--encoder {modality}={encoder} names one store twice. Name each layer once.")
    return layers[0] if len(layers) == 1 else LayeredSource(layers)


def _layer_names(encoder: str | None, modality: Modality) -> Sequence[str | None]:
    """The stores that the name of an encoder joins; None, the only store, where nothing is named."""
    if encoder is None:
        return [None]
    names = encoder.split("+")
    for i, name in enumerate(names):
        if not name.strip():
            where = "" if len(names) == 1 else f" in part {i + 1} of {len(names)}"
            raise InvalidSettingError(
                f"The encoder of {modality}, {encoder!r}, is empty{where}. Name a store on each side of +, or leave "
                "the empty part out."
            )
    return names


def layers_of(source: StoredSource) -> list[CachedSource]:
    """The stores that a source is read from."""
    return source.layers if isinstance(source, LayeredSource) else [source]
