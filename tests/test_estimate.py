"""What `estimate` tells before a build, against what the build then does."""

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedcache import estimate, estimate_time
from embedcache.build import build_cache, build_products
from embedcache.dataset import read_dataset
from embedcache.encoders.cards import TINY_ENCODERS
from embedcache.encoders.registry import encoder_spec
from embedcache.encoders.windows import WindowedEncoder, plan_windows
from embedcache.errors import CacheError, InvalidSequenceError
from embedcache.estimate import Estimate, estimate_job
from embedcache.estimate_time import count_windows, time_batches
from embedcache.job import BuildJob, run_job
from embedcache.modality import dataset_records
from embedcache.plan import make_plan
from embedcache.prepare.simulate import prepare_simulate
from embedcache.sequences import SequenceRecord
from embedcache.store import EmbeddingStore, store_path
from embedcache.store.files import open_files
from embedcache.store.layout import new_layout
from embedcache.store.quarantine import Poisoned, quarantine

WITHIN = 0.02


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("study") / "dataset"
    prepare_simulate(output=path, n_genes=60, dna_length=384, encoders=TINY_ENCODERS)
    return path


def job(dataset: Path, cache: Path | str, **changes: Any) -> BuildJob:
    return BuildJob(**{"dataset": dataset, "cache": cache, "modality": "rna", "device": "cpu", **changes})


def told(of: BuildJob) -> Estimate:
    return estimate_job(of, trial_seconds=0)


def bytes_of(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="float16"),
        pytest.param({"options": {"store_dtype": "int8"}}, id="int8"),
        pytest.param({"options": {"store_dtype": "float32"}, "modality": "dna"}, id="float32 dna"),
        pytest.param({"poolings": ("mean",), "options": {"store_dtype": "bfloat16"}}, id="means"),
        pytest.param({"poolings": ("adaptive-40", "none"), "layers": (1, -1)}, id="poolings of layers"),
        pytest.param({"poolings": ("mean", "none"), "options": {"store_dtype": "int8"}}, id="int8 means"),
        pytest.param({"options": {"crop": "windows", "max_tokens": 50, "overlap": 20}}, id="windows"),
        pytest.param({"options": {"crop": "keep-3-prime", "max_tokens": 60}}, id="cropped"),
    ],
)
@pytest.mark.parametrize("shard_bytes", [1 << 26, 1 << 17], ids=["one shard", "shards"])
def test_bytes_tokens_and_shards_are_those_of_the_build(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], shard_bytes: int
) -> None:
    for function in (build_products, new_layout):
        monkeypatch.setitem(function.__kwdefaults__, "shard_bytes", shard_bytes)
    of = job(dataset, tmp_path / "cache", **changes)
    before = told(of)
    assert not (tmp_path / "cache").exists()
    report = run_job(of)
    assert (before.sequences, before.tokens, before.cropped) == (report.distinct, report.tokens, report.cropped)
    assert before.size_bytes == pytest.approx(bytes_of(tmp_path / "cache"), rel=WITHIN)
    assert len(before.stores) == len(report.stores)
    for one, place in zip(before.stores, report.stores, strict=True):
        store = EmbeddingStore(place)
        assert (one.rows, one.shards) == (store.n_tokens, len(open_files(place).statuses("tokens/c")))
        spec = store.spec
        assert (one.layer, one.pooling, one.store_dtype) == (spec.layer, spec.pooling, spec.store_dtype)
        assert one.size_bytes == pytest.approx(bytes_of(Path(str(place))), rel=WITHIN)
    if shard_bytes < 1 << 20 and "poolings" not in changes:
        assert before.shards > 2
    after = told(of)
    assert (after.present, after.tokens, after.size_bytes, after.shards) == (report.distinct, 0, 0, 0)
    assert [one.path for one in after.stores] == [str(place) for place in report.stores]


def part_of(dataset: Path, path: Path, n_rows: int) -> Path:
    """The first transcripts of a dataset."""
    from embedcache.dataset_write import write_dataset

    whole = read_dataset(dataset)
    samples = whole.samples.iloc[:n_rows].reset_index(drop=True)
    kept = {m: {*samples[f"{m}_key"].dropna()} for m in whole.modalities}
    sequences = [(m, key, letters) for m in whole.modalities for key, letters in whole.sequences(m) if key in kept[m]]
    info = {"encoders": whole.info["encoders"], "labels": whole.labels}
    write_dataset(path, info=info, samples=samples, targets=None, sequences=sequences)
    return path


def test_what_is_there_costs_nothing_and_each_store_lacks_its_own(dataset: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run_job(job(part_of(dataset, tmp_path / "part", 70), cache))
    run_job(job(part_of(dataset, tmp_path / "less", 30), cache, poolings=("mean",)))
    both = job(dataset, cache, poolings=("none", "mean"))
    before, size = told(both), bytes_of(cache)
    assert (before.sequences, before.present) == (180, 30)
    assert [one.present for one in before.stores] == [70, 30]
    report = run_job(both)
    assert (report.computed, report.tokens) == (150, before.tokens)
    assert before.size_bytes == pytest.approx(bytes_of(cache) - size, rel=WITHIN)


def test_repeated_sequences_count_once(dataset: Path, tmp_path: Path) -> None:
    found = told(job(dataset, tmp_path, modality="dna"))
    assert (found.sequences, found.repeated) == (60, 120)  # isoforms of a gene share its DNA
    report = run_job(job(dataset, tmp_path, modality="dna"))
    assert (found.tokens, found.repeated) == (report.tokens, report.repeated)


def test_sequences_that_were_given_up_need_no_pass(dataset: Path, tmp_path: Path) -> None:
    of = job(dataset, tmp_path / "cache")
    run_job(job(part_of(dataset, tmp_path / "part", 70), tmp_path / "cache"))
    key = read_dataset(dataset).keys("rna")[100]
    assert key is not None
    quarantine(open_files(told(of).stores[0].path), key, Poisoned("t", "too large"))
    found, again = told(of), told(replace(of, retry=True))
    assert (found.present, found.stores[0].present) == (71, 70)
    assert (again.present, again.stores[0].present) == (70, 70)
    assert run_job(of).tokens == found.tokens < again.tokens


def test_a_store_of_published_weights_is_found_without_them(dataset: Path, tmp_path: Path) -> None:
    drawn = encoder_spec("esm2-8m", "protein", random_init=0)
    records = list(itertools.islice(dataset_records(read_dataset(dataset), "protein"), 20))
    of = job(dataset, tmp_path, modality="protein", encoder="esm2-8m")
    assert told(of).present == 0

    def fill(weights: str, **changes: Any) -> None:
        fields = {"name": "esm2-8m", "model_id": "facebook/esm2_t6_8M_UR50D", "weights": weights, **changes}
        encoder = FakeEncoder()
        encoder.spec = replace(drawn, **fields)
        build_cache(records, encoder, store_path(tmp_path, encoder.spec))

    fill("blake2b:1", layer=3)
    fill("blake2b:1", store_dtype="float32")
    assert told(of).present == 0
    fill("blake2b:1", revision="abc")
    assert told(of).present == 20
    assert told(replace(of, options={"random_init": 0})).present == 0
    fill("blake2b:2")
    with pytest.raises(CacheError, match=r"2 stores of these settings.*--weights") as caught:
        told(of)
    assert "\n" not in str(caught.value)


def test_the_disk_is_looked_at(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> Any:
        asked.append(path)
        return type("Usage", (), {"free": 1_000_000})

    monkeypatch.setattr(estimate.shutil, "disk_usage", usage)
    found = told(job(dataset, tmp_path / "not" / "yet"))
    assert asked == [tmp_path] and found.free_bytes == 1_000_000 < found.size_bytes
    assert "BUT ONLY 1.0 MB ARE FREE" in str(found)
    fits = told(job(dataset, tmp_path / "not" / "yet", poolings=("mean",)))
    assert "; 1.0 MB are free" in str(fits) and "in 1 shard;" in str(fits)


def test_a_cache_in_an_object_store_has_no_end(dataset: Path) -> None:
    pytest.importorskip("obstore", reason="the extra s3 is not installed")
    pytest.importorskip("moto", reason="moto, the local S3 server, is not installed")
    from fake_s3 import s3_server

    with s3_server("estimates") as bucket:
        of = job(dataset, f"{bucket}/cache", poolings=("mean",))
        before = told(of)
        assert before.free_bytes is None and before.present == 0
        run_job(of)
        assert told(of).present == 180


def test_the_json_form_keeps_its_names(dataset: Path, tmp_path: Path) -> None:
    found = json.loads(json.dumps(told(job(dataset, tmp_path)).to_json()))
    assert list(found) == [
        "encoder", "modality", "sequences", "repeated", "present", "cropped", "tokens", "computed_tokens",
        "longest_tokens", "size_bytes", "shards", "free_bytes", "seconds", "device", "trial_tokens", "stores",
    ]  # fmt: skip
    names = ["layer", "pooling", "store_dtype", "path", "present", "rows", "size_bytes", "shards"]
    assert list(found["stores"][0]) == names
    assert found["seconds"] is None


def test_what_a_build_refuses_an_estimate_refuses(dataset: Path, tmp_path: Path) -> None:
    of = job(dataset, tmp_path / "cache", options={"max_tokens": 60, "crop": "error"})
    for refuse in (told, run_job):
        with pytest.raises(InvalidSequenceError, match=r"takes 60\. Choose a crop"):
            refuse(of)


def test_counting_needs_no_torch(dataset: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from embedcache.job import BuildJob; from embedcache.estimate import *;"
        f"job = BuildJob(dataset=Path({str(dataset)!r}), cache={str(tmp_path)!r}, modality='rna', encoder='nt-v2-50m');"
        "print(estimate_job(job, trial_seconds=0).sequences, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "180 False\n"


# --- time ---


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.integers(1, 60), st.data())
def test_windows_are_counted_as_they_are_planned(n_tokens: int, size: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, size - 1))
    spec = encoder_spec("tiny-random-rna", "rna", crop="windows", max_tokens=size, overlap=overlap)
    passes, tokens = count_windows(np.array([n_tokens]), spec)
    planned = plan_windows(n_tokens, size, overlap)
    assert {window.stop - window.start for window in planned} == {int(tokens[0])}
    assert len(planned) == passes[0]


class Clock:
    """Time that passes when a network computes: a fixed cost a call, a linear and a quadratic one a sequence."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(estimate_time.time, "perf_counter", lambda: self.now)

    def passes(self, lengths: Sequence[int]) -> None:
        self.now += 2e-3 + sum(1e-4 * n + 2e-6 * n * n for n in lengths)


class TimedEncoder(FakeEncoder):
    clock: Clock

    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        self.clock.passes([len(sequence) for sequence in sequences])
        return super().encode(sequences)

    def encode_layers(self, sequences: Sequence[str], layers: Sequence[int]) -> dict[int, list[NDArray[np.float32]]]:
        return dict.fromkeys(layers, self.encode(sequences))


@pytest.mark.parametrize("crop", [{}, {"crop": "windows", "max_tokens": 100, "overlap": 60}], ids=["whole", "windows"])
def test_the_time_is_that_of_the_build_from_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crop: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    lengths = np.minimum(np.exp(rng.normal(4.5, 0.9, 600)).astype(int) + 1, 1500).tolist()
    records = [
        SequenceRecord(str(i), "".join(rng.choice(list("ACDEFGHIK"), n)), "protein") for i, n in enumerate(lengths)
    ]
    network = TimedEncoder(**crop)
    network.clock = clock = Clock(monkeypatch)
    encoder = WindowedEncoder(network) if crop else network
    if crop:
        encoder.tokens_per_call = 1000  # type: ignore[union-attr]
    with make_plan(records, encoder.spec) as plan:
        clock.now = 0
        seconds, tokens = time_batches(plan, encoder, [-1], 1000, trial_seconds=0.5)  # type: ignore[arg-type]
        spent = clock.now
        everything = int(np.prod(count_windows(plan.n_tokens, encoder.spec), axis=0).sum())
    clock.now = 0
    build_cache(records, encoder, tmp_path / "s", tokens_per_batch=1000)
    assert seconds == pytest.approx(clock.now, rel=0.1)
    assert spent < 0.35 * clock.now and tokens < 0.35 * everything


def test_a_trial_tells_seconds_and_nothing_to_do_takes_none(dataset: Path, tmp_path: Path) -> None:
    of = job(dataset, tmp_path / "cache", layers=(1, -1), options={"crop": "windows", "max_tokens": 50})
    found = estimate_job(of, trial_seconds=0.05)
    assert found.seconds is not None and 0 < found.seconds < 60 and found.device == "cpu"
    assert 0 < found.trial_tokens <= found.computed_tokens and found.computed_tokens > found.tokens
    assert "with what windows share" in str(found) and "for layer 1, pooling none, float16" in str(found)
    run_job(of)
    assert estimate_job(of, trial_seconds=0.05).seconds == 0
