"""The history of a run as TensorBoard scalars, beside its other files, where the package tensorboard is installed.

An event file is a chain of records: length, checksum, bytes, checksum. Ours has a first one that names the format and
one for each epoch in turn, so that the number of records tells which epochs are there: a run that goes on adds the
next ones, and what a kill left half written is cut off. The few fields of a record are written here, which neither
loads the package nor depends on its version.
"""

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from google_crc32c import value as crc32c

from embedcache.errors import InvalidSettingError
from heads.checkpoint import writing

__all__ = ["FILE", "SWITCH", "wanted", "write_scalars"]

FILE = "events.out.tfevents.0.isoheads"
"""TensorBoard finds it by the word tfevents."""
SWITCH = "HEADS_TENSORBOARD"
"""Environment variable: ``0`` writes no scalars; ``1``, or without it, where the package is installed."""

_TAGS = {"train_loss": "loss/train", "validation_loss": "loss/validation"}
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # kinds of a field


def wanted() -> bool:
    """Whether scalars are written.

    Raises:
        InvalidSettingError: The environment variable is neither 0 nor 1.
    """
    switch = os.environ.get(SWITCH, "1")
    if switch not in ("0", "1"):
        raise InvalidSettingError(f"The environment variable {SWITCH} is {switch!r}. Set it to 0 or 1, or not at all.")
    return switch == "1" and find_spec("tensorboard") is not None


def write_scalars(directory: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Bring the event file of a run up to its history; does nothing unless ``wanted``.

    Args:
        directory: Of the run.
        history: A record an epoch: ``epoch``, and losses and scores; None where one is not defined.

    Raises:
        CheckpointError: The file cannot be written.
        InvalidSettingError: The environment variable is neither 0 nor 1.
    """
    if not wanted() or not history:
        return
    path = directory / FILE
    with writing(path), path.open("a+b") as file:
        file.seek(0)
        ends = [end for _, end in zip(range(len(history) + 1), _ends(file.read()), strict=False)]
        file.truncate(ends[-1] if ends else 0)
        now = _field(1, _DOUBLE, struct.pack("<d", time.time()))
        events = [] if ends else [now + _text(3, b"brain.Event:2")]
        events += [now + _epoch(record) for record in history[max(len(ends) - 1, 0) :]]
        file.write(b"".join(map(_framed, events)))  # opened to append: after the last whole record


def _ends(content: bytes) -> Iterator[int]:
    """Where each whole record ends."""
    end = 0
    while len(content) >= end + 12:
        head = content[end : end + 8]
        (length,) = struct.unpack("<Q", head)
        stop = end + 16 + length
        if content[end + 8 : end + 12] != _masked(head) or len(content) < stop:
            return
        if content[stop - 4 : stop] != _masked(content[end + 12 : stop - 4]):
            return
        end = stop
        yield end


def _framed(event: bytes) -> bytes:
    head = struct.pack("<Q", len(event))
    return head + _masked(head) + event + _masked(event)


def _masked(content: bytes) -> bytes:
    """CRC-32C as the format stores it: turned by 15 bits, and a constant added."""
    crc = crc32c(content)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def _epoch(record: Mapping[str, Any]) -> bytes:
    """The step and the summary of an event."""
    values = b"".join(
        _text(1, _text(1, _TAGS.get(name, f"validation/{name}").encode()) + _field(2, _FLOAT, struct.pack("<f", value)))
        for name, value in record.items()
        if name != "epoch" and value is not None
    )
    return _field(2, _VARINT, _varint(record["epoch"])) + _text(5, values)


def _text(number: int, content: bytes) -> bytes:
    return _field(number, _BYTES, _varint(len(content)) + content)


def _field(number: int, kind: int, content: bytes) -> bytes:
    return _varint(number << 3 | kind) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; all but the last byte have the eighth bit set."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
