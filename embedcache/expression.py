"""Expression of transcripts in tissues, from a GTEx GCT file and the attributes of its samples.

A GCT file of 17,000 samples is read as a stream: one line at a time is averaged over the samples of each tissue,
so memory holds the result (transcripts x tissues) and one line.
"""

import codecs
import gzip
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from embedcache.errors import InvalidInputError, UnknownNameError
from embedcache.tables import MOST_TPM, NOT_MEASURED, TargetTable, read_names, read_table
from embedcache.text import DAMAGED_GZIP, control_character, open_text

__all__ = ["parse_numbers", "read_gct", "read_sample_tissues"]


def read_sample_tissues(path: Path, tissue_column: str) -> dict[str, str]:
    """Tissue of each sample in a GTEx sample attribute file (columns SAMPID and ``tissue_column``).

    The tissue is "" where there is none.
    """
    table = read_table(path)
    for column in ("SAMPID", tissue_column):
        if column not in table.columns:
            raise UnknownNameError(f"column of {path}:", column, map(str, table.columns))
    samples = read_names(path, table, "SAMPID")
    if twice := [name for name, n in Counter(samples).items() if n > 1]:
        raise InvalidInputError(f"{path}: sample {twice[0]!r} comes twice. Give each sample one row.")
    tissues = [name.strip() for name in read_names(path, table, tissue_column)]
    return dict(zip(samples, ["" if name in NOT_MEASURED else name for name in tissues], strict=True))


def read_gct(path: Path, samples: Path, tissue_column: str = "SMTSD") -> TargetTable:
    """Mean TPM of each transcript over the samples of each tissue, then log1p.

    Args:
        path: GCT file, plain or gzip-compressed: transcripts in rows, samples in columns, TPM.
        samples: Sample attributes with SAMPID and the tissue column. A sample of the GCT without a tissue is
            left out and counted.
        tissue_column: Column that names the tissue.

    Raises:
        InvalidInputError: A row of another length, a value that is no TPM, an ID that comes twice, counts
            that disagree with the header, a damaged file; with the line.
        UnknownNameError: No such column in the sample attributes.
    """
    tissue_of = read_sample_tissues(samples, tissue_column)
    lines = _numbered_lines(path)
    n_rows, names, n_fields = _gct_header(path, lines)
    tissues, order, starts, sizes = _groups(path, samples, names, tissue_of)
    ids: dict[str, int] = {}
    means: list[NDArray[np.float64]] = []
    for number, line in tqdm(lines, total=n_rows, desc="expression", unit=" rows", disable=None):
        fields = line.split(b"\t", 2)
        if (found := line.count(b"\t") + 1) != n_fields or len(fields) < 3:
            raise InvalidInputError(
                f"{path}, line {number}: {found} fields instead of {n_fields}. Copy or download the file again."
            )
        identifier = _text(path, number, fields[0] + b"\t" + fields[1]).partition("\t")[0]
        if not identifier:
            raise InvalidInputError(f"{path}, line {number}: no transcript ID. Give every row its ID.")
        if (first := ids.setdefault(identifier, number)) != number:
            raise InvalidInputError(
                f"{path}, line {number}: transcript {identifier!r} was on line {first}. Give each one row."
            )
        tpm = _tpm_row(path, number, fields[2], names)
        means.append(np.add.reduceat(tpm[order], starts) / sizes)
    if n_rows is not None and n_rows != len(ids):
        raise InvalidInputError(
            f"{path}: the header announces {n_rows} rows, {len(ids)} were found. Copy or download the file again."
        )
    if not ids:
        raise InvalidInputError(f"{path} has no transcript. Give a GCT file with rows.")
    values = np.log1p(np.stack(means))
    counts = Counter({"expression samples": len(order), "expression samples without a tissue": len(names) - len(order)})
    counts["sample attributes without expression"] = len(set(tissue_of) - set(names))
    return TargetTable(path=path, ids=list(ids), tissues=tissues, values=values, unit="log1p_tpm", counts=counts)


def _numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    open_text(path).close()  # one text for a missing or unreadable file
    with path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == b"\x1f\x8b" else raw
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901
                if text := line.removesuffix(b"\r\n").removesuffix(b"\n"):
                    yield number, text
        except DAMAGED_GZIP as error:
            raise InvalidInputError(
                f"{path} is cut or damaged after line {number}: {error}. Copy or download it again."
            ) from error


def _gct_header(path: Path, lines: Iterator[tuple[int, bytes]]) -> tuple[int | None, list[str], int]:
    """Announced rows (None in a file without the two GCT lines), sample names, fields a row."""
    number, first = next(lines, (0, b""))
    n_rows = n_samples = None
    if first.startswith(b"#"):
        n_rows, n_samples = _gct_sizes(path, first, lines)
        number, first = next(lines, (0, b""))
    if not first:
        raise InvalidInputError(f"{path} {'ends within its header' if n_samples else 'is empty'}. Give a GCT file.")
    header = _text(path, number, first).split("\t")
    names = header[2:]
    if not names:
        raise InvalidInputError(
            f"{path}, line {number}: no sample columns. Give a GCT file: two columns of names, then one a sample."
        )
    if "" in names:
        raise InvalidInputError(f"{path}: sample column {names.index('') + 1} has no name. Give each sample its name.")
    if n_samples not in (None, len(names)):
        raise InvalidInputError(
            f"{path}: {len(names)} sample columns, the header announces {n_samples}. Give a GCT file: two columns of "
            "names, then one a sample."
        )
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise InvalidInputError(f"{path}: sample column {twice[0]!r} comes twice. Give each sample one column.")
    return n_rows, names, len(header)


def _gct_sizes(path: Path, version: bytes, lines: Iterator[tuple[int, bytes]]) -> tuple[int, int]:
    """Rows and samples that the second line announces."""
    if version.rstrip(b" \t") != b"#1.2":
        found = version[:20].decode("utf-8", "replace")
        raise InvalidInputError(f"{path} begins with {found!r}. Write it as GCT of version #1.2, without metadata.")
    number, sizes = next(lines, (0, b""))
    if not sizes:
        raise InvalidInputError(f"{path} ends within its header. Give a GCT file.")
    text = _text(path, number, sizes)
    words = text.split()
    if len(words) != 2 or not all(word.isascii() and word.isdigit() and len(word) < 16 for word in words):
        raise InvalidInputError(
            f"{path}, line {number}: {text[:40]!r} instead of the numbers of rows and samples. Give a GCT file."
        )
    return int(words[0]), int(words[1])


def _text(path: Path, number: int, field: bytes) -> str:
    try:
        text = field.decode()
    except UnicodeDecodeError:
        raise InvalidInputError(f"{path}, line {number}: text is not UTF-8. Save the file as UTF-8.") from None
    if wrong := control_character(text):
        raise InvalidInputError(f"{path}, line {number}: {wrong!r} is no text. Remove it, or copy the file again.")
    return text


def _groups(
    path: Path, samples: Path, names: list[str], tissue_of: dict[str, str]
) -> tuple[list[str], NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Tissues, sample columns sorted by tissue, where each tissue starts among them, samples a tissue."""
    of_column = [tissue_of.get(name, "") for name in names]
    tissues = sorted(set(of_column) - {""})
    if not tissues:
        raise InvalidInputError(
            f"No sample of {path} has a tissue in {samples}: IDs look like {names[0]!r} and "
            f"{next(iter(tissue_of), '')!r}. Give the attributes of these samples."
        )
    index = {tissue: i for i, tissue in enumerate(tissues)}
    numbers = np.array([index.get(tissue, -1) for tissue in of_column])
    order = np.argsort(numbers, kind="stable")[int((numbers < 0).sum()) :]
    sizes = np.bincount(numbers[order], minlength=len(tissues))
    return tissues, order, np.cumsum(sizes) - sizes, sizes.astype(np.float64)


def parse_numbers(text: bytes) -> NDArray[np.float64]:
    """Numbers of a tab-separated line; about six times as fast as a loop of ``float``.

    Raises:
        pyarrow.ArrowInvalid: A field is not a number.
    """
    tabs = np.flatnonzero(np.frombuffer(text, np.uint8) == 9)
    offsets = np.empty(len(tabs) + 2, np.int32)
    offsets[0], offsets[1:-1], offsets[-1] = 0, tabs + 1, len(text)
    # Each field still ends with its tab, which the trimming removes.
    fields = pa.StringArray.from_buffers(len(tabs) + 1, pa.py_buffer(offsets), pa.py_buffer(text))
    numbers: NDArray[np.float64] = pc.cast(pc.ascii_trim(fields, "\t"), pa.float64()).to_numpy()
    return numbers


def _tpm_row(path: Path, number: int, text: bytes, names: Sequence[str]) -> NDArray[np.float64]:
    try:
        row = parse_numbers(text)
    except pa.ArrowInvalid:
        row = None
    if row is not None and row.min() >= 0 and row.max() <= MOST_TPM:  # NaN fails the first comparison
        return row
    for name, field in zip(names, text.split(b"\t"), strict=True):
        try:
            good = 0 <= parse_numbers(field)[0] <= MOST_TPM
        except pa.ArrowInvalid:
            good = False
        if not good:
            raise InvalidInputError(
                f"{path}, line {number}, sample {name!r}: {field.decode('utf-8', 'replace')!r} is no TPM. "
                "Expected a number from 0 to a million, without spaces."
            )
    raise AssertionError("a row that is bad as a whole has a bad field")
