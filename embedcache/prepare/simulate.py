"""A simulated study with known truth, prepared the way a real one is.

Genes come from ``simulated_genes``. Expression in tissue k is, on the scale of log1p TPM,

    y = intercept_k + scale_k * (sqrt(s_dna) f_dna + sqrt(s_rna) f_rna + sqrt(s_protein) f_protein + sqrt(rest) noise)

with features measured on the sequences themselves and standardised over transcripts: share of G and C in the DNA
window, share of G and C in the RNA, and share of K, E, G minus share of F, P, S in the protein (0 without protein).
The shares s vary a little between tissues. An RNA holds its protein as codons: it can explain both their shares.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.annotation import read_gtf
from embedcache.dataset import Dataset, read_dataset
from embedcache.dataset_write import DatasetWriter, describe_input, made_by_same_command
from embedcache.encoders.cards import MINI_ENCODERS
from embedcache.errors import InvalidSettingError
from embedcache.expression import read_gct
from embedcache.prepare.assemble import AssemblyRules, assemble
from embedcache.prepare.common import finish_dataset, provenance
from embedcache.prepare.simulated_genes import MAX_ISOFORMS, gc_share, residue_score
from embedcache.prepare.simulated_study import SimulatedStudy, draw_study, write_expression, write_genome
from embedcache.sequences import MODALITIES, Modality
from embedcache.splits import SplitRule

__all__ = ["SHARES", "prepare_simulate"]

SHARES: dict[Modality, float] = {"dna": 0.25, "rna": 0.35, "protein": 0.10}
"""Share of variance that each planted feature explains; the rest is noise."""

_SEES: dict[Modality, tuple[Modality, ...]] = {"dna": ("dna",), "rna": ("rna", "protein"), "protein": ("protein",)}
_SAMPLES_A_TISSUE = (0.8, 1.0, 1.2)  # TPM of each sample over their mean


@dataclass(frozen=True, slots=True)
class _Expression:
    log1p_tpm: NDArray[np.float64]  # (transcripts, tissues)
    shares: NDArray[np.float64]  # (tissues, modalities)
    features: NDArray[np.float64]  # (transcripts, modalities)
    n_cut: int


def prepare_simulate(
    *,
    output: Path,
    n_genes: int = 300,
    isoforms_per_gene: int = 3,
    noncoding_share: float = 0.15,
    n_tissues: int = 6,
    dna_length: int = 1_536,
    seed: int = 0,
    shares: Mapping[Modality, float] | None = None,
    splits: SplitRule | None = None,
    encoders: Mapping[Modality, str] | None = None,
) -> Dataset:
    """Simulate a genome, its annotation and expression, and prepare a dataset from these files.

    The files stay in ``study`` within the dataset, and the truth goes into ``dataset.json``.

    Args:
        output: Directory to make.
        n_genes: Number of genes, at least 10.
        isoforms_per_gene: 1 to 4.
        noncoding_share: Share of genes without protein.
        n_tissues: Number of tissues.
        dna_length: Length of the DNA window in bp.
        seed: The same seed and settings give the same dataset.
        shares: Share of variance that each modality adds; ``SHARES`` without it.
        splits: How genes are split; 15 % validation and 15 % test without it.
        encoders: Default encoder of a modality; the small ones of the package without it.
    """
    shares = dict(SHARES if shares is None else shares)
    rules = AssemblyRules(
        dna_length=dna_length, splits=splits or SplitRule(validation_fraction=0.15, test_fraction=0.15)
    )
    _check(n_genes, isoforms_per_gene, noncoding_share, n_tissues, shares)
    options = {
        "n_genes": n_genes,
        "isoforms_per_gene": isoforms_per_gene,
        "noncoding_share": noncoding_share,
        "n_tissues": n_tissues,
        "dna_length": dna_length,
        "seed": seed,
        "shares": shares,
        "splits": rules.splits.options(),
    }
    info = provenance("simulate", (), options, encoders or MINI_ENCODERS, labels=["simulated"])
    if found := made_by_same_command(output, {name: info[name] for name in ("source", "options", "encoders")}):
        return found
    draw = np.random.default_rng(seed)
    n_noncoding = round(noncoding_share * n_genes)
    study = draw_study(
        draw, n_genes=n_genes, n_isoforms=isoforms_per_gene, n_noncoding=n_noncoding, dna_length=dna_length
    )
    expression = _draw_expression(draw, study, n_tissues, shares, dna_length)
    return _write(output, info, study, expression, shares=shares, rules=rules)


def _write(
    output: Path,
    info: dict[str, Any],
    study: SimulatedStudy,
    expression: _Expression,
    *,
    shares: Mapping[Modality, float],
    rules: AssemblyRules,
) -> Dataset:
    """Write the files of the study, and prepare them on the path that real files take."""
    with DatasetWriter(output) as writer:
        folder = writer.scratch / "study"
        tissues = [f"Simulated tissue {number}" for number in range(1, expression.log1p_tpm.shape[1] + 1)]
        write_genome(folder, study)
        write_expression(folder, study, expression.log1p_tpm, tissues, _SAMPLES_A_TISSUE)
        targets = read_gct(folder / "transcript_tpm.gct.gz", folder / "sample_attributes.tsv", "SMTSD")
        annotation = read_gtf(folder / "annotation.gtf")
        made = assemble(writer, annotation, folder / "genome.fa", targets=targets, rules=rules)
        info["truth"] = _truth(expression, shares, tissues)
        info["inputs"] = [{**describe_input(path), "path": f"study/{path.name}"} for path in sorted(folder.iterdir())]
        finish_dataset(writer, info, made, {}, targets.unit)
    return read_dataset(output)


def _check(n_genes: int, isoforms: int, noncoding: float, n_tissues: int, shares: Mapping[Modality, float]) -> None:
    if n_genes < 10 or n_tissues < 1 or not 1 <= isoforms <= MAX_ISOFORMS or not 0 <= noncoding < 1:
        raise InvalidSettingError(
            f"Cannot simulate {n_genes} genes of {isoforms} isoforms, {noncoding} of them non-coding, in {n_tissues} "
            f"tissues. Give at least 10 genes and 1 tissue, 1 to {MAX_ISOFORMS} isoforms and a share from 0 to below 1."
        )
    if set(shares) != set(MODALITIES) or not (min(shares.values()) >= 0 and sum(shares.values()) <= 0.9):
        raise InvalidSettingError(
            f"Shares of variance are {json.dumps(dict(shares))}. Give dna, rna and protein, each from 0 on, 0.9 in sum."
        )


def _draw_expression(
    draw: np.random.Generator, study: SimulatedStudy, n_tissues: int, shares: Mapping[Modality, float], dna_length: int
) -> _Expression:
    features = np.array(
        [
            (
                gc_share(study.window(transcript, dna_length)),
                gc_share(transcript.rna),
                residue_score(transcript.protein) if transcript.protein else np.nan,
            )
            for transcript in study.transcripts
        ]
    )
    features -= np.nanmean(features, axis=0)
    features = np.nan_to_num(features)  # no protein: no contribution
    features /= features.std(axis=0)
    wobble = draw.uniform(0.8, 1.2, (n_tissues, len(MODALITIES)))
    wobble /= wobble.mean(axis=0)
    of_tissue = wobble * [shares[modality] for modality in MODALITIES]  # (tissues, modalities)
    noise = draw.standard_normal((len(features), n_tissues))
    signal = features @ np.sqrt(of_tissue).T + noise * np.sqrt(1 - of_tissue.sum(axis=1))
    log1p_tpm = draw.uniform(3.0, 4.0, n_tissues) + draw.uniform(0.6, 0.9, n_tissues) * signal
    return _Expression(np.maximum(log1p_tpm, 0), of_tissue, features, int((log1p_tpm < 0).sum()))


def _truth(expression: _Expression, shares: Mapping[Modality, float], tissues: list[str]) -> dict[str, Any]:
    """What was planted, what each set of modalities can explain at best, and how it came out in these data."""
    explainable, realised = {}, {}
    for size in range(1, len(MODALITIES) + 1):
        for chosen in combinations(MODALITIES, size):
            seen = {part for modality in chosen for part in _SEES[modality]}
            columns = [i for i, modality in enumerate(MODALITIES) if modality in seen]
            name = "+".join(chosen)
            explainable[name] = round(sum(shares[MODALITIES[i]] for i in columns), 6)
            realised[name] = round(_r2(expression.features[:, columns], expression.log1p_tpm), 4)
    rounded = np.round(expression.shares, 4).tolist()
    return {
        "planted_shares": dict(shares) | {"noise": round(1 - sum(shares.values()), 6)},
        "planted_shares_by_tissue": {
            tissue: dict(zip(MODALITIES, row, strict=True)) for tissue, row in zip(tissues, rounded, strict=True)
        },
        "features": {
            "dna": "share of G and C in the DNA window",
            "rna": "share of G and C in the RNA: synonymous codons and 3'UTR, which proteins do not show",
            "protein": "share of K, E, G minus share of F, P, S; without protein its mean. RNA shows it as codons",
        },
        "explainable_r2": explainable,
        "realised_r2": realised,
        "feature_correlations": np.round(np.corrcoef(expression.features.T), 4).tolist(),
        "values_cut_at_zero": expression.n_cut,
    }


def _r2(features: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    """R2 of least squares on the features, over all transcripts, mean over tissues."""
    design = np.column_stack([np.ones(len(features)), features])
    fitted = design @ np.linalg.lstsq(design, targets, rcond=None)[0]
    return float(np.mean(1 - ((targets - fitted) ** 2).sum(axis=0) / targets.var(axis=0) / len(targets)))
