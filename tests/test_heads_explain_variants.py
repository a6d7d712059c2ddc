"""heads explain variant: against a dataset from the changed genome, against codons of real genes, as a user."""

import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from Bio.Seq import Seq
from live_study import letters, make_simulated
from typer.testing import CliRunner

from embedcache.annotation import Annotation, read_gtf
from embedcache.dataset import Dataset, read_dataset
from embedcache.errors import EmbedCacheError
from embedcache.genome import Genome, open_genome
from embedcache.prepare.genome import prepare_genome
from embedcache.transcripts import read_coding_sequence, splice
from heads.commands import app
from heads.interpret.explain.apply import Variant, consequence_of
from heads.interpret.explain.live_model import open_live
from heads.interpret.explain.output import ENTRY
from heads.interpret.explain.variant_effects import variant_effects
from heads.interpret.explain.variant_inputs import Effect, carried_variants

OTHER = str.maketrans("ACGT", "GTAC")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_simulated(tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def dataset(run: Path) -> Dataset:
    return read_dataset(run.parent / "dataset")


def carry_variants(dataset: Dataset, genome: Path, gtf: Path, variants: list[Variant]) -> list[Effect]:
    with carried_variants(dataset, genome, gtf, variants) as (count, effects):
        found = list(effects)
    assert len(found) == count
    return found


def files(run: Path) -> tuple[Path, Path]:
    return run.parent / "dataset" / "study" / "genome.fa", run.parent / "dataset" / "study" / "annotation.gtf"


def fetch(run: Path, contig: str, start: int, end: int) -> str:
    with open_genome(files(run)[0]) as genome:
        return genome.fetch(contig, start, end)


def some_variant(run: Path, strand: str, kind: str) -> Variant:
    """In the second exon, in the first intron or before the TSS of a transcript with introns."""
    one = next(t for t in read_gtf(files(run)[1]).transcripts.values() if t.strand == strand and len(t.exons) > 2)
    place = {"exon": one.exons[1][0] + 7, "intron": one.exons[0][1] + 9, "upstream": one.tss + (60, -60)[strand == "+"]}
    where, _, what = kind.partition("-")
    start = place[where]
    ref = fetch(run, one.contig, start, start + 4)
    ref, alt = {
        "letter": (ref[0], ref[0].translate(OTHER)),
        "insertion": (ref[0], ref[0] + "ACGTT"),
        "deletion": (ref, ref[0]),
        "letters": (ref, ref.translate(OTHER)),
    }[what]
    return Variant(one.contig, start + 1, ref, alt)


def write_changed(variant: Variant, genome: Path, gtf: Path, folder: Path) -> None:
    """The genome with the variant in it, and the annotation moved with it."""
    start, end = variant.position - 1, variant.position - 1 + len(variant.ref)
    moved = len(variant.alt) - len(variant.ref)
    text = []
    with open_genome(genome) as opened:
        for contig, size in opened.contigs.items():
            whole = opened.fetch(contig, 0, size)
            if contig == variant.contig:
                whole = whole[:start] + variant.alt + whole[end:]
            text.append(f">{contig}\n{whole}\n")
    (folder / "g.fa").write_text("".join(text))
    lines = []
    for line in gtf.read_text().splitlines():
        cells = line.split("\t")
        if cells[0] == variant.contig:
            low, high = int(cells[3]) - 1, int(cells[4])
            cells[3:5] = [str(low + 1 + moved * (low >= end)), str(high + moved * (high >= end))]
        lines.append("\t".join(cells))
    (folder / "t.gtf").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize(
    "kind",
    ["exon-letter", "exon-insertion", "exon-deletion", "exon-letters", "intron-insertion", "upstream-deletion",
     "upstream-letter"],
)  # fmt: skip
def test_inputs_are_those_of_a_dataset_from_the_changed_genome(
    tmp_path: Path, run: Path, dataset: Dataset, strand: str, kind: str
) -> None:
    variant = some_variant(run, strand, kind)
    genome, gtf = files(run)
    write_changed(variant, genome, gtf, tmp_path)
    other = prepare_genome(genome=tmp_path / "g.fa", gtf=tmp_path / "t.gtf", output=tmp_path / "d", dna_length=400)
    expected = dict(zip(other.samples["transcript_id"], letters(other), strict=True))
    effects = carry_variants(dataset, genome, gtf, [variant])
    touched = {dataset.samples["transcript_id"].iloc[effect.row]: effect for effect in effects}
    before = dict(zip(dataset.samples["transcript_id"], letters(dataset), strict=True))
    for transcript, sample in expected.items():
        found = touched[transcript].after if transcript in touched else before[transcript]
        assert (found["dna"], found["rna"]) == (sample["dna"], sample["rna"])
        if sample["protein"] is not None:  # a shifted frame has no annotated end
            assert found["protein"] == sample["protein"]
    changed = {effect.consequence for effect in effects}
    assert changed <= {
        "exon-letter": {"missense", "synonymous", "stop gained", "5' UTR", "3' UTR", "non-coding exon", "intron"},
        "exon-letters": {"missense", "stop gained", "5' UTR", "3' UTR", "non-coding exon", "intron"},
        "intron-insertion": {"intron", "missense", "inframe", "frameshift", "stop gained", "5' UTR", "3' UTR"},
    }.get(kind, changed)


def test_the_command_writes_predictions_with_and_without(tmp_path: Path, run: Path, dataset: Dataset) -> None:
    genome, gtf = files(run)
    variants = [some_variant(run, "-", "exon-letter"), some_variant(run, "+", "upstream-deletion")]
    far = Variant(variants[0].contig, 1, fetch(run, variants[0].contig, 0, 1), "")
    rows = [f"{v.contig}\t{v.position}\tv{i}\t{v.ref}\t{v.alt}" for i, v in enumerate(variants)]
    rows.append(f"{far.contig}\t1\tfar\t{far.ref}\t{far.ref.translate(OTHER)}")
    with gzip.open(tmp_path / "v.vcf.gz", "wt") as file:
        file.write("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\n" + "\n".join(rows) + "\n")
    arguments = [
        "explain",
        "variant",
        "--run",
        run,
        "--genome",
        genome,
        "--gtf",
        gtf,
        "--variants",
        tmp_path / "v.vcf.gz",
    ]
    arguments += ["--output", tmp_path / "out", "--device", "cpu"]
    said = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False).output
    assert "[simulated; small encoder" in said
    table = pq.read_table(tmp_path / "out" / "variants.parquet")
    story = json.loads(table.schema.metadata[ENTRY])
    assert [Path(one["path"]).name for one in story["inputs"]] == ["genome.fa", "annotation.gtf", "v.vcf.gz"]
    assert all(re.fullmatch("[0-9a-f]{64}", one["sha256"]) for one in story["inputs"])
    found = table.to_pandas()
    assert set(found["id"]) >= {"v0", "v1"}
    effects = carry_variants(dataset, genome, gtf, variants)
    live = open_live(run, "cpu")
    expected = live.predict([one for effect in effects for one in (effect.before, effect.after)])
    own = found[found["id"] != "far"]
    np.testing.assert_allclose(own["predicted_ref"], expected[0::2].ravel(), atol=1e-5)
    np.testing.assert_allclose(own["predicted_alt"], expected[1::2].ravel(), atol=1e-5)
    np.testing.assert_array_equal(own["difference"], own["predicted_alt"] - own["predicted_ref"])
    assert (own.loc[own["changed"] == "", "difference"] == 0).all()
    assert (tmp_path / "out" / "variants.html").read_text().count("small encoder: dna mini-dna") >= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": []}, "Give variants either in a file"),
        ({"variants": Path("v.vcf")}, "Give variants either in a file"),
        ({"variant": ["sim1:1"]}, "is not CHROM:POS:REF:ALT"),
        ({"variant": ["chr9:5:A:G"]}, "lies on contig 'chr9', which"),
        ({"variant": ["wrong"]}, "REF is"),
        ({"variant": ["far"]}, "None of 1 variants touches a transcript"),
        ({"genome": "other"}, "the dataset came from another genome or annotation"),
        ({"gtf": "other"}, "has no transcript of"),
        ({"tissues": ["Lung"]}, "Unknown tissue 'Lung'"),
    ],
    ids=["none", "both", "text", "contig", "ref", "far", "genome", "gtf", "tissue"],
)
def test_wrong_input_is_one_line(tmp_path: Path, run: Path, change: dict[str, Any], message: str) -> None:
    genome, gtf = files(run)
    good = some_variant(run, "-", "exon-letter")
    if change.get("genome"):  # another base inside the same exon, but the variant's own
        text = genome.read_text()
        head, _, rest = text.partition("\n")
        end = rest.find("\n>") if "\n>" in rest else len(rest)
        flat = rest[:end].replace("\n", "")
        at = good.position + 2
        flat = flat[:at] + flat[at].translate(OTHER) + flat[at + 1 :]
        assert head[1:].split()[0] == good.contig
        change = {**change, "genome": tmp_path / "g.fa"}
        change["genome"].write_text(f"{head}\n{flat}{rest[end:]}")
    if change.get("gtf"):
        change = {**change, "gtf": tmp_path / "t.gtf"}
        change["gtf"].write_text(gtf.read_text().replace('transcript_id "SIM', 'transcript_id "OTHER'))
    if change.get("variant") == ["wrong"]:
        change = {"variant": [f"{good.contig}:{good.position}:{good.alt}:{good.ref}"]}
    if change.get("variant") == ["far"]:
        low = min(t.exons[0][0] for t in read_gtf(gtf).transcripts.values() if t.contig == good.contig)
        assert low > 10
        first = fetch(run, good.contig, 0, 1)
        change = {"variant": [f"{good.contig}:1:{first}:{first.translate(OTHER)}"]}
    given = {"genome": genome, "gtf": gtf, "variant": [str(good)], **change}
    with pytest.raises(EmbedCacheError) as caught:
        variant_effects(run, output=tmp_path / "out", device="cpu", **given)
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


# Real genes: codons by their coordinates, translated by Biopython


def check_codons(genome: Genome, annotation: Annotation, identifier: str, code: int = 1) -> set[str]:
    """All nine changes of several codons of a gene against a direct translation; gives the words seen."""
    one = annotation.transcripts[identifier]
    rna = splice(genome, one)
    coding = read_coding_sequence(one, rna, code)
    bounds = (coding.start, coding.end)
    places = [p for start, end in one.exons for p in range(start, end)][:: 1 if one.strand == "+" else -1]
    places = places[coding.start : coding.end + 3]
    n = len(coding.protein)
    seen = set()
    for codon in sorted({0, 1, n // 3, n // 2, n - 1, n}):
        three = places[codon * 3 : codon * 3 + 3]
        bases = [genome.fetch(one.contig, p, p + 1) for p in three]
        own = bases if one.strand == "+" else [str(Seq(base).complement()) for base in bases]
        old = str(Seq("".join(own)).translate(table=code))
        assert old == (coding.protein + "*")[codon] or codon == 0
        for i in range(3):
            for alt in "ACGT".replace(bases[i], ""):
                changed = [*own]
                changed[i] = alt if one.strand == "+" else str(Seq(alt).complement())
                new = str(Seq("".join(changed)).translate(table=code))
                expected = (
                    "start lost" if codon == 0 else "synonymous" if new == old else "stop lost" if codon == n
                    else "stop gained" if new == "*" else "missense"
                )  # fmt: skip
                variant = Variant(one.contig, three[i] + 1, bases[i], alt)
                found = consequence_of(one, variant, rna=rna, cds=bounds, code=code, protein=coding.protein)
                assert found.consequence == expected, (identifier, codon, variant)
                if expected == "missense":
                    assert found.residue == f"{old}{codon + 1}{new}"
                    assert found.protein == coding.protein[:codon] + new + coding.protein[codon + 1 :]
                elif expected == "stop gained":
                    assert found.protein == coding.protein[:codon]
                seen.add(expected)
    return seen


def test_real_yeast_genes(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("yeast")
    annotation = read_gtf(next(folder.glob("*.gtf.gz")))
    wanted = ["YFL039C", "YAL003W", "YGL103W", "YLR388W"]  # ACT1, EFB1 and RPL28 have an intron, RPS29A has none
    with open_genome(next(folder.glob("genome*"))) as genome:
        seen = {word for gene in wanted for word in check_codons(genome, annotation, of_gene(annotation, gene))}
        assert annotation.transcripts[of_gene(annotation, "YFL039C")].strand == "-"
    assert seen == {"start lost", "synonymous", "stop lost", "stop gained", "missense"}


def of_gene(annotation: Annotation, gene: str) -> str:
    return next(one.id for one in annotation.transcripts.values() if one.gene_id == gene)


def test_real_human_transcripts(shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("human_regions")
    annotation = read_gtf(folder / "annotation.gtf.gz")
    with gzip.open(folder / "expected_protein.fa.gz", "rt") as file:
        known = {line[1:].split()[0] for line in file if line.startswith(">")}
    with open_genome(folder / "genome.fa.gz") as genome:
        many = [t for t in annotation.transcripts.values() if t.id in known and len(t.exons) > 3]
        for strand in "+-":
            for one in [t for t in many if t.strand == strand][:3]:
                assert "missense" in check_codons(genome, annotation, one.id)
