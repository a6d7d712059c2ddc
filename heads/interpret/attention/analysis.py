"""Attention by region of a run, or of an encoder alone: from what a user names to findings.

Read in this order: ``regions``, ``region_attention``, ``attention_scores`` and ``cross_regions``, ``attention_tests``.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.dataset import Dataset, read_dataset
from embedcache.encoders.packing import PackedEncoder
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.place import Place
from embedcache.sequences import Modality
from heads.config import SplitConfig
from heads.inference import choose_device
from heads.interpret.attention.cross_regions import cross_scores, has_cross_attention, rows_with_regions
from heads.interpret.attention.encoders import encoder_by_name, encoders_of_run
from heads.interpret.attention.findings import Analysis, AttentionFindings
from heads.interpret.attention.regions import SPECIAL, choose_rows, find_cases, has_regions
from heads.interpret.attention.rows import AttentionSettings, fits, rows_of, say_left_out, say_used
from heads.interpret.attention.scores import score_transcripts
from heads.interpret.attention.significance import compare_to_before, compare_to_uniform
from heads.labels import labels_of
from heads.setup import Study, provenance
from heads.trained import TrainedRun, load_trained

__all__ = ["AttentionSettings", "Rows", "analyse_encoder", "analyse_run", "encoder_analyses"]

Rows = NDArray[np.int64]
FORMAT, VERSION = "isoheads-attention", 1


def analyse_run(
    run: Path | str,
    settings: AttentionSettings,
    *,
    modality: Modality | None = "rna",
    cross: bool = True,
    dataset: Path | None = None,
    cache: str | Place | None = None,
    device: str = "auto",
    weights: Path | None = None,
    download: bool = False,
) -> AttentionFindings:
    """Look into the encoder of a run, before and after fine-tuning, and into its cross-attention.

    Args:
        run: A finished run.
        settings: Which transcripts, and what is measured.
        modality: Whose encoder; None for none.
        cross: Whether to look at cross-attention, if the run has it; needs the cache.
        dataset: Where the dataset of the run is, if it was moved.
        cache: Where its cache is, if it was moved.
        device: A torch device, or ``auto``.
        weights: Directory with the published weights of the encoder.
        download: Whether weights that are missing may be fetched into the hub cache.

    Raises:
        InvalidSettingError: The run does not read the modality, or there is nothing to look at.
        InvalidInputError: It is not the dataset of the run, or it has no transcripts with regions.
        EmbedCacheError: What opening the run, its cache or its encoder raises.
    """
    trained = load_trained(run, device)
    is_crossed = cross and has_cross_attention(trained)
    if modality is None and not is_crossed:
        raise InvalidSettingError(
            f"{trained.directory.path} has no cross-attention to look at, and no encoder is asked for. "
            f"Choose --modality {trained.model.config.modalities[0]}."
        )
    path = dataset or Path(trained.description["dataset"]["path"])
    trained.check_dataset(path)
    opened = read_dataset(path)
    rows = rows_of(opened, settings, trained.split)
    analyses, notes, specs = list[Analysis](), list[str](), dict[str, Any]()
    if modality is not None:
        where = str(next(trained.model.parameters()).device)
        before, after = encoders_of_run(trained, modality, where, weights=weights, download=download)
        analyses, notes = encoder_analyses(opened, rows, settings, before, after)
        specs[modality] = before.spec.to_json()
        if after is None:
            notes.append(f"the {modality} encoder of this run is frozen: there is no attention after fine-tuning.")
    if is_crossed:
        found, note = _cross_analyses(trained, trained.study(path, cache), rows, settings)
        analyses, notes = [*analyses, *found], [*notes, note]
    labels = [*trained.labels, *opened.labels]
    about = {**_about_run(trained), "encoders": specs}
    return _findings(str(run), (analyses, notes), settings, dataset=opened, labels=labels, about=about)


def analyse_encoder(
    name: str,
    modality: Modality,
    dataset: Path | str,
    settings: AttentionSettings,
    *,
    device: str = "auto",
    weights: Path | None = None,
    download: bool = False,
) -> AttentionFindings:
    """Look into an encoder by its name, without any run. Arguments and errors as in ``analyse_run``."""
    opened = read_dataset(dataset)
    rows = rows_of(opened, settings, SplitConfig())
    encoder = encoder_by_name(name, modality, str(choose_device(device)), weights=weights, download=download)
    found = encoder_analyses(opened, rows, settings, encoder, None)
    labels = [*opened.labels, *labels_of(encoder.spec)]
    about = {"encoders": {modality: encoder.spec.to_json()}}
    return _findings(encoder.spec.name, found, settings, dataset=opened, labels=labels, about=about)


def encoder_analyses(
    dataset: Dataset, rows: Rows, settings: AttentionSettings, before: PackedEncoder, after: PackedEncoder | None
) -> tuple[list[Analysis], list[str]]:
    """Comparisons of one encoder, and notes on what was left out.

    Args:
        dataset: Whose transcripts.
        rows: Out of which they are drawn.
        settings: How many, and what is measured.
        before: The encoder as published.
        after: As fine-tuning left it, or None.

    Raises:
        InvalidInputError: No transcript has regions.
    """
    spec = before.spec
    modality = spec.modality
    eligible = rows[has_regions(dataset, modality)[rows]]
    chosen = choose_rows(dataset, eligible, settings.transcripts)
    found = find_cases(dataset, modality, chosen.tolist())
    cases = [case for case in found if fits(case, spec)]
    note = say_left_out(dataset, rows, modality, len(eligible) - len(chosen), len(found) - len(cases))
    if not cases:
        raise InvalidInputError(f"{dataset.path} leaves no transcript to look at. {note} Choose another --split.")
    frozen = score_transcripts(before, cases, threshold=settings.threshold)
    sides = {"modality": modality, "reads": modality}
    analyses = [Analysis(**sides, weights="frozen", against="uniform", tests=compare_to_uniform(frozen))]
    if after is not None:
        tuned = score_transcripts(after, cases, threshold=settings.threshold)
        analyses.append(Analysis(**sides, weights="tuned", against="uniform", tests=compare_to_uniform(tuned)))
        changed = compare_to_before(tuned, frozen)
        analyses.append(Analysis(**sides, weights="tuned", against="frozen", tests=changed))
    return analyses, [note]


def _cross_analyses(
    trained: TrainedRun, study: Study, rows: Rows, settings: AttentionSettings
) -> tuple[list[Analysis], str]:
    eligible = np.intersect1d(rows, rows_with_regions(study))
    chosen = choose_rows(study.dataset, eligible, settings.transcripts)
    left = {"without one of the modalities or a CDS": len(rows) - len(eligible)}
    left |= {"not drawn": len(eligible) - len(chosen)}
    note = f"cross-attention: {say_used(len(chosen), len(rows), left)}"
    if not len(chosen):
        raise InvalidInputError(
            f"{study.dataset.path} leaves no transcript for cross-attention. {note} "
            "Choose another --split, or --no-cross."
        )
    scores = cross_scores(trained, study, chosen, threshold=settings.threshold)
    return [
        Analysis(modality=centre, reads=other, weights="trained", against="uniform", tests=compare_to_uniform(found))
        for (centre, other), found in scores.items()
    ], note


def _about_run(trained: TrainedRun) -> dict[str, Any]:
    return {
        "run": str(trained.directory.path.absolute()),
        "best_epoch": trained.best_epoch,
        "run_encoders": trained.description["encoders"],
        "finetune": trained.description.get("finetune"),
        "split_of_rows": trained.split.to_json(),
    }


def _findings(
    subject: str,
    found: tuple[Sequence[Analysis], Sequence[str]],
    settings: AttentionSettings,
    *,
    dataset: Dataset,
    labels: Sequence[str],
    about: dict[str, Any],
) -> AttentionFindings:
    analyses, notes = found
    labels = tuple(dict.fromkeys(labels))
    general = ["shares of regions add up to 1: what one gains, others lose."]
    if any(SPECIAL in one.tests.regions for one in analyses):
        general.append(
            f"{SPECIAL}: tokens that cover no letter, such as CLS; attention that rests there is lost to others."
        )
    if any(one.reads != "rna" for one in analyses):
        general.append("regions of dna and protein are the thirds of what is embedded, from its start to its end.")
    story = {
        "format": FORMAT,
        "version": VERSION,
        "labels": list(labels),
        **about,
        "dataset": {"path": str(dataset.path.absolute()), "digest": dataset.digest},
        "settings": asdict(settings),
        "notes": [*notes],
        "comparisons": [_comparison(one) for one in analyses],
        "test": "paired t-test over genes, two-sided; Benjamini-Hochberg over layers x heads x regions",
        "software": provenance(),
    }
    return AttentionFindings(
        analyses=tuple(analyses),
        labels=labels,
        subject=subject,
        notes=(*notes, *general),
        threshold=settings.threshold,
        story=story,
    )


def _comparison(one: Analysis) -> dict[str, Any]:
    layers, heads, _ = one.tests.mass.shape
    sides = {name: getattr(one, name) for name in ("modality", "reads", "weights", "against")}
    return {**sides, "regions": list(one.tests.regions), "layers": layers, "heads": heads}
