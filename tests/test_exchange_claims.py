"""What an import takes, from entries in memory: names, claims, shapes and twins; and settings of an export."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from fakes import fake_spec
from hypothesis import given
from hypothesis import strategies as st

from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import EmbedCacheError, InvalidInputError, InvalidSettingError, UnknownNameError
from embedcache.exchange.check import Checked, check_entries, take
from embedcache.exchange.claim import Claim, claimed_spec, layers_of
from embedcache.exchange.export import export_embeddings
from embedcache.exchange.formats import EmbeddingFile, Entry, exchange_format
from embedcache.exchange.names import biotrainer_name, escape_name, id_path, md5_name, spellings, unescape_name
from embedcache.exchange.wanted import Wanted
from embedcache.sequences import sequence_key

SEQUENCES = {"a": "MKVLAAG", "b": "MKV", "twin": "MKV"}


def key(name: str) -> bytes:
    return sequence_key(SEQUENCES[name], "protein")


def rows(name: str, seed: int = 0) -> Any:
    rng = np.random.default_rng([seed, len(SEQUENCES[name])])
    return rng.standard_normal((len(SEQUENCES[name]), 12)).astype("f4")


def entry(name: str, values: Any = None, /, **changes: Any) -> Entry:
    values = rows(name) if values is None else np.asarray(values)
    fields = {"where": f"x.h5, {name}", "id": name, "shape": values.shape, "dtype": str(values.dtype)}
    return Entry(**{**fields, "read": lambda: np.asarray(values, np.float32), **changes})


def wanted(hash_name: Any = None, **changes: Any) -> Wanted:
    found = Wanted("p.fa", fake_spec(store_dtype="float32", **changes), hash_name)
    for name, sequence in SEQUENCES.items():
        found.keys[name] = key(name)
        found.add(key(name), sequence)
    return found


def check(*entries: Entry, any_dtype: bool = False, **changes: Any) -> Checked:
    file = EmbeddingFile(entries=lambda: iter(entries), count=len(entries))
    return check_entries(file, wanted(**changes), None, any_dtype=any_dtype)


# Names

IDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=300)


@given(IDS, st.sampled_from([".pt", ".h5", ""]))
def test_any_id_is_a_path_and_comes_back(identifier: str, suffix: str) -> None:
    path = id_path(identifier, suffix)
    assert unquote("".join(part.removesuffix("%") for part in path.parts).removesuffix(suffix)) == identifier
    assert all(len(part) < 256 and part.isascii() and part not in (".", "..") for part in path.parts)
    assert not path.is_absolute() and "/" not in escape_name(identifier)
    assert unescape_name(escape_name(identifier)) == identifier and escape_name(identifier) not in (".", "..")


@given(st.lists(st.text("a.%/2F", min_size=1, max_size=4), unique=True))
def test_no_two_ids_share_a_place(ids: list[str]) -> None:
    assert len({id_path(one, ".pt") for one in ids}) == len({escape_name(one) for one in ids}) == len(ids)


def test_names_are_the_digests_that_other_tools_make() -> None:
    assert biotrainer_name("MKV") == hashlib.sha256(b"MKV_3").hexdigest()
    assert md5_name("MKV") == hashlib.md5(b"MKV", usedforsecurity=False).hexdigest()


@pytest.mark.parametrize(
    ("sequence", "modality", "expected"),
    [
        ("MKT", "protein", ["MKT", "mkt", "MKT*", "mkt*"]),
        ("ACGT", "rna", ["ACGT", "acgt", "ACGU", "acgu"]),
        ("ACGT", "dna", ["ACGT", "acgt", "ACGU", "acgu"]),
        ("ACG", "rna", ["ACG", "acg"]),
    ],
)
def test_a_sequence_may_have_been_hashed_in_several_spellings(
    sequence: str, modality: Any, expected: list[str]
) -> None:
    assert list(spellings(sequence, modality)) == expected


# Which sequence an embedding is of

OTHER = sequence_key("MMM", "protein")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, "a"),
        ({"id": "a of a long header"}, "a"),
        ({"id": "unknown"}, None),
        ({"id": ""}, None),
        ({"key": key("a")}, "a"),
        ({"key": key("b"), "id": "unknown"}, "b"),
        ({"key": OTHER, "id": "unknown"}, None),
        ({"name": md5_name("MKVLAAG")}, "a"),
        ({"name": md5_name("mkvlaag*"), "id": "unknown"}, "a"),
        ({"name": md5_name("MMM"), "id": "unknown"}, None),
        ({"name": "a", "id": "b"}, "b"),
    ],
    ids=["id", "header", "unknown", "empty", "key", "key-alone", "other-key", "hash", "hash-alone", "other-hash",
         "no-hash"],
)  # fmt: skip
def test_an_embedding_is_known_by_key_hash_or_id(changes: dict[str, Any], found: str | None) -> None:
    assert wanted(md5_name).match(entry("a", **changes)) == (None if found is None else key(found))


@pytest.mark.parametrize(
    ("changes", "told_by"),
    [({"key": key("b")}, "its sequence key"), ({"key": OTHER}, "its sequence key"),
     ({"name": md5_name("MMM")}, "the hash that names it")],
    ids=["key", "other-key", "hash"],
)  # fmt: skip
def test_a_name_that_contradicts_its_id_is_refused(changes: dict[str, Any], told_by: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        wanted(md5_name).match(entry("a", **changes))
    assert str(error.value).startswith(f"x.h5, a: {told_by} says that 'a' was embedded from another sequence than p.fa")


def test_an_id_that_looks_like_a_hash_is_an_id() -> None:
    found = wanted(md5_name)
    found.keys |= {"0" * 32: key("b"), "a of b": key("b")}
    assert found.match(entry("a", id="a of b")) == key("b") and found.match(entry("a", id="a of c")) == key("a")
    assert found.match(entry("a", id="0" * 32, name="0" * 32)) == key("b")
    assert len(found) == 2  # twins are one sequence


# Rows


def test_what_a_file_holds_is_counted() -> None:
    found = check(entry("a"), entry("b"), entry("twin"), entry("b"), entry("a", id="stranger"))
    assert (found.present, found.repeated, found.unknown, found.rows, found.longest) == (0, 2, 1, 10, 7)
    assert set(found.new) == {key("a"), key("b")} and found.distinct == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((8, 12), "f4"), "expected (7, 12). 1 more look like special tokens (start, end)"),
        (np.ones((9, 12), "f4"), "expected (7, 12). 2 more look like special tokens (start, end)"),
        (np.ones((10, 12), "f4"), "Each row is a token of the sequence. Give the sequences that"),
        (np.ones((6, 12), "f4"), "If the tool cuts long input in silence, as fair-esm does at 1,022 residues"),
        (np.ones((7, 13), "f4"), "All embeddings of an encoder have one width."),
        (np.ones(12, "f4"), "Rows and means do not mix: import them one after the other, means with --pooled."),
        (np.full((7, 12), np.nan, "f4"), "x.h5, a has numbers that are not finite. Compute it again"),
    ],
    ids=["one-more", "two-more", "three-more", "fewer", "width", "mean", "nan"],
)
def test_rows_that_cannot_be_right_say_why(values: Any, message: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        check(entry("b"), entry("a", values))
    assert message in str(error.value)


def test_means_have_one_dimension() -> None:
    found = check(entry("a", np.ones(12, "f4")), pooling="mean")
    assert (found.rows, found.longest) == (1, 1)
    with pytest.raises(InvalidInputError, match="Rows and means do not mix"):
        check(entry("a"), pooling="mean")


@pytest.mark.parametrize(("change", "is_same"), [(1.9e-3, True), (2.1e-3, False)])
def test_twins_agree_up_to_what_a_batch_changes(change: float, is_same: bool) -> None:
    first, second = np.zeros((3, 12), "f4"), np.zeros((3, 12), "f4")
    first[0, 0], second[0, 0], second[2, 3] = 4.0, 4.0, 4.0 * change
    if is_same:
        assert check(entry("b", first), entry("twin", second)).repeated == 1
    else:
        with pytest.raises(InvalidInputError, match="the sequence of 'twin' has another embedding elsewhere"):
            check(entry("b", first), entry("twin", second))
    with pytest.raises(InvalidInputError, match="has another embedding elsewhere"):  # the first cannot be read again
        check(entry("b", first, again=False), entry("twin", second))


def test_number_formats_do_not_mix_unless_one_is_named() -> None:
    half = entry("b", rows("b").astype("f2"))
    with pytest.raises(InvalidInputError, match=r"x.h5, b holds float16, others float32. Name the format to keep"):
        check(entry("a"), half)
    assert check(entry("a"), half, any_dtype=True).distinct == 2


def test_a_file_of_strangers_names_the_last_one() -> None:
    with pytest.raises(
        InvalidInputError, match=r"None of 2 embeddings belongs to a sequence of p.fa, neither does .*'z'"
    ):
        check(entry("a", id="y"), entry("a", id="z"))


def test_an_entry_that_changes_between_two_readings_is_told() -> None:
    found = wanted()
    checksum = check(entry("a")).new[key("a")]
    np.testing.assert_array_equal(take(entry("a"), key("a"), found, checksum), rows("a"))
    with pytest.raises(InvalidInputError, match=r"x.h5, a changed while it was read. Run the import again"):
        take(entry("a", rows("a", seed=1)), key("a"), found, checksum)


def test_a_sequence_over_the_claimed_limit_is_told_when_it_comes() -> None:
    found = wanted(max_tokens=5)
    assert found.n_rows(key("b"), entry("b")) == 3
    with pytest.raises(InvalidInputError, match=r"x.h5, a: 7 letters are 7 tokens, fake takes 5"):
        found.n_rows(key("a"), entry("a"))
    assert wanted(max_tokens=5, crop="keep-5-prime").n_rows(key("a"), entry("a")) == 5


# Claims


def claimed(values: Any, record: EncoderSpec | None = None, **said: Any) -> EncoderSpec:
    file = EmbeddingFile(entries=lambda: iter(()), count=1, record=record)
    claim = Claim(**{"encoder": "mine", "tokens": "letter", **said})
    return claimed_spec(claim, file, entry("a", values), file_format="esm-pt", modality="protein")


@pytest.mark.parametrize(
    ("values", "said", "expected"),
    [
        (np.ones((7, 5), "f4"), {}, {"width": 5, "store_dtype": "float32", "pooling": "none", "crop": "error"}),
        (np.ones(5, "f8"), {}, {"width": 5, "store_dtype": "float32", "pooling": "mean"}),
        (np.ones((7, 5), "f2"), {}, {"store_dtype": "float16", "weights": "claimed:mine"}),
        (np.ones((7, 5), "f2"), {"store_dtype": "float32", "source": "v2"},
         {"store_dtype": "float32", "weights": "claimed:v2"}),
        (np.ones((7, 5), "f4"), {"max_tokens": 9}, {"max_tokens": 9, "crop": "error"}),
        (np.ones((7, 5), "f4"), {"max_tokens": 9, "crop": "keep-5-prime"}, {"crop": "keep-5-prime"}),
        (np.ones((7, 5), "f4"), {"crop": "keep-5-prime"}, {"max_tokens": 0, "crop": "error"}),
        (np.ones((7, 5), "f4"), {"layer": 3, "dtype": "float16"}, {"layer": 3, "compute_dtype": "float16"}),
        (np.ones((7, 5), "f4"), {"tokens": "bins-4"}, {"tokens": "bins-4", "adapter": "imported/esm-pt"}),
    ],
    ids=["rows", "mean", "half", "words", "limit", "crop", "crop-without-limit", "layer", "tokens"],
)  # fmt: skip
def test_a_claim_of_an_encoder_without_card(values: Any, said: dict[str, Any], expected: dict[str, Any]) -> None:
    spec = claimed(values, **said)
    assert {name: getattr(spec, name) for name in expected} == expected and spec.is_imported


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"tokens": None}, "To import an encoder that is not listed, say how it cuts letters into tokens"),
        ({"encoder": "../x"}, "Encoder name '../x' becomes a directory"),
        ({"encoder": "x" * 101}, "becomes a directory. Write it in up to 100 letters"),
        ({"tokens": "words"}, "Unknown token rule 'words'"),
        ({"store_dtype": "int8"}, "An import keeps float32, float16 or bfloat16, not int8"),
        ({"encoder": "esm2-8m", "tokens": "codon"}, "Encoder esm2-8m has tokens 'letter', not 'codon'"),
        ({"encoder": "esm2-8m", "tokens": None}, "x.h5, a has width 5, esm2-8m has 320. Name the right --encoder"),
    ],
    ids=["no-tokens", "path", "long-name", "rule", "int8", "card-tokens", "card-width"],
)
def test_a_claim_that_cannot_be_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(EmbedCacheError) as error:
        claimed(np.ones((7, 5), "f4"), **said)
    assert message in str(error.value)


def test_what_our_own_file_says_is_followed_and_not_contradicted() -> None:
    record = replace(fake_spec(width=5, layer=3), architecture={"layers": 6})
    spec = claimed(np.ones((7, 5), "f4"), record, encoder="fake", layer=3)
    assert (spec.layer, spec.name, spec.architecture) == (3, "fake", {"layers": 6})
    assert layers_of("esm2-8m") == 6 and layers_of("mine") == 0
    for said, name in (({"layer": 2}, "layer is 3, not 2"), ({"encoder": "other"}, "encoder is 'fake', not 'other'")):
        with pytest.raises(InvalidInputError, match=f"The file says that its {name}"):
            claimed(np.ones((7, 5), "f4"), record, **{"encoder": "fake", **said})
    last = replace(record, layer=-1)
    assert claimed(np.ones((7, 5), "f4"), last, encoder="fake", layer=6).layer == -1  # the last one by its number
    with pytest.raises(InvalidInputError, match="holds int32, expected floating-point numbers"):
        claimed(np.ones((7, 5), "i4"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modalities": ["rna", "rna"]}, "--modality rna, rna names one twice. Give each once."),
        ({"modalities": ["rna", "dna"]}, "parquet holds one modality a file. Run one export for each --modality."),
        ({"names": "id"}, "--names is for HDF5 files; parquet keeps the IDs. Leave it out."),
        ({"format": "esm-pt", "dtype": "float16"}, "esm-pt holds float32, not float16. Leave out --dtype."),
        ({"pooled": True, "dtype": "float16"}, "The means of a Parquet file are float32. Leave out --dtype."),
    ],
    ids=["twice", "several", "names", "dtype", "means"],
)
def test_settings_that_a_format_cannot_have(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    wanted: dict[str, Any] = {"format": "parquet", "modalities": ["rna"], "output": tmp_path / "x"}
    with pytest.raises(InvalidSettingError) as error:
        export_embeddings(**{**wanted, **settings})
    assert str(error.value) == message and list(tmp_path.iterdir()) == []
    with pytest.raises(UnknownNameError, match="Unknown format 'hdf5'"):
        exchange_format("hdf5")
