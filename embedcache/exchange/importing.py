"""Importing embeddings that another tool computed: what ``embedcache import`` does, as a function.

The input is read twice. The first time everything is checked and nothing written, so that a wrong file leaves no
half of it behind; the second time it is committed, task by task, as a build commits.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedcache.choices import FormatName
from embedcache.errors import CacheError, InvalidInputError
from embedcache.exchange.check import Checked, check_entries, take
from embedcache.exchange.claim import Claim, claimed_spec, layers_of
from embedcache.exchange.formats import EmbeddingFile, Entry, ReadOptions, exchange_format
from embedcache.exchange.wanted import Wanted, read_wanted
from embedcache.interrupt import stop_at_once, stop_requests
from embedcache.place import Place, check_local
from embedcache.progress import Progress
from embedcache.sequences import Modality
from embedcache.store import EmbeddingStore, commit_task, create_store, store_path, write_index
from embedcache.store.files import open_files
from embedcache.store.layout import Array, Layout
from embedcache.units import format_bytes

__all__ = ["ImportReport", "import_embeddings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import did."""

    store: str
    encoder: str
    digest: str
    imported: int
    """Distinct sequences that are new in the store."""
    present: int
    """Distinct sequences whose embedding was there before, and equal."""
    repeated: int
    """Embeddings of a sequence that the input had had before, and equal."""
    unknown: int
    """Embeddings left out: the dataset or FASTA file has no such sequence."""
    lacking: int
    """Sequences of the dataset or FASTA file that the input lacks."""
    rows: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        counts = {
            "were there before": self.present,
            "embeddings repeat the sequence of another": self.repeated,
            "embeddings left out: their sequence is not known": self.unknown,
            "sequences have no embedding in the input": self.lacking,
        }
        lines = [f"{self.imported:,} sequences imported ({self.rows:,} rows) in {self.seconds:.1f} s"]
        lines += [f"{n:>12,}  {what}" for what, n in counts.items() if n]
        return "\n".join([*lines, self.store])


def import_embeddings(
    *,
    format: FormatName,  # noqa: A002 - the option of the command has this name
    modality: Modality,
    claim: Claim,
    input: Path,  # noqa: A002
    cache: str | Place = "cache",
    dataset: Path = Path("dataset"),
    fasta: Path | None = None,
    pooled: bool = False,
) -> ImportReport:
    """Make a store of embeddings that another tool computed, or add to it.

    Memory grows with the number of sequences, not with their embeddings.

    Args:
        format: See ``FORMATS``.
        modality: Of the sequences.
        claim: Which encoder the input holds; becomes the spec of the store.
        input: The file or directory.
        cache: Root of the cache.
        dataset: Sequences and IDs, if ``fasta`` is None.
        fasta: Sequences and IDs.
        pooled: Take the means where the input holds rows, too.

    Raises:
        InvalidInputError: The input cannot be read, or does not fit the sequences or the claim. Nothing was written.
        CacheError: The store has other embeddings of these sequences, or cannot be written.
        StoppedError: A signal asked to stop; what was imported is kept.
    """
    started, chosen = time.monotonic(), exchange_format(format)
    check_local(input)
    options = ReadOptions(
        modality=modality, encoder=claim.encoder, layer=claim.layer, n_layers=layers_of(claim.encoder), pooled=pooled
    )
    with chosen.open(input, options) as file:
        first = _first(file, input)
        spec = claimed_spec(claim, file, first, file_format=format, modality=modality)
        wanted = read_wanted(spec, fasta=fasta, dataset=dataset, hash_name=chosen.hash_name)
        root = store_path(cache, spec)
        present = EmbeddingStore.open(root) if open_files(root).exists("zarr.json") else None
        with stop_at_once("Stopped; nothing was written. Run the same command to start over."):
            checked = check_entries(file, wanted, present, any_dtype=claim.store_dtype is not None)
        if checked.new:
            _check_room(root, checked.rows * spec.width * (4 if spec.store_dtype == "float32" else 2))
            layout = create_store(root, spec, longest=checked.longest)
            _commit(file, wanted, checked, layout, root)
    return ImportReport(
        store=str(root),
        encoder=spec.name,
        digest=spec.digest,
        imported=len(checked.new),
        present=checked.present,
        repeated=checked.repeated,
        unknown=checked.unknown,
        lacking=len(wanted) - checked.distinct,
        rows=checked.rows,
        seconds=time.monotonic() - started,
    )


def _first(file: EmbeddingFile, path: Path) -> Entry:
    first = next(file.entries(), None)
    if first is None:
        raise InvalidInputError(f"{path} holds no embedding. Give another --input, or the right --format.")
    if len(first.shape) not in (1, 2) or not first.shape[-1]:
        raise InvalidInputError(
            f"{first.where} has shape {first.shape}, expected (rows, width), or (width,) of a pooled embedding. "
            "Give one layer an embedding."
        )
    return first


def _check_room(root: Place, size_bytes: int) -> None:
    """Refuse before any work what could not be written after it."""
    if not isinstance(root, Path):
        return
    there = next(parent for parent in root.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free
    if size_bytes > free:
        raise CacheError(
            f"{root} needs {format_bytes(size_bytes)} more and its disk has {format_bytes(free)} free. "
            "Free space, or choose another --cache."
        )


def _commit(file: EmbeddingFile, wanted: Wanted, checked: Checked, layout: Layout, root: Place) -> None:
    """Commit all new sequences, a shard's worth at a time."""
    with stop_requests() as stop, Progress(checked.rows, "row", f"import {layout.spec.name}") as progress:
        task: list[tuple[bytes, Array]] = []
        n_rows = 0
        for key, rows in _new_rows(file, wanted, checked):
            if task and n_rows + len(rows) > layout.shard_rows:
                commit_task(root, task)
                task, n_rows = [], 0
                if stop:
                    break
            task.append((key, rows))
            n_rows += len(rows)
            progress.update(len(rows))
        if task and not stop:
            commit_task(root, task)
    write_index(root)
    stop.check(f"Stopped; what was imported is in {root}. Run the same command to go on.")


def _new_rows(file: EmbeddingFile, wanted: Wanted, checked: Checked) -> Iterator[tuple[bytes, Array]]:
    left = set(checked.new)
    for entry in file.entries():
        key = wanted.match(entry)
        if key in left and key is not None:
            left.remove(key)
            yield key, take(entry, key, wanted, checked.new[key])
    if left:
        raise InvalidInputError(f"The input lost {len(left)} embeddings while it was read. Run the import again.")
