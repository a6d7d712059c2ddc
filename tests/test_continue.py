"""Rows behind an inner block, and the blocks that are left."""

from typing import Any

import numpy as np
import pytest
import torch

from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.registry import EncoderOptions, encoder_spec, load_encoder
from embedcache.errors import InvalidSettingError
from embedcache.ragged import Ragged
from embedcache.sequences import Modality
from heads.adam import Adam

PROTEINS = ["MKTAYIAKQRQISFVKSHFSRQ", "MK", "WWYHHACDEFGHIKLMNPQRSTVWY" * 6]
BASES = ["ACGTTGCAACGTN" * 30, "ACG", "GATTACA" * 9]
FAMILIES: list[tuple[str, Modality, EncoderOptions]] = [
    ("mini-protein", "protein", {}),
    ("mini-rna", "rna", {}),
    ("tiny-random-rna", "rna", {}),
]


def packed(name: str, modality: Modality, options: EncoderOptions, **more: Any) -> PackedEncoder:
    found = load_encoder(name, modality, **{**options, **more})  # type: ignore[typeddict-item]
    assert isinstance(found, PackedEncoder)
    return found


@pytest.mark.parametrize(("name", "modality", "options"), FAMILIES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_run_from_stored_rows_give_the_rows_of_a_whole_pass(
    name: str, modality: Modality, options: EncoderOptions, dtype: str
) -> None:
    sequences = PROTEINS if modality == "protein" else BASES
    whole = packed(name, modality, options, dtype=dtype)
    bottom = packed(name, modality, options, dtype=dtype, layer=1, keep_special=True)
    rows = bottom.encode(sequences)
    assert [len(one) for one in rows] == [bottom.spec.n_tokens(one) for one in sequences]
    assert [len(bottom.spec.spans(one)) for one in sequences] == [len(one) for one in rows]
    weight = next(whole.model.parameters())
    stored = Ragged.from_list([torch.from_numpy(one).to(weight.dtype) for one in rows])
    with torch.inference_mode():
        found = whole.continue_packed(stored, 1)
    expected = whole.encode(sequences)
    for one, other in zip(found.to_list(), expected, strict=True):
        np.testing.assert_array_equal(one.float().numpy(), other)


def test_special_rows_are_around_those_of_the_sequence() -> None:
    kept, dropped = (packed("mini-protein", "protein", {}, keep_special=keep) for keep in (True, False))
    assert kept.spec.special_tokens == "kept-1-1" and kept.spec.digest != dropped.spec.digest
    for one, other in zip(kept.encode(PROTEINS), dropped.encode(PROTEINS), strict=True):
        np.testing.assert_array_equal(one[1:-1], other)


def test_checkpointing_changes_no_gradient() -> None:
    encoder = packed("mini-protein", "protein", {})
    gradients = []
    for checkpointing in (False, True):
        encoder.checkpointing = checkpointing
        encoder.model.zero_grad()
        encoder.encode_packed(PROTEINS).values.square().sum().backward()
        gradients.append([one.grad.clone() for one in encoder.model.parameters() if one.grad is not None])
    assert len(gradients[0]) > 20
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "modality", "options", "message"),
    [
        ("enformer", "dna", {"random_init": 0}, "has no special tokens whose rows could be kept"),
        ("mini-rna", "rna", {"pooling": "mean"}, "cannot be kept with pooling mean"),
        (
            "mini-protein",
            "protein",
            {"crop": "windows", "max_tokens": 8},
            "cannot be kept with pooling none and crop windows",
        ),
    ],
)
def test_rows_that_no_block_could_go_on_from_are_refused(
    name: str, modality: Modality, options: EncoderOptions, message: str
) -> None:
    with pytest.raises(InvalidSettingError, match=message):
        encoder_spec(name, modality, **{**options, "keep_special": True})


def test_windows_are_stitched_with_gradients_as_without() -> None:
    encoder: Any = load_encoder("mini-protein", "protein", max_tokens=20, crop="windows", overlap=6)
    with torch.inference_mode():
        found = encoder.encode_packed(PROTEINS)
    for one, other in zip(found.to_list(), encoder.encode(PROTEINS), strict=True):
        np.testing.assert_array_equal(one.numpy(), other)
    encoder.encode_packed(PROTEINS).values.sum().backward()


@pytest.mark.parametrize("optimizer", ["ours", "fused", "plain"])
def test_rows_are_those_of_the_present_weights_after_any_optimiser(optimizer: str) -> None:
    encoder = packed("mini-protein", "protein", {})
    before = encoder.encode(PROTEINS)
    parameters = list(encoder.model.parameters())
    encoder.encode_packed(PROTEINS).values.square().sum().backward()
    if optimizer == "ours":
        Adam(parameters, 0.0).step(1e-2)
    else:
        torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0, fused=optimizer == "fused").step()
    after = encoder.encode(PROTEINS)
    with torch.no_grad():
        expected = encoder.encode_packed(PROTEINS).to_list()
    for one, other, old in zip(after, expected, before, strict=True):
        np.testing.assert_allclose(one, other.numpy(), atol=1e-4)
        assert np.abs(one - old).max() > 0.1
