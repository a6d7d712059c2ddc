"""What is compared: which encoder, in which size, on which sequences, against which implementation.

A case is plain JSON, so that it can be handed to an interpreter that has none of our packages.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import recipe

__all__ = ["CASES", "GOLDEN", "Case", "config", "layout", "sequences"]

PROTEIN, RARE_PROTEIN, BASES = "LAGVSERTIDPKQNFYMHWC", "LAGVSERTIDPKQNFYMHWCXBUZO", "ACGT"

T5 = {"prott5": (128, "relu"), "ankh": (144, "gated-gelu")}
"""Rows of the embedding table and activation."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison."""

    encoder: str
    """Name on our card."""
    reference: str
    """Script beside this one, without ``_reference.py``."""
    environment: str
    """Requirements it runs in: a file of ``requirements``, without ``.txt``."""
    source: str = ""
    """Public code that is no package: a name for ``run.py --source``."""
    note: str = ""
    """What sets this case apart; also part of its directory name."""
    family: str
    modality: str
    sizes: Mapping[str, int]
    lengths: tuple[int, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the reference."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Entries of ``config.json`` that differ from those of the published file."""
    seed: int = 1

    @property
    def name(self) -> str:
        """Of its directory."""
        return "-".join([self.encoder, self.reference.replace("_", "-"), *filter(None, [self.note.replace(" ", "-")])])


def esm_sizes(width: int, layers: int, heads: int) -> dict[str, int]:
    return {"width": width, "layers": layers, "heads": heads, "feed_forward": 4 * width}


def layout(family: str, sizes: Mapping[str, int]) -> recipe.Layout:
    """Tensors of the published file of a family."""
    if family == "enformer":
        return recipe.enformer_layout(sizes)
    if family in ("borzoi", "flashzoi"):
        return recipe.borzoi_layout(sizes, flashed=family == "flashzoi")
    if family == "esmc":
        return recipe.esmc_layout(sizes)
    if family in T5:
        vocabulary, activation = T5[family]
        return recipe.t5_layout(sizes, vocabulary, gated=activation != "relu")
    vocabulary, positions = {"esm2": (33, 1026), "nt-v2": (4107, 2050), "nt-v1": (4105, 1002)}[family]
    return recipe.esm_layout(sizes, vocabulary, positions, gated=family == "nt-v2", rotary=family != "nt-v1")


def config(family: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    """What the published ``config.json`` of a family says, in these sizes."""
    if family == "enformer":
        return {"dim": sizes["width"] // 2, "depth": sizes["layers"], "heads": sizes["heads"], "target_length": 896}
    if family in ("borzoi", "flashzoi"):
        return _borzoi_config(family, sizes)
    if family in T5:
        return _t5_config(family, sizes)
    shape = {
        "hidden_size": sizes["width"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "intermediate_size": sizes["feed_forward"],
    }
    if family == "esmc":
        rotary = {"rope_type": "default", "rope_theta": 10000.0}
        return {"model_type": "esmc", "vocab_size": 64, "rope_parameters": rotary, **shape}
    return {
        "model_type": "esm",
        "vocab_size": {"esm2": 33, "nt-v2": 4107, "nt-v1": 4105}[family],
        "position_embedding_type": "absolute" if family == "nt-v1" else "rotary",
        "token_dropout": family != "nt-v2",
        "emb_layer_norm_before": False,
        "is_folding_model": False,
        "add_bias_fnn": family != "nt-v2",
        "layer_norm_eps": 1e-5,
        **shape,
    }


def _borzoi_config(family: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    shape = {"dim": sizes["dim"], "depth": sizes["layers"], "heads": sizes["heads"]}
    keys = {"attn_dim_key": sizes.get("key_dim", 64), "attn_dim_value": sizes.get("value_dim", 192)}
    about = {"flashed": family == "flashzoi", "bins_to_return": 6144, "enable_human_head": sizes.get("tracks", 1) > 0}
    return {"model_type": "borzoi", **shape, **keys, **about, "enable_mouse_head": False}


def _t5_config(family: str, sizes: Mapping[str, int]) -> dict[str, Any]:
    vocabulary, activation = T5[family]
    return {
        "model_type": "t5",
        "vocab_size": vocabulary,
        "d_model": sizes["width"],
        "d_kv": sizes["key_dim"],
        "d_ff": sizes["feed_forward"],
        "num_layers": sizes["layers"],
        "num_heads": sizes["heads"],
        "relative_attention_num_buckets": sizes["buckets"],
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": activation,
    }


def sequences(case: Case) -> list[str]:
    """Random letters of the lengths of the case; every second one has what is rare: runs of N, unknown residues."""
    draw = random.Random(case.seed)
    return [_sequence(case, length, draw, rare=number % 2 == 1) for number, length in enumerate(case.lengths)]


def _sequence(case: Case, length: int, draw: random.Random, *, rare: bool) -> str:
    if case.modality == "protein":
        return "".join(draw.choices(RARE_PROTEIN if rare else PROTEIN, k=length))
    letters = draw.choices(BASES, k=length)
    for _ in range(1 + length // 200 if rare else 0):  # runs of N that cut the frame of 6-mers anywhere
        start, stop = draw.randrange(length), draw.randint(1, 9)
        letters[start : start + stop] = "N" * len(letters[start : start + stop])
    return "".join(letters)


_ESM2 = {"reference": "esm2", "environment": "fair-esm", "family": "esm2", "modality": "protein"}
_ESMC = {"reference": "esmc", "environment": "esm", "family": "esmc", "modality": "protein", "encoder": "esmc-300m"}
_T5 = {"reference": "t5", "environment": "transformers", "modality": "protein"}
_NT = {"reference": "nt", "environment": "jax", "source": "nucleotide-transformer", "modality": "rna"}
_PYTORCH = {"reference": "enformer", "environment": "enformer-pytorch"}
_ORIGINAL = {"reference": "enformer_original", "environment": "tensorflow", "source": "enformer"}
_ENFORMER = {"encoder": "enformer", "family": "enformer", "modality": "dna"}
_ENFORMER_SIZES = {"width": 3072, "layers": 11, "heads": 8, "feed_forward": 3072, "key_dim": 64, "divisor": 128}
_NARROW_ENFORMER = {"width": 384, "layers": 2, "heads": 1, "feed_forward": 384, "key_dim": 64, "divisor": 12}
"""With as many position features of a head as the published size, for what long windows cost."""
_BORZOI = {"reference": "borzoi", "environment": "borzoi-pytorch", "family": "borzoi", "modality": "dna"}
_FLASHZOI = {**_BORZOI, "source": "flash-attn", "family": "flashzoi"}
_BORZOI_SIZES = {"width": 1536, "dim": 1536, "layers": 8, "heads": 8, "feed_forward": 3072}
_RELATIVE = {"key_dim": 64, "value_dim": 192}
_FINAL = {"final": True}
_PROTEINS = (1, 7, 64, 201, 350)
_RNAS = (1, 5, 6, 13, 600, 601, 3001)
_FEATURES = {"gamma": "features"}
_LONG = (196_608,)
_WINDOWS = (128, 1000, 12_288, 12_301)

CASES = (
    Case(encoder="esm2-8m", sizes=esm_sizes(320, 6, 20), lengths=(*_PROTEINS, 1022), **_ESM2),
    Case(encoder="esm2-150m", sizes=esm_sizes(640, 30, 20), lengths=_PROTEINS, **_ESM2),
    Case(encoder="nt-v2-50m", family="nt-v2", sizes=esm_sizes(512, 12, 16), lengths=(*_RNAS, 5999, 12_282), **_NT),
    Case(
        encoder="nt-v2-50m",
        note="eps 1e-12",
        family="nt-v2",
        sizes=esm_sizes(512, 12, 16),
        lengths=(*_RNAS, 5999),
        config={"layer_norm_eps": 1e-12},
        **_NT,
    ),
    Case(encoder="nt-v2-250m", family="nt-v2", sizes=esm_sizes(768, 24, 16), lengths=_RNAS, **_NT),
    Case(encoder="nt-v1-500m-human-ref", family="nt-v1", sizes=esm_sizes(1280, 6, 20), lengths=_RNAS[:6], **_NT),
    Case(
        sizes={"width": 960, "layers": 12, "heads": 15, "feed_forward": 2560},
        lengths=_PROTEINS,
        **_ESMC,
    ),
    Case(
        encoder="prott5-xl",
        family="prott5",
        sizes={"width": 1024, "layers": 4, "heads": 32, "feed_forward": 16384, "key_dim": 128, "buckets": 32},
        lengths=_PROTEINS,
        **_T5,
    ),
    Case(
        encoder="ankh-base",
        family="ankh",
        sizes={"width": 768, "layers": 12, "heads": 12, "feed_forward": 3072, "key_dim": 64, "buckets": 64},
        lengths=_PROTEINS,
        **_T5,
    ),
    Case(**_ENFORMER, **_ORIGINAL, note="96 bins", sizes=_ENFORMER_SIZES, lengths=(2048, 12_288)),
    Case(**_ENFORMER, **_ORIGINAL, note="narrow 1536 bins", sizes=_NARROW_ENFORMER, lengths=_LONG),
    Case(**_ENFORMER, **_ORIGINAL, note="1536 bins", sizes=_ENFORMER_SIZES, lengths=_LONG),
    Case(
        **_ENFORMER,
        **_PYTORCH,
        note="features",
        sizes=_ENFORMER_SIZES,
        lengths=(130, 12_301),
        config=_FEATURES,
    ),
    Case(
        **_ENFORMER,
        **_PYTORCH,
        note="stored table",
        sizes=_NARROW_ENFORMER,
        lengths=_LONG,
        settings={"use_tf_gamma": True},
    ),
    Case(encoder="borzoi-replicate-0", sizes=_BORZOI_SIZES | _RELATIVE, lengths=_WINDOWS, **_BORZOI),
    Case(
        encoder="borzoi-replicate-1-final",
        sizes=_BORZOI_SIZES | _RELATIVE | {"width": 1920},
        lengths=_WINDOWS[:3],
        settings=_FINAL,
        **_BORZOI,
    ),
    Case(encoder="flashzoi-replicate-0", sizes=_BORZOI_SIZES | {"key_value_heads": 4}, lengths=_WINDOWS, **_FLASHZOI),
)
"""At the real width; also at the real depth, but where the published files were never seen to say how deep they are."""

_SMALL = {"width": 32, "layers": 2, "heads": 4, "feed_forward": 128}
_SMALL_T5 = _SMALL | {"key_dim": 8, "buckets": 32}
_SMALL_ENFORMER = {"width": 96, "layers": 2, "heads": 4, "feed_forward": 96, "key_dim": 8, "divisor": 6}
_SMALL_BORZOI = {"width": 48, "dim": 48, "layers": 2, "heads": 4, "feed_forward": 96, "tracks": 0}
_SMALL_BORZOI |= {"key_dim": 8, "value_dim": 20}
_SMALL_FLASHZOI = {"width": 320, "dim": 320, "layers": 1, "heads": 2, "feed_forward": 640, "tracks": 0}
_SMALL_FLASHZOI |= {"key_value_heads": 1}

GOLDEN = (
    Case(encoder="esm2-8m", sizes=_SMALL, lengths=(1, 24, 60), **_ESM2),
    Case(encoder="nt-v2-50m", family="nt-v2", sizes=_SMALL, lengths=(5, 100, 301), **_NT),
    Case(encoder="nt-v1-500m-human-ref", family="nt-v1", sizes=_SMALL, lengths=(5, 100, 301), **_NT),
    Case(sizes=_SMALL | {"feed_forward": 256}, lengths=(1, 24, 60), **_ESMC),
    Case(encoder="prott5-xl", family="prott5", sizes=_SMALL_T5, lengths=(1, 24, 300), **_T5),
    Case(encoder="ankh-base", family="ankh", sizes=_SMALL_T5, lengths=(1, 24, 300), **_T5),
    Case(**_ENFORMER, **_ORIGINAL, sizes=_SMALL_ENFORMER, lengths=(128, 2048)),
    Case(**_ENFORMER, **_PYTORCH, note="features", sizes=_SMALL_ENFORMER, lengths=(130, 1300), config=_FEATURES),
    Case(encoder="borzoi-replicate-0", sizes=_SMALL_BORZOI, lengths=(128, 1000, 2048), **_BORZOI),
    Case(
        encoder="borzoi-replicate-1-final",
        sizes=_SMALL_BORZOI | {"width": 1920},
        lengths=(60,),
        settings=_FINAL,
        **_BORZOI,
    ),
    Case(encoder="flashzoi-replicate-0", sizes=_SMALL_FLASHZOI, lengths=(128, 1000), **_FLASHZOI),
)
"""Small, with outputs that are kept under ``tests/golden/parity``."""
