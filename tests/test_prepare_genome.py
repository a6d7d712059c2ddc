import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from embedcache.annotation import read_gtf
from embedcache.dataset import Dataset
from embedcache.errors import EmbedCacheError, InvalidSettingError, UnknownNameError
from embedcache.prepare.common import without_version
from embedcache.prepare.genome import prepare_genome
from embedcache.sequences import read_fasta
from embedcache.splits import SplitRule

GENOME = ">one\nCCATGAAATAACCGG\n>two\nACGTACGTAC\n"
LINE = '{}\tx\t{}\t{}\t{}\t.\t{}\t{}\tgene_id "{}"; transcript_id "{}"; gene_type "protein_coding";\n'
GTF = (
    LINE.format("one", "exon", 2, 12, "+", ".", "G.1", "T1.1")
    + LINE.format("one", "CDS", 3, 8, "+", 0, "G.1", "T1.1")
    + LINE.format("one", "exon", 2, 13, "+", ".", "G.1", "T2.1")
    + LINE.format("two", "exon", 3, 8, "-", ".", "H.1", "T3.1")
)
TARGETS = "id\tLiver\tSkin\nT1.1\t1\t\nT3.1\t0\t3\nT9.1\t1\t1\n"


def prepare(folder: Path, **changes: Any) -> Dataset:
    texts = {"genome": GENOME, "gtf": GTF, "expression": TARGETS}
    for name, text in texts.items():
        (folder / name).write_text(changes.pop(name, text))
    paths = {name: folder / name for name in texts}
    return prepare_genome(**{**paths, "output": folder / "out" / "d", "dna_length": 6, **changes})


def sequences(dataset: Dataset, modality: Any) -> dict[str, str | None]:
    of_key = dict(dataset.sequences(modality))
    keys = dataset.keys(modality)
    return {i: None if k is None else of_key[k] for i, k in zip(dataset.samples["transcript_id"], keys, strict=True)}


def test_a_small_study_by_hand(tmp_path: Path) -> None:
    dataset = prepare(tmp_path)
    assert sequences(dataset, "rna") == {"T1.1": "CATGAAATAAC", "T2.1": "CATGAAATAACC", "T3.1": "ACGTAC"}
    assert sequences(dataset, "protein") == {"T1.1": "MK", "T2.1": None, "T3.1": None}
    # TSS of T1 is base 2 of one, of T3 base 8 of two on the minus strand: index 3 of the window in both.
    assert sequences(dataset, "dna") == {"T1.1": "NNCCAT", "T2.1": "NNCCAT", "T3.1": "NGTACG"}
    assert dataset.samples["tss"].tolist() == [2, 2, 8]
    assert dataset.samples[["cds_start", "cds_end"]].iloc[0].tolist() == [1, 7]
    np.testing.assert_allclose(dataset.targets, np.log1p([[1, np.nan], [np.nan, np.nan], [0, 3]]))
    assert dataset.info["left_out"] == {"rows of targets without transcript": 1}
    assert dataset.info["counts"]["distinct dna sequences"] == 2
    dataset.verify()


def test_only_measured_transcripts_on_request(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, only_measured=True)
    assert dataset.samples["transcript_id"].tolist() == ["T1.1", "T3.1"]
    assert dataset.info["left_out"]["transcripts without targets"] == 1


def test_only_the_tissues_asked_for_are_kept(tmp_path: Path) -> None:
    whole = prepare(tmp_path, output=tmp_path / "whole")
    some = prepare(tmp_path, output=tmp_path / "some", tissues=whole.tissues[:0:-1])
    assert some.tissues == whole.tissues[:0:-1] and whole.targets is not None and some.targets is not None
    assert some.targets.equals(whole.targets[some.tissues])
    with pytest.raises(UnknownNameError, match="tissue of"):
        prepare(tmp_path, output=tmp_path / "none", tissues=["Brian"])


def test_the_same_command_twice_does_the_work_once(tmp_path: Path) -> None:
    first = prepare(tmp_path)
    before = (first.path / "dataset.json").stat().st_mtime_ns
    assert prepare(tmp_path).digest == first.digest
    assert (first.path / "dataset.json").stat().st_mtime_ns == before
    with pytest.raises(EmbedCacheError, match="made with other options"):
        prepare(tmp_path, dna_length=8)
    with pytest.raises(EmbedCacheError, match="made with other inputs"):
        prepare(tmp_path, gtf=GTF + "#\n")


def test_a_prepared_dataset_does_not_depend_on_the_run(tmp_path: Path) -> None:
    assert prepare(tmp_path).digest == prepare(tmp_path, output=tmp_path / "e").digest


def test_versions_are_joined_only_on_request(tmp_path: Path) -> None:
    other = TARGETS.replace("T1.1", "T1.2")
    strict = prepare(tmp_path, expression=other)
    assert strict.info["counts"]["transcripts with targets"] == 1
    assert strict.info["counts"]["IDs that would join without version"] == 1
    loose = prepare(tmp_path, expression=other, strip_versions=True, output=tmp_path / "e")
    assert loose.info["counts"]["IDs joined without version"] == 1
    assert loose.samples["transcript_id"].tolist() == strict.samples["transcript_id"].tolist()


@pytest.mark.parametrize(
    ("identifier", "bare"),
    [("ENST1.4", "ENST1"), ("ENST1", "ENST1"), ("ENST1.4_PAR_Y", "ENST1_PAR_Y"), ("NM_1.12", "NM_1"), ("a.b", "a.b")],
)
def test_only_a_number_at_the_end_is_a_version(identifier: str, bare: str) -> None:
    assert without_version(identifier) == bare


def test_sample_attributes_say_that_expression_is_by_sample(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("SAMPID\tSMTSD\nx\tSkin\ny\tSkin\n")
    dataset = prepare(tmp_path, expression="id\tgene\tx\ty\nT1.1\tG.1\t1\t3\n", samples=tmp_path / "s")
    assert dataset.tissues == ["Skin"]
    np.testing.assert_allclose(dataset.targets, np.log1p([[2], [np.nan], [np.nan]]))


def test_the_counts_are_those_of_the_dataset(tmp_path: Path) -> None:
    counts = prepare(tmp_path, only_measured=True).info["counts"]
    assert (counts["transcripts"], counts["genes"]) == (2, 2)


def test_samples_without_expression_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettingError, match="Give --expression"):
        prepare_genome(genome=tmp_path, gtf=tmp_path, samples=tmp_path, output=tmp_path / "d")


@pytest.mark.parametrize("option", [{"id_column": "x"}, {"drop_columns": ["x"]}, {"target_unit": "x"}])
def test_options_of_a_table_do_not_go_with_a_gct(tmp_path: Path, option: Any) -> None:
    (tmp_path / "s").write_text("SAMPID\tSMTSD\n")
    with pytest.raises(InvalidSettingError, match="Leave out --"):
        prepare(tmp_path, samples=tmp_path / "s", **option)


@pytest.mark.parametrize(
    ("changes", "message"), [({}, "Give --samples"), ({"already_log": True, "samples": Path("s")}, "--already-log")]
)
def test_options_must_fit_a_gct(tmp_path: Path, changes: Any, message: str) -> None:
    (tmp_path / "e.gct").write_text("#1.2\n")
    (tmp_path / "s").write_text("SAMPID\tSMTSD\n")
    changes = {name: tmp_path / value if name == "samples" else value for name, value in changes.items()}
    (tmp_path / "genome").write_text(GENOME)
    (tmp_path / "gtf").write_text(GTF)
    with pytest.raises(InvalidSettingError, match=message):
        prepare_genome(
            genome=tmp_path / "genome",
            gtf=tmp_path / "gtf",
            expression=tmp_path / "e.gct",
            output=tmp_path / "d",
            **changes,
        )


def test_missing_contigs_are_left_out_on_request(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, genome=">one\nCCATGAAATAACCGG\n", missing_contigs="leave-out")
    assert dataset.samples["transcript_id"].tolist() == ["T1.1", "T2.1"]
    assert dataset.info["left_out"]["transcripts on contigs that the genome lacks"] == 1


def test_chromosomes_split_the_genes(tmp_path: Path) -> None:
    dataset = prepare(tmp_path, splits=SplitRule(kind="chromosomes", test_chromosomes=("two",)))
    assert dataset.samples["split"].tolist() == ["train", "train", "test"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"genome": ">one\nCCATGAAATAACCGG\n"}, "gtf, line 4: contig 'two' of 1 transcripts is not in .*whose contigs"),
        ({"genome": GENOME.replace("GTAC\n", "\n")}, "'T3.1' .* ends at 8, but contig 'two' of .* has 6 bp"),
        ({"genome": GENOME.replace("AAA", "A*A")}, r"contig 'one': base 7 is b'\*'"),
        ({"expression": TARGETS.replace("T", "U")}, "No transcript of .* IDs look like 'U1.1' and 'T1.1'. Give"),
        ({"expression": TARGETS.replace(".1", "")}, "They agree without versions: give --strip-versions"),
        ({"expression": "id\tL\nT1.2\t1\n", "gtf": GTF + GTF.replace(".1", ".3"), "strip_versions": True}, "fits two"),
        ({"genetic_codes": {"tow": 2}}, "Unknown contig 'tow'. Did you mean 'two'"),
        ({"genetic_codes": {"two": 77}}, "Unknown genetic code '77'"),
        ({"dna_length": 0}, "0 bp"),
        ({"splits": SplitRule(kind="column")}, "no column of splits"),
        ({"splits": SplitRule(kind="chromosomes", test_chromosomes=("chr1",))}, "No transcript is on chromosome"),
        ({"encoders": {"rna": "nt-v2-250"}}, "Unknown encoder 'nt-v2-250'. Did you mean 'nt-v2-250m'"),
        ({"encoders": {"rna": "esm2-8m"}}, "Encoder esm2-8m reads protein, not rna"),
        ({"expression": "T1.1\t1\nT3.1\t0\n"}, "first line .* no header"),
        ({"expression": "#1.2\n1\t1\nid\tg\ts\nT1.1\tg\t1\n"}, "is a GCT file.*--samples"),
        ({"target_unit": "log10"}, "--already-log"),
    ],
    ids=[
        "contig", "past-end", "letter", "strangers", "versions", "ambiguous", "code-contig", "code", "length",
        "column", "chromosome", "encoder", "other-modality", "no-header", "gct", "unit",
    ],
)  # fmt: skip
def test_wrong_input_gives_one_line_and_leaves_nothing(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(EmbedCacheError, match=message) as error:
        prepare(tmp_path, **changes)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_another_directory_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out" / "d").mkdir(parents=True)
    (tmp_path / "out" / "d" / "thesis.tex").write_text("x")
    with pytest.raises(EmbedCacheError, match="exists and is not a dataset"):
        prepare(tmp_path)


# Real data


@pytest.fixture(scope="module")
def human(tmp_path_factory: pytest.TempPathFactory, shared_data: Callable[[str], Path]) -> tuple[Path, Dataset]:
    folder = shared_data("human_regions")
    dataset = prepare_genome(
        genome=folder / "genome.fa.gz",
        gtf=folder / "annotation.gtf.gz",
        expression=folder / "transcript_tpm.gct.gz",
        samples=folder / "sample_attributes.tsv",
        dna_length=2_000,
        output=tmp_path_factory.mktemp("human") / "dataset",
    )
    return folder, dataset


def test_real_rna_and_protein_equal_the_expected(human: tuple[Path, Dataset]) -> None:
    folder, dataset = human
    rna = {record.id: record.sequence for record in read_fasta(folder / "expected_rna.fa.gz", "rna")}
    protein = {record.id: record.sequence for record in read_fasta(folder / "expected_protein.fa.gz", "protein")}
    assert (len(rna), len(protein)) == (1092, 446)
    assert sequences(dataset, "rna") == rna
    assert {name: found for name, found in sequences(dataset, "protein").items() if found} == protein


def test_real_cds_bounds_hold_the_protein(human: tuple[Path, Dataset]) -> None:
    _, dataset = human
    coding = dataset.samples.dropna(subset=["cds_start"])
    lengths = {name: len(found) for name, found in sequences(dataset, "protein").items() if found}
    assert (coding["cds_end"] - coding["cds_start"]).tolist() == [3 * lengths[i] for i in coding["transcript_id"]]
    rna = sequences(dataset, "rna")
    for row in coding.itertuples():
        assert str(rna[row.transcript_id])[row.cds_start : row.cds_start + 3] == "ATG"  # type: ignore[misc]
        assert str(rna[row.transcript_id])[row.cds_end : row.cds_end + 3] in ("TAA", "TAG", "TGA")  # type: ignore[misc]


def test_real_windows_start_with_the_transcript(human: tuple[Path, Dataset]) -> None:
    folder, dataset = human
    transcripts = read_gtf(folder / "annotation.gtf.gz").transcripts
    rna, dna = sequences(dataset, "rna"), sequences(dataset, "dna")
    for name, window in dna.items():
        assert len(str(window)) == 2000
        start, end = transcripts[name].exons[0 if transcripts[name].strand == "+" else -1]
        n = min(end - start, 1000)  # the first exon, as far as the window goes
        assert str(window)[1000 : 1000 + n] == str(rna[name])[:n]


def test_real_targets_equal_a_plain_reading(human: tuple[Path, Dataset]) -> None:
    folder, dataset = human
    plain = pd.read_csv(folder / "transcript_tpm.gct.gz", sep="\t", skiprows=2, index_col=0).drop(columns="gene_id")
    of_sample = pd.read_csv(folder / "sample_attributes.tsv", sep="\t", index_col="SAMPID")["SMTSD"]
    expected = np.log1p(plain.T.groupby(of_sample).mean().T)
    assert dataset.targets is not None
    found = dataset.targets.set_axis(dataset.samples["transcript_id"], axis=0).dropna()
    assert found.shape == (948, 6)
    assert dataset.tissues == list(expected.columns)
    np.testing.assert_allclose(found.loc[expected.index], expected, rtol=0, atol=1e-6)


def test_real_broken_cds_is_counted_by_reason(human: tuple[Path, Dataset]) -> None:
    _, dataset = human
    assert dataset.info["left_out"] == {
        "protein: CDS whose length is not a multiple of 3": 93,
        "protein: CDS without stop codon": 38,
        "protein: CDS without start codon": 14,
        "protein: CDS that does not follow the exons (frameshift)": 1,
    }


def test_every_yeast_protein_equals_the_expected(tmp_path: Path, shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("yeast")
    dataset = prepare_genome(
        genome=folder / "genome.fa.gz",
        gtf=folder / "annotation.gtf.gz",
        dna_length=100,
        genetic_codes={"Mito": 3},
        output=tmp_path / "d",
    )
    expected = {record.id: record.sequence for record in read_fasta(folder / "expected_protein.fa.gz", "protein")}
    assert {name: found for name, found in sequences(dataset, "protein").items() if found} == expected
    on_mito = dataset.samples[dataset.samples["chromosome"] == "Mito"]
    assert on_mito["protein_key"].notna().sum() == 28
    assert dataset.info["genetic_codes"] == {"Mito": 3}
    with gzip.open(folder / "annotation.gtf.gz", "rt") as file:
        assert len(dataset.samples) == sum("\ttranscript\t" in line for line in file)
