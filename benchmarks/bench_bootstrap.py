"""Seconds for the intervals of two arms: genes and trainings drawn together, 2,000 times, over 30 tissues.

Both arms are scored on the same draws and their paired difference gets an interval and a p-value, for the mean over
tissues and for each tissue: ``heads.statistics.compare_metrics``, on one core. The bar is for R2 and Spearman together,
with one training of each arm. Beside it a plain loop: for every resample the rows of the drawn genes are written out
and given to scikit-learn and scipy, tissue by tissue; a few resamples of it are timed and scaled. Seconds are CPU
seconds of one core: the clock on the wall also counts what others run.

    python benchmarks/bench_bootstrap.py [--transcripts 17000] [--genes 3500] [--tissues 30] [--json]
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from report import Result, add_json_option, report
from scipy import stats
from sklearn.metrics import r2_score

from heads.arms import arms_table
from heads.statistics import Metric, compare_metrics

BAR, MOONSHOT = 2.0, 0.3
METRICS: tuple[Metric, ...] = ("r2", "spearman")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transcripts", type=int, default=17_000)
    parser.add_argument("--genes", type=int, default=3_500)
    parser.add_argument("--tissues", type=int, default=30)
    parser.add_argument("--resamples", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each arm in the second half")
    parser.add_argument("--gaps", type=float, default=0.0, help="share of the targets that is not measured")
    parser.add_argument("--rounds", type=int, default=5, help="the best of so many counts")
    parser.add_argument("--loop", type=int, default=3, help="resamples of the plain loop that are timed")
    add_json_option(parser)
    options = parser.parse_args()
    report([result for seeds in (1, options.seeds) for result in measure(options, seeds)], options.json)


def measure(options: argparse.Namespace, seeds: int) -> Iterator[Result]:
    y, a, b, genes = study(options, seeds)

    def ours(*metrics: Metric) -> float:
        many = options.resamples
        return best(options.rounds, lambda: compare_metrics(y, b, a, genes, metrics=metrics, resamples=many))

    trainings = f"{seeds} training{'s' * (seeds > 1)} an arm"
    for metric in METRICS:
        yield Result(f"{metric}, {trainings}: seconds", round(ours(metric), 3), better="lower")
    both = ours(*METRICS)
    aims = (BAR, MOONSHOT) if seeds == 1 else (None, None)
    yield Result(f"both, {trainings}: seconds", round(both, 3), *aims, better="lower")
    loop = best(1, lambda: plain_loop(y, b, a, genes, options.loop)) * options.resamples / options.loop
    note = f"the loop: {loop:,.0f} s, from {options.loop} resamples"
    yield Result(f"plain loop over both, {trainings}", round(loop / both), note=note)
    table = best(1, lambda: arms_table(y, {"a": a, "b": b}, genes, reference="a", resamples=options.resamples))
    note = "with pooled scores, isoforms within genes, calibration, sign flips"
    yield Result(f"whole table of two arms, {trainings}: seconds", round(table, 2), better="lower", note=note)


def study(options: argparse.Namespace, seeds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Targets, predictions of two arms, genes of the rows."""
    rng = np.random.default_rng(0)
    shape = (options.transcripts, options.tissues)
    genes = np.unique(rng.integers(options.genes, size=options.transcripts), return_inverse=True)[1]
    y = rng.standard_normal(shape) + rng.standard_normal((options.genes, options.tissues))[genes]
    a, b = (0.5 * y + noise * rng.standard_normal((seeds, *shape)) for noise in (1.0, 0.9))
    y[rng.random(shape) < options.gaps] = np.nan
    return y, a, b, genes


def plain_loop(y: np.ndarray, b: np.ndarray, a: np.ndarray, genes: np.ndarray, resamples: int) -> list[float]:
    """What one would write by hand."""
    rng = np.random.default_rng(0)
    rows = np.split(np.argsort(genes, kind="stable"), np.cumsum(np.bincount(genes))[:-1])
    draws = []
    for _ in range(resamples):
        index = np.concatenate([rows[g] for g in rng.integers(len(rows), size=len(rows))])
        trainings = rng.integers(len(a), size=len(a))
        differences = []
        for k in range(y.shape[1]):
            kept = index[~np.isnan(y[index, k])]
            truth = y[kept, k]
            for s in trainings:
                ours, theirs = b[s, kept, k], a[s, kept, k]
                differences.append(r2_score(truth, ours) - r2_score(truth, theirs))
                differences.append(stats.spearmanr(truth, ours)[0] - stats.spearmanr(truth, theirs)[0])
        draws.append(float(np.mean(differences)))
    return draws


def best(rounds: int, work: Callable[[], object]) -> float:
    """CPU seconds of the fastest round."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
