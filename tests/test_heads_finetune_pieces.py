"""Pieces of fine-tuning on their own: pooling open to gradients, live rows, model cards, and what ``--from`` keeps."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fake_study import FakeStudy, make_study
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from test_heads_cli import Recorder, invoke
from torch import nn

from embedcache.dataset import Dataset, read_dataset
from embedcache.encoders.pooling import count_pooled, pool_rows
from embedcache.errors import CacheError, InvalidInputError, InvalidSettingError
from embedcache.ragged import Ragged
from heads.checkpoint import CheckpointError
from heads.config import ModelConfig, SplitConfig, TrainConfig
from heads.directory import RunDirectory
from heads.finetune.config import FinetuneConfig
from heads.finetune.encoder import pool_tokens
from heads.finetune.live import LiveRows, LiveSource, RowsOnly, cropped_sequences
from heads.finetune.model_card import model_card
from heads.finetune.start import no_better_than_start
from heads.train import train
from heads.trained import load_trained


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=24)


@pytest.fixture(scope="module")
def dataset(study: FakeStudy) -> Dataset:
    return read_dataset(study.dataset)


MODEL = ModelConfig(modalities=("rna", "protein"), aggregator="concat", hidden=4)
CONFIG = TrainConfig(
    epochs=1, batch_size=16, learning_rate=0.01, device="cpu", seed=3, tissue_weights=(("Liver", 2.0),)
)  # fmt: skip


@pytest.fixture(scope="module")
def frozen(study: FakeStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "frozen run"
    train(dataset=study.dataset, cache=study.cache, run=run, model=MODEL, config=CONFIG)
    return run


# --- pooling ---


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
    st.sampled_from(["none", "mean", "adaptive-1", "adaptive-3", "adaptive-8"]),
)
def test_tokens_are_pooled_as_in_a_store_and_open_to_gradients(lengths: list[int], rule: str) -> None:
    if not sum(lengths):
        return
    parts = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) for n in lengths]
    tokens = Ragged.from_list(parts)
    tokens.values.requires_grad_()
    found = pool_tokens(tokens, rule)
    assert found.lengths.tolist() == [count_pooled(n, rule) for n in lengths]
    for one, part in zip(found.to_list(), parts, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), pool_rows(part.numpy(), rule), atol=1e-6)
    found.values.sum().backward()
    assert tokens.values.grad is not None
    # each pooled row shares one out among its tokens
    by_sample = Ragged(tokens.values.grad, tokens.offsets).to_list()
    for n, gradient in zip(lengths, by_sample, strict=True):
        torch.testing.assert_close(gradient.sum(0), torch.full((4,), float(count_pooled(n, rule))))
        assert bool((gradient > 0).all())


# --- live rows ---


class Live(nn.Module):
    """Stands for a trained encoder: rows of the fake one, times a weight that learns; counts what it embeds."""

    def __init__(self, **changes: object) -> None:
        super().__init__()
        self.fake = FakeEncoder(name="tiny-protein", modality="protein", width=12, **changes)
        self.spec, self.model = self.fake.spec, nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.model.weight)
        self.seen: list[list[str]] = []

    def embed(self, sequences: list[str]) -> Ragged:
        self.seen.append(list(sequences))
        return Ragged.from_list([torch.from_numpy(self.fake.rows(one)) * self.model.weight for one in sequences])

    def rest(self) -> None: ...


def test_each_distinct_sequence_of_a_call_is_embedded_once(dataset: Dataset) -> None:
    encoder = Live()
    live, letters = LiveRows(encoder, dataset, "protein"), dict(dataset.sequences("protein"))  # type: ignore[arg-type]
    keys = dataset.keys("protein")
    none = next(row for row, key in enumerate(keys) if key is None)
    some = [row for row, key in enumerate(keys) if key is not None][:2]
    rows = [some[1], none, some[0], some[1], none]
    found = live(np.array(rows)).to_list()
    assert [len(one) for one in encoder.seen] == [2]
    for row, one in zip(rows, found, strict=True):
        key = keys[row]
        wanted = np.zeros((0, 12)) if key is None else encoder.fake.rows(letters[key])
        np.testing.assert_array_equal(one.detach().numpy(), wanted)
    assert live.lengths.tolist() == [0 if key is None else len(letters[key]) for key in keys]
    torch.cat(found).sum().backward()
    assert encoder.model.weight.grad is not None
    nobody = live(np.array([none, none]))
    assert (nobody.values.shape, nobody.lengths.tolist(), len(encoder.seen)) == ((0, 12), [0, 0], 1)


def test_what_a_crop_leaves_is_what_is_embedded(dataset: Dataset) -> None:
    encoder = Live(max_tokens=5, crop="keep-3-prime")
    sequences, which = cropped_sequences(dataset, "protein", encoder.spec)
    letters = dict(dataset.sequences("protein"))
    for key, number in zip(dataset.keys("protein"), which.tolist(), strict=True):
        assert (number == -1) == (key is None)
        assert key is None or sequences[number] == letters[key][-5:]
    assert max(LiveRows(encoder, dataset, "protein").lengths) == 5  # type: ignore[arg-type]


def test_a_live_source_is_a_source_and_one_without_numbers_says_lengths(dataset: Dataset) -> None:
    live = LiveRows(Live(), dataset, "protein")  # type: ignore[arg-type]
    source, lengths = LiveSource(live), RowsOnly(live)
    parts = [np.array([3, 1]), np.array([0])]
    for part, one, bare in zip(parts, source.stream(parts), lengths.stream(parts), strict=True):
        assert not one.values.requires_grad
        assert one.lengths.tolist() == bare.lengths.tolist() == live.lengths[part].tolist()
        assert bare.values.shape == (int(live.lengths[part].sum()), 0)
    means = source.summaries("means")
    for row, mean in enumerate(means):
        tokens = source.packed(np.array([row])).values
        torch.testing.assert_close(mean[0], tokens.mean(0) if len(tokens) else torch.zeros(12))
    assert (source.tokens_only, lengths.tokens_only) == (False, True)
    with pytest.raises(NotImplementedError, match="have no summaries"):
        lengths.summaries("means")


# --- before and after ---


@pytest.mark.parametrize(("loss", "is_told"), [(0.5, False), (0.8, True), (0.9, True)])
def test_no_better_than_before_the_first_step_is_told(tmp_path: Path, loss: float, is_told: bool) -> None:
    (tmp_path / "start.json").write_text(json.dumps({"validation": {"validation_loss": 0.8}}))
    said = no_better_than_start(RunDirectory(tmp_path), loss)
    assert bool(said) == is_told
    assert not is_told or f"(validation loss {loss:.3f}, before the first step 0.800)" in said


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"validation": {}}', '{"validation": null}'])
def test_a_damaged_first_score_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "start.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"start\.json is damaged"):
        no_better_than_start(RunDirectory(tmp_path), 0.5)


@pytest.mark.parametrize(
    ("method", "adapter", "words", "absent"),
    [
        (
            "full",
            "esm2/1",
            ["All weights were trained", 'AutoModel.from_pretrained("encoders/rna")'],
            ["PeftModel", "LoRA"],
        ),
        (
            "lora",
            "esm2/1",
            ["rank 4, alpha 8)", 'PeftModel.from_pretrained(AutoModel.from_pretrained("a/b")'],
            ["blocks"],
        ),
        (
            "full",
            "t5/1",
            ["import T5EncoderModel", 'T5EncoderModel.from_pretrained("encoders/rna").encoder'],
            ["AutoModel"],
        ),
        (
            "last:3",
            "enformer/1",
            ["The last 3 blocks", "--encoder nt --weights encoders/rna`"],
            ["AutoModel", "PeftModel"],
        ),
    ],
)
def test_a_model_card_says_how_encoders_were_trained_and_are_loaded(
    frozen: Path, method: str, adapter: str, words: list[str], absent: list[str]
) -> None:
    run = load_trained(frozen, "cpu")
    spec = {"name": "nt", "adapter": adapter, "model_id": "a/b"}
    described: dict[str, Any] = {**run.description, "specs": {"rna": spec}}
    tuned = SimpleNamespace(
        description=described, directory=run.directory, model=run.model, labels=run.labels, split=run.split,
        config=run.config, best_epoch=run.best_epoch, learned={"rna": {}},
        finetune=FinetuneConfig(modalities=("rna",), method=method, lora_rank=4, lora_alpha=8.0),
    )  # fmt: skip
    text = model_card(tuned)  # type: ignore[arg-type]
    assert text.startswith("# frozen run\n")
    assert "**Read results with care**: simulated" in text
    assert "in 3 tissues from rna, protein (concat)" in text
    assert "Test: not scored when this card was made" in text
    assert all(word in text for word in words), text
    assert not [word for word in absent if word in text]
    assert "encoder (`nt`)" not in model_card(run), "a frozen run exports no encoder"


# --- what --from keeps ---


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr("heads.train.train", recorder)
    return recorder


def test_a_fine_tuning_keeps_the_settings_of_its_run_but_those_that_are_given(
    trained: Recorder, frozen: Path, study: FakeStudy
) -> None:
    more = ("--learning-rate", 0.5, "--epochs", 7, "--run", "new", "--hidden", 4)
    invoke("train", "--finetune", "rna", "--from", frozen, *more)
    found = trained.only
    assert found["model"] == MODEL
    assert found["config"] == TrainConfig.from_json({**CONFIG.to_json(), "learning_rate": 0.5, "epochs": 7})
    assert (found["dataset"], str(found["cache"]), found["run"]) == (study.dataset, str(study.cache), Path("new"))
    assert found["split"] == SplitConfig()
    held = load_trained(frozen, "cpu").description["encoders"]
    assert found["encoders"] == {m: one["directory"] for m, one in held.items()}
    assert found["start"].frozen.directory.path == frozen
    assert found["start"].finetune == FinetuneConfig(modalities=("rna",))


def test_weights_of_tissues_that_are_given_replace_those_of_the_run(trained: Recorder, frozen: Path) -> None:
    invoke("train", "--finetune", "rna", "--from", frozen, "--run", "new", "--tissue-weight", "Brain=3")
    assert trained.only["config"].tissue_weights == (("Brain", 3.0),)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--hidden", "8"], InvalidSettingError, "--hidden is 8, .* has 4. A fine-tuning keeps the model"),
        (["--modalities", "rna"], InvalidSettingError, "--modalities is"),
        (["--split", "gene"], InvalidSettingError, "--split is gene"),
        (["--encoder", "rna=x"], InvalidSettingError, "--encoder is that of"),
        (["--cache", "nowhere"], CacheError, "nowhere does not exist"),
        (["--dataset", "nowhere"], InvalidInputError, "nowhere"),
    ],
)
def test_what_a_fine_tuning_cannot_change(
    trained: Recorder, frozen: Path, words: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        invoke("train", "--finetune", "rna", "--from", frozen, "--run", "new", *words)
    with pytest.raises(InvalidSettingError, match="--run and --from are both"):
        invoke("train", "--finetune", "rna", "--from", frozen, "--run", frozen)
    assert not trained.calls
