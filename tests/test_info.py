import json
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("obstore", reason="the extra s3 is not installed")
pytest.importorskip("moto", reason="moto, the local S3 server, is not installed")

from fake_s3 import s3_server
from fake_study import FakeStudy, make_study
from fakes import FakeEncoder, random_records
from typer.testing import CliRunner

from embedcache.build import build_cache
from embedcache.commands import app
from embedcache.info import StoreInfo, describe_cache, format_cache
from embedcache.store import EmbeddingStore, store_path
from embedcache.store.files import LocalFiles, open_files
from embedcache.store.leases import Attempt, Leases
from embedcache.store.quarantine import Poisoned, quarantine


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server("info-tests") as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def cache(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> str:
    return str(tmp_path / "cache") if request.param == "local" else f"{bucket}/{uuid.uuid4().hex}"


def build(cache: str, **changes: object) -> EmbeddingStore:
    encoder = FakeEncoder(**changes)
    root = store_path(cache, encoder.spec)
    build_cache(random_records(40), encoder, root, shard_bytes=1 << 13)
    return EmbeddingStore(root)


def only(cache: str) -> StoreInfo:
    (found,) = describe_cache(cache)
    return found


def test_a_store_is_described(cache: str) -> None:
    store = build(cache, store_dtype="bfloat16")
    found = only(cache)
    assert (found.sequences, found.tokens) == (len(store), store.n_tokens)
    assert found.tokens_per_sequence == pytest.approx(store.n_tokens / len(store))
    assert (found.dtype, found.layer, found.pooling, found.source_dtype) == ("bfloat16", -1, "none", "")
    assert found.commits == len(store.tasks) > 1 and found.shards >= found.commits and found.index_is_current
    assert abs(time.mktime(time.strptime(found.last_commit, "%Y-%m-%dT%H:%M:%S")) - time.time()) < 60
    assert found.rounding is not None and 1e-4 < found.rounding["relative_l2"] < 4e-3
    assert found.rounding["tokens"] == sum(min(64, -(-n // -(-n // 64))) for n in store.lengths.tolist())
    assert (found.orphans, found.temporary_files, found.workers, found.quarantined) == (0, 0, 0, {})
    assert "bfloat16 tokens" in format_cache([found]) and "\n" not in format_cache([found]).partition("\n")[2]


def test_exact_numbers_have_no_rounding_and_an_empty_store_no_mean(tmp_path: Path) -> None:
    build(str(tmp_path / "a"), store_dtype="float32", layer=3, pooling="mean")
    found = only(str(tmp_path / "a"))
    assert found.rounding is None and "float32 mean, layer 3" in format_cache([found])
    assert found.tokens_per_sequence == 1
    encoder = FakeEncoder()
    build_cache([], encoder, store_path(tmp_path / "b", encoder.spec))
    found = only(str(tmp_path / "b"))
    assert (found.sequences, found.tokens_per_sequence, found.last_commit, found.rounding) == (0, 0.0, "", None)
    assert "never" in format_cache([found])


def test_what_killed_builds_left_and_what_cannot_be_embedded_is_told(cache: str) -> None:
    files = build(cache).files
    files.create(f"tokens/c/{files.claim_shard()}/0", [b"lost attempt"])
    quarantine(files, b"k" * 16, Poisoned("titin", "too long"))
    if isinstance(files.place, Path):
        (files.place / "commits" / ".task.0123").write_bytes(b"half")
    found = only(cache)
    assert (found.orphans, found.orphan_bytes, found.quarantined) == (1, 12, {"titin": "too long"})
    assert found.temporary_files == isinstance(files.place, Path)
    text = format_cache([found])
    assert "left 1 shards (12 B)" in text and "1 sequences cannot be embedded: titin (too long)" in text


def test_workers_are_counted_and_what_they_write_is_no_leftover(cache: str) -> None:
    files = build(cache).files
    files.create(f"tokens/c/{files.claim_shard()}/0", [b"in flight"])
    with Leases(files) as leases:
        leases.acquire(Attempt("one", 0, 0, {}))
        leases.acquire(Attempt("two", 0, 0, {}))
        text = format_cache(describe_cache(cache))
        assert only(cache).workers == 1 and "1 workers at work" in text and "killed builds" not in text
    assert only(cache).workers == 0


def test_info_only_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = build(str(tmp_path)).files
    files.create("claims/tasks/one-0", [b"{}"])

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    for name in ("create", "replace", "remove"):
        monkeypatch.setattr(LocalFiles, name, refuse)
    assert only(str(tmp_path)).workers == 1


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> FakeStudy:
    return make_study(tmp_path_factory.mktemp("study"), n_genes=12)


def test_what_is_saved_because_sequences_repeat(study: FakeStudy) -> None:
    found = {one.modality: one for one in describe_cache(study.cache, dataset=study.dataset)}
    dna = found["dna"].dataset
    assert dna is not None and dna.absent == 0 and dna.sequences == found["dna"].sequences == 12
    assert dna.transcripts > dna.sequences  # isoforms share their window, of 40 letters each
    assert dna.saved_bytes == (dna.transcripts - dna.sequences) * 40 * 8 * 2
    assert dna.size_bytes == dna.sequences * 40 * 8 * 2
    rna = found["rna"].dataset
    assert rna is not None and rna.saved_bytes == 0
    assert f"{dna.transcripts:,} transcripts of the dataset share 12 sequences, has all" in format_cache([found["dna"]])


KEYS = {
    "info": "path modality encoder is_random is_small is_imported "
    "width dtype source_dtype layer special_tokens pooling sequences tokens "
    "tokens_per_sequence size_bytes rounding shards commits last_commit index_is_current quarantined orphans "
    "orphan_bytes temporary_files workers dataset spec",
    "verify": "stores absent names repaired is_repaired",
    "gc": "store shards temporary_files claims plans size_bytes spared workers dry_run",
    "convert": "source store dtype source_dtype rounded_before converted tokens present size_bytes rounding "
    "source_rounding damaged",
    "merge": "cache stores",
    "remove": "store sequences files size_bytes removed",
}
OPTIONS = {
    "convert": ["--modality", "rna", "--store-dtype", "int8"],
    "remove": ["--modality", "dna", "--encoder", "tiny-dna", "--yes"],
}


@pytest.mark.parametrize("command", KEYS)
def test_json_has_the_keys_that_scripts_rely_on(command: str, study: FakeStudy, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    words = OPTIONS.get(command, [str(study.cache)] if command == "merge" else [])
    if command != "merge":
        shutil.copytree(study.cache, cache)
    if command in ("info", "verify"):
        words = ["--dataset", str(study.dataset)]
    done = CliRunner().invoke(app, [command, "--cache", str(cache), "--json", *words])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    first = found[0] if isinstance(found, list) else found
    assert list(first) == KEYS[command].split()
    if command == "info":
        assert list(first["dataset"]) == ["transcripts", "sequences", "absent", "size_bytes", "saved_bytes"]
    if command == "merge":
        keys = "source store copied tokens size_bytes present differing difference damaged refused"
        assert list(found["stores"][0]) == keys.split() and len(found["stores"]) == 3
    if command == "verify":
        keys = "store sequences size_bytes damages mean harmless quarantined"
        assert list(found["stores"][0]) == keys.split()


def test_info_is_the_same_wherever_the_store_lies(bucket: str, tmp_path: Path) -> None:
    here, there = str(tmp_path / "c"), f"{bucket}/{uuid.uuid4().hex}"
    for place in (here, there):
        build(place)
    one, other = (only(place).to_json() for place in (here, there))
    for name in ("path", "last_commit"):
        del one[name], other[name]
    assert one == other and open_files(here).exists("protein")
