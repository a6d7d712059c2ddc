"""Damage to the bytes of files: text, before and after it is compressed, and JSON."""

import gzip
import json
import re
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

Damage = Callable[[Random, bytes], bytes]
END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def flip_bits(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(rng: Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def cut_line(rng: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    return b"\n".join(lines[: rng.randrange(1, len(lines) + 1)])


def insert(*choices: bytes) -> Damage:
    def change(rng: Random, data: bytes) -> bytes:
        at = rng.randrange(len(data) + 1)
        return data[:at] + rng.choice(choices) + data[at:]

    return change


def on_line(change: Callable[[Random, list[bytes], int], None]) -> Damage:
    """Damage to one random line, given all lines and its number."""

    def damage(rng: Random, data: bytes) -> bytes:
        lines = data.split(b"\n")
        change(rng, lines, rng.randrange(max(len(lines) - 1, 1)))
        return b"\n".join(lines)

    return damage


def delete_line(rng: Random, lines: list[bytes], at: int) -> None:
    del lines[at]


def double_line(rng: Random, lines: list[bytes], at: int) -> None:
    lines.insert(rng.randrange(len(lines) + 1), lines[at])


def move_line(rng: Random, lines: list[bytes], at: int) -> None:
    lines.insert(rng.randrange(len(lines)), lines.pop(at))


def join_lines(rng: Random, lines: list[bytes], at: int) -> None:
    lines[at : at + 2] = [b"".join(lines[at : at + 2])]


def blank_line(rng: Random, lines: list[bytes], at: int) -> None:
    lines.insert(at, rng.choice([b"", b" ", b"\t"]))


def on_field(change: Callable[[Random, list[bytes], int], None]) -> Damage:
    """Damage to one random field of one random line."""

    def damage(rng: Random, lines: list[bytes], at: int) -> None:
        separator = b"\t" if b"\t" in lines[at] else b","
        fields = lines[at].split(separator)
        change(rng, fields, rng.randrange(len(fields)))
        lines[at] = separator.join(fields)

    return on_line(damage)


def swap_fields(rng: Random, fields: list[bytes], at: int) -> None:
    other = rng.randrange(len(fields))
    fields[at], fields[other] = fields[other], fields[at]


def delete_field(rng: Random, fields: list[bytes], at: int) -> None:
    del fields[at]


def odd_field(rng: Random, fields: list[bytes], at: int) -> None:
    fields[at] = rng.choice(ODD_FIELDS)


def swap_columns(rng: Random, data: bytes) -> bytes:
    """The same two columns in every line that has them."""
    separator = b"\t" if b"\t" in data else b","
    one, other = rng.randrange(12), rng.randrange(12)
    lines = [line.split(separator) for line in data.split(b"\n")]
    for fields in lines:
        if max(one, other) < len(fields):
            fields[one], fields[other] = fields[other], fields[one]
    return b"\n".join(separator.join(fields) for fields in lines)


def odd_number(rng: Random, data: bytes) -> bytes:
    return _replace(rng, data, rb"\d+(\.\d+)?(e-?\d+)?", rng.choice(ODD_FIELDS))


def double_name(rng: Random, data: bytes) -> bytes:
    """A word in place of another one: IDs that come twice, sequences under other names."""
    words = re.findall(rb"[\w.]+", data)
    return _replace(rng, data, rb"[\w.]+", rng.choice(words)) if words else data


def break_quotes(rng: Random, data: bytes) -> bytes:
    if b'"' in data and rng.random() < 0.7:
        return _replace(rng, data, rb'"', rng.choice([b"", b"'", b'""', b'\\"']))
    return insert(b'"', b'""', b"'")(rng, data)


def _replace(rng: Random, data: bytes, pattern: bytes, new: bytes) -> bytes:
    found = list(re.finditer(pattern, data))
    if not found:
        return data
    one = rng.choice(found)
    return data[: one.start()] + new + data[one.end() :]


ODD_FIELDS = [
    b"", b" ", b".", b"?", b"-", b"+", b"-1", b"-0", b"0", b"1.0", b"1e3", b"1e308", b"1e400", b"nan", b"NaN", b"NA",
    b"inf", b"-inf", b"99999999999", b"9" * 30, b"9" * 5000, b"0x1f", b"1_0", b"1,5", b" 1", b"1 ", b"\xd9\xa1",
    b"true", b"None", b"\xff\xfe", b"caf\xe9", "é".encode(), b"a;b", b"a b", b'"x', b"#", b">", b"\x00", b"chrUn",
    b"exon", b"train", b"x" * 70_000,
]  # fmt: skip

DAMAGES: dict[str, Damage] = {
    "flipped bits": flip_bits,
    "cut": cut,
    "cut at a line": cut_line,
    "nul": insert(b"\x00", b"\x00" * 512),
    "control": insert(b"\x1b[2J", b"\x01", b"\x0b", b"\x0c", b"\x1c", b"\x1e", b"\x7f", b"\xc2\x85", b"\xe2\x80\xa8"),
    "not UTF-8": insert(b"\xff", b"\xc3", b"\xe9", b"\xed\xa0\x80"),
    "other script": insert(*(letter.encode() for letter in "\u00df\u0131\u017f\uff21\u00a0\u200b")),
    "separator": insert(b"\t", b",", b";", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b">", b"*", b"-", b"#"),
    "line deleted": on_line(delete_line),
    "line doubled": on_line(double_line),
    "line moved": on_line(move_line),
    "lines joined": on_line(join_lines),
    "blank line": on_line(blank_line),
    "fields swapped": on_field(swap_fields),
    "field deleted": on_field(delete_field),
    "odd field": on_field(odd_field),
    "columns swapped": swap_columns,
    "odd number": odd_number,
    "double name": double_name,
    "quotes": break_quotes,
    "one CRLF": lambda rng, data: _replace(rng, data, rb"\n", b"\r\n"),
    "one CR": lambda rng, data: _replace(rng, data, rb"\n", b"\r"),
    "all CR": lambda _, data: data.replace(b"\n", b"\r"),
    "UTF-16": lambda _, data: data.decode("utf-8", "replace").encode("utf-16"),
    "empty": lambda _, data: b"",
    "tail of another file": lambda rng, data: data + rng.randbytes(20),
    "zeros at the end": lambda rng, data: cut(rng, data).ljust(len(data), b"\0"),
}  # fmt: skip


def bgzf(data: bytes) -> bytes:
    """Blocks as bgzip writes them, with the empty one at the end."""
    blocks = []
    for start in range(0, len(data), 200):
        piece = data[start : start + 200]
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = packer.compress(piece) + packer.flush()
        head = struct.pack("<4BI2BH2BHH", 31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, len(body) + 25)
        blocks.append(head + body + struct.pack("<II", zlib.crc32(piece), len(piece)))
    return b"".join(blocks) + END_OF_BGZF


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda data: data,
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "no last line end": lambda data: data.removesuffix(b"\n"),
    "gzip": lambda data: gzip.compress(data, 1),
    "gzip in two parts": lambda data: gzip.compress(data[:50], 1) + gzip.compress(data[50:], 1),
    "block gzip": bgzf,
}


def unpack(data: bytes) -> bytes | None:
    """What a file holds, gzip-compressed or not, read with zlib alone; None if it is cut or damaged."""
    if not data.startswith(b"\x1f\x8b"):
        return data
    is_blocked, parts = data[12:14] == b"BC" and data[3] & 4, []
    if is_blocked and not data.endswith(END_OF_BGZF):
        return None
    while rest := data.lstrip(b"\0") if parts else data:
        one = zlib.decompressobj(31)
        try:
            parts.append(one.decompress(rest))
        except zlib.error as error:
            if "header" in str(error) and parts == []:  # a flag that Python's gzip does not look at
                return _without_header_checks(data)
            return None
        if not one.eof:
            return None
        data = one.unused_data
    return b"".join(parts)


def _without_header_checks(data: bytes) -> bytes | None:
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error):
        return None


def spoil(rng: Random, data: bytes) -> tuple[bytes, list[str]]:
    """Damage to the content of a text file, before or after it is compressed; and what was done, if anything."""
    done: list[str] = []
    for _ in range(rng.choice([0, 1, 1, 1, 1, 1, 1, 2, 2, 3])):
        done.append(rng.choice(list(DAMAGES)))
        data = DAMAGES[done[-1]](rng, data) if data else data
    data = HARMLESS[rng.choice([*HARMLESS, "nothing", "nothing", "nothing", "nothing"])](data)
    if data.startswith(b"\x1f\x8b") and rng.random() < 0.5:
        done.append(rng.choice(["flipped bits", "cut", "nul", "zeros at the end", "tail of another file"]))
        data = DAMAGES[done[-1]](rng, data)
    return data, done


BINARY = ["flipped bits"] * 6 + ["cut", "nul", "zeros at the end", "tail of another file", "empty", "other script"]
TEXT = ["flipped bits"] * 4 + [
    "cut",
    "odd number",
    "double name",
    "quotes",
    "nul",
    "not UTF-8",
    "fields swapped",
    "empty",
]
ODD_VALUES: list[Any] = [
    None, True, -1, 0, 3, 2**31, 2**63, 10**300, 0.5, float("nan"), float("inf"), "", "x", "\x1b[31m\n", "é" * 3000, [],
    [1], [[]], {}, {"a": {}}, "../../x", "/dev/zero", "train",
]  # fmt: skip


def odd_json(rng: Random, text: bytes) -> bytes:
    """A value of another type somewhere, a key that is gone, or nesting that no parser follows."""
    if rng.random() < 0.05:
        return rng.choice([b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"[]", b"null", b'"x"'])
    whole = json.loads(text)
    at, places = whole, [whole]
    while at and isinstance(at, dict | list) and rng.random() < 0.8:
        places.append(at)
        at = rng.choice(list(at.values()) if isinstance(at, dict) else at)
    at = places[-1]
    key = rng.choice(list(at)) if isinstance(at, dict) and at else rng.randrange(len(at)) if at else None
    if key is None:
        return text
    if rng.random() < 0.3:
        del at[key]
    else:
        at[key] = rng.choice(ODD_VALUES)
    return json.dumps(whole).encode()
