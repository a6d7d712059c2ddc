import errno
import os
import resource
from pathlib import Path

import pytest
from fakes import fake_spec
from test_store import sequences

from embedcache.errors import CacheError
from embedcache.store import EmbeddingStore, commit_task, create_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_store(tmp_path / "s", fake_spec())
    return tmp_path / "s"


def test_the_limit_of_open_files_is_raised(root: Path) -> None:
    EmbeddingStore(root)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard
    assert os.sysconf("SC_OPEN_MAX") == hard


@pytest.mark.parametrize(("reason", "advice"), [(errno.EMFILE, "ulimit -n"), (errno.EACCES, "permissions")])
def test_a_shard_that_cannot_be_opened_is_told_in_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, reason: int, advice: str
) -> None:
    commit_task(root, sequences([9]))

    def refused(*_: object, **__: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("embedcache.store.maps.mmap.mmap", refused)
    with pytest.raises(CacheError, match=rf"^\S+tokens/c/0/0 cannot be opened: .*{advice}.*again\.$"):
        EmbeddingStore(root).packed([0])
