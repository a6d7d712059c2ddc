"""How the published mini encoders were made."""

from embedcache.encoders.cards.mini import CARDS
from embedcache.encoders.mini.training import Recipe
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import InvalidSettingError
from embedcache.sequences import Modality

__all__ = ["HEAD_WIDTH", "mini_spec", "recipe_of"]

HEAD_WIDTH = 32
"""Numbers of an attention head."""
_RECIPES: dict[Modality, Recipe] = {
    "dna": Recipe(epochs=2.0, tokens_per_step=2048, masked=0.25, initial=0.08),
    "rna": Recipe(epochs=2.0),
    "protein": Recipe(epochs=2.0),
}


def recipe_of(modality: Modality) -> Recipe:
    """How long, and how, the published encoder of a modality was trained."""
    return _RECIPES[modality]


def mini_spec(modality: Modality, *, tokens: str = "", width: int = 0, layers: int = 0) -> EncoderSpec:
    """What to train: the published encoder of a modality, or one of other tokens or another size.

    Raises:
        InvalidSettingError: A width that heads do not divide.
    """
    card = next(one for one in CARDS if modality in one.modalities)
    width, layers = width or card.width, layers or card.layers
    if width % HEAD_WIDTH:
        raise InvalidSettingError(
            f"A width of {width} cannot be cut into heads of {HEAD_WIDTH}. Give a multiple of it."
        )
    return EncoderSpec(
        name=card.name,
        modality=modality,
        adapter=card.adapter,
        model_id="training",
        weights="training",
        architecture={**card.settings, "layers": layers, "heads": width // HEAD_WIDTH, "feed_forward": 4 * width},
        width=width,
        tokens=tokens or card.tokens,
    )
