"""RNA-FM, RiNALMo, ERNIE-RNA, SpliceBERT, HyenaDNA and DNABERT-2, by way of the optional package multimolecule.

The package and the copies of the weights that it reads are AGPL-3.0; it is imported only when one of these is chosen.
Sizes are the defaults of its classes (version 0.2.2) and what it says of its variants; files were never seen here.
"""

from typing import Any

from embedcache.encoders.cards.card import EncoderCard

__all__ = ["CARDS"]


def _card(name: str, kind: str, repository: str, size: tuple[int, int, int, int], **more: Any) -> EncoderCard:
    """The card of a model of the package, which calls it ``kind``; size in width, layers, heads, feed-forward."""
    width, layers, heads, feed_forward = size
    return EncoderCard(
        **{
            "name": name,
            "modalities": ("rna",),
            "adapter": "multimolecule/1",
            "loader": "embedcache.encoders.optional:load",
            "finder": "embedcache.encoders.optional:find",
            "package": "multimolecule",
            "width": width,
            "layers": layers,
            "heads": heads,
            "feed_forward": feed_forward,
            "settings": {"model_type": kind},
            "tokens": "letter",
            "trained_tokens": 1022,
            "attention": "single",
            "repository": f"multimolecule/{repository}",
            "from_memory": True,
            "licence": "AGPL-3.0",
            "commercial": True,
            **more,
        }
    )


CARDS = (
    _card(
        "rna-fm",
        "rnafm",
        "rnafm",
        (640, 12, 20, 5120),
        max_tokens=1022,
        citation="Chen et al., 2022, https://arxiv.org/abs/2204.00300",
    ),
    _card(
        "rinalmo-giga",
        "rinalmo",
        "rinalmo-giga",
        (1280, 33, 20, 5120),
        citation="Penić et al., Nature Communications 2025, https://arxiv.org/abs/2403.00043",
    ),
    _card(
        "ernie-rna",
        "ernierna",
        "ernierna",
        (768, 12, 12, 3072),
        max_tokens=1022,
        citation="Yin et al., 2024, doi:10.1101/2024.03.17.585376",
    ),
    _card(
        "splicebert",
        "splicebert",
        "splicebert",
        (512, 6, 16, 2048),
        max_tokens=1024,
        citation="Chen et al., Briefings in Bioinformatics 2024, doi:10.1093/bib/bbae163",
    ),
    _card(
        "hyenadna-medium",
        "hyenadna",
        "hyenadna-medium",
        (256, 4, 0, 1024),
        modalities=("dna",),
        max_tokens=32_768,
        trained_tokens=32_768,
        citation="Nguyen et al., NeurIPS 2023, https://arxiv.org/abs/2306.15794",
    ),
    _card(
        "dnabert-2",
        "dnabert2",
        "dnabert2",
        (768, 12, 12, 3072),
        modalities=("dna",),
        settings={"model_type": "dnabert2", "pieces": True},  # byte pairs: each letter gets the row of its piece
        trained_tokens=2_560,  # 512 pieces of about five letters
        citation="Zhou et al., ICLR 2024, https://arxiv.org/abs/2306.15006",
    ),
)
