"""Attention by region: equal to whole maps times the regions, whatever the encoder, the block and the windows."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.encoders.nt import load_v1
from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.registry import encoder_spec, load_encoder
from embedcache.encoders.windows import WindowedEncoder
from embedcache.errors import InvalidSettingError
from heads.interpret.attention import region_attention
from heads.interpret.attention.encoders import open_encoder
from heads.interpret.attention.region_attention import Collector, attend_to_regions, attending_to_regions
from heads.interpret.attention.regions import SPECIAL, Case, region_bounds, region_names, region_shares
from heads.interpret.attention.scores import region_mass, score_transcripts

ENCODERS = {  # with nearly even attention of drawn weights made uneven
    "nt-v2": ("tiny-random-rna", "rna", {}),
    "mini": ("mini-rna", "rna", {}),
    "esm2": ("tiny-random-protein", "protein", {}),
    "inner-layer": ("mini-protein", "protein", {"layer": 2}),
    "nt-v1": ("nt-v1-500m-human-ref", "rna", {"random_init": 0}),
    "pooled": ("tiny-random-rna", "rna", {"pooling": "adaptive-4"}),
}


def load(name: str) -> PackedEncoder:
    known, modality, options = ENCODERS[name]
    if name == "nt-v1":  # learned positions, in a small size
        shape = {"layers": 2, "heads": 2, "feed_forward": 128, "layer_norm_eps": 1e-5}
        small = replace(encoder_spec(known, modality, **options), width=64, architecture=shape)
        encoder = load_v1(small, None, "cpu")
    else:
        encoder = open_encoder(load_encoder(known, modality, **options))
    if encoder.spec.is_random:
        for block in encoder.model.encoder.layer:
            block.attention.self.query.weight.data.mul_(20)
    return encoder


def make_case(modality: str, size: int, seed: int = 0, gene: str = "G") -> Case:
    letters = "ACGT" if modality == "rna" else "ACDEFGHIKLMNPQRSTVWY"
    sequence = "".join(np.random.default_rng(seed).choice(list(letters), size))
    cds = (size // 5, size // 5 + size // 2 // 3 * 3) if modality == "rna" else None
    return Case(row=seed, gene_id=gene, sequence=sequence, cds=cds)


def shares_by_letter(encoder: PackedEncoder, case: Case) -> torch.Tensor:
    """Regions of all tokens, special ones too, counted letter by letter: (T, R)."""
    names = region_names(encoder.spec.modality)
    kept = [one for one in encoder.spec.spans(case.sequence).tolist() if encoder.spec.pooling == "none"]
    if encoder.spec.pooling != "none":
        n_kmers = len(case.sequence) // 6
        kept = [[6 * i, 6 * i + 6] for i in range(n_kmers)]
        kept += [[i, i + 1] for i in range(6 * n_kmers, len(case.sequence))]
    third = len(case.sequence) / 3
    rows = []
    for start, stop in kept:
        row = np.zeros(len(names))
        for letter in range(start, stop):
            if case.cds is None:
                row += [max(0, min(letter + 1, (i + 1) * third) - max(letter, i * third)) for i in range(3)] + [0]
            else:
                begin, end = case.cds
                row[0 if letter < begin else 1 if letter < end else 2] += 1
        rows.append(row / (stop - start))
    special = np.eye(len(names))[-1:]
    after = [special] if encoder.vocabulary.after is not None else []
    return torch.from_numpy(np.concatenate([special, rows, *after]).astype(np.float32))


def whole_maps(encoder: PackedEncoder, letters: str) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The maps (heads, T, T) of each layer, and the rows of all tokens, by the eager attention of transformers."""
    vocabulary = encoder.vocabulary
    ids = [vocabulary.before, *vocabulary.ids(letters)] + ([] if vocabulary.after is None else [vocabulary.after])
    before = encoder.model.config._attn_implementation
    encoder.model.set_attn_implementation("eager")
    with torch.inference_mode():
        found = encoder.model(input_ids=torch.tensor([ids]), output_attentions=True)
    encoder.model.set_attn_implementation(before)
    return [layer[0] for layer in found.attentions], found.last_hidden_state[0]


@pytest.fixture(params=[1 << 21, 2000], ids=["one block", "many blocks"])
def block_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(region_attention, "_NUMBERS", request.param)
    yield


@pytest.mark.usefixtures("block_size")
@pytest.mark.parametrize("threshold", [None, 0.01], ids=["mass", "counts"])
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("size", [47, 301])
def test_attention_by_region_equals_that_of_whole_maps(name: str, size: int, threshold: float | None) -> None:
    encoder = load(name)
    case = make_case(encoder.spec.modality, size)
    shares = shares_by_letter(encoder, case)
    maps, hidden = whole_maps(encoder, case.sequence)
    wanted = [(one if threshold is None else (one > threshold).float()) @ shares for one in maps]  # (heads, T, R)
    collector = Collector(shares, threshold)
    ids = torch.tensor([encoder._with_special(case.sequence).tolist()])
    with torch.inference_mode(), attending_to_regions(encoder.model):
        rows = encoder.model(input_ids=ids, collector=collector).last_hidden_state[0]
    assert torch.equal(rows, hidden)
    assert len(collector.totals) == encoder.spec.architecture["layers"] or name == "inner-layer"
    for total, direct in zip(collector.totals, wanted, strict=True):
        assert (total - direct.double().sum(1)).abs().max() == 0
    with attending_to_regions(encoder.model):
        mass, uniform = region_mass(encoder, case, threshold=threshold)
    direct = torch.stack(wanted).double().sum(2)
    share = direct / (len(shares) if threshold is None else direct.sum(-1, keepdim=True))
    assert np.array_equal(mass, share.numpy())
    assert np.allclose(uniform, shares.mean(0)) and np.allclose(mass.sum(-1), 1, atol=1e-5)


def test_every_query_is_kept_apart_until_its_layer_is_summed() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 40, 8, generator=generator) for _ in range(3))
    regions = torch.rand(40, 2, generator=generator)
    maps = (q @ k.transpose(-1, -2) * 8**-0.5).softmax(-1)
    sums, output = attend_to_regions(q, k, regions, value=v)
    assert torch.equal(sums, maps @ regions) and output is not None and torch.equal(output, maps @ v)


def test_rows_and_attention_of_the_encoder_are_as_before() -> None:
    encoder = load("nt-v2")
    cases = [make_case("rna", 200, seed) for seed in range(3)]
    rows = encoder.encode([case.sequence for case in cases])
    implementation = encoder.model.config._attn_implementation
    score_transcripts(encoder, cases)
    assert encoder.model.config._attn_implementation == implementation
    for before, after in zip(rows, encoder.encode([case.sequence for case in cases]), strict=True):
        assert np.array_equal(before, after)


def test_half_precision_is_near_float32() -> None:
    encoder = load("mini")
    case = make_case("rna", 200)
    with attending_to_regions(encoder.model):
        exact, _ = region_mass(encoder, case)
        encoder.model.to(torch.bfloat16)
        rough, _ = region_mass(encoder, case)
    assert 0 < np.abs(exact - rough).max() < 0.02


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.data())
def test_shares_of_tokens_cover_every_letter_once(size: int, data: st.DataObject) -> None:
    borders = sorted(data.draw(st.sets(st.integers(1, max(1, size - 1)))) | {0, size})
    spans = np.array(list(pairwise(borders)))
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    shares = region_shares(spans, region_bounds("rna", "C" * size, (start, stop), spans))
    assert np.allclose(shares.sum(1), 1)
    letters = (shares * (spans[:, 1] - spans[:, 0])[:, None]).sum(0)
    assert np.allclose(letters, [start, stop - start, size - stop, 0], atol=1e-3)


@pytest.mark.parametrize(("end", "wanted"), [(16, [1 / 6, 5 / 6, 0]), (13, [1 / 6, 2 / 6, 3 / 6])])
def test_a_token_across_borders_belongs_to_both(end: int, wanted: list[float]) -> None:
    sequence = "A" * 11 + "CC" + "TAAC"  # the second 6-mer has letters 10 .. 15
    spans = np.array([[0, 10], [10, 16], [16, 17], [17, 17]])
    shares = region_shares(spans, region_bounds("rna", sequence, (11, end), spans))
    assert np.allclose(shares[1], [*wanted, 0]) and np.allclose(shares[3], [0, 0, 0, 1])


def test_regions_that_a_crop_removed_are_absent() -> None:
    encoder = open_encoder(load_encoder("tiny-random-rna", "rna", max_tokens=10, crop="keep-3-prime"))
    case = make_case("rna", 300)
    scores = score_transcripts(encoder, [case])
    assert scores.regions == ("3'UTR", SPECIAL)
    assert np.allclose(scores.uniform, [[10 / 11, 1 / 11]]) and np.allclose(scores.mass.sum(-1), 1, atol=1e-5)


def test_windows_count_by_their_tokens() -> None:
    options = {"max_tokens": 10, "crop": "windows", "overlap": 0}
    outer = load_encoder("tiny-random-rna", "rna", **options)
    assert isinstance(outer, WindowedEncoder)
    case = make_case("rna", 120)
    scores = score_transcripts(open_encoder(outer), [case])
    alone = open_encoder(load_encoder("tiny-random-rna", "rna"))
    found = []
    for half, cds in ((case.sequence[:60], (24, 60)), (case.sequence[60:], (0, 24))):
        one = Case(row=0, gene_id="G", sequence=half, cds=cds)
        with attending_to_regions(alone.model):
            found.append(region_mass(alone, one)[0])
    assert case.cds == (24, 84)
    assert np.allclose(scores.mass[0], (found[0] + found[1]) / 2, atol=1e-7)


def test_each_sequence_runs_once_and_transcripts_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load("nt-v2")
    a, b = make_case("rna", 90, 1, "A"), make_case("rna", 60, 2, "B")
    calls: list[int] = []
    encoder.model.register_forward_pre_hook(lambda module, given: calls.append(1))
    scores = score_transcripts(encoder, [a, b, a])
    assert len(calls) == 2 and scores.genes.tolist() == ["A", "B", "A"]
    assert np.array_equal(scores.mass[0], scores.mass[2]) and not np.array_equal(scores.mass[0], scores.mass[1])


def test_other_encoders_are_refused_in_one_line() -> None:
    class Other:
        spec = encoder_spec("enformer", "dna", random_init=0)

        def encode(self, sequences: list[str]) -> list[np.ndarray]:
            return []

    with pytest.raises(InvalidSettingError, match=r"dna encoder enformer.* cannot be read; that of ESM-2"):
        open_encoder(Other())
