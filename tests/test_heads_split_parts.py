"""Parts of a split and what is alike across them, against sets and loops written out."""

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_heads_similarity import family_dataset, mutated

from embedcache.dataset import Dataset
from heads.split_config import SplitConfig
from heads.splits import kmers as counting
from heads.splits import shared
from heads.splits.assign import cut_into_parts, draw_validation, unit_names
from heads.splits.describe import describe_split
from heads.splits.genes import join
from heads.splits.kmers import KMER_LENGTH, Kmers, count_kmers
from heads.splits.neighbours import nearest_genes
from heads.splits.shared import gene_profiles, sequence_profiles, similar_pairs
from heads.splits.text import format_report

SIZES = st.lists(st.integers(1, 40), min_size=2, max_size=40)
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def names_of(sizes: list[int]) -> list[str]:
    return [f"gène {i}" for i in range(len(sizes))]


# --- parts ---


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 6), st.text(max_size=4))
def test_parts_are_never_empty_and_nearly_equal(sizes: list[int], n_parts: int, salt: str) -> None:
    n_parts = min(n_parts, len(sizes))
    found = cut_into_parts(names_of(sizes), np.array(sizes), n_parts, salt=salt)
    totals = np.bincount(found, np.array(sizes), n_parts)
    assert set(found.tolist()) == set(range(n_parts))
    assert totals.max() - totals.min() <= max(sizes)
    # the largest go first, each into the part that is smallest: nothing in a part came in while another was smaller
    for part in range(n_parts):
        last = min(np.array(sizes)[found == part])
        assert totals[part] - last <= totals.min()


@settings(max_examples=40, deadline=None)
@given(SIZES, st.randoms(use_true_random=False))
def test_names_and_salt_decide_and_not_the_order(sizes: list[int], random: object) -> None:
    names, order = names_of(sizes), list(range(len(sizes)))
    random.shuffle(order)  # type: ignore[attr-defined]
    n_parts = min(3, len(sizes))
    found = dict(zip(names, cut_into_parts(names, np.array(sizes), n_parts, salt="a").tolist(), strict=True))
    turned = [names[i] for i in order]
    again = cut_into_parts(turned, np.array(sizes)[order], n_parts, salt="a").tolist()
    assert dict(zip(turned, again, strict=True)) == found


def test_the_largest_unit_is_not_in_the_same_part_for_every_salt() -> None:
    sizes = np.array([100, *[1] * 20])
    assert {int(cut_into_parts(names_of(list(sizes)), sizes, 3, salt=str(i))[0]) for i in range(20)} == {0, 1, 2}


@settings(max_examples=60, deadline=None)
@given(SIZES, st.floats(0.01, 0.9), st.integers(0, 5))
def test_validation_takes_whatever_fits_and_one_unit_at_least(sizes: list[int], fraction: float, seed: int) -> None:
    rest = np.arange(len(sizes))[:: 1 + seed % 2]
    chosen = draw_validation(names_of(sizes), np.array(sizes), rest, fraction, str(seed))
    of_rest, taken = np.array(sizes)[rest], np.array(sizes)[chosen]
    assert set(np.flatnonzero(chosen)) <= set(rest.tolist())
    room = fraction * of_rest.sum() - taken.sum()
    if len(rest) > 1 and fraction * of_rest.sum() < of_rest.min():
        assert taken.tolist() == [of_rest.min()]  # nothing fits: the smallest
    elif len(rest) > 1:
        assert room >= -1e-9
        left = [size for unit, size in zip(rest, of_rest, strict=True) if not chosen[unit]]
        assert all(size > room for size in left)
    else:
        assert not chosen.any() or room >= -1e-9


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 15), st.integers(0, 20)), max_size=20))
def test_groups_are_joined_by_what_they_share(n_genes: int, edges: list[tuple[int, int]]) -> None:
    edges = [(a % n_genes, b) for a, b in edges]
    left, right = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    found = join(n_genes, left, right).tolist()
    group = list(range(max([n_genes, *(b + 1 for _, b in edges)])))
    for _ in group:
        for a, b in edges:
            group[a] = group[b] = min(group[a], group[b])
    for a, b in product(range(n_genes), repeat=2):
        assert (found[a] == found[b]) == (group[a] == group[b])
    firsts = [found.index(number) for number in range(max(found) + 1)]
    assert firsts == sorted(firsts), "numbered by their first gene"


def test_a_unit_is_named_by_its_first_gene(tmp_path: Path) -> None:
    dataset = family_dataset(tmp_path / "d", ["MKV", "MKL", "MKI", "MKT"])
    dataset.samples["gene_id"] = ["b", "c", "a", "d"]
    assert unit_names(dataset, np.array([0, 1, 0, 1])) == ["a", "c"]


# --- k-mers ---


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([("protein", 20), ("rna", 4)]), st.integers(1, 17), st.data())
def test_codes_are_numbers_in_the_base_of_the_alphabet(kind: tuple[str, int], k: int, data: st.DataObject) -> None:
    base = kind[1]
    k = min(k, 6 if base == 20 else 16)
    letters = data.draw(st.lists(st.integers(-1, base - 1), min_size=k, max_size=40))
    found = counting._codes(np.array(letters, dtype=np.int8), k, base)
    windows = [letters[i : i + k] for i in range(len(letters) - k + 1)]
    assert found.tolist() == [sum(max(x, 0) * base ** (k - 1 - i) for i, x in enumerate(one)) for one in windows]
    different = counting._different_letters(np.array(letters, dtype=np.int8), k, base)
    assert different.tolist() == [len({max(x, 0) for x in one}) for one in windows]


def test_numbers_are_scattered_one_to_one() -> None:
    codes = np.arange(100_000, dtype=np.uint64)
    mixed = counting._mix(codes)
    assert len(np.unique(mixed)) == len(codes)
    for every in (2, 8, 64):
        assert np.mean(counting._is_kept(mixed, every)) == pytest.approx(1 / every, rel=0.1)


def words(sequence: str, k: int, least: int, alphabet: str) -> set[str]:
    found = {sequence[i : i + k] for i in range(len(sequence) - k + 1)}
    return {one for one in found if set(one) <= set(alphabet) and len(set(one)) >= least}


def rnas(n: int = 12, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    first = "".join(rng.choice(list("ACGT"), 300))
    near = [mutated(first, share, "ACGT", rng) for share in (0.01, 0.03, 0.06)]
    other = ["".join(rng.choice(list("ACGTN"), rng.integers(1, 200))) for _ in range(n - 6)]
    return [first, *near, *other, first[:100], "A" * 60 + "CG" * 20]


@pytest.mark.parametrize("at_once", [1 << 22, 250], ids=["one block", "several blocks"])
def test_kmers_of_rna_are_those_of_sets(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(counting, "_LETTERS_AT_ONCE", at_once)
    sequences = rnas()
    found = count_kmers([(bytes([i]), one) for i, one in enumerate(sequences)], "rna")
    sets = [words(one, 16, 3, "ACGT") for one in sequences]
    assert found.numbers == {bytes([i]): i for i in range(len(sequences))}
    users = Counter(word for one in sets for word in one)
    assert found.alone.tolist() == [sum(users[word] == 1 for word in one) for one in sets]
    assert np.diff(found.matrix.indptr).tolist() == [sum(users[word] > 1 for word in one) for one in sets]
    common = (found.matrix @ found.matrix.T).toarray()
    for i, j in product(range(len(sets)), repeat=2):
        assert i == j or common[i, j] == len(sets[i] & sets[j])


def test_no_sequences_have_no_kmers() -> None:
    for records in ([], [(b"a", "")], [(b"a", "ACG"), (b"b", "NNNNNNNNNNNNNNNNNNNNN")]):
        found = count_kmers(records, "rna")
        assert found.matrix.shape == (len(records), 0)
        assert found.alone.tolist() == [0] * len(records)
        assert found.every == 1


# --- likeness ---


def of_genes(kmers: Kmers, genes: list[int], sets: list[set[str]]) -> list[set[str]]:
    return [
        set().union(*(one for g, one in zip(genes, sets, strict=True) if g == gene)) for gene in range(max(genes) + 1)
    ]


@pytest.mark.parametrize("at_once", [20_000_000, 40], ids=["one block", "several blocks"])
@pytest.mark.parametrize("least", [0.2, 0.9, 0.97])
def test_pairs_are_those_whose_sets_are_alike(monkeypatch: pytest.MonkeyPatch, at_once: int, least: float) -> None:
    monkeypatch.setattr(shared, "_AT_ONCE", at_once)
    sequences, genes = rnas(), [0, 1, 1, 2, 3, 3, 4, 5, 6, 7, 0, 8]
    sets = [words(one, 16, 3, "ACGT") for one in sequences]
    kmers = count_kmers([(bytes([i]), one) for i, one in enumerate(sequences)], "rna")
    by_gene = gene_profiles(kmers, np.array(genes), np.arange(12), 9)
    together = of_genes(kmers, genes, sets)
    assert by_gene.sizes.tolist() == [len(one) for one in together]
    blocks = list(similar_pairs(sequence_profiles(kmers, np.arange(12)), by_gene, 16, least))
    pairs = {(int(s), int(g)): float(x) for one in blocks for s, g, x in zip(*one, strict=True)}
    found = {pair: x for pair, x in pairs.items() if genes[pair[0]] != pair[1]}  # its own gene has it anyway
    expected = {}
    for (i, one), (g, other) in product(enumerate(sets), enumerate(together)):
        c = len(one & other) if genes[i] != g else 0
        if c >= 3 and (likeness := (c / min(len(one), len(other))) ** (1 / 16)) >= least:
            expected[i, g] = likeness
    assert found == pytest.approx(expected)
    assert (len(blocks) > 1) == (at_once == 40)


def test_two_common_kmers_are_chance_and_three_are_not() -> None:
    rng = np.random.default_rng(3)
    first, second, third = ("".join(rng.choice(list("ACGT"), 60)) for _ in range(3))
    sequences = [first, second + first[:17], third + first[20:38]]  # 2 and 3 windows of 16
    kmers = count_kmers([(bytes([i]), one) for i, one in enumerate(sequences)], "rna")
    by_gene = gene_profiles(kmers, np.arange(3), np.arange(3), 3)
    (found,) = similar_pairs(sequence_profiles(kmers, np.arange(3)), by_gene, 16, 0.01)
    pairs = set(zip(found.sequence.tolist(), found.gene.tolist(), strict=True))
    assert {(0, 2), (2, 0)} <= pairs
    assert not {(0, 1), (1, 0)} & pairs


def test_of_two_genes_that_are_near_the_nearer_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    first, second = ("".join(rng.choice(list(RESIDUES), 100)) for _ in range(2))
    dataset = family_dataset(tmp_path / "d", [first, second, "MK", first[:30] + second[:70], first[:70] + second[:30]])
    kmers = count_kmers(dataset.sequences("protein"), "protein")
    found = nearest_genes(dataset, kmers, np.arange(5) > 2, np.arange(5) < 2)
    assert (found.rows.tolist(), found.gene.tolist()) == ([3, 4], [1, 0])
    np.testing.assert_allclose(found.similarity, (65 / 95) ** (1 / 6), rtol=0.01)


def test_of_a_kmer_in_very_many_genes_the_longest_gene_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_COMMON", 2)
    sequences = ["MKVLAAGHWE", "MKVLAAGHWEYTRC", "MKVLAAGHWEY", "CDEFGHIKLM", "CDEFGHIKLN"]
    kmers = count_kmers([(bytes([i]), one) for i, one in enumerate(sequences)], "protein")
    by_gene = gene_profiles(kmers, np.arange(5), np.arange(5), 5)
    thin = shared._thin(by_gene).toarray()
    assert thin[:3].sum(axis=1).tolist() == [
        0,
        len(words(sequences[1], 6, 4, RESIDUES) & words(sequences[2], 6, 4, RESIDUES)),
        1,
    ]
    assert (thin[3:] == by_gene.matrix.toarray()[3:]).all(), "k-mers of two genes stay"


@pytest.fixture(scope="module")
def kin(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Proteins near and far, an equal one too short for a k-mer, and one without kin."""
    rng = np.random.default_rng(7)
    first, second = ("".join(rng.choice(list(RESIDUES), 120)) for _ in range(2))
    near = [mutated(one, share, RESIDUES, rng) for one in (first, second) for share in (0.05, 0.15)]
    proteins = [first, second, "MK", *near, "MK", "".join(rng.choice(list(RESIDUES), 90)), None]
    return family_dataset(tmp_path_factory.mktemp("kin") / "dataset", proteins)


def test_the_nearest_gene_is_the_one_with_the_most_in_common(kin: Dataset) -> None:
    letters = dict(kin.sequences("protein"))
    proteins = [None if key is None else letters[key] for key in kin.keys("protein")]
    kmers = count_kmers(kin.sequences("protein"), "protein")
    trained = np.arange(10) < 3
    found = nearest_genes(kin, kmers, ~trained, trained)
    assert found.rows.tolist() == [3, 4, 5, 6, 7, 8]
    for row, similarity, gene in zip(*found, strict=True):
        one = words(proteins[row] or "", 6, 4, RESIDUES)
        likeness = []
        for other in range(3):
            theirs = words(proteins[other] or "", 6, 4, RESIDUES)
            c = len(one & theirs)
            near = (c / min(len(one), len(theirs))) ** (1 / KMER_LENGTH["protein"]) if c >= 3 else 0.0
            likeness.append(1.0 if proteins[row] == proteins[other] else near)
        assert similarity == pytest.approx(max(likeness))
        assert gene == (int(np.argmax(likeness)) if max(likeness) else -1)
    assert found.similarity[4] == 1 and found.similarity[5] == 0


def test_a_report_counts_what_it_found(kin: Dataset) -> None:
    kin.samples["split"] = ["train"] * 3 + ["validation"] * 3 + ["test"] * 4
    report = describe_split(kin, SplitConfig())
    by_part, alike = {one.part: one for one in report.closeness}, 0
    kmers = count_kmers(kin.sequences("protein"), "protein")
    trained = np.arange(10) < 3
    for part, rows in (("validation", range(3, 6)), ("test", range(6, 10))):
        found = nearest_genes(kin, kmers, np.isin(np.arange(10), rows), trained).similarity
        one, alike = by_part[part], alike + int((found >= 0.5).sum())
        assert one.transcripts == len(found)
        assert one.median == pytest.approx(np.median(found))
        assert one.upper == pytest.approx(np.quantile(found, 0.9))
        shares = [one.share_half, one.share_high, one.share_alike]
        np.testing.assert_allclose(shares, [np.mean(found >= limit) for limit in (0.5, 0.9, 0.5)])
    assert [part.transcripts for part in report.parts] == [3, 3, 4]
    assert [part.coding for part in report.parts] == [1, 1, 0.75]
    similarities = [pair.similarity for pair in report.closest]
    assert similarities == sorted(similarities, reverse=True)
    assert report.share_alike == pytest.approx(alike / 7), "of all that are held out, with a protein or not"
    text = format_report(report)
    assert "10 units stay together, the largest has 1 transcripts" in text
    assert "closest in protein:" in text and text.count("  1.00  ") == 1
