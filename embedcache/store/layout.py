"""Form of a store on disk: its metadata, its shards, its commit records. Numbers and paths, no policy.

zarr.json           group attributes: format version, encoder spec, width, dtype, letters a token, rows of a shard
tokens/zarr.json    one Zarr v3 array (rows, columns), sharded, inner chunks of 256 rows, no compression
tokens/c/<k>/0      shard k: C-order rows of whole sequences, zeros up to an inner chunk, the index of Zarr, its crc32c
commits/<task>      a JSON line, then 32 bytes a sequence: key, shard, start, length, crc32c of its rows
index.npy           the commits merged
mean.npy            int8 stores: what is subtracted from each row before it is scaled
claims/shards/<k>   object stores: shard numbers that were given (a local disk has the directory tokens/c/<k>)
claims/tasks/...    who computes what, see leases.py
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any, TypeAlias, get_args

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from embedcache.choices import StoreDtype
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheDamagedError, CacheError, CacheMismatchError
from embedcache.place import Place
from embedcache.sequences import MODALITIES
from embedcache.store.files import Files, open_files
from embedcache.store.numbers import stored_width

__all__ = [
    "ENTRY",
    "FORMAT_VERSION",
    "INNER_ROWS",
    "REPAIR",
    "Array",
    "Layout",
    "crc32c",
    "create_store",
    "new_layout",
    "read_layout",
]

Array: TypeAlias = NDArray[Any]
FORMAT = "embedcache-store"
FORMAT_VERSION = 2
"""Version 2 added int8 rows; a store without them is still written, and read by older releases, as version 1."""
INNER_ROWS = 256
EMPTY_CHUNK = 2**64 - 1  # stands in a shard's index for an inner chunk that is not there
SHARD_BYTES = 64 << 20
REPAIR = "Restore it, or run `embedcache verify --repair` and build again."

ENTRY = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("shard", "<u4"), ("start", "<u4"), ("length", "<u4"), ("crc", "<u4")]
)
"""One committed sequence: the halves of its key, its shard, first row, number of rows, checksum of its bytes."""


def crc32c(data: Array | bytes) -> int:
    """Checksum of bytes, or of the bytes of an array."""
    if not isinstance(data, bytes):
        data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        data.flags.writeable = False  # google_crc32c refuses what it could change
    return int(google_crc32c.value(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a reader or a writer must know of a store before it touches a shard."""

    spec: EncoderSpec
    shard_rows: int

    @property
    def width(self) -> int:
        """Numbers a row."""
        return self.spec.width

    @property
    def stored(self) -> np.dtype[Any]:
        """Type of the numbers on disk; bfloat16 is kept as its 16 bits, for zarr-python 3.1 has no such type."""
        name = self.spec.store_dtype
        return np.dtype("uint16" if name == "bfloat16" else name)

    @property
    def columns(self) -> int:
        """Numbers of a stored row; a row of int8 ends in the four bytes of its scale."""
        return stored_width(self.width, self.spec.store_dtype)

    @property
    def version(self) -> int:
        """Oldest format version that can say what this store holds."""
        return 2 if self.spec.store_dtype == "int8" else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row."""
        return self.columns * self.stored.itemsize

    @property
    def index_bytes(self) -> int:
        """Bytes of the index at the end of a shard."""
        return 16 * (self.shard_rows // INNER_ROWS) + 4

    @property
    def inner_bytes(self) -> int:
        """Bytes of one inner chunk."""
        return INNER_ROWS * self.row_bytes

    def array_metadata(self, n_shards: int) -> bytes:
        """``tokens/zarr.json`` for readers of Zarr v3; our own reader follows the records instead."""

        def named(name: str, **configuration: Any) -> dict[str, Any]:
            return {"name": name, "configuration": configuration}

        raw, crc = named("bytes", endian="little"), {"name": "crc32c"}
        inner = {"chunk_shape": [INNER_ROWS, self.columns], "codecs": [raw], "index_codecs": [raw, crc]}
        metadata = {
            "zarr_format": 3,
            "node_type": "array",
            "data_type": self.stored.name,
            "fill_value": 0,
            "shape": [n_shards * self.shard_rows, self.columns],
            "chunk_grid": named("regular", chunk_shape=[self.shard_rows, self.columns]),
            "chunk_key_encoding": named("default", separator="/"),
            "codecs": [named("sharding_indexed", **inner, index_location="end")],
            "attributes": {"dtype": self.spec.store_dtype},
        }
        return json.dumps(metadata).encode()

    def group_metadata(self) -> bytes:
        """``zarr.json`` of the store."""
        attributes = {
            "format": FORMAT,
            "version": self.version,
            "encoder": self.spec.to_json(),
            "digest": self.spec.digest,
            "width": self.width,
            "dtype": self.spec.store_dtype,
            "letters_a_token": self.spec.tokens,
            "shard_rows": self.shard_rows,
        }
        return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1).encode()


def new_layout(spec: EncoderSpec, *, longest: int = 0, shard_bytes: int = SHARD_BYTES) -> Layout:
    """The layout that ``create_store`` gives a new store."""
    row_bytes = Layout(spec=spec, shard_rows=0).row_bytes
    n_inner = max(shard_bytes // (INNER_ROWS * row_bytes), -(-longest // INNER_ROWS), 1)
    return Layout(spec=spec, shard_rows=n_inner * INNER_ROWS)


def create_store(root: str | Place, spec: EncoderSpec, *, longest: int = 0, shard_bytes: int = SHARD_BYTES) -> Layout:
    """Make an empty store, or open the one that is there. Any number of processes may do this at once.

    Args:
        root: Place of the store.
        spec: Encoder whose embeddings it will hold.
        longest: Rows of the longest sequence to come; a shard holds whole sequences.
        shard_bytes: Size of a shard, fixed when the store is made.

    Raises:
        CacheMismatchError: A store of another encoder spec is there.
        CacheError: A file stands in the way, or the place cannot be written.
    """
    files, layout = open_files(root), new_layout(spec, longest=longest, shard_bytes=shard_bytes)
    try:
        files.make_folders(["commits", "tokens/c"])
        if not files.exists("zarr.json"):
            files.create("tokens/zarr.json", [layout.array_metadata(0)])
            files.create("zarr.json", [layout.group_metadata()])
    except OSError as error:
        raise CacheError(
            f"{root} cannot be written: {error.strerror or error}. Choose another --cache, or mend its permissions."
        ) from error
    found = read_layout(files)
    if found.spec != spec:
        theirs, ours = found.spec.to_json(), spec.to_json()
        different = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        raise CacheMismatchError(f"{root} was built with other settings: {different}. Build into another cache.")
    return found


def _instead(root: Place) -> str:
    """What to do where no store is: name those that are there under the name of an encoder without its digest."""
    places = root.parent.glob(f"{escape(root.name)}-*/zarr.json") if isinstance(root, Path) else ()
    names = sorted(place.parent.name for place in places)
    return f"Give one of {', '.join(names)}, or see `find_store`." if names else "Build it first."


def read_layout(files: Files) -> Layout:
    """Read ``zarr.json`` of a store.

    Raises:
        CacheError: There is no store, or a newer version of isoheads wrote it.
        CacheDamagedError: Its metadata is not what we write.
    """
    root = files.place
    path = root / "zarr.json"
    try:
        attributes = json.loads(files.read("zarr.json"))["attributes"]
        found, version = attributes["format"], attributes["version"]
    except FileNotFoundError as error:
        raise CacheError(f"{root} holds no store: zarr.json is missing. {_instead(root)}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CacheDamagedError(
            f"{path} is not the metadata of a store ({reason}). Restore it, or delete {root} and build again."
        ) from error
    if found != FORMAT or type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise CacheError(
            f"{path} has format {found!r} version {version!r}; this isoheads reads {FORMAT!r} up to version "
            f"{FORMAT_VERSION}. Update isoheads, or build the store again."
        )
    return _parse_layout(path, attributes)


def _parse_layout(path: Place, attributes: Mapping[str, Any]) -> Layout:
    shard_rows = attributes.get("shard_rows")
    if not isinstance(shard_rows, int) or shard_rows <= 0 or shard_rows % INNER_ROWS:
        raise CacheDamagedError(
            f"{path}: shard_rows is {shard_rows!r}, expected a multiple of {INNER_ROWS}. Restore the file, or delete "
            f"{path.parent} and build again."
        )
    encoder = attributes.get("encoder")
    if not isinstance(encoder, dict):
        raise CacheDamagedError(
            f"{path}: the encoder spec is missing. Restore the file, or delete {path.parent} and build again."
        )
    spec = EncoderSpec.from_json(encoder, str(path))
    good = {
        "width": isinstance(spec.width, int) and spec.width > 0,
        "modality": spec.modality in MODALITIES,
        "store_dtype": spec.store_dtype in get_args(StoreDtype),
    }
    if wrong := [name for name, is_good in good.items() if not is_good]:
        raise CacheDamagedError(
            f"{path}: {wrong[0]} of the encoder is {encoder[wrong[0]]!r}. Restore the file, or delete {path.parent} "
            "and build again."
        )
    if attributes.get("digest") != spec.digest:
        raise CacheDamagedError(
            f"{path}: the encoder spec has digest {spec.digest}, recorded is {attributes.get('digest')!r}: somebody "
            f"changed it. Restore the file, or delete {path.parent} and build again."
        )
    return Layout(spec=spec, shard_rows=shard_rows)
