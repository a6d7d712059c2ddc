"""Builds wheel and source archive, looks into both, and runs the wheel in an environment of its own.

Nothing is uploaded: the last line says how. Needs the extra `release` and an index of packages to install from; `make
release` sees to both.

    python scripts/release.py [--output dist] [--skip-run]
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("embedcache", "heads")
MARKERS = ("embedcache/py.typed", "heads/py.typed", "cli.py")
MINIS = ("mini-dna", "mini-rna", "mini-protein")
SOURCES = ("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml")
STORY = (
    "embedcache prepare simulate --n-genes 20 --dna-length 192",
    "embedcache build --modality rna",
    "heads train --modalities rna --aggregator concat --epochs 2 --run runs/a",
    "heads evaluate --run runs/a --resamples 100",
    "heads report runs/a",
)


def main() -> None:
    """Build, look, run, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    parser.add_argument("--skip-run", action="store_true", help="do not install and run the wheel")
    options = parser.parse_args()
    wheel, archive = build(options.output)
    faults = [*wheel_faults(wheel), *archive_faults(archive)]
    if faults:
        sys.exit("\n".join(f"error: {fault}" for fault in faults))
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, archive)
    if not options.skip_run:
        run_wheel(wheel)
    print(f"{wheel.name} and {archive.name} are as they should be. To publish: twine upload {wheel} {archive}")


def build(output: Path) -> tuple[Path, Path]:
    """Both distributions of this tree, the only ones in an empty directory."""
    if output.exists() and any(output.iterdir()):
        sys.exit(f"error: {output} is not empty. Remove what is in it, or give another --output.")
    run(sys.executable, "-m", "build", "--outdir", output, ROOT)
    (wheel,), (archive,) = output.glob("*.whl"), output.glob("*.tar.gz")
    return wheel, archive


def expected() -> set[str]:
    """Every module of the packages, and what lies beside the modules and is needed to run."""
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    folders = [ROOT / "embedcache" / "encoders" / "mini" / name for name in MINIS]
    return {*modules, *MARKERS, *(str(path.relative_to(ROOT)) for folder in folders for path in folder.iterdir())}


def wheel_faults(wheel: Path) -> list[str]:
    """What a wheel lacks, or has that does not belong there."""
    names = set(zipfile.ZipFile(wheel).namelist())
    faults = [f"{wheel.name} lacks {name}" for name in sorted(expected() - names)]
    roots = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    faults += [f"{wheel.name} holds {root}, which is not for users" for root in sorted(roots - {*PACKAGES, "cli.py"})]
    if not any(name.endswith("licenses/LICENSE") for name in names):
        faults.append(f"{wheel.name} lacks its licence")
    return faults


def archive_faults(archive: Path) -> list[str]:
    """What a source archive lacks."""
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    return [f"{archive.name} lacks {name}" for name in sorted({*expected(), *SOURCES} - names)]


def run_wheel(wheel: Path) -> None:
    """Install it where nothing else is, and do a small study with it, away from the sources."""
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        venv.create(home / "venv", with_pip=True)
        programs = home / "venv" / "bin"
        run(programs / "python", "-m", "pip", "install", "--quiet", wheel)
        for line in STORY:
            program, *arguments = line.split()
            run(programs / program, *arguments, cwd=home)


def run(*command: object, cwd: Path = ROOT) -> None:
    """Run a program and end where it fails."""
    words = [str(word) for word in command]
    print("+", " ".join(words), flush=True)
    if (code := subprocess.run(words, check=False, cwd=cwd).returncode) != 0:
        sys.exit(f"error: {words[0]} ended with exit code {code}.")


if __name__ == "__main__":
    main()
