import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedcache.errors import EmbedCacheError, InvalidInputError
from embedcache.tables import read_target_table, stream_table

TABLE = "id,gene,Liver,Skin\n007,g,1.5,\nNA1,h,,0\nc,h,NA,2\n"


@pytest.mark.parametrize("form", ["csv", "tsv", "crlf", "gzip", "parquet"])
def test_a_table_is_read_and_empty_is_not_measured(tmp_path: Path, form: str) -> None:
    path = tmp_path / ("t.parquet" if form == "parquet" else "t.txt")
    if form == "parquet":
        frame = pd.DataFrame({"id": ["007", "NA1", "c"], "gene": ["g", "h", "h"]})
        frame.assign(Liver=[1.5, np.nan, np.nan], Skin=[np.nan, 0, 2]).to_parquet(path)
    else:
        text = {"tsv": TABLE.replace(",", "\t"), "crlf": TABLE.replace("\n", "\r\n")}.get(form, TABLE)
        path.write_bytes(gzip.compress(text.encode()) if form == "gzip" else text.encode())
    table = read_target_table(path, gene_column="gene")
    assert (table.ids, table.genes, table.tissues) == (["007", "NA1", "c"], ["g", "h", "h"], ["Liver", "Skin"])
    np.testing.assert_allclose(table.values, np.log1p([[1.5, np.nan], [np.nan, 0], [np.nan, 2]]))
    assert table.counts == {"targets measured": 3, "targets not measured": 3}


def test_values_on_a_log_scale_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,Liver\na,-1.5\n")
    table = read_target_table(tmp_path / "t.csv", already_log=True, unit="log10_fpkm")
    assert (table.values.tolist(), table.unit) == ([[-1.5]], "log10_fpkm")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (TABLE, {}, "line 2, column 'gene': 'g' is not a number. .*--drop-column"),
        (
            "id,name,gene,Liver\na,NA,g,1\nb,x,g,1\n",
            {},
            r"2 columns hold no numbers: 'name' \('x'\), 'gene' \('g'\)\. ",
        ),
        (TABLE, {"gene_column": "gen"}, "Did you mean 'gene'"),
        ("id,Liver\na,1\na,2\n", {}, "line 3: id 'a' comes twice"),
        ("id,Liver\n,1\n", {}, "line 2: empty id"),
        ("id,Liver\na,-1\n", {}, "line 2, column 'Liver': -1.0 is no TPM.*--already-log"),
        ("id,Liver\na,inf\n", {}, "line 2, column 'Liver': 'inf' is not a number"),
        ("id\na\n", {}, "no column beside IDs"),
        ("", {}, "is not a table"),
        ("id,Liver\na,1,2,3\n", {}, "is not a table: .*Row #2: Expected 2 columns, got 4"),
        ("id,Liver,Skin\na,1\n", {}, "is not a table: .*Row #2: Expected 3 columns, got 2"),
        ("id,Liver,Liver\na,1,1\n", {}, "column 'Liver' comes twice"),
        ("id;Liver;Skin\na;1;2\n", {}, "semicolons"),
        ("id;Liver\na;1,5\n", {}, "semicolons"),
        ("id,Liver\na,1e300\n", {}, "line 2, column 'Liver': 1e.300 is no TPM"),
        ('id,Liver\na,"1"0\n', {}, "line 2: quotes that neither open nor close a field"),
        ('id,Liver\na"b,1\n', {}, "line 2: quotes that neither"),
        ('id,Liver\na,1\nb,"2\n', {}, "line 3: quotes that neither"),
        ("id,Liver\na,1\r\nb\r,2\n", {}, "line 3: has CR"),
        ("id,Liver\na\u2028b,1\n", {}, "line 2: .* is no text"),
        ("id,Liver\na\u200bb,1\n", {}, "line 2: id 'a.u200bb' is no name"),
        ("id,Liver\n", {}, "no row"),
        ("id,Liver,\na,1,2\n", {}, "column 3 has no name"),
        ("id,Liver\na,\nb,NA\n", {}, "no number"),
        ("id,Liv\udce9r\na,1\n", {}, "column 'Liv.*r' has characters that no name has"),
        ("id,Liver\n\udce9,1\n", {}, "is not UTF-8"),
        ("id,Liver\na,\x01x,1\n", {}, "line 2: .*x01' is no text"),
    ],
    ids=[
        "text",
        "texts",
        "column",
        "twice",
        "no-id",
        "negative",
        "infinite",
        "no-tissue",
        "empty",
        "long-row",
        "short-row",
        "column-twice",
        "semicolons",
        "decimal-commas",
        "huge",
        "quote-in-number",
        "quote-in-id",
        "open-quote",
        "mixed-line-ends",
        "line-separator",
        "invisible",
        "no-row",
        "no-name",
        "nothing-measured",
        "latin-1-column",
        "latin-1-id",
        "control",
    ],
)
def test_a_wrong_table_gives_one_line(tmp_path: Path, text: str, options: dict[str, str], message: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(EmbedCacheError, match=message) as error:
        read_target_table(tmp_path / "t.csv", **options)  # type: ignore[arg-type]
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["1", "x"], "line 3, column 'Liver': 'x' is not a number"),
        ([True, False], "column 'Liver' holds bool"),
        (pd.to_datetime(["2020-01-01", "2020-01-02"]), "column 'Liver' holds datetime"),
    ],
    ids=["text", "truth", "dates"],
)
def test_parquet_of_another_type_is_no_number(tmp_path: Path, column: Any, message: str) -> None:
    pd.DataFrame({"id": ["a", "b"], "Liver": column}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InvalidInputError, match=message):
        read_target_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["t.parquet", "t.PARQUET", "t.txt"])
def test_parquet_is_known_by_its_bytes_and_may_keep_ids_in_its_index(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"Liver": [1.0, 2.0], "Skin": [0.0, np.nan]}, index=pd.Index(["a", "b"], name="id"))
    frame.to_parquet(tmp_path / name)
    table = read_target_table(tmp_path / name)
    assert (table.ids, table.tissues) == (["a", "b"], ["Liver", "Skin"])


@pytest.mark.parametrize("ids", [[1.5, 2.5], [["a"], ["b"]], [b"a", b"b"]], ids=["fractions", "lists", "bytes"])
def test_ids_in_parquet_are_names(tmp_path: Path, ids: list[Any]) -> None:
    pd.DataFrame({"id": ids, "Liver": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(InvalidInputError, match=r"column 'id' holds .*, not names"):
        read_target_table(tmp_path / "t.parquet")


def test_a_missing_gene_in_parquet_is_no_gene_called_nan(tmp_path: Path) -> None:
    pd.DataFrame({"id": ["a", "b"], "gene": ["g", None], "Liver": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
    assert read_target_table(tmp_path / "t.parquet", gene_column="gene").genes == ["g", ""]


def test_notes_of_pandas_in_parquet_are_not_needed(tmp_path: Path) -> None:
    table = pa.table({"id": ["a"], "Liver": [1.0]}, metadata={b"pandas": b"{'index_columns': ["})
    pq.write_table(table, tmp_path / "t.parquet")
    assert read_target_table(tmp_path / "t.parquet").ids == ["a"]


def test_columns_of_one_name_in_parquet_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, ["id", "id"]), tmp_path / "t.parquet")
    with pytest.raises(InvalidInputError, match="column 'id' comes twice"):
        read_target_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_damaged_parquet_gives_one_line(tmp_path: Path, keep: float) -> None:
    pd.DataFrame({"id": ["a", "b"], "Liver": [1.0, 2.0]}).to_parquet(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    at = int(len(whole) * keep)
    for damaged in (whole[:at], whole[:at] + bytes(len(whole) - at - 4) + whole[-4:]):
        (tmp_path / "t.parquet").write_bytes(damaged)
        with pytest.raises(InvalidInputError, match=r"is not a table: .*Expected Parquet") as error:
            read_target_table(tmp_path / "t.parquet")
        assert str(error.value).isprintable()


def test_a_table_is_checked_across_the_blocks_it_is_read_in(tmp_path: Path) -> None:
    rows = "".join(f'"t{i}",{i}\n' for i in range(2000))
    (tmp_path / "t.csv").write_text("id,Liver\n" + rows + 'odd"one,1\n')
    with pytest.raises(InvalidInputError, match="line 2002: quotes that neither"):
        list(stream_table(tmp_path / "t.csv", block_bytes=150))
    (tmp_path / "t.csv").write_text("id,Liver\n" + rows)
    assert sum(map(len, stream_table(tmp_path / "t.csv", block_bytes=150))) == 2000


@pytest.mark.parametrize(
    ("highest", "rows", "already_log", "told"),
    [(5.5, 200, False, True), (25.0, 200, False, False), (5.5, 20, False, False), (5.5, 200, True, False)],
    ids=["logarithms", "tpm", "few", "said"],
)
def test_values_that_look_like_logarithms_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, highest: float, rows: int, already_log: bool, told: bool
) -> None:
    lines = ["id\tLiver", *(f"t{i}\t{highest * i / (rows - 1)}" for i in range(rows))]
    (tmp_path / "t.tsv").write_text("\n".join(lines))
    read_target_table(tmp_path / "t.tsv", already_log=already_log)
    assert ("Are they logarithms? Then give --already-log" in caplog.text) == told
