"""How sure a score is: intervals and tests that know that isoforms of a gene are alike and that trainings differ.

Read in this order: ``sums`` (a score of a resample needs only sums over genes), ``resample`` (what is drawn, and
intervals from it), ``crossed`` (genes and trainings drawn together; differences of two models), ``significance``
(sign flips, Holm), ``by_gene`` (one trained model, genes drawn alone).
"""

from heads.statistics.by_gene import difference_by_gene, interval_by_gene
from heads.statistics.crossed import Comparison, Scored, compare, compare_metrics, cross, score_resamples
from heads.statistics.resample import Interval, draw_genes, draw_seeds, interval, two_sided_p
from heads.statistics.significance import gene_contributions, holm, sign_flip_p
from heads.statistics.sums import GeneSums, Metric, TargetSums, centred_ranks

__all__ = [
    "Comparison",
    "GeneSums",
    "Interval",
    "Metric",
    "Scored",
    "TargetSums",
    "centred_ranks",
    "compare",
    "compare_metrics",
    "cross",
    "difference_by_gene",
    "draw_genes",
    "draw_seeds",
    "gene_contributions",
    "holm",
    "interval",
    "interval_by_gene",
    "score_resamples",
    "sign_flip_p",
    "two_sided_p",
]
