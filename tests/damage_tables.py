"""Damaged expression: GCT with sample attributes and tables of targets, and what they say by plain rules."""

import csv
import io
import math
import re
from random import Random
from typing import Any

import numpy as np
import pandas as pd
from damage import Case, DefectError, Outcome, attempt, compare, require, unpacked
from damage_bytes import DAMAGES
from damage_sequences import CONTROL, plain_lines

from embedcache.expression import read_gct
from embedcache.tables import TargetTable, read_table, read_target_table

Values = dict[str, list[float]]
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def number(rng: Random) -> str:
    return rng.choice(["0", "1", "10", "0.5", "3.25", "1e-05", "12.75", "1e2", f"{rng.uniform(0, 300):.2f}"])


def rows_of(table: TargetTable) -> Values:
    return {name: row.tolist() for name, row in zip(table.ids, table.values, strict=True)}


def near(found: Values, said: Values | None) -> None:
    """``compare`` for numbers; a sum may be rounded in another order."""
    compare(
        found,
        said and {name: found.get(name, []) if is_near(found.get(name), said[name]) else said[name] for name in said},
    )


def is_near(one: list[float] | None, other: list[float]) -> bool:
    return one is not None and np.allclose(one, other, rtol=1e-12, atol=1e-300, equal_nan=True)


# GCT


def make_gct(rng: Random, ids: list[str] | None = None) -> tuple[bytes, bytes]:
    ids = ids or [f"T{i}.{rng.randrange(1, 9)}" for i in range(rng.randrange(1, 9))]
    names = [f"S-{i}" for i in range(rng.randrange(1, 7))]
    rows = ["\t".join([name, f"G{i // 2}", *(number(rng) for _ in names)]) for i, name in enumerate(ids)]
    head = ["#1.2", f"{len(rows)}\t{len(names)}", "\t".join(["transcript_id", "gene_id", *names])]
    if rng.random() < 0.1:
        head = head[2:]
    tissues = [f"{name}\t{rng.choice(['Liver', 'Skin - arm', ''])}\tx" for name in [*names[1:], "S-other"]]
    tissues.append("S-0\tSkin - arm\tx")
    attributes = "\n".join(["SAMPID\tSMTSD\tOTHER", *rng.sample(tissues, len(tissues)), ""])
    return "\n".join([*head, *rows, ""]).encode(), attributes.encode()


def plain_gct(data: bytes, tissue_of: dict[str, str] | None) -> tuple[list[str], Values] | None:
    """Tissues and rows of a GCT file; None if it must be refused."""
    lines = plain_lines(data)
    if lines is None or tissue_of is None or any(CONTROL.search(line) for line in lines):
        return None
    lines, sizes = [line for line in lines if line], None
    if lines and lines[0].startswith("#"):
        if lines[0].strip() != "#1.2" or len(lines) < 3 or not re.fullmatch(r"[0-9]+\s+[0-9]+\s*", lines[1]):
            return None
        sizes, lines = tuple(int(word[:99]) for word in lines[1].split()), lines[2:]
    table = [line.split("\t") for line in lines]
    if (
        len(table) < 2
        or len({len(row) for row in table}) > 1
        or sizes not in (None, (len(table) - 1, len(table[0]) - 2))
    ):
        return None
    names, ids = table[0][2:], [row[0] for row in table[1:]]
    tissues = sorted({tissue_of.get(name, "") for name in names} - {""})
    cells = [cell for row in table[1:] for cell in row[2:]]
    if len(set(names)) < len(names) or len(set(ids)) < len(ids) or "" in [*ids, *names] or not tissues:
        return None
    if not all(NUMBER.fullmatch(cell) and 0 <= float(cell) <= 1.01e6 for cell in cells):
        return None
    values: Values = {}
    for row in table[1:]:
        by_tissue = [[float(x) for n, x in zip(names, row[2:], strict=True) if tissue_of.get(n) == t] for t in tissues]
        values[row[0]] = [math.log1p(sum(some) / len(some)) for some in by_tissue]
    return tissues, values


def plain_attributes(data: bytes) -> dict[str, str] | None:
    table = plain_table(data)
    if table is None or not {"SAMPID", "SMTSD"} <= set(table[0]):
        return None
    at, tissue = table[0].index("SAMPID"), table[0].index("SMTSD")
    found = {row[at]: row[tissue].strip() for row in table[1:]}
    return (
        {k: "" if v in ("NA", "NaN", "nan") else v for k, v in found.items()} if len(found) == len(table) - 1 else None
    )


def gct_case(case: Case) -> Outcome:
    gct, attributes = make_gct(case.rng)
    if case.rng.random() < 0.7:
        path, samples = case.place(case.spoil(gct), "e.gct"), case.place(attributes, "samples.tsv")
    else:
        path, samples = case.place(gct, "e.gct"), case.place(case.spoil(attributes), "samples.tsv")
    found = attempt(lambda: read_gct(path, samples), path.name, samples.name)
    if found is None:
        return case.refused()
    said = plain_gct(unpacked(path), plain_attributes(unpacked(samples)))
    if said is None:
        raise DefectError("a file that must be refused was read")
    require(found.tissues == said[0], f"tissues {found.tissues}, the file says {said[0]}")
    near(rows_of(found), said[1])
    (case.folder / "whole.gct").write_bytes(gct)
    (case.folder / "whole.tsv").write_bytes(attributes)
    whole = read_gct(case.folder / "whole.gct", case.folder / "whole.tsv")
    is_unchanged = (found.tissues, rows_of(found)) == (whole.tissues, rows_of(whole))
    return case.read(is_unchanged, found.counts != whole.counts)


# Tables of targets


def make_table(rng: Random) -> bytes:
    separator = rng.choice("\t,")
    quote = rng.choice(["", "", '"'])
    head = ["id", "gene", *rng.sample(["Liver", "Skin, arm", "Whole blood", "é"], rng.randrange(1, 4))]
    lines = [[f'"{name}"' if quote or separator in name else name for name in head]]
    for i in range(rng.randrange(1, 9)):
        cells = [rng.choice([number(rng), "", "NA"]) for _ in head[2:]]
        cells = ["0.25", *cells[1:]] if i == 0 else cells  # something is measured
        lines.append([f"{quote}T{i}.1{quote}", f"{quote}G{i // 2}{quote}", *cells])
    return "\n".join([*(separator.join(line) for line in lines), ""]).encode()


def plain_table(data: bytes) -> list[list[str]] | None:
    """Rows of a text table, all of one length, the header first; None if it must be refused."""
    lines = plain_lines(data)
    if not lines or any(CONTROL.search(line) for line in lines):
        return None
    separator = "\t" if "\t" in lines[0] else ","
    try:
        rows = list(csv.reader([line for line in lines if line], delimiter=separator, strict=True))
    except csv.Error:
        return None
    # what only csv takes for a quote
    good = all(re.fullmatch('[^"]*|"([^"]|"")*"', field) for line in lines for field in split_quoted(line, separator))
    is_table = len({len(row) for row in rows}) == 1 and len(set(rows[0])) == len(rows[0])
    return rows if good and is_table else None


def split_quoted(line: str, separator: str) -> list[str]:
    return re.findall(f'(?:^|{separator})((?:"(?:[^"]|"")*"|[^{separator}])*)', line)


def plain_targets(data: bytes) -> tuple[list[str], Values] | None:
    table = plain_table(data)
    if table is None or len(table) < 2 or "gene" not in table[0]:
        return None
    head = table[0]
    columns = [i for i, name in enumerate(head) if i != 0 and name != "gene"]
    if not columns or any(head[i] == "" for i in columns):
        return None
    values: Values = {}
    for row in table[1:]:
        cells = ["nan" if row[i] in ("", "NA", "NaN", "nan") else row[i].strip() for i in columns]
        if not row[0] or row[0] in values or not all(cell == "nan" or NUMBER.fullmatch(cell) for cell in cells):
            return None
        numbers = [float(cell) for cell in cells]
        if (
            any(value < 0 or value > 1.01e6 for value in numbers)
            or not (row[0] + row[head.index("gene")]).isprintable()
        ):
            return None
        values[row[0]] = [math.log1p(value) for value in numbers]
    return [head[i] for i in columns], values


def table_case(case: Case) -> Outcome:
    if case.rng.random() < 0.3:
        return parquet_case(case)
    whole = make_table(case.rng)
    path = case.place(case.spoil(whole), "t.tsv")
    found = attempt(lambda: read_target_table(path, gene_column="gene"), path.name)
    if found is None:
        return case.refused()
    said = plain_targets(unpacked(path))
    if said is None:
        raise DefectError("a file that must be refused was read")
    require(found.tissues == said[0], f"tissues {found.tissues}, the file says {said[0]}")
    near(rows_of(found), said[1])
    return case.read(repr(said) == repr(plain_targets(whole)))  # of text, for NaN is not itself


def odd_frame(rng: Random, frame: pd.DataFrame) -> pd.DataFrame:
    """Parquet that is whole, and no table of numbers: other types, names that come twice."""
    odd: list[Any] = [
        [None] * len(frame), [[1.0]] * len(frame), [{"a": 1}] * len(frame), [b"\xff"] * len(frame), [True] * len(frame),
        [math.inf] * len(frame), [-1.0] * len(frame), pd.Timestamp("2020-01-01"), pd.Timedelta("1s"), 10**18,
        "1_0", "x",         pd.Categorical(["1"] * len(frame)), math.nan, 1e308,
    ]  # fmt: skip
    column = rng.choice(list(frame.columns))
    frame = frame.assign(**{column: rng.choice(odd)})
    if rng.random() < 0.3:
        frame = frame.set_index(rng.choice(list(frame.columns)), drop=rng.random() < 0.5)
    return frame


def parquet_case(case: Case) -> Outcome:
    """Flipped values are what the file says; the rest must be refused or be what pandas reads of an undamaged file."""
    rng = case.rng
    rows = plain_table(make_table(rng)) or []
    frame = pd.DataFrame(rows[1:], columns=rows[0])
    for name in frame.columns[2:]:
        frame[name] = pd.to_numeric(frame[name].replace("NA", ""), errors="coerce")
    is_odd = rng.random() < 0.5
    buffer = io.BytesIO()
    (odd_frame(rng, frame) if is_odd else frame).to_parquet(buffer, compression=rng.choice(["snappy", "zstd", None]))
    damage = rng.choice(["flipped bits", "flipped bits", "cut", "nul", "zeros at the end", "tail of another file"])
    case.done.append("odd column" if is_odd else damage)
    data = buffer.getvalue() if is_odd else DAMAGES[damage](rng, buffer.getvalue())
    path = case.place(data, "t.parquet")
    found = attempt(lambda: read_target_table(path, gene_column="gene"), path.name)
    if found is None:
        return case.refused()
    require(bool(np.isfinite(found.values[~np.isnan(found.values)]).all()), "values that are not finite")
    require(all(isinstance(name, str) and name for name in found.ids), f"IDs {found.ids}")
    require(
        not {"nan", "None", "NaT", "<NA>"} & {*found.ids, *(found.genes or [])}, f"names {found.ids}, {found.genes}"
    )
    attempt(lambda: read_table(path), path.name)
    frame.to_parquet(case.folder / "whole.parquet")
    whole = read_target_table(case.folder / "whole.parquet", gene_column="gene")
    return case.read(repr((found.tissues, rows_of(found))) == repr((whole.tissues, rows_of(whole))))
