"""Exporting a store: what ``embedcache export`` does, as a function."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedcache.choices import ExportDtype, FormatName, Names
from embedcache.dataset import Dataset, read_dataset
from embedcache.errors import CacheError, InvalidSettingError
from embedcache.exchange.formats import ExportOptions, exchange_format
from embedcache.exchange.output import check_new, new_output
from embedcache.exchange.source import ExportSource, open_source
from embedcache.place import Place
from embedcache.sequences import Modality
from embedcache.store.find import find_store
from embedcache.store.read import EmbeddingStore
from embedcache.units import format_bytes

__all__ = ["ExportReport", "export_embeddings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written."""

    output: str
    format: str
    stores: dict[Modality, str]
    """Store of each modality."""
    ids: dict[Modality, int]
    """Transcripts with an embedding in the output."""
    sequences: dict[Modality, int]
    """Distinct sequences of them."""
    random: tuple[Modality, ...]
    """Modalities whose encoder had drawn weights."""
    size_bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{modality}: {self.ids[modality]:,} IDs, {self.sequences[modality]:,} distinct sequences of {store}"
            + (" (random weights)" if modality in self.random else "")
            for modality, store in self.stores.items()
        ]
        size = format_bytes(self.size_bytes)
        return "\n".join([*lines, f"{self.output}: {self.format}, {size}, written in {self.seconds:.1f} s"])


def export_embeddings(
    *,
    format: FormatName,  # noqa: A002 - the option of the command has this name
    modalities: Sequence[Modality],
    output: Path,
    dataset: Path = Path("dataset"),
    cache: str | Place = "cache",
    encoders: Mapping[Modality, str] | None = None,
    pooled: bool = False,
    names: Names | None = None,
    dtype: ExportDtype | None = None,
) -> ExportReport:
    """Write the embeddings of a dataset's sequences to a file, or a directory, that another tool reads.

    Memory does not grow with the size of the store. The output appears when it is whole.

    Args:
        format: See ``FORMATS``.
        modalities: Which sequences; several for h5ad only.
        output: A path that does not exist.
        dataset: IDs and sequences.
        cache: Root of the cache.
        encoders: Encoder, or store, of a modality that has several.
        pooled: The mean of each sequence's rows, and no rows.
        names: HDF5: data sets named by a hash of the sequence (None, too), or by ID.
        dtype: Number format; None takes the usual one of the format.

    Raises:
        InvalidSettingError: Settings that the format cannot have.
        CacheError: No such store, or one that lacks sequences.
        InvalidInputError: There is something at ``output``, or it cannot be written.
    """
    started, chosen = time.monotonic(), exchange_format(format)
    _check_settings(format, modalities, pooled=pooled, names=names, dtype=dtype)
    check_new(output)
    found = read_dataset(dataset)
    sources = [_open(found, cache, modality, (encoders or {}).get(modality)) for modality in modalities]
    pooled = pooled or chosen.always_pooled
    is_half = format == "parquet" and not pooled and sources[0].store.spec.store_dtype == "float16"
    usual: ExportDtype = "float16" if is_half else "float32"
    options = ExportOptions(pooled=pooled, names=names or "sequence", dtype=dtype or usual)
    for source in sources:
        _check_pooling(source, options)
    with new_output(output, chosen.output) as path:
        each_id = not chosen.by_sequence or options.names == "id"
        _check_room(sum(_values(source, options, each_id) for source in sources), options, path)
        chosen.write(sources, path, options)
    return ExportReport(
        output=str(output),
        format=format,
        stores={source.modality: str(source.store.root) for source in sources},
        ids={source.modality: source.n_ids for source in sources},
        sequences={source.modality: len(source.ids) for source in sources},
        random=tuple(source.modality for source in sources if source.store.spec.is_random),
        size_bytes=_size(output),
        seconds=time.monotonic() - started,
    )


def _open(dataset: Dataset, cache: str | Place, modality: Modality, encoder: str | None) -> ExportSource:
    return open_source(dataset, EmbeddingStore.open(find_store(cache, modality, encoder)))


def _check_settings(
    name: FormatName, modalities: Sequence[Modality], *, pooled: bool, names: Names | None, dtype: ExportDtype | None
) -> None:
    chosen = exchange_format(name)
    if len(set(modalities)) != len(modalities):
        raise InvalidSettingError(f"--modality {', '.join(modalities)} names one twice. Give each once.")
    if len(modalities) > 1 and not chosen.several:
        raise InvalidSettingError(f"{name} holds one modality a file. Run one export for each --modality.")
    if names is not None and not chosen.by_sequence:
        raise InvalidSettingError(f"--names is for HDF5 files; {name} keeps the IDs. Leave it out.")
    if dtype is not None and dtype not in chosen.dtypes:
        raise InvalidSettingError(f"{name} holds {' or '.join(chosen.dtypes)}, not {dtype}. Leave out --dtype.")
    if name == "parquet" and pooled and dtype == "float16":
        raise InvalidSettingError("The means of a Parquet file are float32. Leave out --dtype.")


def _check_pooling(source: ExportSource, options: ExportOptions) -> None:
    pooling = source.store.spec.pooling
    if pooling not in ("none", "mean"):
        raise InvalidSettingError(
            f"{source.store.root} holds means of neighbouring tokens ({pooling}), for which no format has a place. "
            "Build with --pooling none or mean."
        )
    if pooling != "none" and not options.pooled:
        raise InvalidSettingError(
            f"{source.store.root} holds pooled rows ({pooling}), not one a token. Give --pooled, or build with "
            "--pooling none."
        )


def _values(source: ExportSource, options: ExportOptions, each_id: bool) -> int:
    """Numbers that an output will hold."""
    if options.pooled:
        return source.width * (source.n_ids if each_id else len(source.ids))
    return source.width * source.n_rows(each_id=each_id)


def _check_room(n_values: int, options: ExportOptions, path: Path) -> None:
    """Refuse before any work what could not be written after it."""
    size_bytes = n_values * (2 if options.dtype == "float16" else 4)
    free = shutil.disk_usage(path.parent).free
    if size_bytes > free:
        raise CacheError(
            f"The export takes {format_bytes(size_bytes)} and its disk has {format_bytes(free)} free. Free space, "
            "choose another --output, or export --pooled."
        )


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
