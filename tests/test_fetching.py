"""Published weights come from a directory, the hub cache, or, if asked to, the hub; offline one line says how."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from test_weights import SMALL, published, write

from embedcache.encoders import registry
from embedcache.encoders.cards import CARDS
from embedcache.encoders.registry import encoder_spec
from embedcache.errors import EmbedCacheError, MissingDependencyError
from embedcache.prepare.fasta import prepare_fasta

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = SMALL["esm2-8m"]


def snapshot_in(hub: Path, kind: str = "safetensors") -> Path:
    """The small encoder under the name of the published one, as the hub client lays it out."""
    root = hub / "models--facebook--esm2_t6_8M_UR50D"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    (root / "snapshots").mkdir()
    return write(root / "snapshots" / COMMIT, CARD, published(CARD), kind)


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own: the hub client reads its variables once, on import."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-c", code], env={**kept, **environment}, capture_output=True, text=True, check=False
    )


SPEC = f"""
from dataclasses import replace
from embedcache.encoders.registry import card, encoder_spec, register_encoder
from embedcache.errors import EmbedCacheError
small = replace(card("esm2-8m"), name="small", **{ {name: getattr(CARD, name) for name in ("width", "layers", "heads", "feed_forward")} })
register_encoder(small)
for download in (False, True):
    try:
        spec = encoder_spec("small", "protein", download=download)
        print(spec.revision, spec.weights)
    except EmbedCacheError as error:
        print(error)
"""  # noqa: E501


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
def test_the_cache_that_the_variables_name_is_read_offline(variable: str, tmp_path: Path) -> None:
    snapshot_in(tmp_path / "hub")
    place = {"HF_HOME": tmp_path, "HF_HUB_CACHE": tmp_path / "hub"}[variable]
    done = run(SPEC, HF_HUB_OFFLINE="1", **{variable: str(place)})
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second and first.startswith(f"{COMMIT} blake2b:")


def test_offline_without_weights_one_line_says_how_to_fetch(tmp_path: Path) -> None:
    done = run(SPEC, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    unasked, asked = done.stdout.splitlines()
    assert "nothing is fetched unasked" in unasked and "HF_HUB_OFFLINE is set" in asked
    assert all("Run `hf download facebook/esm2_t6_8M_UR50D`, or give" in line for line in (unasked, asked))


def test_the_command_ends_with_one_line_and_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "p.fa").write_text(">a\nMKVLAA\n")
    prepare_fasta(output=tmp_path / "dataset", protein=tmp_path / "p.fa")
    code = (
        f"import os, sys; os.chdir({str(tmp_path)!r}); import cli\n"
        "sys.argv = 'embedcache build --modality protein --encoder esm2-8m --download'.split()\n"
        "cli.embedcache()"
    )
    done = run(code, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"), NO_COLOR="1", TERM="dumb")
    assert done.returncode == 1 and "hf download facebook/esm2_t6_8M_UR50D" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "cache").exists()


# --- a hub that is played ---


class Hub:
    """In place of ``snapshot_download``: notes what is asked for, and puts files there as the hub would."""

    def __init__(self, place: Path, kind: str = "safetensors", error: Exception | None = None) -> None:
        self.place, self.kind, self.error = place, kind, error
        self.asked: list[dict[str, Any]] = []

    def __call__(self, repository: str, **asked: Any) -> str:
        self.asked.append({"repository": repository, **asked})
        if self.error is not None:
            raise self.error
        if asked["local_files_only"]:
            raise LocalEntryNotFoundError("not here")
        folder = self.place / COMMIT
        state, patterns = published(CARD), asked["allow_patterns"]
        if self.kind == "safetensors":
            return str(write(folder, CARD, state))
        write(folder, CARD, state, "bin")
        if "pytorch_model*" not in patterns:
            (folder / "pytorch_model.bin").unlink()
        return str(folder)


@pytest.fixture
def small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS | SMALL)


@pytest.mark.usefixtures("small_card")
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_download_fetches_what_is_needed_and_no_more(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tmp_path, kind)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    spec = encoder_spec("esm2-8m", "protein", download=True)
    assert spec.revision == COMMIT and spec == encoder_spec("esm2-8m", "protein", download=True)
    assert not any(one["local_files_only"] for one in hub.asked)
    fetched = [pattern for one in hub.asked[: len(hub.asked) // 2] for pattern in one["allow_patterns"]]
    assert ("pytorch_model*" in fetched) == (kind == "bin")  # not both kinds of one model


@pytest.mark.usefixtures("small_card")
def test_nothing_is_asked_of_the_network_unless_the_user_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    with pytest.raises(MissingDependencyError, match="nothing is fetched unasked"):
        encoder_spec("esm2-8m", "protein")
    with pytest.raises(MissingDependencyError):
        encoder_spec("hf:facebook/esm2_t6_8M_UR50D", "protein")
    assert [one["local_files_only"] for one in hub.asked] == [True, True]
    folder = write(tmp_path / "mine", CARD, published(CARD))
    assert encoder_spec("esm2-8m", "protein", weights=folder, download=True).revision == ""
    encoder_spec("esm2-8m", "protein", random_init=0, download=True)
    assert len(hub.asked) == 2


@pytest.mark.usefixtures("small_card")
def test_a_pinned_commit_is_the_one_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    with pytest.raises(EmbedCacheError, match=f"--revision {CARDS['nt-v2-50m'].revision}"):
        encoder_spec("nt-v2-50m", "rna")
    with pytest.raises(EmbedCacheError, match=f"--revision {'a' * 40}"):
        encoder_spec("nt-v2-50m", "rna", revision="a" * 40)
    assert [one["revision"] for one in hub.asked] == [CARDS["nt-v2-50m"].revision, "a" * 40]


@pytest.mark.usefixtures("small_card")
@pytest.mark.parametrize("kind", ["gone", "disk"])
def test_a_hub_that_refuses_is_told_in_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer: Any = SimpleNamespace(headers={}, request=None, status_code=404)
    gone = RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found", response=answer)
    error = {"gone": gone, "disk": OSError("no space\nleft")}[kind]
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub(tmp_path, error=error))
    with pytest.raises(MissingDependencyError, match=r"cannot be fetched: .*`hf auth login`.*--weights") as caught:
        encoder_spec("esm2-8m", "protein", download=True)
    assert "\n" not in str(caught.value)


def test_an_incomplete_snapshot_says_how_to_get_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CARDS", CARDS | {"esm2-8m": replace(CARD)})
    folder = snapshot_in(tmp_path)
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"has no weights.*Run `hf download"):
        encoder_spec("esm2-8m", "protein")
    torch.save(published(CARD), folder / "pytorch_model.bin")
    assert encoder_spec("esm2-8m", "protein").revision == COMMIT
