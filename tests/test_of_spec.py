"""From a store back to its encoder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedcache.encoders.of_spec import encoder_of_spec
from embedcache.encoders.registry import EncoderOptions, encoder_spec, load_encoder
from embedcache.errors import CacheMismatchError, InvalidSettingError
from embedcache.sequences import Modality

PROTEIN = "MKTAYIAKQRQISFVKSHFSRQ"


@pytest.mark.parametrize(
    ("name", "modality", "options"),
    [
        ("mini-protein", "protein", {"store_dtype": "float32", "layer": 2}),
        ("mini-protein", "protein", {"max_tokens": 8, "crop": "windows", "overlap": 3, "pooling": "adaptive-4"}),
        ("esm2-8m", "protein", {"random_init": 3, "dtype": "bfloat16"}),
        ("tiny-random-rna", "rna", {"max_tokens": 12, "crop": "keep-3-prime"}),
    ],
)
def test_the_encoder_of_a_spec_has_that_spec_and_its_numbers(
    name: str, modality: Modality, options: EncoderOptions
) -> None:
    made = load_encoder(name, modality, **options)
    again = encoder_of_spec(made.spec)
    assert again.spec == made.spec
    sequence = made.spec.cropped(PROTEIN if modality == "protein" else "ACGTTGCA" * 8)
    np.testing.assert_array_equal(made.encode([sequence])[0], again.encode([sequence])[0])


def test_a_converted_store_has_the_encoder_of_its_source() -> None:
    spec = encoder_spec("mini-protein", "protein")
    converted = replace(spec, store_dtype="int8", source_dtype="float16")
    assert encoder_of_spec(converted).spec == spec


def test_other_weights_and_imported_rows_are_refused(tmp_path: Path) -> None:
    spec = encoder_spec("mini-protein", "protein")
    with pytest.raises(CacheMismatchError, match=r"is not the one of .* weights 'blake2b:0', now 'blake2b:"):
        encoder_of_spec(replace(spec, weights="blake2b:0"))
    with pytest.raises(InvalidSettingError, match="were imported, so there is no encoder to run"):
        encoder_of_spec(replace(spec, adapter="imported/esm-pt"))
