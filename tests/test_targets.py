"""Targets beside pandas, and joined to transcripts as a dictionary would."""

import gzip
import hashlib
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.expression import parse_numbers, read_gct, read_sample_tissues
from embedcache.prepare.assemble import choose_genetic_codes
from embedcache.prepare.common import check_header, check_unit, join_targets, provenance, read_targets, without_version
from embedcache.tables import TargetTable, read_names, read_table, read_target_table

TISSUES = ["Liver", "", "Skin", "NA", "nan", "Brain - Cortex", "\u00c9 x"]


# Expression


@given(st.integers(0, 2**32), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=40)
def test_a_gct_is_what_pandas_makes_of_it(
    tmp_path_factory: pytest.TempPathFactory, seed: int, has_head: bool, is_gzip: bool
) -> None:
    rng, folder = random.Random(seed), tmp_path_factory.mktemp("gct")
    names = [f"s{i}" for i in range(rng.randint(1, 9))]
    values = [[rng.choice([0.0, round(rng.random() * 1e3, 4), 1e6]) for _ in names] for _ in range(rng.randint(1, 5))]
    tissue = {name: rng.choice(TISSUES) for name in [*names, "absent"]}
    tissue[names[0]] = "Liver"
    order = rng.sample(sorted(tissue), len(tissue))
    samples = "".join(f"x\t{name}\t{tissue[name]}\n" for name in order)
    (folder / "a.tsv").write_text("OTHER\tSAMPID\tSMTSD\n" + samples, encoding="utf-8")
    head = f"#1.2\n{len(values)}\t{len(names)}\n" if has_head else ""
    rows = "".join(f"t{i}.1\tg\t" + "\t".join(map(repr, row)) + "\n" for i, row in enumerate(values))
    text = head + "Name\tDescription\t" + "\t".join(names) + "\n" + rows
    (folder / "e.gct").write_bytes(gzip.compress(text.encode()) if is_gzip else text.encode())
    found = read_gct(folder / "e.gct", folder / "a.tsv")
    known = {name: one for name, one in tissue.items() if one not in ("", "NA", "nan")}
    expected = np.log1p(pd.DataFrame(values, columns=names).T.groupby(known).mean().T)
    assert found.tissues == list(expected.columns) and found.ids == [f"t{i}.1" for i in range(len(values))]
    np.testing.assert_allclose(found.values, expected.to_numpy(), rtol=1e-12)
    with_tissue = sum(name in known for name in names)
    assert found.counts == Counter(
        {
            "expression samples": with_tissue,
            "expression samples without a tissue": len(names) - with_tissue,
            "sample attributes without expression": 1,
        }
    )


def test_samples_without_a_tissue_have_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("SMTS,SAMPID\n Skin ,a\nNA,b\n,c\nNaN,d\nnone,e\n")
    assert read_sample_tissues(tmp_path / "a.csv", "SMTS") == {"a": "Skin", "b": "", "c": "", "d": "", "e": "none"}
    with pytest.raises(UnknownNameError, match=r"Unknown column of .*a\.csv: 'SAMPID'. Choose from: SMTS, id\."):
        (tmp_path / "a.csv").write_text("SMTS,id\nx,a\n")
        read_sample_tissues(tmp_path / "a.csv", "SMTS")


@pytest.mark.parametrize("text", ["1", "0\t-2.5\t1e-3", "\t".join(map(str, range(1000))), "1\t-0\t.5"])
def test_numbers_are_those_of_python(text: str) -> None:
    assert parse_numbers(text.encode()).tolist() == [float(word) for word in text.split("\t")]


@pytest.mark.parametrize(("value", "is_taken"), [("1010000", True), ("1010000.5", False), ("0", True), ("-0.1", False)])
def test_the_tpm_of_one_transcript_is_at_most_about_a_million(tmp_path: Path, value: str, is_taken: bool) -> None:
    (tmp_path / "a.tsv").write_text("SAMPID\tSMTSD\ns1\tLiver\ns2\tLiver\n")
    (tmp_path / "e.gct").write_text(f"#1.2\n1\t2\nn\td\ts1\ts2\nt\tg\t1\t{value}\n")
    (tmp_path / "t.csv").write_text(f"id,Liver\nt,{value}\n")
    if is_taken:
        assert read_gct(tmp_path / "e.gct", tmp_path / "a.tsv").ids == ["t"]
        assert read_target_table(tmp_path / "t.csv").values.tolist() == [[np.log1p(float(value))]]
    else:
        with pytest.raises(InvalidInputError, match=r"line 4, sample 's2'.* is no TPM"):
            read_gct(tmp_path / "e.gct", tmp_path / "a.tsv")
        with pytest.raises(InvalidInputError, match=r"line 2, column 'Liver'.* is no TPM"):
            read_target_table(tmp_path / "t.csv")


def test_a_gct_without_a_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("SAMPID\tSMTSD\ns1\tLiver\n")
    (tmp_path / "e.gct").write_text("n\td\ts1\n")
    with pytest.raises(InvalidInputError, match=r"e\.gct has no transcript\. Give a GCT file with rows"):
        read_gct(tmp_path / "e.gct", tmp_path / "a.tsv")


# Tables


def table(ids: list[str], **changes: Any) -> TargetTable:
    values = np.arange(2.0 * len(ids)).reshape(-1, 2)
    given = {"path": Path("t.csv"), "ids": ids, "tissues": ["Liver", "Skin"], "values": values, "unit": "log1p_tpm"}
    return TargetTable(**{**given, "counts": Counter({"targets measured": values.size}), "id_column": "id", **changes})


def test_tissues_are_selected_in_the_order_asked_each_once() -> None:
    whole = table(["a", "b"])
    assert whole.select([]) is whole
    assert whole.select(["Skin"]).values.tolist() == [[1], [3]]
    both = whole.select(["Skin", "Liver", "Skin"])
    assert (both.tissues, both.values.tolist(), both.ids) == (["Skin", "Liver"], [[1, 0], [3, 2]], ["a", "b"])
    with pytest.raises(UnknownNameError, match=r"Unknown tissue of t\.csv: 'Lver'. Did you mean 'Liver'"):
        whole.select(["Skin", "Lver"])


def test_columns_have_their_parts_whatever_their_order(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("note\tLiver\tgene\tid\tSkin\nx\t1\tg1\ta\tNA\ny\t\tg2\tb\t3\n")
    found = read_target_table(tmp_path / "t.tsv", id_column="id", gene_column="gene", drop_columns=["note"])
    assert (found.ids, found.genes, found.tissues, found.id_column) == (
        ["a", "b"],
        ["g1", "g2"],
        ["Liver", "Skin"],
        "id",
    )
    np.testing.assert_array_equal(found.values, np.log1p([[1, np.nan], [np.nan, 3]]))
    log = read_target_table(
        tmp_path / "t.tsv", id_column="id", drop_columns=["note", "gene"], already_log=True, unit="log2_cpm"
    )
    assert (log.genes, log.unit) == (None, "log2_cpm")
    np.testing.assert_array_equal(log.values, [[1, np.nan], [np.nan, 3]])


def test_types_of_parquet_are_names_and_numbers_as_they_are(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "id": pd.Categorical(["a", "b", "c"]),
            "gene": [7, 8, 9],
            "Liver": np.array([1, 2, 3], np.int32),
            "Skin": pd.array([1.5, None, 0.0], dtype="Float64"),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    found = read_target_table(tmp_path / "t.parquet", gene_column="gene")
    assert (found.ids, found.genes) == (["a", "b", "c"], ["7", "8", "9"])
    np.testing.assert_array_equal(found.values, np.log1p([[1, 1.5], [2, np.nan], [3, 0]]))


def test_an_index_of_parquet_comes_first_and_has_a_name(tmp_path: Path) -> None:
    index = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    pd.DataFrame({"Liver": [1.0, 2.0]}, index=index).to_parquet(tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet").columns) == ["index", "level_1", "Liver"]
    assert read_names(Path("x"), pd.DataFrame({"n": ["a", None]}), "n") == ["a", ""]


# Joining

IDS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(["", ".1", ".2", ".1_PAR_Y"])).map("".join), unique=True
)


@given(IDS.filter(bool), IDS.filter(bool), st.booleans())
@settings(deadline=None)
def test_targets_are_joined_as_by_a_dictionary(theirs: list[str], ours: list[str], strip: bool) -> None:
    exact = {name: i for i, name in enumerate(theirs)}
    rows = [exact.get(name, -1) for name in ours]
    left = [(name, i) for name, i in exact.items() if name not in ours]
    fits = {name: [i for other, i in left if without_version(other) == without_version(name)] for name in ours}
    if strip:
        rows = [row if row >= 0 else (fits[name] or [-1])[0] for name, row in zip(ours, rows, strict=True)]
    joined = [row for row in rows if row >= 0]
    is_ambiguous = len(set(joined)) < len(joined) or (
        strip and any(name not in exact and len(fits[name]) > 1 for name in ours)
    )
    if not joined or is_ambiguous:
        with pytest.raises(InvalidInputError, match=r"No transcript of t\.csv is in here|without version\."):
            join_targets(table(theirs), ours, strip_versions=strip, where="here")
        return
    found = join_targets(table(theirs), ours, strip_versions=strip, where="here")
    assert found.rows.tolist() == rows and found.measured.tolist() == [row >= 0 for row in rows]
    expected = [[2.0 * row, 2.0 * row + 1] if row >= 0 else [np.nan] * 2 for row in rows]
    np.testing.assert_array_equal(found.values, expected)
    n_exact = sum(name in exact for name in ours)
    assert found.counts["transcripts with targets"] == len(joined)
    assert found.counts["transcripts without targets"] == len(ours) - len(joined)
    assert found.counts["IDs joined without version"] == len(joined) - n_exact
    would = sum(name not in exact and bool(fits[name]) for name in ours)
    assert found.counts["IDs that would join without version"] == (0 if strip else would)
    assert found.counts["targets measured"] == 2 * len(theirs)


@pytest.mark.parametrize(
    ("theirs", "ours", "strip", "message"),
    [
        (["a.1"], ["a.2"], False, "IDs look like 'a.1' and 'a.2'. They agree without versions: give --strip-versions"),
        (["a.1"], ["b.1"], True, "IDs look like 'a.1' and 'b.1'. Give matching IDs"),
        (["a"], ["a.1", "a.2"], True, "'a' fits two transcripts of here without version"),
        (["a.1", "b", "a.2"], ["a.3"], True, "'a.1' and 'a.2' both fit 'a.3' of here without version"),
        (["z", "a.4", "a.1", "a.2"], ["a.4", "a.3"], True, "'a.1' and 'a.2' both fit 'a.3' of here"),
        (["x"], ["id"], False, "the first line begins with the ID 'id', so there is no header"),
    ],
    ids=["versions", "others", "two-transcripts", "two-rows", "beside-an-exact-one", "no-header"],
)
def test_what_cannot_be_joined_is_told(theirs: list[str], ours: list[str], strip: bool, message: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        join_targets(table(theirs), ours, strip_versions=strip, where="here")
    assert message in str(error.value) and str(error.value).endswith(".")


def test_two_rows_of_one_transcript_are_no_trouble_if_one_is_exact() -> None:
    found = join_targets(table(["a.1", "a.2", "b.1"]), ["a.2", "b.3"], strip_versions=True, where="here")
    assert found.rows.tolist() == [1, 2]
    first = join_targets(table(["a.4", "a.1", "a.2"]), ["a.4"], strip_versions=True, where="here")
    assert first.rows.tolist() == [0]
    check_header(Path("t.csv"), "id", {"a"})


# Which kind of targets


@pytest.mark.parametrize("name", ["e.gct", "e.GCT.gz", "e.txt"])
def test_a_gct_is_known_by_its_name_or_its_first_line(tmp_path: Path, name: str) -> None:
    head = "#1.2\n1\t1\n" if name == "e.txt" else ""
    (tmp_path / name).write_text(head + "n\td\ts1\nt\tg\t1\n")
    (tmp_path / "a.tsv").write_text("SAMPID\tSMTSD\ns1\tLiver\n")
    options: dict[str, Any] = {"already_log": False, "unit": None}
    with pytest.raises(InvalidSettingError, match=f"{name} is a GCT file: its samples need tissues. Give --samples"):
        read_targets(tmp_path / name, None, "SMTSD", **options)
    found = read_targets(tmp_path / name, tmp_path / "a.tsv", "SMTSD", **options)
    assert found is not None and found.tissues == ["Liver"]
    with pytest.raises(InvalidSettingError, match=r"holds TPM by sample\. Leave out --drop-column"):
        read_targets(tmp_path / name, tmp_path / "a.tsv", "SMTSD", **options, drop_columns=["x"])
    with pytest.raises(InvalidSettingError, match="Leave out --already-log"):
        read_targets(tmp_path / name, tmp_path / "a.tsv", "SMTSD", already_log=True, unit=None)


def test_a_table_needs_no_samples_and_nothing_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("id\tLiver\na\t1\n")
    found = read_targets(tmp_path / "t.tsv", None, "x", already_log=True, unit="log2", id_column="id")
    assert found is not None and (found.unit, found.values.tolist()) == ("log2", [[1.0]])
    assert read_targets(None, None, "x", already_log=False, unit=None) is None
    check_unit("log2", already_log=True)
    with pytest.raises(InvalidSettingError, match="--target-unit 'log2' is for values on a log scale"):
        check_unit("log2", already_log=False)


def test_an_encoder_reads_its_own_modality_and_what_was_given_is_recorded(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"esm2-8m reads protein, not rna\."):
        provenance("fasta", [], {}, {"rna": "esm2-8m"})
    (tmp_path / "a").write_text("x")
    found = provenance("fasta", [None, tmp_path / "a"], {"b": 1}, {"protein": "esm2-8m"}, ["simulated"])
    digest = hashlib.sha256(b"x").hexdigest()
    assert found["inputs"] == [{"path": str(tmp_path / "a"), "size_bytes": 1, "sha256": digest}]
    assert (found["options"], found["encoders"], found["labels"]) == ({"b": 1}, {"protein": "esm2-8m"}, ["simulated"])
    assert set(found["versions"]) == {"numpy", "pandas", "pyarrow", "biopython"}
    assert provenance("fasta", [], {}, None)["encoders"] == {}


def test_mitochondria_have_their_code_unless_another_is_asked_for() -> None:
    assert choose_genetic_codes({"chr1", "chrM", "MT"}, None) == {"chrM": 2, "MT": 2}
    assert choose_genetic_codes({"chr1", "chrM"}, {"chrM": 5, "chr1": 11}) == {"chrM": 5, "chr1": 11}
    assert choose_genetic_codes({"chr1"}, {}) == {}
    with pytest.raises(UnknownNameError, match=r"Unknown contig 'chr2'\. Did you mean 'chr1'"):
        choose_genetic_codes({"chr1"}, {"chr2": 1})
    with pytest.raises(UnknownNameError, match="Unknown genetic code '7'"):
        choose_genetic_codes({"chr1"}, {"chr1": 7})
