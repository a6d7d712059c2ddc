"""The release script finds what a wheel or an archive lacks."""

import importlib.util
import io
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_wheel(path: Path, names: set[str]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name in names:
            wheel.writestr(name, "")
    return path


def make_archive(path: Path, names: set[str]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"isoheads-0.1.0/{name}"), io.BytesIO())
    return path


def test_a_whole_wheel_has_no_faults(release: ModuleType, tmp_path: Path) -> None:
    names = {*release.expected(), "isoheads-0.1.0.dist-info/licenses/LICENSE"}
    assert release.wheel_faults(make_wheel(tmp_path / "a.whl", names)) == []


@pytest.mark.parametrize("name", ["cli.py", "heads/py.typed", "embedcache/store/read.py", "embedcache/encoders/mini"])
def test_what_a_wheel_lacks_is_named(release: ModuleType, tmp_path: Path, name: str) -> None:
    names = {*release.expected(), "isoheads-0.1.0.dist-info/licenses/LICENSE"}
    kept = {one for one in names if not one.startswith(name)}
    faults = release.wheel_faults(make_wheel(tmp_path / "a.whl", kept))
    assert len(faults) == len(names) - len(kept) > 0 and all(f"a.whl lacks {name}" in fault for fault in faults)


def test_what_is_not_for_users_and_a_missing_licence_are_named(release: ModuleType, tmp_path: Path) -> None:
    names = {*release.expected(), "tests/test_a.py", "isoheads-0.1.0.dist-info/METADATA"}
    faults = release.wheel_faults(make_wheel(tmp_path / "a.whl", names))
    assert faults == ["a.whl holds tests, which is not for users", "a.whl lacks its licence"]


def test_an_archive_needs_the_sources_and_the_texts(release: ModuleType, tmp_path: Path) -> None:
    names = {*release.expected(), *release.SOURCES}
    assert release.archive_faults(make_archive(tmp_path / "a.tar.gz", names)) == []
    faults = release.archive_faults(make_archive(tmp_path / "b.tar.gz", names - {"LICENSE", "cli.py"}))
    assert faults == ["b.tar.gz lacks LICENSE", "b.tar.gz lacks cli.py"]


def test_a_directory_that_is_not_empty_is_refused(release: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "old.whl").touch()
    with pytest.raises(SystemExit, match="is not empty"):
        release.build(tmp_path)


def test_a_program_that_fails_ends_the_release(release: ModuleType) -> None:
    with pytest.raises(SystemExit, match="exit code 3"):
        release.run(sys.executable, "-c", "raise SystemExit(3)")


def test_the_story_of_the_wheel_names_commands_that_exist(release: ModuleType) -> None:
    promised = (ROOT / "tests" / "golden" / "flags.txt").read_text()
    for line in release.STORY:
        words = line.split()
        name = " ".join(words[: 3 if words[1] == "prepare" else 2])
        assert f"{name} " in promised
        assert all(f"{name} {word}\n" in promised for word in words if word.startswith("--"))
