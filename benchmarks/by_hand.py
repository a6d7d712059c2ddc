"""A modality table made by hand over the same table from ``heads sweep``: total seconds, theirs over ours.

Every set of RNA and protein with several seeds: for both, IsoFormer's cross-attention; for one, a linear map of its
mean. Both ways have the same embeddings, rows, targets, sizes of models, batches, learning rate and epochs, on one
thread, and end in R2 of the test rows, mean over tissues, for each arm. Ours also writes runs, intervals and baselines.

By hand is what one writes on an afternoon: an HDF5 file with one dataset a sequence, kept open; a DataLoader that pads
a batch and makes masks, without workers and with one; ``nn.MultiheadAttention`` with ``key_padding_mask``; masked
means; one arm trained after the other in one process.

    python benchmarks/by_hand.py [--transcripts 200] [--epochs 3] [--seeds 2] [--width 128] [--log-sd 0.7]
        [--json]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

ARMS = (("rna",), ("protein",), ("rna", "protein"))
HEADS = 8
BATCH = 64
RATE = 1e-3
NAMES = ("rna", "protein")


class Items(torch.utils.data.Dataset):
    """A transcript an item, from an open HDF5 file with one dataset a sequence."""

    def __init__(self, file: Path, ids: Sequence[str], targets: np.ndarray, modalities: Sequence[str]) -> None:
        self.path, self.ids, self.targets, self.modalities = file, ids, targets, modalities
        self.file: h5py.File | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: int) -> tuple[list[Tensor], Tensor]:
        if self.file is None:  # in a worker, after the fork
            self.file = h5py.File(self.path)
        tokens = [torch.from_numpy(self.file[f"{m}/{self.ids[i]}"][:]).float() for m in self.modalities]
        return tokens, torch.from_numpy(self.targets[i]).float()


def padded(items: Sequence[tuple[list[Tensor], Tensor]]) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Tokens (B, T, D) and masks (B, T), True on padding, of each modality; targets (B, K)."""
    tokens, masks = [], []
    for parts in zip(*(one for one, _ in items), strict=True):
        lengths = torch.tensor([len(part) for part in parts])
        tokens.append(pad_sequence(list(parts), batch_first=True))
        masks.append(torch.arange(int(lengths.max())) >= lengths[:, None])
    return tokens, masks, torch.stack([targets for _, targets in items])


class Block(nn.Module):
    """IsoFormer's: tokens plus what they read of the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:  # noqa: D102
        read, _ = self.attention(x, context, context, key_padding_mask=mask, need_weights=False)
        return x + read


class Model(nn.Module):
    """The same as ours: projection, a block each way, means, and a linear head; one modality alone is its mean."""

    def __init__(self, widths: Sequence[int], width: int, n_tissues: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(one, width) for one in widths)
        self.blocks = nn.ModuleList(Block(width) for _ in widths) if len(widths) > 1 else None
        self.norm = nn.LayerNorm(width * len(widths))  # stands for our fixed scale of means
        self.head = nn.Linear(width * len(widths), n_tissues)

    def forward(self, tokens: list[Tensor], masks: list[Tensor]) -> Tensor:  # noqa: D102
        now = [project(one) for project, one in zip(self.project, tokens, strict=True)]
        if self.blocks is not None:
            a, b = now
            now = [self.blocks[0](a, b, masks[1]), self.blocks[1](b, a, masks[0])]
        means = []
        for one, mask in zip(now, masks, strict=True):
            kept = (~mask)[..., None]
            means.append((one * kept).sum(1) / kept.sum(1))
        output: Tensor = self.head(self.norm(torch.cat(means, dim=-1)))
        return output


def run_by_hand(settings: dict[str, Any]) -> dict[str, float]:
    """R2 of the test rows of every arm and seed."""
    torch.set_num_threads(1)
    loaded = np.load(settings["targets"], allow_pickle=False)
    targets, split, ids = loaded["targets"], loaded["split"], loaded["ids"].tolist()
    rows = {name: np.flatnonzero(split == name) for name in ("train", "validation", "test")}
    mean, sd = targets[rows["train"]].mean(0), targets[rows["train"]].std(0)
    scaled = (targets - mean) / sd
    found = {}
    for arm in ARMS:
        for seed in range(settings["seeds"]):
            torch.manual_seed(seed)
            sets = {
                name: Items(Path(settings["hdf5"]), [ids[i] for i in chosen], scaled[chosen], arm)
                for name, chosen in rows.items()
            }
            found[f"{','.join(arm)}, seed {seed}"] = train(sets, settings, [settings["widths"][m] for m in arm])
    return found


def train(sets: dict[str, Items], settings: dict[str, Any], widths: Sequence[int]) -> float:
    """R2 of the test rows at the epoch with the least validation loss."""
    options: dict[str, Any] = {"batch_size": BATCH, "collate_fn": padded, "num_workers": settings["workers"]}
    options["persistent_workers"] = settings["workers"] > 0
    loaders = {name: DataLoader(items, shuffle=name == "train", **options) for name, items in sets.items()}
    model = Model(widths, settings["width"], sets["train"].targets.shape[1])
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    best, kept = float("inf"), model.state_dict()
    for _ in range(settings["epochs"]):
        model.train()
        for tokens, masks, targets in loaders["train"]:
            loss = (model(tokens, masks) - targets).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        predicted, targets = predict(model, loaders["validation"])
        if (now := float(np.mean((predicted - targets) ** 2))) < best:
            best, kept = now, {name: one.clone() for name, one in model.state_dict().items()}
    model.load_state_dict(kept)
    predicted, targets = predict(model, loaders["test"])
    return float((1 - ((predicted - targets) ** 2).sum(0) / ((targets - targets.mean(0)) ** 2).sum(0)).mean())


@torch.no_grad()
def predict(model: Model, loader: DataLoader) -> tuple[np.ndarray, np.ndarray]:
    model.eval()
    found = [(model(tokens, masks).numpy(), targets.numpy()) for tokens, masks, targets in loader]
    return np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transcripts", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--log-sd", type=float, default=0.7, help="of the lengths; 0: all even, nothing to pad")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print the results once more, as one line of JSON")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_by_hand(json.loads(options.child))))
        return
    from report import report

    with tempfile.TemporaryDirectory() as directory:
        report(compare(Path(directory), options), options.json)


def compare(directory: Path, options: argparse.Namespace) -> list[Any]:
    from random_study import Shape, heads_command, make_study, timed
    from report import Result

    shapes = {"rna": Shape(400, 768), "protein": Shape(300, 640)}
    study = make_study(directory / "study", options.transcripts, shapes, log_sd=options.log_sd)  # type: ignore[arg-type]
    settings = write_by_hand(directory, study)
    settings |= {"epochs": options.epochs, "seeds": options.seeds, "width": options.width}
    settings["widths"] = {m: shape.width for m, shape in shapes.items()}
    grid = directory / "table.toml"
    grid.write_text(
        f"seeds = {options.seeds}\n[base]\nepochs = {options.epochs}\npatience = {options.epochs}\n"
        f"width = {options.width}\nheads = {HEADS}\nbatch_size = {BATCH}\nlearning_rate = {RATE}\n"
        f"[grid]\nmodalities = {json.dumps([list(arm) for arm in ARMS])}\n"
    )
    found: dict[str, list[Any]] = {"ours": [], "0": [], "1": []}
    tables = {}
    for i in range(options.rounds):
        for way in found if i % 2 == 0 else reversed(found):
            if way == "ours":
                output = directory / f"sweep{i}"
                found[way].append(timed(heads_command("sweep", grid, *study.arguments(), "--output", output)))
                tables[way] = ours(output)
            else:
                child = [sys.executable, __file__, "--child", json.dumps({**settings, "workers": int(way)})]
                found[way].append(timed(child))
    tables["by hand"] = json.loads(found["0"][0].output)
    for way, table in tables.items():
        print(f"{way}: " + ", ".join(f"{name}: R2 {r2:.3f}" for name, r2 in table.items()))
    results = []
    for way in ("0", "1"):
        walls = [a.wall / b.wall for a, b in zip(found[way], found["ours"], strict=True)]
        cpus = [a.cpu / b.cpu for a, b in zip(found[way], found["ours"], strict=True)]
        note = f"{min(walls):.3g} to {max(walls):.3g} of {len(walls)}; CPU seconds {statistics.median(cpus):.3g}; "
        note += f"{found[way][0].wall:.0f} s over {found['ours'][0].wall:.0f} s"
        what = f"a modality table by hand over heads sweep, DataLoader with {way} workers"
        results.append(Result(what, statistics.median(walls), 3.0, note=note))
    return results


def write_by_hand(directory: Path, study: Any) -> dict[str, Any]:
    """The same embeddings and targets as files that one would write."""
    from embedcache.dataset import read_dataset
    from embedcache.store import EmbeddingStore, find_store

    dataset = read_dataset(study.dataset)
    ids = dataset.samples["transcript_id"].tolist()
    with h5py.File(directory / "embeddings.h5", "w") as file:
        for modality in dataset.modalities:
            store = EmbeddingStore.open(find_store(study.cache, modality))
            for name, key in zip(ids, dataset.keys(modality), strict=True):
                file[f"{modality}/{name}"] = np.asarray(store[key])
    assert dataset.targets is not None
    values = {"targets": dataset.targets.to_numpy(), "split": dataset.samples["split"].to_numpy(dtype=str)}
    np.savez(directory / "targets.npz", ids=np.array(ids), **values)
    return {"hdf5": str(directory / "embeddings.h5"), "targets": str(directory / "targets.npz")}


def ours(sweep: Path) -> dict[str, float]:
    """R2 of each arm, mean over its seeds."""
    table = json.loads((sweep / "table.json").read_text())
    return {one["name"]: one["r2"]["estimate"] for one in table["arms"]}


if __name__ == "__main__":
    main()
