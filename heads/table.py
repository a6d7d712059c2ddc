"""An evaluation as plain text: what a reader must know to trust or doubt it, then the scores side by side."""

from typing import TYPE_CHECKING

from heads.metrics import Scores
from heads.statistics import Interval

if TYPE_CHECKING:
    from heads.evaluate import Evaluation, ModelScores

__all__ = ["format_evaluation", "format_table"]


def format_evaluation(evaluation: "Evaluation") -> str:
    """The whole result, ready to print."""
    head = [
        f"{evaluation.run}: {evaluation.n_transcripts:,} test transcripts of {evaluation.n_genes:,} genes, "
        f"{len(evaluation.tissues)} tissues",
        f"encoders: {', '.join(f'{m} {name}' for m, name in evaluation.encoders.items())}",
    ]
    if not evaluation.computed:
        head.append("scored by an earlier call; a test set is scored once")
    if evaluation.labels:
        head.append(f"NOTE: {'; '.join(evaluation.labels)}")
    if lacking := [f"{count:,} without {modality}" for modality, count in evaluation.lacking.items() if count]:
        head.append(f"scored from what they have: {', '.join(lacking)}")
    scored = evaluation.models[0].overall.r2_by_tissue
    if unscored := [name for name, r2 in zip(evaluation.tissues, scored, strict=True) if r2 != r2]:  # noqa: PLR0124
        head.append(f"unmeasured or all equal in the test rows, left out of the means: {', '.join(unscored)}")
    if evaluation.constant:
        head.append(f"no variation in training: {', '.join(evaluation.constant)}")
    overall = [["", "R2 [95%]", "Spearman [95%]", "pooled R2", "pooled rho", "R2 lead of this run [95%]"]]
    overall += [
        [
            model.name,
            _interval(model.r2),
            _interval(model.spearman),
            _number(model.overall.r2_pooled),
            _number(model.overall.spearman_pooled),
            "" if model.r2_lead is None else _interval(model.r2_lead, sign="+"),
        ]
        for model in evaluation.models
    ]
    return "\n".join([*head, "", format_table(overall), "", format_table(_parts(evaluation)), "", *_notes(evaluation)])


def format_table(rows: list[list[str]]) -> str:
    """Columns of equal width, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _parts(evaluation: "Evaluation") -> list[list[str]]:
    """Scores of coding and other transcripts, and of isoforms within their genes."""
    within = evaluation.models[0].within_gene
    noncoding = evaluation.n_transcripts - evaluation.n_coding
    rows = [
        [
            "",
            f"R2 coding ({evaluation.n_coding:,})",
            f"R2 non-coding ({noncoding:,})",
            f"within {within.n_genes:,} genes: R2",
            "Spearman",
            "Kendall",
        ]
    ]
    used = evaluation.models[0].differential
    if used:
        rows[0] += [f"usage, {used.n_genes:,} genes: r", "top isoform", "switching"]
    return rows + [[model.name, *_part(model), *_usage(model)] for model in evaluation.models]


def _usage(model: "ModelScores") -> list[str]:
    """How differences of isoform usage between tissues are told."""
    found = model.differential
    return [] if found is None else [_number(x) for x in (found.pearson, found.top_isoform, found.switch_auroc)]


def _part(model: "ModelScores") -> list[str]:
    def r2(scores: Scores | None) -> str:
        return "-" if scores is None else _number(scores.r2)

    within = model.within_gene
    return [r2(model.coding), r2(model.noncoding), *map(_number, (within.r2, within.spearman, within.kendall))]


def _notes(evaluation: "Evaluation") -> list[str]:
    used = evaluation.models[0].differential
    more = [] if used is None else [
        "Usage: share of an isoform in its gene; correlation of its differences between tissues, most used isoform",
        f"found (chance {_number(used.top_isoform_chance)}), switching genes told from others (AUROC, chance 0.5).",
    ]  # fmt: skip
    return [
        "R2 and Spearman: mean over tissues; pooled: all cells at once; z-scale of the training rows.",
        "Within genes: isoforms against the mean of their gene; there a right gene level scores 0.",
        f"Intervals: {evaluation.resamples:,} resamples of genes; variation between trainings not included.",
        "Baselines read all modalities of the dataset, pooled embeddings those of the run; their settings are",
        "chosen on the validation rows.",
        *more,
    ]


def _interval(interval: Interval, sign: str = "") -> str:
    return f"{_number(interval.estimate, sign)} [{_number(interval.low, sign)}, {_number(interval.high, sign)}]"


def _number(value: float, sign: str = "") -> str:
    return "-" if value != value else f"{value:{sign}.3f}"  # noqa: PLR0124 - NaN
