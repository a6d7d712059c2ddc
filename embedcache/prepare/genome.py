"""A dataset from a genome FASTA, a GTF and, if there is any, expression."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedcache.annotation import Annotation, read_gtf
from embedcache.dataset import Dataset, read_dataset
from embedcache.dataset_write import DatasetWriter, made_by_same_command
from embedcache.errors import InvalidSettingError
from embedcache.prepare.assemble import AssemblyRules, MissingContigs, assemble, choose_genetic_codes
from embedcache.prepare.common import finish_dataset, provenance, read_targets
from embedcache.sequences import Modality
from embedcache.splits import SplitRule
from embedcache.tables import TargetTable

__all__ = ["prepare_genome"]


def prepare_genome(
    *,
    genome: Path,
    gtf: Path,
    output: Path,
    expression: Path | None = None,
    samples: Path | None = None,
    tissue_column: str = "SMTSD",
    tissues: Sequence[str] = (),
    already_log: bool = False,
    target_unit: str | None = None,
    id_column: str | None = None,
    drop_columns: Sequence[str] = (),
    strip_versions: bool = False,
    dna_length: int = 12_288,
    genetic_codes: Mapping[str, int] | None = None,
    only_measured: bool = False,
    missing_contigs: MissingContigs = "error",
    splits: SplitRule | None = None,
    encoders: Mapping[Modality, str] | None = None,
) -> Dataset:
    """Prepare a dataset from a genome; the same command again finds its dataset and does nothing.

    Args:
        genome: FASTA, plain or gzip-compressed.
        gtf: Annotation of that assembly, in the dialect of GENCODE, Ensembl or RefSeq.
        output: Directory to make.
        expression: GCT file of TPM (then with ``samples``), or a table of transcripts by tissues.
        samples: GTEx sample attributes.
        tissue_column: Column of ``samples`` that names the tissue.
        tissues: Tissues to keep, in this order; all without it.
        already_log: The table is on a log scale and is taken as it is.
        target_unit: Unit of such values, for the record.
        id_column: Column of transcript IDs in the table; the first without it.
        drop_columns: Columns of the table that are no tissues.
        strip_versions: Join IDs that differ in their version only.
        dna_length: Length of the window in bp; the TSS is base ``dna_length // 2`` from 0 on its strand.
        genetic_codes: NCBI table of a contig. Without it 2 for chrM, chrMT, MT and NC_012920.1, else 1.
        only_measured: Leave out transcripts without expression.
        missing_contigs: ``leave-out`` drops and counts transcripts on contigs that the genome lacks.
        splits: How genes are split; 10 % validation and 10 % test without it.
        encoders: Default encoder of a modality.
    """
    rules = AssemblyRules(
        strip_versions=strip_versions,
        dna_length=dna_length,
        genetic_codes=genetic_codes or {},
        only_measured=only_measured,
        missing_contigs=missing_contigs,
        splits=splits or SplitRule(),
    )
    _check_expression(expression, samples, only_measured=only_measured)
    scale = {"already_log": already_log, "target_unit": target_unit}
    columns = {"id_column": id_column, "drop_columns": list(drop_columns)}
    options = {"tissue_column": tissue_column, "tissues": list(tissues), **scale, **columns, **rules.to_json()}
    info = provenance("genome", (genome, gtf, expression, samples), options, encoders)
    if found := made_by_same_command(output, info):
        return found
    annotation, rules = _read_annotation(gtf, rules)
    targets = read_targets(expression, samples, tissue_column, already_log=already_log, unit=target_unit, **columns)
    return _write(output, info, annotation, genome, targets=targets and targets.select(tissues), rules=rules)


def _read_annotation(gtf: Path, rules: AssemblyRules) -> tuple[Annotation, AssemblyRules]:
    """The annotation, and the rules with the genetic codes of its contigs."""
    annotation = read_gtf(gtf)
    contigs = {transcript.contig for transcript in annotation.transcripts.values()}
    return annotation, replace(rules, genetic_codes=choose_genetic_codes(contigs, rules.genetic_codes))


def _write(
    output: Path,
    info: Mapping[str, Any],
    annotation: Annotation,
    genome: Path,
    *,
    targets: TargetTable | None,
    rules: AssemblyRules,
) -> Dataset:
    with DatasetWriter(output) as writer:
        made = assemble(writer, annotation, genome, targets=targets, rules=rules)
        finish_dataset(writer, info, made, rules.genetic_codes, targets.unit if targets else None)
    return read_dataset(output)


def _check_expression(expression: Path | None, samples: Path | None, *, only_measured: bool) -> None:
    if samples is not None and expression is None:
        raise InvalidSettingError(f"{samples} describes samples, but there is no expression. Give --expression.")
    if only_measured and expression is None:
        raise InvalidSettingError(
            "Only measured transcripts are wanted, but there is no expression. Give --expression."
        )
