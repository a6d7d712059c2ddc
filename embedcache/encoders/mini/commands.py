"""Commands that make the mini encoders again: their sequences, their training, what they reach."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from embedcache.sequences import Modality
from embedcache.splits import SplitName

__all__ = ["app"]

_HELP = "Make the mini encoders again: their sequences, their training, what they reach."
app = typer.Typer(help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_MODALITY = Annotated[Modality, typer.Argument(help="dna, rna or protein.")]
_CORPUS = Annotated[Path, typer.Option(help="Directory that `corpus` wrote.")]


@app.command()
def corpus(
    data: Annotated[Path, typer.Option(help="Directory with yeast, human_regions and human_29tissues.")],
    output: Annotated[Path, typer.Option(help="Directory to make.")],
) -> None:
    """Write the sequences of each modality and split as FASTA."""
    from embedcache.encoders.mini.corpus import write_corpus

    for name, letters in write_corpus(data, output).items():
        print(f"{name:22} {letters:12,} letters")


@app.command()
def train(
    modality: _MODALITY,
    corpus: _CORPUS,
    output: Annotated[Path, typer.Option(help="Directory for the weights.")],
    epochs: Annotated[
        float | None, typer.Option(help="Times that all sequences are seen. Default: as published.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the first weights, the order and the masks.")] = 0,
    tokens: Annotated[str, typer.Option(help="Another rule of tokens: letter, nt-6mer, codon.")] = "",
    width: Annotated[int, typer.Option(help="Another width, with heads of 32 numbers; 0 as published.")] = 0,
    layers: Annotated[int, typer.Option(help="Another number of layers; 0 as published.")] = 0,
) -> None:
    """Train one encoder; tells its perplexity on the validation split when it is done."""
    from embedcache.encoders.mini.measure import measure
    from embedcache.encoders.mini.model_card import model_card
    from embedcache.encoders.mini.publish import save_trained
    from embedcache.encoders.mini.recipes import mini_spec, recipe_of
    from embedcache.encoders.mini.training import train as train_model

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    spec = mini_spec(modality, tokens=tokens, width=width, layers=layers)
    recipe = recipe_of(modality)
    recipe = replace(recipe, seed=seed, epochs=recipe.epochs if epochs is None else epochs)
    model = train_model(corpus, spec, recipe)
    save_trained(model, spec, output)
    (output / "training.json").write_text(json.dumps(asdict(recipe), indent=1) + "\n")
    found = measure(modality, corpus, output, "validation")
    (output / "README.md").write_text(model_card(spec, recipe, found))
    print(json.dumps(found, indent=1))


@app.command()
def evaluate(
    modality: _MODALITY,
    corpus: _CORPUS,
    weights: Annotated[
        Path | None, typer.Option(help="Directory that `train` wrote. Default: the published one.")
    ] = None,
    split: Annotated[SplitName, typer.Option(help="validation or test.")] = "validation",
) -> None:
    """Perplexity on held-out sequences, beside what counting k-mers reaches at the same places."""
    from embedcache.encoders.mini.measure import measure

    print(json.dumps(measure(modality, corpus, weights, split), indent=1))
