"""A build whose commits vanish ends, and says so; one that only has to try again goes on."""

from pathlib import Path

import pytest
from fakes import FakeEncoder, random_records

from embedcache import build as module
from embedcache.build import ROUNDS_IN_VAIN, build_cache
from embedcache.errors import CacheDamagedError
from embedcache.store import EmbeddingStore


def test_commits_that_are_never_found_end_a_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = []
    monkeypatch.setattr(module, "_absent", lambda keys, products: list(keys))
    monkeypatch.setattr(module, "_work", lambda *_: rounds.append(1))
    with pytest.raises(CacheDamagedError, match=r"5 sequences are missing after 3 rounds .*embedcache verify"):
        build_cache(random_records(5), FakeEncoder(), tmp_path / "store")
    assert len(rounds) == ROUNDS_IN_VAIN


@pytest.mark.parametrize("blind", range(ROUNDS_IN_VAIN))
def test_a_few_rounds_in_vain_are_forgiven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: int) -> None:
    absent, looks = module._absent, []

    def late(keys, products):  # type: ignore[no-untyped-def]
        looks.append(1)
        return list(keys) if len(looks) <= blind else absent(keys, products)

    monkeypatch.setattr(module, "_absent", late)
    build_cache(random_records(5), FakeEncoder(), tmp_path / "store")
    assert len(EmbeddingStore(tmp_path / "store")) == 5
