"""Run the public implementations, each in an environment of its own, and compare our encoders with them.

``python run.py --work DIR`` does all real sizes; ``--only NAME`` some; ``--golden`` the small ones, whose outputs are
kept for the tests. Environments are made once under ``--environments``.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import asdict
from pathlib import Path

import cases
import numpy as np

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parents[1] / "tests" / "golden" / "parity"


def environment(name: str, folder: Path) -> Path:
    """The interpreter of an environment, made from its requirements where it is not there yet."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        venv.create(folder / name, with_pip=True)
        wanted = HERE / "requirements" / f"{name}.txt"
        alone = wanted.with_suffix(".no-deps.txt")  # packages that ask for more than we run of them
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--requirement", str(wanted)], check=True)
        if alone.exists():
            subprocess.run([*pip, "--no-deps", "--requirement", str(alone)], check=True)
    return python


def run_reference(case: cases.Case, python: Path, folder: Path, sources: dict[str, str]) -> None:
    """Let the reference write its folder: the checkpoint, the inputs and what it makes of them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "case.json").write_text(json.dumps(asdict(case)))
    places = [str(HERE), *filter(None, [sources.get(case.source, "")])]
    settings = {"PYTHONPATH": os.pathsep.join(places), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    script = HERE / f"{case.reference}_reference.py"
    command = [str(python), str(script), str(folder / "case.json"), str(folder)]
    subprocess.run(command, check=True, env=os.environ | settings)


def keep(case: cases.Case, folder: Path) -> None:
    """Keep some rows of a small case for the tests, which draw the weights again."""
    GOLDEN.mkdir(parents=True, exist_ok=True)
    with np.load(folder / "outputs.npz") as outputs:
        found = {name: outputs[name] for name in outputs.files}
    kept = {name: sorted({0, 1, len(one) // 2, len(one) - 1} & {*range(len(one))}) for name, one in found.items()}
    np.savez(GOLDEN / f"{case.name}.npz", **{name: one[kept[name]] for name, one in found.items()})
    about = {**json.loads((folder / "reference.json").read_text()), "case": asdict(case)}
    about |= {"sequences": cases.sequences(case), "rows": kept}
    del about["seconds"]
    (GOLDEN / f"{case.name}.json").write_text(json.dumps(about) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="for checkpoints of up to 3 GB, one at a time")
    parser.add_argument("--environments", type=Path, help="default: under --work")
    parser.add_argument("--source", action="append", default=[], help="NAME=DIR of public code that is no package")
    parser.add_argument("--only", action="append", help="cases whose name begins so")
    parser.add_argument("--golden", action="store_true", help="the small cases: keep their outputs for the tests")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints")
    given = parser.parse_args()
    sources = dict(one.split("=", 1) for one in given.source)
    failed = []
    for case in cases.GOLDEN if given.golden else cases.CASES:
        if given.only and not case.name.startswith(tuple(given.only)):
            continue
        if case.source and case.source not in sources:
            failed.append(f"{case.name}: give --source {case.source}=DIR")
            continue
        python = environment(case.environment, (given.environments or given.work / "environments").resolve())
        folder = given.work.resolve() / case.name
        run_reference(case, python, folder, sources)
        if given.golden:
            keep(case, folder)
        else:
            done = subprocess.run([sys.executable, str(HERE / "compare.py"), str(folder)], check=False)
            failed += [f"{case.name}: could not be compared"] if done.returncode else []
        if not given.keep:
            (folder / "model.safetensors").unlink()
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
