"""Reading a run or a sweep directory into a ``Report``. What is not there yet becomes a note, not an error."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from embedcache.errors import InvalidInputError
from heads.report.content import Arm, Report
from heads.report.measured import Measured, open_measured
from heads.report.runs import RunFiles, open_run
from heads.report.scores import Scored, read_table, read_test

__all__ = ["collect"]


def collect(path: Path | str, dataset: Path | str | None = None) -> Report:
    """Read everything that a report shows.

    Args:
        path: Directory of ``heads train`` or ``heads sweep``, finished or not, scored or not.
        dataset: Where the dataset is now, if it was moved. Needed for what compares predictions with measured values.

    Raises:
        InvalidInputError: It is neither, of another version, or damaged; or the dataset given is another one.
    """
    path = Path(path)
    # False, not an error, for what cannot be looked at
    if os.path.isfile(path / "sweep.json"):  # noqa: PTH113
        return _sweep(path, dataset)
    if os.path.isfile(path / "config.json"):  # noqa: PTH113
        return _run(path, dataset)
    raise InvalidInputError(
        f"There is no run or sweep at {path}: it has neither config.json nor sweep.json. "
        "Give the directory that `heads train` or `heads sweep` wrote."
    )


def _run(path: Path, dataset: Path | str | None) -> Report:
    run = open_run(path)
    measured, notes = _measured(run, dataset, wanted=run.has_predictions)
    found = read_test(path / "test.json", run.tissues)
    if found is None:
        notes.append("The test rows were not scored yet. `heads evaluate` scores them, once.")
    if not run.is_finished:
        notes.append("Training is not finished. The same `heads train` command goes on with it.")
    if not run.has_predictions:
        notes.append("The run keeps no predictions of its test rows, so that nothing is shown beside measured values.")
    test = found or Scored(tissues=run.tissues)
    first, *others = test.arms or (Arm(name="this run", kind="arm"),)
    first = run.complete(first, [("", run)])
    if measured:
        first = measured.complete(first, [run], f"seed {run.seed}, test rows", resamples=test.resamples)
    return Report(
        kind="run",
        name=_name(path),
        labels=_union(run.labels, test.labels),
        tissues=run.tissues,
        arms=(first, *others),
        scored="test rows of the dataset" if found else "",
        seeds=(run.seed,),
        n_transcripts=test.n_transcripts,
        n_groups=test.n_groups,
        resamples=test.resamples,
        difference="this run minus the baseline" if found else "",
        expression=run.expression,
        expression_unit=run.unit,
        facts=_facts([run]) + test.facts,
        notes=tuple(notes),
        provenance={"config.json": run.config.values},
    )


def _sweep(path: Path, dataset: Path | str | None) -> Report:
    from heads.report.sweeps import open_sweep

    sweep = open_sweep(path)
    runs = [run for arm in sweep.arms for _, run in arm.runs if run]
    found = read_table(path / "table.json", sweep.tissues)
    table = found or Scored(tissues=sweep.tissues, seeds=sweep.seeds, folds=sweep.folds)
    notes = []
    if missing := sweep.n_runs - sum(run.has_predictions for run in runs):
        notes.append(f"{missing} of {sweep.n_runs} runs are not finished. The same `heads sweep` command goes on.")
    if found is None:
        notes.append("There is no table of scores yet. `heads sweep` writes it when all runs are finished.")
    measured = None
    if runs:
        measured, more = _measured(runs[0], dataset, wanted=any(run.has_predictions for run in runs))
        notes += more
    configs = {"config.json of the first run": runs[0].config.values} if runs else {}
    return Report(
        kind="sweep",
        name=sweep.name,
        tissues=table.tissues,
        arms=sweep.join(table.arms, measured),
        labels=_union(sweep.labels, table.labels, *(run.labels for run in runs)),
        scored=(table.scored or "test rows") if found else "",
        unit=table.unit,
        n_transcripts=table.n_transcripts,
        n_groups=table.n_groups,
        seeds=table.seeds,
        folds=table.folds,
        resamples=table.resamples,
        reference=table.reference,
        difference=f"arm minus {table.reference}" if table.reference else "",
        expression=runs[0].expression if runs else (),
        expression_unit=runs[0].unit if runs else "",
        facts=_facts(runs),
        lost=table.diverged,
        notes=tuple(notes),
        provenance={"sweep.json": sweep.shown, **configs},
    )


def _facts(runs: Sequence[RunFiles]) -> tuple[tuple[str, str], ...]:
    """Encoders that any run reads; rows of the first, which differ from fold to fold."""
    encoders = dict.fromkeys(one for run in runs for one in run.encoders)
    rows = f" of {len(runs):,} runs, the first" if len(runs) > 1 else ""
    return ((("encoders", ", ".join(encoders)),) if encoders else ()) + tuple(
        (f"measured rows{rows}", text) for run in runs[:1] if (text := run.rows)
    )


def _measured(run: RunFiles, dataset: Path | str | None, *, wanted: bool) -> tuple[Measured | None, list[str]]:
    """Targets of the dataset; without it, why not."""
    if not wanted:
        return None, []
    if dataset is not None:  # asked for by name: what is wrong with it is an error
        return open_measured(Path(dataset), run), []
    if not os.path.isfile(run.dataset / "dataset.json"):  # noqa: PTH113
        return None, [f"The dataset is no more at {run.dataset}: no measured values to compare with. Give --dataset."]
    try:
        return open_measured(run.dataset, run), []
    except InvalidInputError as error:
        return None, [f"No measured values to compare with: {error}"]


def _name(path: Path) -> str:
    return path.resolve().name or "run"


def _union(*labels: Iterable[str]) -> tuple[str, ...]:
    """Each label once, in order."""
    return tuple(dict.fromkeys(label for some in labels for label in some))
