"""The spec: JSON of older versions, rows of a sequence, values that no spec can have."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes import fake_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import CacheDamagedError, CacheMismatchError, InvalidSettingError

GOLDEN = Path(__file__).parent / "golden" / "store_v1"


def test_a_spec_of_version_1_keeps_its_json_and_its_digest() -> None:
    written = json.loads((GOLDEN / "zarr.json").read_text())["attributes"]
    spec = EncoderSpec.from_json(written["encoder"])
    assert spec == fake_spec(width=4)
    assert spec.digest == written["digest"] == "4e6440a44991"
    assert spec.to_json() == written["encoder"]
    assert (spec.overlap, spec.source_dtype) == (0, "")


CHANGES: dict[str, object] = {
    "name": "other",
    "modality": "rna",
    "adapter": "fake/2",
    "model_id": "lab/model",
    "revision": "abc",
    "weights": "seed:1",
    "architecture": {"layers": 2},
    "width": 13,
    "tokens": "nt-6mer",
    "max_tokens": 5,
    "crop": "center",
    "layer": 4,
    "special_tokens": "kept-1-0",
    "pooling": "mean",
    "attention": "single",
    "compute_dtype": "bfloat16",
    "store_dtype": "float32",
    "overlap": 2,
    "source_dtype": "float16",
}


@pytest.mark.parametrize("name", EncoderSpec.__dataclass_fields__)
def test_every_setting_has_its_own_digest(name: str) -> None:
    needed = {"crop": "windows", "max_tokens": 8} if name == "overlap" else {"max_tokens": 8}
    one, other = fake_spec(**needed), fake_spec(**{**needed, name: CHANGES[name]})
    assert one.differing(other) == [name]
    assert one.digest != other.digest


def test_all_settings_together_are_as_many_digests() -> None:
    specs = [fake_spec(max_tokens=8, **{"pooling": pooling, "crop": crop, "store_dtype": dtype})
             for pooling in ("none", "mean", "adaptive-2", "adaptive-3")
             for crop in ("error", "windows", "center")
             for dtype in ("float16", "int8")]  # fmt: skip
    specs += [fake_spec(max_tokens=8, crop="windows", overlap=n) for n in range(1, 8)]
    assert len({spec.digest for spec in specs}) == len(specs)


def test_what_version_1_did_not_have_is_in_the_json_once_it_says_something() -> None:
    windows = fake_spec(crop="windows", max_tokens=8, overlap=3)
    assert windows.to_json()["overlap"] == 3
    assert "overlap" not in fake_spec(crop="windows", max_tokens=8).to_json()
    converted = fake_spec(store_dtype="int8", source_dtype="bfloat16")
    assert EncoderSpec.from_json(converted.to_json()) == converted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "foo"}, "Pooling 'foo' is not known"),
        ({"pooling": "adaptive-0"}, "Pooling 'adaptive-0' is not known"),
        ({"pooling": ["mean"]}, r"pooling of the encoder is \['mean'\]"),
        ({"overlap": 10**9}, "An overlap of 1000000000 tokens needs windows"),
        ({"overlap": 10**9, "crop": "windows", "max_tokens": 8}, "cannot overlap by 1000000000"),
        ({"overlap": -1, "crop": "windows", "max_tokens": 8}, r"cannot overlap by -1\. Give an overlap of 0 to 7"),
        ({"overlap": True, "crop": "windows", "max_tokens": 8}, "overlap of the encoder is True"),
        ({"crop": "windows"}, "has no limit of tokens, so windows have no size"),
        ({"crop": "middle"}, "crop of the encoder is 'middle'"),
        ({"max_tokens": -1}, "limit of -1 tokens"),
        ({"max_tokens": "8"}, "max_tokens of the encoder is '8'"),
        ({"store_dtype": "int3"}, "store_dtype of the encoder is 'int3'"),
        ({"source_dtype": "float8"}, "Source dtype 'float8' is not known"),
        ({"architecture": [1]}, r"architecture of the encoder is \[1\]"),
        ({"special_tokens": "kept"}, "special_tokens of the encoder is 'kept'"),
    ],
)
def test_a_spec_file_with_a_value_of_no_spec_is_damaged(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CacheDamagedError, match=rf"^/s/zarr\.json: .*{message}") as caught:
        EncoderSpec.from_json({**fake_spec().to_json(), **changes}, "/s/zarr.json")
    assert "\n" not in str(caught.value)


def test_fields_of_another_version_are_a_mismatch() -> None:
    found = fake_spec().to_json()
    for wrong in ({**found, "zoom": 1}, {name: value for name, value in found.items() if name != "pooling"}):
        with pytest.raises(CacheMismatchError, match="other fields"):
            EncoderSpec.from_json(wrong)


def test_settings_that_do_not_go_together_are_told_where_they_are_made() -> None:
    with pytest.raises(InvalidSettingError, match="Choose none, mean, or adaptive-"):
        fake_spec(pooling="max")
    with pytest.raises(InvalidSettingError, match="Windows of 8 tokens cannot overlap by 8"):
        fake_spec(crop="windows", max_tokens=8, overlap=8)


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 40), st.sampled_from(["none", "mean", "adaptive-1", "adaptive-6", "adaptive-30"]))
def test_rows_follow_from_tokens(tokens: int, pooling: str) -> None:
    sequence = "M" * tokens
    most = {"none": 40, "mean": 1, "adaptive-1": 1, "adaptive-6": 6, "adaptive-30": 30}[pooling]
    cropped = fake_spec(pooling=pooling, crop="center", max_tokens=10)
    windows = fake_spec(pooling=pooling, crop="windows", max_tokens=10, overlap=2)
    assert (cropped.n_tokens(sequence), windows.n_tokens(sequence)) == (min(tokens, 10), tokens)
    assert (cropped.n_rows(sequence), windows.n_rows(sequence)) == (min(tokens, 10, most), min(tokens, most))
    assert windows.cropped(sequence) == sequence
    assert fake_spec(pooling=pooling).n_rows("") == 0
