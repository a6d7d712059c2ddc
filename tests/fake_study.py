"""A small dataset with stores, made in a second: genes with isoforms, some without a protein, some cells unmeasured."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from fakes import FakeEncoder

from embedcache.build import build_cache
from embedcache.dataset import Dataset
from embedcache.dataset_write import write_dataset
from embedcache.encoders.windows import WindowedEncoder
from embedcache.sequences import MODALITIES, Modality, SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore, list_stores, store_path
from heads.splits import split_by_gene

WIDTHS: dict[Modality, int] = {"dna": 8, "rna": 16, "protein": 12}


@dataclass(frozen=True)
class FakeStudy:
    dataset: Path
    cache: Path


def make_samples(n_genes: int, seed: int, modalities: tuple[Modality, ...]) -> tuple[pd.DataFrame, list]:
    rng = np.random.default_rng(seed)
    rows, sequences = [], []
    for gene in range(n_genes):
        dna = "".join(rng.choice(list("ACGT"), 40))
        for isoform in range(int(rng.integers(1, 4))):
            row = {"transcript_id": f"T{gene}.{isoform}", "gene_id": f"G{gene}", "biotype": "protein_coding"}
            letters: dict[Modality, str | None] = {
                "dna": dna,
                "rna": "".join(rng.choice(list("ACGT"), rng.integers(9, 60))),
                "protein": "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), rng.integers(2, 20))),
            }
            if rng.random() < 0.3:
                letters["protein"] = None
            for modality in modalities:
                if (sequence := letters[modality]) is not None:
                    row[f"{modality}_key"] = sequence_key(sequence, modality)
                    sequences.append((modality, row[f"{modality}_key"], sequence))
            if letters["protein"] is not None:
                row |= {"cds_start": 2, "cds_end": 5}
            rows.append(row)
    samples = pd.DataFrame(rows)
    for modality in modalities:
        samples[f"{modality}_key"] = samples[f"{modality}_key"].where(samples[f"{modality}_key"].notna(), None)
    return samples, sequences


def make_dataset(
    path: Path,
    *,
    n_genes: int = 40,
    seed: int = 0,
    modalities: tuple[Modality, ...] = MODALITIES,
    targets: bool = True,
) -> Dataset:
    samples, sequences = make_samples(n_genes, seed, modalities)
    samples["split"] = split_by_gene(samples["gene_id"].tolist(), validation_fraction=0.2, test_fraction=0.2)
    table = None
    if targets:
        rng = np.random.default_rng(seed + 1)
        table = pd.DataFrame(rng.standard_normal((len(samples), 3)) + 2, columns=["Brain", "Liver", "Testis"])
        table = table.mask(rng.random(table.shape) < 0.2)
    info = {"labels": ["simulated"], "target_unit": "log1p_tpm", "encoders": {m: f"tiny-{m}" for m in modalities}}
    return write_dataset(path, info=info, samples=samples, targets=table, sequences=sequences)


def fill_cache(cache: Path | str, dataset: Dataset, **changes: object) -> Path | str:
    """A store of each modality with the settings given."""
    for modality in dataset.modalities:
        fake = FakeEncoder(name=f"tiny-{modality}", modality=modality, width=WIDTHS[modality], **changes)
        encoder = WindowedEncoder(fake) if fake.spec.crop == "windows" else fake
        build_cache(records_of(dataset, modality), encoder, store_path(cache, fake.spec))
    return cache


def records_of(dataset: Dataset, modality: Modality) -> list[SequenceRecord]:
    return [SequenceRecord(key.hex(), sequence, modality) for key, sequence in dataset.sequences(modality)]


def store_name(cache: Path | str, modality: Modality, **fields: str) -> str:
    """The only store whose spec has these fields."""
    specs = {place.name: EmbeddingStore(place).spec for place in list_stores(cache, modality)}
    (name,) = [name for name, spec in specs.items() if all(getattr(spec, k) == v for k, v in fields.items())]
    return name


def make_study(path: Path, **options: object) -> FakeStudy:
    dataset = make_dataset(path / "dataset", **options)  # type: ignore[arg-type]
    fill_cache(path / "cache", dataset)
    return FakeStudy(path / "dataset", path / "cache")


def files_of(output: Path) -> dict[str, bytes]:
    """Every byte that a sweep leaves, but for locks and the logs of unfinished work."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and ".cohorts" not in path.parts
    }
