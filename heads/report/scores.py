"""Scores as ``heads evaluate`` and ``heads sweep`` wrote them. Imports nothing slow."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heads.report.content import Arm, Bin, Calibration, Difference, Estimate, WithinGene
from heads.report.reading import Part, read_json

__all__ = ["Scored", "read_table", "read_test"]

TEST_VERSION = 1
TABLE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What was scored, and how; made of tissues only, that nothing was."""

    tissues: tuple[str, ...]
    arms: tuple[Arm, ...] = ()
    labels: tuple[str, ...] = ()
    n_transcripts: int | None = None
    n_groups: int | None = None
    resamples: int | None = None
    unit: str = "gene"
    scored: str = ""
    seeds: tuple[int, ...] = ()
    folds: int | None = None
    reference: str | None = None
    facts: tuple[tuple[str, str], ...] = ()
    diverged: tuple[str, ...] = ()
    """Trainings that came to no model, an arm each, in words."""


def read_test(path: Path, tissues: tuple[str, ...]) -> Scored | None:
    """Read ``test.json`` of a run; None if its test rows were not scored.

    Raises:
        InvalidInputError: It is of another version or damaged.
    """
    if not path.is_file():
        return None
    found = read_json(path, "isoheads-test", TEST_VERSION)
    _same_tissues(found, tissues)
    models = found.parts("models")
    if not models:
        found.fail("models", "the run and its baselines")
    facts = []
    lacking = found.part("lacking")
    for modality in lacking.values if lacking else ():
        if lacking and (n := lacking.whole(modality)):
            facts.append((f"test transcripts without {modality}", f"{n:,}; scored from what they have"))
    if (n_coding := found.whole("n_coding")) is not None:
        facts.append(("coding test transcripts", f"{n_coding:,}"))
    return Scored(
        arms=tuple(_model(model, is_run=i == 0, n_tissues=len(tissues)) for i, model in enumerate(models)),
        labels=found.texts("labels"),
        tissues=tissues,
        n_transcripts=found.whole("n_transcripts"),
        n_groups=found.whole("n_genes"),
        resamples=found.whole("resamples"),
        facts=tuple(facts),
    )


def read_table(path: Path, tissues: tuple[str, ...]) -> Scored | None:
    """Read ``table.json`` of a sweep; None if there is none yet.

    Args:
        path: The file.
        tissues: Of the runs; empty if no run says.

    Raises:
        InvalidInputError: It is of another version, damaged, or about other tissues.
    """
    if not path.is_file():
        return None
    found = read_json(path, "isoheads-sweep-table", TABLE_VERSION)
    if tissues:
        _same_tissues(found, tissues)
    tissues = found.texts("tissues")
    return Scored(
        arms=tuple(_arm(arm, len(tissues)) for arm in found.parts("arms")),
        labels=found.texts("labels"),
        tissues=tissues,
        n_transcripts=found.whole("n_transcripts"),
        n_groups=found.whole("n_groups"),
        resamples=found.whole("resamples"),
        unit=found.text("unit") or "gene",
        scored=found.text("scored") or "",
        seeds=found.wholes("seeds"),
        folds=found.whole("folds"),
        reference=found.text("reference"),
        diverged=_diverged(found),
    )


def _diverged(found: Part) -> tuple[str, ...]:
    lost = found.part("diverged")
    words = []
    for name in lost.values if lost else ():
        assert lost is not None
        seeds = ", ".join("?" if seed is None else f"{seed:g}" for seed in lost.numbers(name))
        words.append(f"Seeds {seeds} of {name} diverged and are not in its row.")
    return tuple(words)


def _same_tissues(found: Part, tissues: tuple[str, ...]) -> None:
    if found.texts("tissues") != tissues:
        found.fail("tissues", f"the {len(tissues)} tissues of the run")


def _model(model: Part, *, is_run: bool, n_tissues: int) -> Arm:
    """The run or a baseline, of ``test.json``."""
    overall = model.needed("overall")
    lead = _difference(model.part("r2_lead"))
    details = model.plain("details")
    return Arm(
        name="this run" if is_run else model.name("name"),
        kind="arm" if is_run else "baseline",
        settings={name: value for name, value in details.items() if value is not None},
        n_seeds=1 if is_run else None,
        r2=_estimate(model.part("r2")),
        spearman=_estimate(model.part("spearman")),
        r2_pooled=overall.number("r2_pooled"),
        spearman_pooled=overall.number("spearman_pooled"),
        r2_by_tissue=_bare(overall, "r2_by_tissue", n_tissues),
        spearman_by_tissue=_bare(overall, "spearman_by_tissue", n_tissues),
        within_gene=_within(model.part("within_gene")),
        differences={} if lead is None else {"r2": lead},
    )


def _arm(arm: Part, n_tissues: int) -> Arm:
    """An arm or a baseline, of ``table.json``."""
    kind = arm.text("kind") or "arm"
    if kind not in ("arm", "baseline"):
        arm.fail("kind", "arm or baseline")
    validation, difference = arm.part("validation"), arm.part("difference")
    differences: dict[str, Difference] = {}
    for metric in ("r2", "spearman") if difference else ():
        if difference and (found := _difference(difference.part(metric))):
            differences[metric] = found
    return Arm(
        name=arm.name("name"),
        kind="baseline" if kind == "baseline" else "arm",
        settings=arm.plain("settings"),
        parameters=arm.whole("parameters"),
        validation={name: validation.number(name) for name in ("r2", "spearman", "loss")} if validation else {},
        n_seeds=arm.whole("n_seeds"),
        planted_r2=arm.number("planted_r2"),
        r2=_estimate(arm.part("r2")),
        spearman=_estimate(arm.part("spearman")),
        r2_pooled=arm.number("r2_pooled"),
        spearman_pooled=arm.number("spearman_pooled"),
        r2_seed_sd=arm.number("r2_seed_sd"),
        spearman_seed_sd=arm.number("spearman_seed_sd"),
        r2_by_tissue=_by_tissue(arm, "r2_by_tissue", n_tissues),
        spearman_by_tissue=_by_tissue(arm, "spearman_by_tissue", n_tissues),
        within_gene=_within(arm.part("within_gene")),
        calibration=_calibration(arm.part("calibration")),
        differences=differences,
        difference_seeds=difference.whole("n_seeds") if difference else None,
    )


def _estimate(found: Part | None) -> Estimate | None:
    return None if found is None else Estimate(*map(found.number, ("estimate", "low", "high")))


def _difference(found: Part | None) -> Difference | None:
    if found is None:
        return None
    names = ("estimate", "low", "high", "p", "p_holm", "p_sign_flip")
    return Difference(**{name: found.number(name) for name in names})


def _by_tissue(arm: Part, name: str, n_tissues: int) -> tuple[Estimate, ...]:
    found = tuple(Estimate(*map(part.number, ("estimate", "low", "high"))) for part in arm.parts(name))
    return _as_many(arm, name, found, n_tissues)


def _bare(overall: Part, name: str, n_tissues: int) -> tuple[Estimate, ...]:
    """Scores that came without intervals."""
    return _as_many(overall, name, tuple(Estimate(x, None, None) for x in overall.numbers(name)), n_tissues)


def _as_many(part: Part, name: str, found: tuple[Estimate, ...], n_tissues: int) -> tuple[Estimate, ...]:
    if len(found) not in (0, n_tissues):
        part.fail(name, f"{n_tissues} entries, one a tissue")
    return found


def _within(found: Part | None) -> WithinGene | None:
    if found is None:
        return None
    scores: Mapping[str, float | None] = {name: found.number(name) for name in ("r2", "spearman", "kendall")}
    return WithinGene(**scores, n_genes=found.whole("n_genes"), n_transcripts=found.whole("n_transcripts"))


def _calibration(found: Part | None) -> Calibration | None:
    if found is None:
        return None
    bins = []
    for part in found.parts("bins"):
        predicted, measured, n = part.number("predicted"), part.number("measured"), part.whole("n")
        if predicted is not None and measured is not None and n:
            bins.append(Bin(predicted, measured, n))
    return Calibration(found.number("slope"), found.number("intercept"), tuple(bins))
