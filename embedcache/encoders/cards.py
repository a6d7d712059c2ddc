"""The encoders known by name: one card each, facts only. Nothing here computes or imports ``torch``."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from embedcache.encoders.tokens import Crop
from embedcache.sequences import Modality

__all__ = ["CARDS", "PAPER_ENCODERS", "TINY_ENCODERS", "EncoderCard"]


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
    any_layer: bool = True
    """Whether the output of a layer before the last can be had."""
    attention: Literal["packed", "single", "padded"] = "packed"
    weights: str = ""
    """``seed:<number>`` if the weights are drawn and need no file; empty if they must be found."""
    repository: str = ""
    """Hugging Face repository of the published weights."""
    revision: str = ""
    """Commit of the repository; empty takes the one in the hub cache."""
    key_prefix: str = ""
    """Stands before the names of the tensors in the published files."""
    unused: tuple[str, ...] = ()
    """Beginnings of tensor names, without ``key_prefix``, that are in the files and play no part here."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """What ``config.json`` beside the weights must say."""
    from_memory: bool = False
    """Layers, heads and feed-forward width were never compared with the published files: those decide."""
    licence: str
    commercial: bool | None = None
    """Whether the licence allows commercial use; None if not known."""
    citation: str = ""


_ESM_UNUSED = ("lm_head.", "contact_head.", "pooler.", "embeddings.position_ids")
# rotary models carry a table of learned positions that they never read
_ROTARY_UNUSED = (*_ESM_UNUSED, "embeddings.position_embeddings.")
_NT_CITATION = "Dalla-Torre et al., Nature Methods 2025, doi:10.1038/s41592-024-02523-z"

_ESM2 = EncoderCard(
    name="esm2",
    modalities=("protein",),
    adapter="esm2/1",
    loader="embedcache.encoders.esm:load",
    width=0,
    settings={"layer_norm_eps": 1e-5},
    tokens="letter",
    trained_tokens=1022,
    key_prefix="esm.",
    unused=_ROTARY_UNUSED,
    config={
        "model_type": "esm",
        "position_embedding_type": "rotary",
        "vocab_size": 33,
        "token_dropout": True,
        "emb_layer_norm_before": False,
        "is_folding_model": False,
    },
    licence="MIT",
    commercial=True,
    citation="Lin et al., Science 2023, doi:10.1126/science.ade2574",
)

_NT_V2 = EncoderCard(
    name="nt-v2",
    modalities=("dna", "rna"),
    adapter="nt-v2/1",
    loader="embedcache.encoders.nt:load_v2",
    width=0,
    settings={"layer_norm_eps": 1e-12},
    tokens="nt-6mer",
    max_tokens=2047,
    trained_tokens=2047,
    key_prefix="esm.",
    unused=_ROTARY_UNUSED,
    config={
        "model_type": "esm",
        "position_embedding_type": "rotary",
        "vocab_size": 4107,
        "token_dropout": False,
        "emb_layer_norm_before": False,
        "add_bias_fnn": False,
    },
    licence="CC-BY-NC-SA-4.0",
    commercial=False,
    citation=_NT_CITATION,
)

_NT_V1 = replace(
    _NT_V2,
    name="nt-v1",
    adapter="nt-v1/1",
    loader="embedcache.encoders.nt:load_v1",
    max_tokens=999,
    trained_tokens=999,
    unused=_ESM_UNUSED,
    config={
        "model_type": "esm",
        "position_embedding_type": "absolute",
        "vocab_size": 4105,
        "token_dropout": True,
        "emb_layer_norm_before": False,
    },
    from_memory=True,
)


def _size(family: EncoderCard, name: str, repository: str, size: tuple[int, int, int], **changes: Any) -> EncoderCard:
    """One size of a family, in width, layers, heads; the feed-forward is four times the width in all."""
    width, layers, heads = size
    return replace(
        family,
        name=name,
        repository=repository,
        width=width,
        layers=layers,
        heads=heads,
        feed_forward=4 * width,
        **changes,
    )


def _tiny(family: EncoderCard, modality: Modality) -> EncoderCard:
    """A small network of the family with drawn weights: for demonstrations and tests, and labelled so."""
    return replace(
        family,
        name=f"tiny-random-{modality}",
        modalities=(modality,),
        width=64,
        layers=2,
        heads=2,
        feed_forward=128,
        max_tokens=0,
        trained_tokens=0,
        weights="seed:0",
        licence="Apache-2.0",
        commercial=True,
        citation="",
    )


_ENFORMER = EncoderCard(
    name="enformer",
    modalities=("dna",),
    adapter="enformer/1",
    loader="embedcache.encoders.enformer:load",
    width=3072,
    layers=11,
    heads=8,
    feed_forward=3072,
    # the rule of the original model for its gamma position features; weights tuned in other ports need another
    settings={"key_dim": 64, "divisor": 128, "gamma": "position"},
    tokens="bins-128",
    trained_tokens=1536,
    any_layer=False,
    attention="single",
    repository="EleutherAI/enformer-official-rough",
    unused=("_trunk.", "_heads."),
    config={"dim": 1536, "depth": 11, "heads": 8},
    licence="CC-BY-4.0",
    commercial=True,
    citation="Avsec et al., Nature Methods 2021, doi:10.1038/s41592-021-01252-x",
)

_INSTADEEP = "InstaDeepAI/nucleotide-transformer"
_ALL = (
    _size(_ESM2, "esm2-8m", "facebook/esm2_t6_8M_UR50D", (320, 6, 20)),
    _size(_ESM2, "esm2-35m", "facebook/esm2_t12_35M_UR50D", (480, 12, 20)),
    _size(_ESM2, "esm2-150m", "facebook/esm2_t30_150M_UR50D", (640, 30, 20)),
    _size(_ESM2, "esm2-650m", "facebook/esm2_t33_650M_UR50D", (1280, 33, 20)),
    _size(_ESM2, "esm2-3b", "facebook/esm2_t36_3B_UR50D", (2560, 36, 40)),
    _size(_NT_V2, "nt-v2-50m", f"{_INSTADEEP}-v2-50m-multi-species", (512, 12, 16)),
    _size(_NT_V2, "nt-v2-100m", f"{_INSTADEEP}-v2-100m-multi-species", (512, 22, 16)),
    _size(_NT_V2, "nt-v2-250m", f"{_INSTADEEP}-v2-250m-multi-species", (768, 24, 16), from_memory=True),
    _size(_NT_V2, "nt-v2-500m", f"{_INSTADEEP}-v2-500m-multi-species", (1024, 29, 16)),
    _size(_NT_V1, "nt-v1-500m-human-ref", f"{_INSTADEEP}-500m-human-ref", (1280, 24, 20)),
    _size(_NT_V1, "nt-v1-500m-1000g", f"{_INSTADEEP}-500m-1000g", (1280, 24, 20)),
    _size(_NT_V1, "nt-v1-2.5b-1000g", f"{_INSTADEEP}-2.5b-1000g", (2560, 32, 20)),
    _size(_NT_V1, "nt-v1-2.5b-multi-species", f"{_INSTADEEP}-2.5b-multi-species", (2560, 32, 20)),
    _ENFORMER,
    _tiny(_NT_V2, "dna"),
    _tiny(_NT_V2, "rna"),
    _tiny(_ESM2, "protein"),
)

CARDS: dict[str, EncoderCard] = {card.name: card for card in _ALL}
"""All encoders by name; ``registry.register_encoder`` adds to it."""

PAPER_ENCODERS: dict[Modality, str] = {"dna": "enformer", "rna": "nt-v2-250m", "protein": "esm2-150m"}
"""The published encoder of a modality, as in IsoFormer."""

TINY_ENCODERS: dict[Modality, str] = {
    "dna": "tiny-random-dna",
    "rna": "tiny-random-rna",
    "protein": "tiny-random-protein",
}
"""Need no download; their numbers mean nothing beyond what composition and random mixing carry."""
