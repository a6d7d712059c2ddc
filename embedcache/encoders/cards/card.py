"""What a card says of an encoder."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from embedcache.choices import Crop
from embedcache.sequences import Modality

__all__ = ["EncoderCard", "one_size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderCard:
    """What can be said of an encoder before its weights are here."""

    name: str
    modalities: tuple[Modality, ...]
    adapter: str
    """Code that runs it and the version of its numbers, such as ``esm2/1``."""
    loader: str
    """``module:function``, imported on first use; see ``registry.Loader``."""
    width: int
    """Numbers a token."""
    layers: int = 0
    heads: int = 0
    feed_forward: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of the network, JSON values; part of ``EncoderSpec.architecture``."""
    tokens: str
    """Rule from letters to tokens, see ``tokens``."""
    max_tokens: int = 0
    """Most tokens that the network can take, special tokens not counted; 0 for no limit."""
    trained_tokens: int = 0
    """Longest input in training, special tokens not counted; longer input is outside what it has seen."""
    crops: Mapping[Modality, Crop] = field(
        default_factory=lambda: {"dna": "center", "rna": "keep-3-prime", "protein": "error"}
    )
    """Default for input over ``max_tokens``: the centre of a window is its TSS; NT reads RNA from the 3' end."""
    finder: str = ""
    """``module:function`` that completes the card once a user has chosen, for encoders of which it says little before
    their files are looked at; see ``registry.Finder``."""
    package: str = ""
    """What ``pip install`` needs for it besides this package."""
    any_layer: bool = True
    """Whether the output of a layer before the last can be had."""
    attention: Literal["packed", "single", "padded"] = "packed"
    special: tuple[int, int] = (0, 0)
    """Special tokens before and after those of a sequence whose rows can be kept, see ``EncoderSpec.special_tokens``;
    (0, 0) for an encoder whose blocks cannot be run from stored rows."""
    weights: str = ""
    """``seed:<number>`` if the weights are drawn and need no file, ``own`` if a plug-in brings them; empty if they must
    be found."""
    bundled: str = ""
    """Package that holds the weights in a directory of this name: they come with the installation."""
    repository: str = ""
    """Hugging Face repository of the published weights."""
    revision: str = ""
    """Commit of the repository; empty takes the one in the hub cache."""
    key_prefix: str = ""
    """Stands before the names of the tensors in the published files."""
    unused: tuple[str, ...] = ()
    """Beginnings of tensor names, without ``key_prefix``, that are in the files and play no part here."""
    same: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tensors that files hold under one or several of these names, ``key_prefix`` included; the first is used."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What ``config.json`` beside the weights must say."""
    shape: Mapping[str, str] = field(default_factory=dict)
    """Where ``config.json`` says the shape of the network: ``width`` or a name in ``EncoderSpec.architecture``, and the
    key in that file, with dots where objects lie in one another."""
    from_memory: bool = False
    """Layers, heads and feed-forward width were never compared with the published files: those decide."""
    licence: str
    commercial: bool | None = None
    """Whether the licence allows commercial use; None if not known."""
    citation: str = ""


def one_size(
    family: EncoderCard, name: str, repository: str, size: tuple[int, int, int], **changes: Any
) -> EncoderCard:
    """The card of one size of a family, in width, layers, heads; the feed-forward is four times the width in all."""
    width, layers, heads = size
    return replace(
        family,
        name=name,
        repository=repository,
        width=width,
        layers=layers,
        heads=heads,
        **{"feed_forward": 4 * width, **changes},
    )
