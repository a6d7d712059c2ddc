import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.errors import InvalidInputError, UnknownNameError
from embedcache.expression import parse_numbers, read_gct

GCT = (
    "#1.2\n3\t4\ntranscript_id\tgene_id\ts1\ts2\ts3\ts4\nt1\tg\t0\t2\t4\t1e1\nt2\tg\t1\t1\t1.5\t0\nt3\th\t7\t0\t0\t3\n"
)
ATTRIBUTES = "SAMPID\tSMTS\tSMTSD\ns1\tSkin\tSkin - arm\ns3\tSkin\tSkin - leg\ns2\tBlood\tWhole blood\ns9\tBlood\tx\n"


@pytest.fixture
def attributes(tmp_path: Path) -> Path:
    (tmp_path / "samples.tsv").write_text(ATTRIBUTES)
    return tmp_path / "samples.tsv"


def gct(folder: Path, content: str | bytes = GCT) -> Path:
    path = folder / "e.gct.gz"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
    return path


# GCT files


@pytest.mark.parametrize("form", ["plain", "gzip", "crlf", "no-counts", "blank-end", "mark"])
def test_the_mean_of_a_tissue_then_log1p(tmp_path: Path, attributes: Path, form: str) -> None:
    content = {"crlf": GCT.replace("\n", "\r\n"), "no-counts": GCT.split("\n", 2)[2], "blank-end": GCT + "\n"}
    content["mark"] = "\ufeff" + GCT
    text = content.get(form, GCT).encode()
    table = read_gct(gct(tmp_path, gzip.compress(text) if form == "gzip" else text), attributes, "SMTS")
    assert (table.ids, table.tissues, table.unit) == (["t1", "t2", "t3"], ["Blood", "Skin"], "log1p_tpm")
    np.testing.assert_allclose(table.values, np.log1p([[2, 2], [1, 1.25], [0, 3.5]]))
    assert table.counts["expression samples without a tissue"] == 1
    assert table.counts["sample attributes without expression"] == 1


def test_real_expression_equals_a_plain_reading(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("human_regions")
    table = read_gct(folder / "transcript_tpm.gct.gz", folder / "sample_attributes.tsv", "SMTSD")
    plain = pd.read_csv(folder / "transcript_tpm.gct.gz", sep="\t", skiprows=2, index_col=0).drop(columns="gene_id")
    of_sample = pd.read_csv(folder / "sample_attributes.tsv", sep="\t", index_col="SAMPID")["SMTSD"]
    expected = np.log1p(plain.T.groupby(of_sample).mean().T)
    assert table.tissues == list(expected.columns)
    assert table.ids == list(expected.index)
    assert table.values.shape == (948, 6)
    np.testing.assert_allclose(table.values, expected.to_numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("t2\tg\t1\t1\t1.5\t0", "t2\tg\t1\t1\t1.5", "line 5: 5 fields instead of 6"),
        ("t2\tg\t1\t1\t1.5\t0", "t2\tg\t1\t1\t1.5\t0\t0", "line 5: 7 fields instead of 6"),
        ("t2\tg\t1\t1", "t2\tg\t1\tNaN", "line 5, sample 's2': 'NaN' is no TPM"),
        ("t2\tg\t1\t1", "t2\tg\t1\t-1", "line 5, sample 's2': '-1' is no TPM"),
        ("t2\tg\t1\t1", "t2\tg\t1\tinf", "line 5, sample 's2': 'inf' is no TPM"),
        ("t2\tg\t1\t1", "t2\tg\t1\thigh", "line 5, sample 's2': 'high' is no TPM"),
        ("t2\tg\t1\t1", "t2\tg\t1\t", "line 5, sample 's2': '' is no TPM"),
        ("t2\tg", "t1\tg", "line 5: transcript 't1' was on line 4"),
        ("3\t4\n", "4\t4\n", "announces 4 rows, 3 were found"),
        ("3\t4\n", "3\t5\n", "4 sample columns, the header announces 5"),
        ("3\t4\n", "three\n", "line 2: 'three' instead of the numbers"),
        ("s1\ts2", "s1\ts1", "column 's1' comes twice"),
        ("s1\ts2\ts3\ts4", "a\tb\tc\td", "No sample of .* has a tissue"),
        ("t2\tg\t1\t1", "t2\tg\t1\t1_0", "line 5, sample 's2': '1_0' is no TPM"),
        ("t2\tg\t1\t1", "t2\tg\t1\t1 ", "line 5, sample 's2': '1 ' is no TPM"),
        ("t2\tg\t1\t1", "t2\tg\t1\t1e300", "line 5, sample 's2': '1e300' is no TPM"),
        ("t2\tg\t1\t1", "t2\tg\t1\t1\r", "line 5, sample 's2': .* is no TPM"),
        ("t2\tg", "t\r2\tg", "line 5: '.r' is no text"),
        ("3\t4\n", "9" * 5000 + "\t4\n", "line 2: '999"),
        ("3\t4\n", "3\t4\t0\n", "line 2: '3.t4.t0' instead of the numbers"),
        ("3\t4\n", "3\t4\r\r\n", "line 2: '.r' is no text"),
        ("3\t4\n", "3\t٤\n", "line 2: '3.t٤' instead of the numbers"),
        ("s1\ts2", "s1\t", "sample column 2 has no name"),
        ("t2\tg", "\tg", "line 5: no transcript ID"),
        ("t2\tg", "t\udce9\tg", "line 5: .*UTF-8"),
        ("s1\ts2", "s1\ts\udce9", "line 3: .*UTF-8"),
        ("#1.2", "#1.3", "begins with '#1.3'. Write it as GCT of version #1.2"),
        (GCT, "", "is empty"),
        (GCT, "#1.2\n", "ends within its header"),
        (GCT, "transcript\n", "line 1: no sample columns"),
    ],
    ids=[
        "short", "long", "nan", "negative", "infinite", "word", "empty", "twice", "rows", "samples", "sizes",
        "sample-twice", "strangers", "underscore", "space", "huge", "cr-in-number", "cr-in-id", "huge-size",
        "three-sizes", "cr-in-sizes", "other-digits", "no-sample-name", "no-id", "latin-1", "latin-1-sample",
        "version", "nothing", "cut-header", "no-samples",
    ],
)  # fmt: skip
def test_a_wrong_gct_gives_one_line(tmp_path: Path, attributes: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as error:
        read_gct(gct(tmp_path, GCT.replace(old, new)), attributes, "SMTS")
    assert "\n" not in str(error.value)
    assert "e.gct.gz" in str(error.value)


def test_a_cut_gct_gives_one_line(tmp_path: Path, attributes: Path) -> None:
    rows = "".join(f"row{i}\tg\t{i}\t{i * 7919 % 1013}\t0\t1\n" for i in range(3000))
    with pytest.raises(InvalidInputError, match="is cut or damaged after line"):
        read_gct(gct(tmp_path, gzip.compress((GCT + rows).encode())[:-200]), attributes, "SMTS")


def test_an_unknown_tissue_column_offers_the_nearest(tmp_path: Path, attributes: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"'SMTSDD'\. Did you mean 'SMTSD'"):
        read_gct(gct(tmp_path), attributes, "SMTSDD")


def test_a_tissue_is_a_name_whatever_the_space_around_it(tmp_path: Path, attributes: Path) -> None:
    attributes.write_text("SAMPID\tSMTS\ns1\tSkin\ns3\t Skin \ns2\t \ns4\tNA\n")
    table = read_gct(gct(tmp_path), attributes, "SMTS")
    assert table.tissues == ["Skin"]
    assert table.counts["expression samples without a tissue"] == 2


def test_twice_the_same_sample_in_the_attributes_is_refused(tmp_path: Path, attributes: Path) -> None:
    attributes.write_text(ATTRIBUTES + "s1\tSkin\tSkin - leg\n")
    with pytest.raises(InvalidInputError, match="sample 's1' comes twice"):
        read_gct(gct(tmp_path), attributes, "SMTS")


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_numbers_of_a_line_are_read_exactly(values: list[float]) -> None:
    assert parse_numbers("\t".join(map(repr, values)).encode()).tolist() == values


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    names = [f"s{i}" for i in range(500)]
    (tmp_path / "samples.tsv").write_text("SAMPID\tSMTSD\n" + "".join(f"{n}\tt{i % 2}\n" for i, n in enumerate(names)))
    row = "\t".join("1.25" for _ in names)
    peaks = []
    for n_rows in (50, 800):
        head = f"#1.2\n{n_rows}\t500\nid\tgene\t" + "\t".join(names) + "\n"
        path = gct(tmp_path, head + "".join(f"t{i}\tg\t{row}\n" for i in range(n_rows)))
        tracemalloc.start()
        read_gct(path, tmp_path / "samples.tsv", "SMTSD")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 750 * 500  # less than one byte a cell of the rows that were added
