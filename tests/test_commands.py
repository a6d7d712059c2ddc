import ast
import json
import os
import re
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "numpy", "pandas", "transformers", "zarr"}


def run(command: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = f"import cli; cli.{command}()"
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
    )


def seconds_of_help(command: str, cwd: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert run(command, "--help", cwd=cwd).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


@pytest.mark.parametrize("command", ["embedcache", "heads"])
def test_help_is_quick_and_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    assert min(seconds_of_help(command, tmp_path) for _ in range(3)) < 0.6  # the smallest: others share the machine
    code = f"import cli, sys, {command}.commands as _; print({HEAVY} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True).stdout == "set()\n"


def test_info_needs_no_torch(tmp_path: Path) -> None:
    code = "import sys, embedcache.info; print({'torch', 'pandas', 'zarr'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True).stdout == "set()\n"


def test_the_main_job_through_the_commands(tmp_path: Path) -> None:
    def step(command: str, *arguments: object, code: int = 0) -> str:
        done = run(command, *arguments, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    step("embedcache", "prepare", "simulate", "--n-genes", 40, "--dna-length", 384)
    estimate = json.loads(step("embedcache", "estimate", "--modality", "rna", "--trial-seconds", 0, "--json"))
    for modality in ("dna", "rna", "protein"):
        assert "distinct sequences embedded" in step("embedcache", "build", "--modality", modality)
    assert re.match(r"0 of \d+ distinct", step("embedcache", "build", "--modality", "rna"))
    stores = json.loads(step("embedcache", "info", "--json"))
    rna = next(store for store in stores if store["modality"] == "rna")
    assert not rna["is_random"] and rna["tokens"] == estimate["tokens"] and rna["sequences"] == estimate["sequences"]
    table = step("embedcache", "info")
    assert table.count("pretrained, small") == 3 and "mini-dna" in table
    train = ("train", "--modalities", "dna,rna,protein", "--heads", 2, "--width", 16, "--epochs", 2, "--run", "runs/a")
    assert "small encoder: rna mini-rna" in step("heads", *train)
    scores = step("heads", "evaluate", "--run", "runs/a", "--resamples", 100)
    assert all(name in scores for name in ("tissue mean", "log lengths", "k-mers", "pooled embeddings", "simulated"))
    again = step("heads", "evaluate", "--run", "runs/a", "--resamples", 100)
    assert "scored by an earlier call" in again and set(scores.splitlines()) <= set(again.splitlines())
    step("heads", "predict", "--run", "runs/a", "--output", "p.parquet")
    assert (tmp_path / "p.parquet").stat().st_size > 0


@pytest.mark.parametrize(
    ("command", "arguments", "code", "message"),
    [
        pytest.param("embedcache", "build --modality rna", 1, "dataset", id="no dataset"),
        pytest.param("embedcache", "build --modality dnaa", 2, "dnaa", id="unknown modality"),
        pytest.param("embedcache", "build --modality rna --engine spark", 2, "spark", id="unknown engine"),
        pytest.param("embedcache", "prepare fasta --rna none.fa", 1, "none.fa does not exist", id="no file"),
        pytest.param("embedcache", "info", 1, "cache does not exist", id="no cache"),
        pytest.param("embedcache", "prepare fasta", 2, "Give --dna", id="nothing to prepare"),
        pytest.param("embedcache", "prepare simulate --encoder rma=x", 1, "Did you mean 'rna'", id="unknown side"),
        pytest.param("embedcache", "prepare simulate --encoder rna", 2, "NAME=VALUE", id="no pair"),
        pytest.param("embedcache", "prepare simulate --output s3://b/x", 2, "only a cache", id="an address"),
        pytest.param(
            "embedcache",
            "export --format parquet --output x --modality rna --modality protein",
            2,
            "parquet holds one modality a file",
            id="modality twice",
        ),
        pytest.param(
            "embedcache",
            "export --format h5ad --output x --modality rna,protein --encoder nt",
            2,
            "Write --encoder rna=VALUE",
            id="whose encoder",
        ),
        pytest.param("embedcache", "prepare simulate --share rna=much", 2, "number", id="no number"),
        pytest.param(
            "embedcache", "prepare genome --genome g --gtf t --genetic-code Mito=x", 2, "Mito=3", id="no table"
        ),
        pytest.param(
            "embedcache", "prepare genome --genome g --gtf t --genetic-code Mito=²", 2, "Mito=3", id="no digit"
        ),
        pytest.param("embedcache", "prepare simulate --share rna=0.8", 2, "0.9 in sum", id="shares"),
        pytest.param("heads", "train --modalities rna,dan", 1, "Did you mean 'dna'", id="unknown modalities"),
        pytest.param("heads", "train --learning-rate 0", 2, "learning_rate", id="out of range"),
        pytest.param("heads", "evaluate --run none", 1, "none", id="no run"),
        pytest.param("heads", "train", 1, "dataset", id="no dataset to train on"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    command: str, arguments: str, code: int, message: str, tmp_path: Path
) -> None:
    done = run(command, *arguments.split(), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    if code == 1:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


PUBLIC = {
    "embedcache": "EmbeddingStore Encoder EncoderSpec Modality SequenceRecord build_cache encoder_spec load_encoder "
    "read_fasta register_encoder",
    "heads.config": "ModelConfig TrainConfig",
    "heads.data": "CachedDataset collate",
    "heads.splits": "split_by_gene",
    "heads.attention": "CrossAttention",
    "heads.model": "ExpressionModel",
    "heads.train": "train",
    "heads.evaluate": "evaluate",
}


@pytest.mark.parametrize("module", PUBLIC)
def test_promised_names_are_there(module: str) -> None:
    found, names = import_module(module), PUBLIC[module].split()
    assert set(names) <= set(found.__all__) and all(
        getattr(found, name).__doc__ or name == "Modality" for name in names
    )
    if module == "embedcache":
        assert sorted(found.__all__) == sorted(names)


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    froms = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return froms | {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}


SOURCES = [path for package in ("embedcache", "heads") for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down_only(path: Path) -> None:
    forbidden = {"cli", "heads"} if path.is_relative_to(ROOT / "embedcache") else {"cli"}
    assert not {name.partition(".")[0] for name in imports_of(path)} & forbidden
    families = {"esm", "nt", "enformer", "borzoi"}
    if path.parent.name == "encoders" and path.stem in families:
        assert not {name.rpartition(".")[2] for name in imports_of(path) if "encoders." in name} & families
