"""Every option of a command reaches the function that it calls, under the right name and with the right value."""

import inspect
import json
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from embedcache.commands import app
from embedcache.errors import InvalidSettingError
from embedcache.exchange.claim import Claim
from embedcache.prepare.options import read_encoders, read_genetic_codes, read_shares
from embedcache.prepare.simulate import SHARES
from embedcache.splits import SplitRule


class Report:
    """What a function gives back: printed, or as JSON; may end the command with an error."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("raise_if"):
            raise AttributeError(name)
        return lambda: self.asked.append(name)

    def to_json(self) -> dict[str, int]:
        return {"said": 1}

    def __str__(self) -> str:
        return "said in words"


class Called:
    """Stands in for a function and keeps its arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: str, found: Any) -> None:
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
        self.found = found
        monkeypatch.setattr(place, self)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        self.arguments = positional, named
        return self.found


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, words, env={"EMBEDCACHE_CACHE": "", "EMBEDCACHE_DATASET": ""})
    assert done.exit_code == code, done.output
    return done.output


DATASET = SimpleNamespace(summary=lambda: "what it holds")
SPLIT = SplitRule(validation_fraction=0.2, test_fraction=0.3, seed=4)
PREPARE: dict[str, tuple[str, dict[str, Any]]] = {
    "genome": (
        "--genome g --gtf t --output o --expression e --samples s --tissue-column c --tissue a --tissue b "
        "--already-log --target-unit u --id-column i --drop-column x --drop-column y --strip-versions "
        "--dna-length 8 --genetic-code chrM=5 --only-measured --missing-contigs leave-out --validation-fraction 0.2 "
        "--test-fraction 0.3 --split-seed 4 --encoder rna=r --encoder dna=d",
        {
            "genome": Path("g"), "gtf": Path("t"), "output": Path("o"), "expression": Path("e"), "samples": Path("s"),
            "tissue_column": "c", "tissues": ["a", "b"], "already_log": True, "target_unit": "u", "id_column": "i",
            "drop_columns": ["x", "y"], "strip_versions": True, "dna_length": 8, "genetic_codes": {"chrM": 5},
            "only_measured": True, "missing_contigs": "leave-out", "splits": SPLIT,
            "encoders": {"dna": "d", "rna": "r"},
        },
    ),
    "isoformer": (
        "--table t --genome g --output o --values tpm --tissue a --dna-length 8 --genetic-code chrM=5 "
        "--encoder protein=p",
        {
            "table": Path("t"), "genome": Path("g"), "output": Path("o"), "values": "tpm", "tissues": ["a"],
            "dna_length": 8, "genetic_codes": {"chrM": 5}, "encoders": {"protein": "p"},
        },
    ),
    "fasta": (
        "--dna d --rna r --protein p --targets t --genes g --output o --id-column i --gene-column c --drop-column x "
        "--already-log --target-unit u --strip-versions --only-measured --validation-fraction 0.2 --test-fraction 0.3 "
        "--split-seed 4 --encoder rna=e",
        {
            "dna": Path("d"), "rna": Path("r"), "protein": Path("p"), "targets": Path("t"), "genes": Path("g"),
            "output": Path("o"), "id_column": "i", "gene_column": "c", "drop_columns": ["x"], "already_log": True,
            "target_unit": "u", "strip_versions": True, "only_measured": True, "splits": SPLIT,
            "encoders": {"rna": "e"},
        },
    ),
    "simulate": (
        "--output o --n-genes 20 --isoforms-per-gene 2 --noncoding-share 0.5 --n-tissues 3 --dna-length 8 --seed 7 "
        "--share dna=0.1 --share rna=0.2 --validation-fraction 0.2 --test-fraction 0.3 --split-seed 4 --encoder rna=r",
        {
            "output": Path("o"), "n_genes": 20, "isoforms_per_gene": 2, "noncoding_share": 0.5, "n_tissues": 3,
            "dna_length": 8, "seed": 7, "splits": SPLIT, "encoders": {"rna": "r"},
            "shares": {**SHARES, "dna": 0.1, "rna": 0.2},
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PREPARE)
def test_options_of_prepare_are_arguments(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    words, expected = PREPARE[name]
    called = Called(monkeypatch, f"embedcache.prepare.{name}.prepare_{name}", DATASET)
    assert run("prepare", name, *words.split()) == "what it holds\n"
    positional, found = called.arguments
    assert (positional, found) == ((), expected)


@pytest.mark.parametrize(
    ("command", "words", "rule"),
    [
        (
            "genome --genome g --gtf t",
            ["--validation-chromosomes", " 2,", "--test-chromosomes", "3, X"],
            SplitRule(kind="chromosomes", validation_chromosomes=("2",), test_chromosomes=("3", "X")),
        ),
        (
            "genome --genome g --gtf t",
            ["--test-chromosomes", "X"],
            SplitRule(kind="chromosomes", test_chromosomes=("X",)),
        ),
        ("genome --genome g --gtf t", ["--validation-chromosomes", " , "], SplitRule()),
        ("fasta --rna r", ["--split-column", "fold"], SplitRule(kind="column", column="fold")),
        ("fasta --rna r", [], SplitRule()),
        ("simulate", [], SplitRule(validation_fraction=0.15, test_fraction=0.15)),
    ],
    ids=["both", "test", "none-named", "column", "shares", "simulated"],
)
def test_options_say_how_genes_are_split(
    monkeypatch: pytest.MonkeyPatch, command: str, words: list[str], rule: SplitRule
) -> None:
    name = command.split(maxsplit=1)[0]
    called = Called(monkeypatch, f"embedcache.prepare.{name}.prepare_{name}", DATASET)
    run("prepare", *command.split(), *words)
    assert called.arguments[1]["splits"] == rule


def test_shares_that_are_not_given_stay_and_numbers_are_numbers() -> None:
    assert read_shares(None) is None and read_genetic_codes(None) == {} and read_encoders([]) == {}
    assert read_shares(["rna=0.5"]) == {**SHARES, "rna": 0.5}
    assert read_genetic_codes(["Mito=3", "M=2"]) == {"Mito": 3, "M": 2}
    with pytest.raises(
        InvalidSettingError, match=r"--share takes a number after the sign \(.*'x'\)\. Write --share rna="
    ):
        read_shares(["rna=x"])
    for wrong in ("two", "-1", "1.5"):
        with pytest.raises(
            InvalidSettingError, match=f"--genetic-code takes the number of an NCBI table, not '{wrong}'"
        ):
            read_genetic_codes([f"M={wrong}"])


JOB_WORDS = (
    "--modality rna --encoder e --dataset d --cache c --weights w --revision v --trust-remote-code --download "
    "--random-init 3 --dtype bfloat16 --store-dtype int8 --crop windows --overlap 5 --max-tokens 9 --layer 2 "
    "--layer -1 --pooling mean --pooling none --keep-special --device cpu --tokens-per-batch 77"
)
JOB = {
    "dataset": Path("d"), "cache": "c", "modality": "rna", "encoder": "e", "layers": (2, -1),
    "poolings": ("mean", "none"), "device": "cpu", "tokens_per_batch": 77,
}  # fmt: skip
CHOICES = {
    "weights": Path("w"), "revision": "v", "trust_remote_code": True, "download": True, "random_init": 3,
    "dtype": "bfloat16", "store_dtype": "int8", "crop": "windows", "overlap": 5, "max_tokens": 9, "keep_special": True,
}  # fmt: skip


def check_job(job: Any, *, workers: int, retry: bool) -> None:
    assert {name: getattr(job, name) for name in JOB} == JOB
    assert job.options == CHOICES and (job.workers, job.retry) == (workers, retry)


def test_options_of_a_build_make_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report()
    called = Called(monkeypatch, "embedcache.engines.run.run_build", report)
    words = [*JOB_WORDS.split(), "--engine", "slurm", "--workers", "5", "--engine-option", "time=9", "--retry"]
    assert run("build", *words) == "said in words\n" and report.asked == ["raise_if_skipped"]
    (job,), named = called.arguments
    check_job(job, workers=5, retry=True)
    assert named == {"engine": "slurm", "workers": 5, "options": {"time": "9"}}
    run("worker", *JOB_WORDS.split(), "--workers", "3")
    (job,), named = called.arguments
    check_job(job, workers=3, retry=False)
    assert named == {"engine": "local", "workers": 1, "supervised": True}
    assert report.asked == ["raise_if_skipped"] * 2


def test_options_of_an_estimate_make_the_job_of_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called(monkeypatch, "embedcache.estimate.estimate_job", Report())
    assert json.loads(run("estimate", *JOB_WORDS.split(), "--retry", "--trial-seconds", "0", "--json")) == {"said": 1}
    (job,), named = called.arguments
    check_job(job, workers=1, retry=True)
    assert named == {"trial_seconds": 0.0}


def test_a_run_names_its_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    called = Called(monkeypatch, "embedcache.engines.run.run_build", Report())
    run("build", "--modality", "rna", "--from-run", "runs/a")
    assert called.arguments[0][0].encoder == "run:runs/a"
    run("build", "--modality", "rna", "--from-run", "runs/a", "--encoder", "e", code=1)


CARE: dict[str, tuple[str, str, Any, str]] = {
    "verify": ("care.verify_cache", "--cache c --dataset d --repair",
               (("c",), {"dataset": Path("d"), "repair": True}), "raise_if_damaged"),
    "gc": ("care.collect_cache", "--cache c --older-than-hours 3 --dry-run", (("c", 3.0), {"dry_run": True}), ""),
    "convert": ("convert.convert_store", "--modality rna --store-dtype int8 --encoder e --cache c --output o",
                (("c", "rna", "int8"), {"encoder": "e", "output": "o"}), "raise_if_damaged"),
    "merge": ("merge.merge_caches", "a b --cache c --dataset d",
              ((["a", "b"], "c"), {"dataset": Path("d")}), "raise_if_incomplete"),
    "info": ("info.describe_cache", "--cache c --dataset d", (("c",), {"dataset": Path("d")}), ""),
    "export": ("exchange.export.export_embeddings",
               "--format h5ad --modality rna,dna --output o --encoder rna=e --dataset d --cache c --pooled "
               "--names id --dtype float16",
               ((), {"format": "h5ad", "modalities": ["rna", "dna"], "output": Path("o"), "dataset": Path("d"),
                     "cache": "c", "encoders": {"rna": "e"}, "pooled": True, "names": "id", "dtype": "float16"}), ""),
    "import": ("exchange.importing.import_embeddings",
               "--format parquet --modality rna --encoder e --input i --dataset d --fasta f --cache c --pooled "
               "--source s --layer 2 --dtype float16 --crop center --max-tokens 9 --tokens letter "
               "--store-dtype bfloat16",
               ((), {"format": "parquet", "modality": "rna", "input": Path("i"), "dataset": Path("d"),
                     "fasta": Path("f"), "cache": "c", "pooled": True,
                     "claim": Claim(encoder="e", tokens="letter", source="s", layer=2, dtype="float16", crop="center",
                                    max_tokens=9, store_dtype="bfloat16")}), ""),
}  # fmt: skip


@pytest.mark.parametrize("name", CARE)
def test_options_that_care_for_a_cache_are_arguments(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    place, words, expected, ending = CARE[name]
    report = Report()
    is_list = name in ("gc", "info")
    called = Called(monkeypatch, f"embedcache.{place}", [report] if is_list else report)
    assert json.loads(run(name, *words.split(), "--json")) == ([{"said": 1}] if is_list else {"said": 1})
    assert called.arguments == expected
    assert report.asked == ([ending] if ending else [])
    if name != "info":
        assert run(name, *words.split()) == "said in words\n"


@pytest.mark.parametrize("words", [["--yes"], []], ids=["yes", "no-terminal"])
def test_a_store_is_removed_on_the_word_of_the_user_alone(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    found = Called(monkeypatch, "embedcache.store.find.find_store", "place")
    Called(monkeypatch, "embedcache.remove.describe_removal", "what goes")
    removed = Called(monkeypatch, "embedcache.remove.remove_store", Report())
    said = CliRunner().invoke(app, ["remove", "--modality", "rna", "--encoder", "e", "--cache", "c", *words])
    assert found.arguments == (("c", "rna", "e"), {})
    assert removed.arguments == ((("place",), {}) if words else ((), {}))
    assert (said.exit_code == 0) == bool(words)


@pytest.mark.parametrize(
    "words",
    [
        "prepare simulate --n-genes 9",
        "prepare simulate --isoforms-per-gene 5",
        "prepare simulate --noncoding-share 1.1",
        "prepare simulate --validation-fraction -0.1",
        "prepare simulate --test-fraction 1.1",
        "prepare fasta --rna r --validation-fraction 1.1",
        "prepare fasta --rna r --test-fraction -0.1",
        "prepare genome --genome g --gtf t --dna-length 0",
        "build --modality rna --workers 0",
        "build --modality rna --overlap -1",
        "build --modality rna --max-tokens -1",
        "build --modality rna --tokens-per-batch 0",
        "build --modality rna --engine cloud",
        "build --modality RNA",
        "worker --modality rna --workers 0",
        "estimate --modality rna --trial-seconds -1",
        "gc --older-than-hours -1",
        "convert --modality rna --store-dtype float8",
    ],
)
def test_values_out_of_range_are_wrong_usage(words: str) -> None:
    assert "Invalid value for" in run(*words.split(), code=2)


@pytest.mark.parametrize("words", ["genome --genome g --gtf t", "isoformer --table t", "fasta --rna r", "simulate"])
def test_without_options_a_command_asks_for_the_defaults(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    name = words.split(maxsplit=1)[0]
    place = f"embedcache.prepare.{name}"
    defaults = inspect.signature(getattr(import_module(place), f"prepare_{name}")).parameters
    called = Called(monkeypatch, f"{place}.prepare_{name}", DATASET)
    run("prepare", *words.split())
    for option, value in called.arguments[1].items():
        default = defaults[option].default
        if default is not inspect.Parameter.empty and option != "splits" and f"--{option}" not in words:
            assert value == default or (not value and not default), option
