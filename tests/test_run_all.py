import re
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def run_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The module, with scripts of our own."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import run_all

    monkeypatch.setattr(run_all, "HERE", tmp_path)
    monkeypatch.setattr(run_all, "cuda_name", lambda: None)
    return run_all


RESULTS = {
    "good": "[Result('fast', 0.95, 0.9, 1.0), Result('small', 1.0, 1.1, 1.0, 'lower'), Result('figure', 7.0)]",
    "missed": "[Result('slow', 0.7, 0.9, 1.0)]",
    "absent": "[Result('peer', None, 2.0, 3.0, note='not installed')]",
}


@pytest.mark.parametrize(
    ("names", "exit_code", "shown"),
    [
        (["good"], 0, ["| fast | >= 0.9 | >= 1 | 0.95 | yes |", "| small | <= 1.1 | <= 1 | 1 | moonshot |"]),
        (["good"], 0, ["| figure | 7 |"]),
        (["good", "missed"], 1, ["| slow | >= 0.9 | >= 1 | 0.7 | NO |", "| fast |"]),
        (["absent", "good"], 0, ["| peer | >= 2 | >= 3 | not measured (not installed) |  |"]),
        (["silent", "good"], 1, ["| silent.py --fast |", "not measured (failed)", "| fast |"]),
        (["broken", "good"], 1, ["| fast | >= 0.9"]),
    ],
)
def test_the_table_and_what_fails(
    *,
    run_all: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    names: list[str],
    exit_code: int,
    shown: list[str],
) -> None:
    start = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); from report import Result, report\n"
    for name in names:
        found = RESULTS.get(name, RESULTS["good"])
        text = "print('no results')" if name == "silent" else start + f"report({found}, '--json' in sys.argv)"
        (tmp_path / f"{name}.py").write_text(text + ("\nsys.exit(3)" if name == "broken" else ""))
    scripts = tuple(run_all.Script(name, f"{name}.py", ("--fast",)) for name in names)
    monkeypatch.setattr(run_all, "SCRIPTS", scripts)
    monkeypatch.setattr(sys, "argv", ["run_all.py", "--markdown", "--only", ",".join(names)])
    with pytest.raises(SystemExit) as caught:
        run_all.main()
    output = capsys.readouterr().out
    assert caught.value.code == exit_code and all(text in output for text in shown), output


def test_the_build_is_measured_on_a_gpu_too(run_all: Any) -> None:
    files = [(script.name, script.device) for script in run_all.choose([], "a GPU")]
    assert files[:3] == [("build", "cpu"), ("build", "cuda"), ("peers", "cpu")]
    assert [script.name for script in run_all.choose(["read"], "a GPU")] == ["read"]


def test_an_unknown_benchmark_is_refused_with_the_names_there_are(run_all: Any) -> None:
    with pytest.raises(SystemExit, match=r"no benchmark is named 'raed'. Choose from: build, peers, precision, read"):
        run_all.choose(["raed"], None)


def test_every_script_exists(run_all: Any) -> None:
    assert [script.file for script in run_all.SCRIPTS if not (BENCHMARKS / script.file).is_file()] == []


def test_every_script_of_the_page_of_measurements_is_run(run_all: Any) -> None:
    page = (BENCHMARKS.parent / "docs" / "about" / "measured.md").read_text()
    named = set(re.findall(r"`(\w+\.py)`", page)) - {"run_all.py"}
    assert len(named) > 15 and named <= {script.file for script in run_all.SCRIPTS}
