"""``heads splits``: look at a split before training on it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from embedcache.errors import InvalidSettingError
from embedcache.options import DatasetOption, JsonOption, expand_options
from heads.split_config import SimilarityTool, SplitConfig, SplitUnit

__all__ = ["splits"]

_SPLIT = SplitConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitsOptions:
    """Options of ``heads splits``."""

    dataset: DatasetOption = Path("dataset")
    by: Annotated[
        SplitUnit | None,
        typer.Option(
            help="What stays together: a gene, a chromosome, genes with similar proteins or RNAs, or equal values of "
            "a column. given: the split that the dataset came with. Default: column if --column is there, else given."
        ),
    ] = None
    column: Annotated[str, typer.Option(help="Column of samples.parquet, such as gene_name, for --by column.")] = ""
    folds: Annotated[int, typer.Option(min=2, help="Parts to cut the units into.")] = _SPLIT.folds
    fold: Annotated[
        int | None,
        typer.Option(min=0, help="Show train, validation and test where this part is tested on. Default: all parts."),
    ] = None
    inner_folds: Annotated[
        int, typer.Option(min=0, help="Cut what --fold leaves again, for choices made without its test part.")
    ] = _SPLIT.inner_folds
    inner_fold: Annotated[int, typer.Option(min=0, help="Which of these parts is tested on.")] = _SPLIT.inner_fold
    validation_fraction: Annotated[
        float, typer.Option(help="Share of what is not tested on that is kept for early stopping.")
    ] = _SPLIT.validation_fraction
    seed: Annotated[int, typer.Option(min=0, help="Another one draws other parts.")] = _SPLIT.seed
    similarity: Annotated[
        float, typer.Option(help="Share of equal letters from which on proteins are alike; RNAs from 0.9 on at least.")
    ] = _SPLIT.similarity
    tool: Annotated[
        SimilarityTool, typer.Option(help="What finds similar sequences; mmseqs and cd-hit must be installed.")
    ] = _SPLIT.tool

    def config(self) -> SplitConfig:
        """The split that is asked for.

        Raises:
            InvalidSettingError: Parts of a split that has none.
        """
        unit = self.by or ("column" if self.column else "given")
        if unit == "given" and self.fold is not None:
            raise InvalidSettingError("--fold is for a drawn split. Add --by gene, chromosome or similarity.")
        if self.inner_folds and self.fold is None:
            raise InvalidSettingError(
                f"--inner-folds {self.inner_folds} cuts what a test part leaves. Name that part by --fold."
            )
        return SplitConfig(
            unit=unit,
            column=self.column,
            folds=self.folds,
            fold=self.fold or 0,
            inner_folds=self.inner_folds,
            inner_fold=self.inner_fold,
            validation_fraction=self.validation_fraction,
            seed=self.seed,
            similarity=self.similarity,
            tool=self.tool,
        )


@expand_options
def splits(
    wanted: SplitsOptions,
    output: Annotated[
        Path | None, typer.Option(help="Also write transcript_id, gene_id, unit and part of each row to this TSV.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show how a dataset is split, or would be.

    Sizes, balance, and how close the tested side is to the trained one.

    Transcripts of a gene always stay together. Genes of one family that do not are a leak: a model can then
    recognise what it is tested on. Nothing is changed; train with the same settings to use a split.
    """
    config = wanted.config()
    from embedcache.dataset import read_dataset
    from heads.splits.describe import describe_split
    from heads.splits.text import format_report, write_rows

    opened = read_dataset(wanted.dataset)
    report = describe_split(opened, config, folds=config.unit != "given" and wanted.fold is None)
    if output is not None:
        write_rows(report, opened, output)
    print(json.dumps(report.to_json(), indent=1) if as_json else format_report(report))
