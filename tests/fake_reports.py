"""Run and sweep directories as training, scoring and sweeps leave them, without any training."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.stats import spearmanr
from sklearn.metrics import r2_score

from embedcache.dataset import Dataset
from embedcache.dataset_write import write_dataset
from embedcache.sequences import sequence_key

LABELS = ["simulated", "small encoder: rna mini-rna"]


def interval(estimate: float | None, half: float = 0.03) -> dict[str, float | None]:
    if estimate is None:
        return dict.fromkeys(("estimate", "low", "high"))
    return {"estimate": estimate, "low": estimate - half, "high": estimate + half}


def make_dataset(path: Path, *, n_rows: int = 120, tissues: int = 4) -> Dataset:
    """Transcripts of three a gene, every tenth cell unmeasured; the last quarter is the test split."""
    rng = np.random.default_rng(0)
    names = [f"Tissue {k}" for k in range(tissues)]
    sequences = [("rna", sequence_key(text, "rna"), text) for text in ("ACGT", "AAAA", "CCGG")]
    rows = [
        {"transcript_id": f"T{i}", "gene_id": f"G{i // 3}", "split": "test" if i >= n_rows * 3 // 4 else "train",
         "rna_key": sequences[i % 3][1]}
        for i in range(n_rows)
    ]  # fmt: skip
    gene = np.repeat(rng.standard_normal((-(-n_rows // 3), tissues)), 3, axis=0)[:n_rows]
    targets = pd.DataFrame(2 + gene + 0.5 * rng.standard_normal((n_rows, tissues)), columns=names)
    targets = targets.mask(rng.random(targets.shape) < 0.1)
    return write_dataset(
        path, info={"labels": ["simulated"], "target_unit": "log1p_tpm"}, samples=pd.DataFrame(rows), targets=targets,
        sequences=sequences,
    )  # fmt: skip


def make_run(path: Path, dataset: Dataset, *, seed: int = 0, epochs: int = 6, noise: float = 0.8) -> Path:
    """A finished run with predictions of the test rows; not scored."""
    path.mkdir(parents=True)
    targets, rng = dataset.targets, np.random.default_rng(seed)
    assert targets is not None
    train = dataset.samples["split"] == "train"
    mean, sd = targets[train].mean(), targets[train].std(ddof=0)
    scaler = {"tissues": dataset.tissues, "mean": mean.tolist(), "sd": sd.tolist(), "constant": []}
    config = {
        "format": "isoheads-run", "version": 1, "labels": LABELS, "model": {"modalities": ["rna"], "heads": 2},
        "training": {"seed": seed, "learning_rate": 0.001}, "cache": "cache", "tissues": dataset.tissues,
        "encoders": {"rna": {"name": "mini-rna", "directory": "mini-rna-0123456789ab", "width": 160}},
        "dataset": {"path": str(dataset.path), "digest": dataset.digest, "target_unit": "log1p_tpm",
                    "rows": {"train": int(train.sum()), "validation": 0, "test": int((~train).sum())}},
        "scaler": scaler, "software": {"isoheads": "0.1.0"},
    }  # fmt: skip
    write_json(path / "config.json", config)
    losses = [{"epoch": e, "train_loss": 1 / e, "validation_loss": 0.5 + abs(e - 4) / 10, "r2": 0.5 - abs(e - 4) / 10,
               "spearman": 0.6} for e in range(1, epochs + 1)]  # fmt: skip
    (path / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in losses))
    (path / "model.safetensors").write_bytes(b"")
    z = ((targets - mean) / sd)[~train].fillna(0.0)
    predicted = 0.6 * z + noise * rng.standard_normal(z.shape)
    columns = {name: pa.array(dataset.samples.loc[~train, name].tolist()) for name in ("transcript_id", "gene_id")}
    columns |= {name: pa.array(predicted[name].to_numpy()) for name in dataset.tissues}
    pq.write_table(pa.table(columns), path / "test_predictions.parquet")
    return path


def score_predictions(path: Path, dataset: Dataset) -> dict[str, list[float]]:
    """Scores of each tissue, computed with other libraries than ours."""
    assert dataset.targets is not None
    predicted = pd.read_parquet(path / "test_predictions.parquet")
    train, test = (dataset.samples["split"] == split for split in ("train", "test"))
    z = (dataset.targets - dataset.targets[train].mean()) / dataset.targets[train].std(ddof=0)
    pairs = [(z[name][test].to_numpy(), predicted[name].to_numpy()) for name in dataset.tissues]
    pairs = [(y[~np.isnan(y)], p[~np.isnan(y)]) for y, p in pairs]
    return {"r2": [r2_score(y, p) for y, p in pairs], "spearman": [float(spearmanr(y, p)[0]) for y, p in pairs]}


def score_run(path: Path, dataset: Dataset) -> None:
    """Write ``test.json`` beside it, with two baselines."""
    tissues = json.loads((path / "config.json").read_text())["tissues"]

    own = score_predictions(path, dataset)

    def model(name: str, r2: float | None, lead: float | None) -> dict[str, Any]:
        by_tissue = [r2] * len(tissues) if lead is not None else own["r2"]
        spearman = by_tissue if lead is not None else own["spearman"]
        overall = {"r2": r2, "spearman": r2, "r2_pooled": r2, "spearman_pooled": r2, "mse": 0.5, "n_transcripts": 30,
                   "r2_by_tissue": by_tissue, "spearman_by_tissue": spearman}  # fmt: skip
        within = {"r2": 0.0, "spearman": 0.1, "kendall": 0.1, "n_genes": 10, "n_transcripts": 30}
        return {"name": name, "details": {"alpha": 1.0}, "overall": overall, "coding": None, "noncoding": None,
                "within_gene": within, "r2": interval(r2), "spearman": interval(r2),
                "r2_lead": None if lead is None else interval(lead)}  # fmt: skip

    models = [model("this run", 0.41, None), model("tissue mean", -0.01, 0.42), model("ridge on k-mers", 0.45, -0.04)]
    write_json(path / "test.json", {
        "format": "isoheads-test", "version": 1, "run": "elsewhere", "labels": LABELS, "tissues": tissues,
        "constant": [], "lacking": {"rna": 0, "protein": 7}, "encoders": {}, "n_genes": 10, "n_transcripts": 30,
        "n_coding": 12, "resamples": 200, "models": models,
    })  # fmt: skip


def make_arm(name: str, tissues: int, r2: float | None, *, kind: str = "arm", difference: float | None = None) -> dict:
    """A row of ``table.json``."""
    found: dict[str, Any] = {}
    if difference is not None:
        score = {**interval(difference), "p": 0.012, "p_holm": 0.024, "p_sign_flip": 0.03}
        found = {"r2": score, "spearman": score, "n_seeds": 2}
    by_tissue = [interval(None if r2 is None else r2 + (k % 7) / 50, 0.05) for k in range(tissues)]
    calibration = {
        "slope": 0.9,
        "intercept": 0.02,
        "bins": [{"predicted": x, "measured": 0.9 * x, "n": 9} for x in (-1, 0, 1)],
    }
    return {
        "name": name, "kind": kind, "settings": {"modalities": name.split("+"), "heads": 8},
        "parameters": None if kind == "baseline" else 123456, "n_seeds": 2,
        "validation": None if kind == "baseline" else {"r2": 0.4, "spearman": 0.5, "loss": 0.6}, "r2": interval(r2),
        "spearman": interval(r2), "r2_pooled": r2, "spearman_pooled": r2, "r2_seed_sd": 0.01, "spearman_seed_sd": 0.01,
        "r2_by_tissue": by_tissue, "spearman_by_tissue": by_tissue, "calibration": calibration,
        "within_gene": {"r2": 0.01, "spearman": 0.12, "kendall": 0.1, "n_genes": 10, "n_transcripts": 30},
        "difference": found or None,
    }  # fmt: skip


def make_table(arms: list[dict], tissues: list[str], **changes: Any) -> dict[str, Any]:
    return {
        "format": "isoheads-sweep-table", "version": 1, "name": "table2", "labels": LABELS, "unit": "gene",
        "n_transcripts": 30, "n_groups": 10, "tissues": tissues, "seeds": [0, 1], "folds": None, "resamples": 2000,
        "reference": "rna", "scored": "test rows of the dataset", "arms": arms, **changes,
    }  # fmt: skip


def make_sweep(
    path: Path, dataset: Dataset, names: tuple[str, ...] = ("rna", "dna+rna"), *, table: bool = True
) -> Path:
    """A sweep of two seeds an arm, the first arm the reference, with one baseline."""
    arms = []
    for i, name in enumerate(names):
        runs = []
        for seed in (0, 1):
            make_run(path / "runs" / f"{i}-{seed}", dataset, seed=seed + 10 * i)
            runs.append({"seed": seed, "fold": None, "directory": f"runs/{i}-{seed}"})
        arms.append({"name": name, "settings": {"modalities": name.split("+"), "heads": 8}, "runs": runs})
    write_json(
        path / "sweep.json",
        {"format": "isoheads-sweep", "version": 1, "name": "table2", "labels": LABELS, "arms": arms},
    )
    if table:
        n = len(dataset.tissues)
        rows = [make_arm(name, n, 0.3 + i / 20, difference=0.05 * i if i else None) for i, name in enumerate(names)]
        rows.append(make_arm("ridge on k-mers", n, 0.35, kind="baseline", difference=0.05))
        write_json(path / "table.json", make_table(rows, dataset.tissues, reference=names[0]))
    return path


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=1))


VOID = {"meta", "circle", "rect", "path", "br"}


class Page(HTMLParser):
    """Checks that every element is closed, and keeps what can be asked for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data + " "
