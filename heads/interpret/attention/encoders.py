"""Encoders that can be looked into: that of a run before and after fine-tuning, or one by its name."""

from dataclasses import replace
from pathlib import Path

from transformers import EsmModel

from embedcache.encoders.of_spec import encoder_of_spec, source_spec
from embedcache.encoders.packing import PackedEncoder
from embedcache.encoders.registry import load_encoder
from embedcache.encoders.spec import Encoder, EncoderSpec
from embedcache.encoders.windows import WindowedEncoder
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.sequences import Modality
from heads.trained import TrainedRun

__all__ = ["encoder_by_name", "encoders_of_run", "open_encoder"]


def encoders_of_run(
    trained: TrainedRun, modality: Modality, device: str, *, weights: Path | None = None, download: bool = False
) -> tuple[PackedEncoder, PackedEncoder | None]:
    """The encoder that a run reads a modality with, and what fine-tuning made of it; None of a frozen one.

    The two of a fine-tuned run compute in float32, as its training did, so that they differ in weights only.

    Args:
        trained: The run.
        modality: One that it reads.
        device: A torch device.
        weights: Directory with the published files; the hub cache is searched without it.
        download: Whether files that are missing may be fetched into the hub cache.

    Raises:
        InvalidSettingError: The run does not read the modality, or its encoder cannot be looked into.
        EmbedCacheError: What ``encoder_of_spec`` raises.
    """
    spec = _spec_of_run(trained, modality)
    if modality not in trained.learned:
        return open_encoder(encoder_of_spec(spec, device=device, weights=weights, download=download)), None
    spec = replace(source_spec(spec), compute_dtype="float32")
    before = open_encoder(encoder_of_spec(spec, device=device, weights=weights, download=download))
    return before, open_encoder(trained.encoder(modality, weights).encoder)


def encoder_by_name(
    name: str, modality: Modality, device: str, *, weights: Path | None = None, download: bool = False
) -> PackedEncoder:
    """An encoder as ``embedcache build`` would load it by default. Errors as in ``load_encoder`` and ``open_encoder``.

    Raises:
        InvalidSettingError: It cannot be looked into.
    """
    return open_encoder(load_encoder(name, modality, device=device, weights=weights, download=download))


def open_encoder(encoder: Encoder) -> PackedEncoder:
    """The encoder within the one that cuts windows, if its attention can be reached.

    Raises:
        InvalidSettingError: It is no ESM of transformers.
    """
    inner = encoder.encoder if isinstance(encoder, WindowedEncoder) else encoder
    if isinstance(inner, PackedEncoder) and isinstance(inner.model, EsmModel):
        return inner
    raise InvalidSettingError(
        f"The attention of {encoder.spec.modality} encoder {encoder.spec.name} cannot be read; that of ESM-2, the "
        "Nucleotide Transformers and the mini encoders can. Choose another --modality or --encoder, or none."
    )


def _spec_of_run(trained: TrainedRun, modality: Modality) -> EncoderSpec:
    """Of several layers that the run mixes, the spec of the last: the others lie within it."""
    read = trained.model.config.modalities
    if modality not in read:
        raise InvalidSettingError(
            f"{trained.directory.path} reads {', '.join(read)}, not {modality}. Choose --modality {read[0]}."
        )
    found = trained.description.get("specs", {}).get(modality)
    if not found:
        raise InvalidInputError(
            f"{trained.directory.config} does not keep what its {modality} encoder was. "
            "Train the run again, or look at the encoder alone with --encoder and --dataset."
        )
    layers = found if isinstance(found, list) else [found]
    specs = [EncoderSpec.from_json(one, str(trained.directory.config)) for one in layers]
    return max(specs, key=lambda spec: spec.layer if spec.layer > 0 else 1_000_000)
