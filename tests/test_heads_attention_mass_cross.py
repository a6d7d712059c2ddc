"""Cross-attention of a run by region: that of whole maps, on the tokens that the run reads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fake_study import FakeStudy, make_study

from embedcache.ragged import Ragged
from heads.attention import CrossAttention
from heads.config import ModelConfig, TrainConfig
from heads.inference import predict_rows
from heads.interpret.attention.cross_regions import block_mass, cross_scores, has_cross_attention, rows_with_regions
from heads.train import train
from heads.trained import TrainedRun, load_trained


def make_run(path: Path, study: FakeStudy, **changes: object) -> TrainedRun:
    settings = {"modalities": ("dna", "rna", "protein"), "width": 8, "heads": 2, "rounds": 2, **changes}
    model = ModelConfig(**settings)  # type: ignore[arg-type]
    train(
        dataset=study.dataset,
        cache=study.cache,
        run=path,
        model=model,
        config=TrainConfig(epochs=1, batch_size=7, device="cpu"),
    )
    return load_trained(path, "cpu")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def trained(study: FakeStudy, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    found = make_run(tmp_path_factory.mktemp("runs") / "run", study)
    with torch.no_grad():
        for name, weight in found.model.named_parameters():
            if "query.weight" in name:
                weight.mul_(30)  # nearly even attention says little
    return found


def direct_maps(block: CrossAttention, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """(heads, T, M)."""
    own = x if block.norm is None else block.norm(x)
    other = context if block.context_norm is None else block.context_norm(context)
    q = block.query(own).view(len(x), block.heads, -1).transpose(0, 1)
    k = block.key(other).view(len(context), block.heads, -1).transpose(0, 1)
    return (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("threshold", [None, 0.05])
def test_a_block_gives_what_its_maps_give(pre_norm: bool, threshold: float | None) -> None:
    torch.manual_seed(0)
    block = CrossAttention(8, 6, 2, pre_norm=pre_norm)
    xs, contexts = ([torch.randn(n, width) * 4 for n in sizes] for sizes, width in (((5, 9), 8), ((7, 4), 6)))
    regions = [torch.rand(7, 3), torch.rand(4, 3)]
    with torch.no_grad():
        found = block_mass(block, Ragged.from_list(xs), Ragged.from_list(contexts), regions, threshold=threshold)
        for mass, x, context, shares in zip(found, xs, contexts, regions, strict=True):
            maps = direct_maps(block, x, context)
            sums = ((maps if threshold is None else (maps > threshold).float()) @ shares).double().sum(1)
            wanted = sums / (len(x) if threshold is None else sums.sum(-1, keepdim=True))
            assert np.allclose(mass, wanted.numpy(), atol=1e-6)


def test_each_pair_and_round_is_that_of_the_aggregator(trained: TrainedRun) -> None:
    study = trained.study()
    rows = rows_with_regions(study)
    samples = study.dataset.samples
    assert samples["protein_key"].iloc[rows].notna().all() and samples["cds_start"].iloc[rows].notna().all()
    scores = cross_scores(trained, study, rows)
    assert set(scores) == {(a, b) for a in study.sources for b in study.sources if a != b}
    for (_, reads), found in scores.items():
        assert found.mass.shape == (len(rows), 2, 2, 3) and np.array_equal(found.rows, rows)
        assert found.regions == (("5'UTR", "CDS", "3'UTR") if reads == "rna" else found.regions)
        assert np.allclose(np.nansum(found.mass, axis=-1), 1, atol=1e-5)
        assert np.allclose(np.nansum(found.uniform, axis=-1), 1)
    # the first block that rna enters reads tokens as they are stored, projected
    aggregator = trained.model.aggregator
    block = aggregator.rounds[0]["rna_reads_dna"]  # type: ignore[index, union-attr]
    sample = study.data[int(rows[3])]
    with torch.no_grad():
        x, dna = (aggregator.project[m](sample.tokens[m].float()) for m in ("rna", "dna"))  # type: ignore[index, union-attr]
        maps = direct_maps(block, x, dna)
    cells = torch.linspace(0, 40, 4)
    for third in range(3):
        low, high = float(cells[third]), float(cells[third + 1])
        weight = torch.tensor([max(0.0, min(i + 1, high) - max(i, low)) for i in range(40)])
        wanted = (maps @ weight).mean(1)
        assert np.allclose(scores["rna", "dna"].mass[3, 0, :, third], wanted, atol=1e-5)


def test_looking_changes_no_prediction_and_leaves_nothing_behind(trained: TrainedRun) -> None:
    study = trained.study()
    rows = rows_with_regions(study)
    before = predict_rows(trained.model, study.data, rows, trained.config)
    cross_scores(trained, study, rows)
    assert np.array_equal(before, predict_rows(trained.model, study.data, rows, trained.config))
    assert not any(module._forward_pre_hooks for module in trained.model.modules())


def test_batches_do_not_matter(trained: TrainedRun) -> None:
    study = trained.study()
    rows = rows_with_regions(study)[:6]
    together = cross_scores(trained, study, rows)
    for i, row in enumerate(rows):
        alone = cross_scores(trained, study, np.array([row]))
        for pair, found in alone.items():
            wanted = together[pair].mass[i]
            kept = ~np.isnan(wanted).all(axis=(0, 1))
            assert np.allclose(found.mass[0], wanted[..., kept], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [({}, True), ({"modalities": ("rna",)}, False), ({"aggregator": "concat", "rounds": 1}, False)],
    ids=["cross-attention", "one modality", "concat"],
)
def test_runs_that_have_it(tmp_path: Path, study: FakeStudy, changes: dict[str, object], wanted: bool) -> None:
    assert has_cross_attention(make_run(tmp_path / "run", study, **changes)) is wanted
