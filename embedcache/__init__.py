"""An embedding cache: each pretrained encoder runs once over every distinct sequence."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedcache.build import build_cache
    from embedcache.encoders.registry import encoder_spec, load_encoder, register_encoder
    from embedcache.encoders.spec import Encoder, EncoderSpec
    from embedcache.sequences import Modality, SequenceRecord, read_fasta
    from embedcache.store.read import EmbeddingStore

__all__ = [
    "EmbeddingStore",
    "Encoder",
    "EncoderSpec",
    "Modality",
    "SequenceRecord",
    "build_cache",
    "encoder_spec",
    "load_encoder",
    "read_fasta",
    "register_encoder",
]

_HOME = {
    "EmbeddingStore": "embedcache.store.read",
    "Encoder": "embedcache.encoders.spec",
    "EncoderSpec": "embedcache.encoders.spec",
    "Modality": "embedcache.sequences",
    "SequenceRecord": "embedcache.sequences",
    "build_cache": "embedcache.build",
    "encoder_spec": "embedcache.encoders.registry",
    "load_encoder": "embedcache.encoders.registry",
    "read_fasta": "embedcache.sequences",
    "register_encoder": "embedcache.encoders.registry",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that ``import embedcache`` needs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'embedcache' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
