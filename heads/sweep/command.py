"""``heads sweep``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from embedcache.choices import EngineName
from embedcache.options import CacheOption, DatasetOption, DeviceOption, JsonOption, parse_pairs, show

__all__ = ["sweep"]


def sweep(
    grid: Annotated[Path, typer.Argument(help="TOML file: arms, seeds, folds; grids/ has some to start from.")],
    dataset: DatasetOption = Path("dataset"),
    cache: CacheOption = "cache",
    output: Annotated[
        Path | None, typer.Option(help="Directory of the sweep. Default: runs/ and the name of the grid.")
    ] = None,
    device: DeviceOption = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show cohorts, time and memory, and do nothing.")] = False,
    engine: Annotated[EngineName, typer.Option(help="Where workers run.")] = "local",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers that share the cohorts. Default: one, or one a GPU.")
    ] = None,
    engine_option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="For the engine: partition=gpu, address=auto, ...")
    ] = None,
    resamples: Annotated[int, typer.Option(min=100, max=100_000, help="Draws for the intervals.")] = 2000,
    as_json: JsonOption = False,
) -> None:
    """Train every arm of a grid on shared reads, and score them. The same command again goes on."""
    from heads.sweep.grid import read_grid
    from heads.sweep.launch import estimate_launch, launch_sweep
    from heads.sweep.sweep import SweepJob

    found = read_grid(grid)
    job = SweepJob(grid=found, dataset=dataset, cache=cache, output=output or Path("runs") / found.name, device=device)
    options = parse_pairs("--engine-option", engine_option or [], "partition=gpu")
    if dry_run:
        show(estimate_launch(job, engine=engine, workers=workers, options=options), as_json)
        return
    result = launch_sweep(job, engine=engine, workers=workers, options=options, resamples=resamples)
    print(json.dumps(result.table, indent=1) if as_json else result)
