"""What reports say and what they end with: counts, names, what to do; and numbers for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.build import BuildReport
from embedcache.care import Absent, CacheCheck
from embedcache.convert import ConvertReport, _full_shards
from embedcache.engines.run import WorkerEnd, _together
from embedcache.errors import CacheDamagedError, CacheError, CacheMismatchError, SkippedError
from embedcache.estimate import _duration
from embedcache.merge import MergedStore, MergeReport
from embedcache.store.care import Damage, StoreCheck
from embedcache.store.layout import ENTRY
from embedcache.store.quarantine import Poisoned
from embedcache.store.rounding import join_rounding
from embedcache.store.transfer import Load
from embedcache.units import format_bytes

# Numbers


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1549, "1.5 kB"), (999_960, "1.0 MB"), (10**6, "1.0 MB"),
     (2.5e9, "2.5 GB"), (10**12, "1.0 TB"), (7.2e15, "7200.0 TB")],
)  # fmt: skip
def test_bytes_have_a_decimal_unit(n: float, text: str) -> None:
    assert format_bytes(n) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 seconds"), (119, "119.0 seconds"), (120, "2.0 minutes"), (7199, "120.0 minutes"), (7200, "2.0 hours"),
     (172_799, "48.0 hours"), (172_800, "2.0 days"), (8_640_000, "100.0 days")],
)  # fmt: skip
def test_time_is_told_in_the_unit_that_reads_best(seconds: float, text: str) -> None:
    assert _duration(seconds) == text


ROUNDINGS = st.lists(st.tuples(st.floats(0, 1), st.floats(-1, 1), st.integers(0, 100)), max_size=5)


@given(ROUNDINGS)
def test_what_rounding_cost_is_weighed_by_tokens(told: list[tuple[float, float, int]]) -> None:
    headers = [{"rounding": {"relative_l2": a, "cosine": b, "tokens": n}} for a, b, n in told]
    found = join_rounding([{}, *headers, {"rounding": {"relative_l2": True, "cosine": 1, "tokens": 3}}])
    weights = [n for _, _, n in told]
    if not sum(weights):
        assert found is None
        return
    assert found is not None and found["tokens"] == sum(weights)
    np.testing.assert_allclose(found["relative_l2"] ** 2, np.average([a * a for a, _, _ in told], weights=weights))
    np.testing.assert_allclose(found["cosine"], np.average([b for _, b, _ in told], weights=weights), atol=1e-12)


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), max_size=8), st.integers(1, 20))
def test_records_are_carried_together_up_to_a_shard(lengths: list[list[int]], shard_rows: int) -> None:
    loads = []
    for some in lengths:
        entries = np.zeros(len(some), ENTRY)
        entries["length"] = some
        loads.append(Load(entries, {}))
    groups = list(_full_shards(loads, shard_rows))
    assert [load for group in groups for load in group] == loads and all(groups)
    sizes = [sum(load.n_rows for load in group) for group in groups]
    assert all(size <= shard_rows or len(group) == 1 for size, group in zip(sizes, groups, strict=True))
    for size, following in zip(sizes, groups[1:], strict=False):
        assert size + following[0].n_rows > shard_rows


# Builds


def poisoned(n: int) -> tuple[Poisoned, ...]:
    return tuple(Poisoned(id=f"p{i}", reason=f"why{i}") for i in range(n))


def build_report(**changes: Any) -> BuildReport:
    fields = {"stores": (Path("c/a"), Path("c/b")), "distinct": 1200, "repeated": 30, "computed": 1000, "tokens": 5000,
              "cropped": 4, "skipped": (), "seconds": 2.0}  # fmt: skip
    return BuildReport(**{**fields, **changes})


def test_a_build_tells_what_it_did() -> None:
    assert str(build_report()) == (
        "1,000 of 1,200 distinct sequences embedded (5,000 tokens) in 2.0 s, 2,500 tokens a second; 200 were there, "
        "30 records repeat another's sequence, 4 were cropped.\nc/a\nc/b"
    )
    nothing = str(build_report(computed=0, tokens=0, skipped=poisoned(3)))
    assert "a second" not in nothing and "; 1,197 were there, 3 cannot be embedded, 30 records" in nothing


@pytest.mark.parametrize("n", [1, 5, 6, 1006])
def test_skipped_sequences_end_a_build_by_name(n: int) -> None:
    build_report().raise_if_skipped()
    with pytest.raises(SkippedError) as error:
        build_report(skipped=poisoned(n)).raise_if_skipped()
    text, named = str(error.value), "; ".join(f"p{i} (why{i})" for i in range(min(n, 5)))
    more = f" and {n - 5:,} more" if n > 5 else ""
    assert text.startswith(f"{n:,} sequences cannot be embedded and were skipped: {named}{more}. All others")
    assert text.endswith("reasons are in c/a/claims/quarantine. Try them again with --retry.")


def test_workers_report_together(caplog: pytest.LogCaptureFixture) -> None:
    one, two, three = poisoned(3)
    first = build_report(computed=10, tokens=100, cropped=1, seconds=5.0, skipped=(one, two))
    second = build_report(computed=5, tokens=7, cropped=3, seconds=2.0, skipped=(two, three))
    found = _together([WorkerEnd(None, "disk full"), WorkerEnd(first), WorkerEnd(None), WorkerEnd(second)])
    assert found == build_report(computed=15, tokens=107, cropped=3, seconds=5.0, skipped=(one, two, three))
    assert caplog.messages == ["a worker failed and others did its work: disk full"]
    with pytest.raises(CacheError, match="none of 2 workers finished: disk full"):
        _together([WorkerEnd(None), WorkerEnd(None, "disk full")])
    with pytest.raises(CacheError, match="none of 1 workers finished: they all died"):
        _together([WorkerEnd(None)])


# Transfers


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "a: 1,000 sequences (2 tokens, 3,000 bytes) copied, 4 were there"),
        ({"differing": ("k",), "difference": 0.01234},
         "4 were there, 1 of them with numbers that differ by 0.012 (relative L2); those of the cache stay"),
        ({"differing": ("k", "l")}, "2 of them with numbers that differ in their length; those of the cache stay"),
        ({"damaged": ("k",)}, "4 were there, 1 are damaged and were left out"),
        ({"refused": "no mean"}, "a: not copied: no mean"),
    ],
    ids=["copied", "other-numbers", "other-lengths", "damaged", "refused"],
)  # fmt: skip
def test_a_merge_tells_what_became_of_each_store(changes: dict[str, Any], text: str) -> None:
    fields = {"source": "a", "store": "b", "copied": 1000, "tokens": 2, "size_bytes": 3000, "present": 4}
    found = str(MergeReport(cache="c", stores=(MergedStore(**{**fields, **changes}),)))
    assert found.endswith(text) and found.startswith("a: ")


def test_a_merge_that_lacks_something_ends_with_an_error() -> None:
    good, damaged = MergedStore(source="a", store="x"), MergedStore(source="b", store="x", damaged=("k", "l"))
    refused = MergedStore(source="c", store="", refused="other settings")
    MergeReport(cache="c", stores=(good,)).raise_if_incomplete()
    assert str(MergeReport(cache="c", stores=())) == "No stores."
    with pytest.raises(CacheDamagedError, match=r"^3 sequences are damaged in b and were left out"):
        MergeReport(
            cache="c", stores=(good, damaged, refused, MergedStore(source="d", store="x", damaged=("m",)))
        ).raise_if_incomplete()
    with pytest.raises(CacheMismatchError, match=r"^c was not copied: other settings$"):
        MergeReport(cache="c", stores=(good, refused)).raise_if_incomplete()


def test_a_conversion_tells_what_was_lost_twice() -> None:
    fields: dict[str, Any] = {
        "source": "s",
        "store": "t",
        "dtype": "int8",
        "source_dtype": "float16",
        "converted": 1000,
        "tokens": 2000,
        "present": 3,
        "size_bytes": 4000,
        "damaged": (),
    }
    error = {"relative_l2": 0.00123, "cosine": 0.9999994, "tokens": 9}
    exact = ConvertReport(**fields, rounded_before="", rounding=None, source_rounding=None)
    assert str(exact) == "float16 to int8: 1,000 sequences (2,000 tokens, 4,000 bytes) written, 3 were there.\nt"
    twice = ConvertReport(**fields, rounded_before="float16", rounding=error, source_rounding=error)
    assert str(twice).splitlines()[2:] == [
        "Against the rows of the source: relative error 0.0012, cosine 0.999999.",
        "Rounded before: the source was rounded to float16 (relative error 0.0012, cosine 0.999999), and what that "
        "lost is lost here too.",
    ]
    exact.raise_if_damaged()
    with pytest.raises(CacheDamagedError, match=r"^2 sequences of s are damaged and were left out, such as aa"):
        ConvertReport(
            **{**fields, "damaged": ("aa", "bb")}, rounded_before="", rounding=None, source_rounding=None
        ).raise_if_damaged()


# Checks


def store_check(name: str = "s", damages: Sequence[Damage] = (), **changes: Any) -> StoreCheck:
    fields: dict[str, Any] = {"sequences": 1000, "size_bytes": 2000, "mean": "", "harmless": {}, "quarantined": {}}
    return StoreCheck(**{**fields, "store": name, "damages": tuple(damages), **changes})


def test_a_check_of_a_store_names_what_is_wrong() -> None:
    assert str(store_check()) == "s: 1,000 sequences, 2,000 bytes, all right"
    keys = tuple(f"k{i}" for i in range(25))
    damages = [
        Damage(task="t", shard=0, keys=keys, reason="bits"),
        Damage(task="u", shard=None, keys=(), reason="gone"),
    ]
    text = str(store_check(damages=damages, mean="mean.npy is missing", harmless={"index.npy": "behind"}))
    lines = text.splitlines()
    assert lines[0].endswith("2 damaged commits") and lines[1] == "  mean.npy is missing: no sequence can be read"
    assert lines[2] == "  commit t: bits (25 sequences)"
    assert lines[3:14] == [*(f"    k{i}" for i in range(10)), "    and 15 more"]
    assert "  commit u: gone (all sequences)" in lines and lines[-1] == "  index.npy: behind; harmless"
    poison = {f"{i}": one for i, one in enumerate(poisoned(2))}
    assert str(store_check(quarantined=poison)).splitlines()[1:] == [
        "  2 sequences in quarantine, which the encoder cannot embed", "    p0: why0", "    p1: why1"
    ]  # fmt: skip


def test_a_check_of_a_cache_ends_with_what_to_do() -> None:
    damaged = store_check("b", [Damage(task="t", shard=0, keys=("k",), reason="bits")])
    absent = Absent(sequences=7, quarantined={"p": "why"}, transcripts=tuple("tuvwxyz"))
    fields: dict[str, Any] = {"absent": {}, "names": {}, "repaired": 0, "is_repaired": False}
    CacheCheck(stores=(store_check(),), **fields).raise_if_damaged()
    CacheCheck(stores=(damaged,), **{**fields, "is_repaired": True}).raise_if_damaged()
    with pytest.raises(CacheDamagedError, match=r"^1 of 2 stores are damaged: b\. Run `embedcache verify --repair`"):
        CacheCheck(stores=(store_check(), damaged), **fields).raise_if_damaged()
    lacking = CacheCheck(stores=(store_check(),), **{**fields, "absent": {"s": absent}})
    with pytest.raises(CacheDamagedError, match=r"^1 stores lack sequences of the dataset: s\. Run `embedcache build`"):
        lacking.raise_if_damaged()
    assert str(lacking).splitlines()[1] == (
        "s: lacks 7 sequences of the dataset: t, u, v, w, x and 2 more. 1 of them are in quarantine: p (why)"
    )
    named = CacheCheck(stores=(damaged,), absent={}, names={"k": ("t1", "t2")}, repaired=1, is_repaired=True)
    assert str(named).splitlines()[-2:] == [
        "damaged: t1, t2", "1 damaged commits withdrawn. Run `embedcache build` again."
    ]  # fmt: skip
