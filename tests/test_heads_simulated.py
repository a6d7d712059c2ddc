"""The whole way on a simulated study: a head explains what was planted, in the order that was planted."""

from pathlib import Path

import pytest

from embedcache.encoders.cards import TINY_ENCODERS
from embedcache.job import BuildJob, run_job
from embedcache.prepare.simulate import prepare_simulate
from embedcache.sequences import MODALITIES, Modality
from embedcache.splits import SplitRule
from heads.config import ModelConfig, TrainConfig
from heads.evaluate import evaluate
from heads.train import train

# further apart than the defaults, so that few genes are enough: explainable are 0.05, 0.25, 0.5 and 0.75
SHARES: dict[Modality, float] = {"protein": 0.05, "dna": 0.25, "rna": 0.45}


@pytest.mark.slow
def test_three_modalities_explain_more_than_any_one_in_the_planted_order(tmp_path: Path) -> None:
    dataset, cache = tmp_path / "dataset", tmp_path / "cache"
    splits = SplitRule(validation_fraction=0.2, test_fraction=0.3)
    truth = prepare_simulate(
        encoders=TINY_ENCODERS,
        output=dataset,
        n_genes=160,
        dna_length=768,
        noncoding_share=0,
        shares=SHARES,
        splits=splits,
    ).info["truth"]
    for modality in MODALITIES:
        run_job(BuildJob(dataset=dataset, cache=cache, modality=modality))
    reached = {}
    for chosen in (*((m,) for m in MODALITIES), MODALITIES):
        run = tmp_path / "+".join(chosen)
        config = TrainConfig(epochs=50 if len(chosen) == 1 else 6, batch_size=16, device="cpu")
        model = ModelConfig(modalities=chosen, heads=2)
        validation = train(dataset=dataset, cache=cache, run=run, model=model, config=config).validation["r2"]
        reached[run.name] = validation, evaluate(run, resamples=100).models[0].overall.r2
    planted = sorted(reached, key=truth["explainable_r2"].get)
    assert planted == ["protein", "dna", "rna", "dna+rna+protein"]
    for rows in (0, 1):  # validation, test
        assert sorted(reached, key=lambda name: reached[name][rows]) == planted, reached
    assert reached[planted[-1]][1] > 0.6 * truth["explainable_r2"][planted[-1]], reached
