"""Which store of a cache a name or a run means, and the command that mends a store."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import pytest
from fake_study import fill_cache, make_dataset, store_name
from typer.testing import CliRunner

from embedcache.commands import app as embedcache_app
from embedcache.convert import convert_store
from embedcache.dataset import Dataset, read_dataset
from embedcache.encoders.cards import TINY_ENCODERS
from embedcache.encoders.registry import encoder_spec, layer_specs
from embedcache.errors import CacheError, CacheIncompleteError, CacheMismatchError, UnknownNameError
from embedcache.job import BuildJob, run_job
from embedcache.prepare.simulate import prepare_simulate
from embedcache.sequences import Modality
from embedcache.store import EmbeddingStore, list_stores
from heads.checkpoint import CheckpointError
from heads.commands import app as heads_app
from heads.config import ModelConfig, TrainConfig
from heads.evaluate import evaluate
from heads.mending import how_to_fill
from heads.open_sources import open_sources
from heads.predict import predict
from heads.sources import CachedSource
from heads.train import train

MODALITIES: tuple[Modality, ...] = ("rna", "protein")
MODEL = ModelConfig(modalities=MODALITIES, heads=2)
CONFIG = TrainConfig(epochs=2, batch_size=8, device="cpu", max_tokens_per_batch=300)
INT8, MEANS = {"store_dtype": "int8"}, {"pooling": "mean", "store_dtype": "float32"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("study") / "dataset", n_genes=16, modalities=MODALITIES)


@pytest.fixture(scope="module")
def several(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with three stores a modality under one name."""
    cache = tmp_path_factory.mktemp("several")
    for changes in ({"store_dtype": "float32"}, INT8, MEANS):
        fill_cache(cache, dataset, **changes)
    return cache


def test_of_several_stores_one_must_be_named(dataset: Dataset, several: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError) as caught:
        open_sources(dataset, several, MODALITIES)
    text = str(caught.value)
    assert "\n" not in text and "3 rna stores" in text
    for place in list_stores(several, "rna"):
        spec = EmbeddingStore(place).spec
        assert f"{place.name} (pooling {spec.pooling}, store_dtype {spec.store_dtype})" in text
    advice = re.search(r"with `heads`: --encoder (rna=\S+)\.", text)
    assert advice, text
    names = [advice[1], f"protein={store_name(several, 'protein', store_dtype='int8')}"]
    options = [
        "--modalities",
        "rna,protein",
        "--dataset",
        dataset.path,
        "--cache",
        several,
        "--heads",
        2,
        "--epochs",
        1,
    ]
    options += ["--run", tmp_path / "run", "--device", "cpu"]
    words = [str(word) for word in ("train", *options)]
    failed = CliRunner().invoke(heads_app, words)
    assert isinstance(failed.exception, CacheError) and str(failed.exception) == text
    assert not (tmp_path / "run").exists()
    done = CliRunner().invoke(heads_app, [*words, "--encoder", names[0], "--encoder", names[1]])
    assert done.exit_code == 0, done.output
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [f"{m}={config['encoders'][m]['directory']}" for m in MODALITIES] == names
    with pytest.raises(UnknownNameError, match="Did you mean"):
        open_sources(dataset, several, ["rna"], {"rna": "tiny-rnaa"})


def test_a_run_goes_on_with_its_own_store_among_others(dataset: Dataset, several: Path, tmp_path: Path) -> None:
    tables, scores = {}, {}
    for fields in ({"store_dtype": "int8"}, {"pooling": "mean"}):
        encoders = {m: store_name(several, m, **fields) for m in MODALITIES}
        run = tmp_path / next(iter(fields))
        train(dataset=dataset.path, cache=several, run=run, model=MODEL, config=CONFIG, encoders=encoders)
        output = predict(run, dataset.path, several, tmp_path / "p.parquet").output
        tables[run.name], scores[run.name] = pd.read_parquet(output), evaluate(run, resamples=20).to_json()["models"]
        other = fill_cache(tmp_path / "alone" / run.name, dataset, **(INT8 if run.name == "store_dtype" else MEANS))
        again = predict(run, dataset.path, other, tmp_path / "q.parquet").output
        assert tables[run.name].equals(pd.read_parquet(again))
    assert not tables["store_dtype"].equals(tables["pooling"]) and scores["store_dtype"] != scores["pooling"]
    with pytest.raises(CheckpointError, match=r"rna: tiny-rna-\w+, now tiny-rna-\w+"):
        train(dataset=dataset.path, cache=several, run=tmp_path / "store_dtype", model=MODEL, config=CONFIG,
              encoders=encoders)  # fmt: skip


def test_a_cache_without_the_store_of_a_run_tells_how_to_make_it(dataset: Dataset, tmp_path: Path) -> None:
    cache, other = tmp_path / "cache", tmp_path / "other"
    fill_cache(cache, dataset, pooling="adaptive-4", store_dtype="int8", layer=3)
    train(dataset=dataset.path, cache=cache, run=tmp_path / "run", model=MODEL, config=CONFIG)
    build = "--modality rna --encoder tiny-rna --layer 3 --pooling adaptive-4 --store-dtype int8"
    command = rf"Run `embedcache build {build} --dataset {dataset.path} --cache {other}`\."
    with pytest.raises(CacheError, match=f"does not exist. {command}"):
        predict(tmp_path / "run", dataset.path, other, tmp_path / "p.parquet")
    other.mkdir()
    with pytest.raises(CacheError, match=f"holds no rna embeddings. {command}"):
        predict(tmp_path / "run", dataset.path, other, tmp_path / "p.parquet")
    fill_cache(other, dataset)
    with pytest.raises(CacheMismatchError, match=rf"was trained on tiny-rna-\w+\. {command}"):
        evaluate(tmp_path / "run", cache=other)


# --- the command that mends a store ---

CASES: list[tuple[str, Modality, dict[str, Any]]] = [
    ("tiny-random-rna", "rna", {}),
    ("tiny-random-rna", "rna", {"store_dtype": "int8", "layer": 1, "pooling": "adaptive-9"}),
    ("tiny-random-rna", "rna", {"crop": "windows", "max_tokens": 40}),
    ("tiny-random-rna", "rna", {"crop": "windows", "max_tokens": 40, "overlap": 3}),
    ("tiny-random-rna", "rna", {"crop": "error", "max_tokens": 40}),
    ("tiny-random-rna", "rna", {"max_tokens": 40}),
    ("tiny-random-rna", "rna", {"random_init": 3}),
    ("nt-v2-250m", "dna", {"random_init": 0, "dtype": "bfloat16", "crop": "keep-5-prime"}),
    ("nt-v2-250m", "rna", {"random_init": 0, "max_tokens": 500, "store_dtype": "bfloat16"}),
    ("esm2-8m", "protein", {"random_init": 7, "layer": 2, "pooling": "mean"}),
    ("enformer", "dna", {"random_init": 1, "store_dtype": "float32"}),
]


@pytest.mark.parametrize(("name", "modality", "options"), CASES)
def test_the_command_makes_the_very_store(name: str, modality: Modality, options: dict[str, Any]) -> None:
    spec = encoder_spec(name, modality, **options)
    sentence = how_to_fill(spec, Path("my data"), "s3://b/c")
    (command,) = re.findall("`(.*?)`", sentence)
    program, *words = shlex.split(command)
    with mock.patch("embedcache.engines.run.run_build") as run_build:
        CliRunner().invoke(embedcache_app, words, catch_exceptions=False)
    (job,) = run_build.call_args.args
    made = encoder_spec(job.encoder, job.modality, **job.options)
    (made,) = layer_specs(job.encoder, made, job.layers)
    assert replace(made, pooling=job.poolings[0]) == spec
    assert (program, job.dataset, job.cache, job.poolings) == (
        "embedcache",
        Path("my data"),
        "s3://b/c",
        (spec.pooling,),
    )


@pytest.mark.parametrize("is_converted", [False, True], ids=["built", "converted"])
def test_following_the_advice_mends_a_store(tmp_path: Path, is_converted: bool) -> None:
    for name, n_genes in (("few", 10), ("all", 12)):
        prepare_simulate(output=tmp_path / name, n_genes=n_genes, dna_length=384, encoders=TINY_ENCODERS)
    cache, options = tmp_path / "the cache", {"max_tokens": 50, "crop": "center"}
    run_job(BuildJob(dataset=tmp_path / "few", cache=cache, modality="rna", options=options, layers=(1,)))
    if is_converted:
        convert_store(cache, "rna", "int8")
    chosen = {m: store_name(cache, m, store_dtype="int8" if is_converted else "float16") for m in ("rna",)}
    dataset = read_dataset(tmp_path / "all")
    with pytest.raises(CacheIncompleteError, match=r"lacks \d+ of 36 rna sequences") as caught:
        open_sources(dataset, cache, ["rna"], chosen)
    commands = re.findall("`(.*?)`", str(caught.value))
    assert len(commands) == 1 + is_converted and "\n" not in str(caught.value)
    for command in commands:
        CliRunner().invoke(embedcache_app, shlex.split(command)[1:], catch_exceptions=False)
    source = open_sources(dataset, cache, ["rna"], chosen)["rna"]
    assert isinstance(source, CachedSource) and (source.lengths > 0).all()


def test_an_imported_store_is_mended_by_an_import() -> None:
    spec = replace(encoder_spec("tiny-random-protein", "protein"), adapter="imported/biotrainer", weights="claimed:x")
    assert "embedcache import --format biotrainer --modality protein --encoder tiny-random-protein" in how_to_fill(
        spec, Path("d"), "c"
    )
