"""Words that stand beside every result, because of the encoders that it came from. Imports nothing slow."""

from embedcache.encoders.spec import EncoderSpec

__all__ = ["labels_of"]


def labels_of(spec: EncoderSpec) -> list[str]:
    """Of one encoder: computed elsewhere, trained on by a run, drawn, or small; empty for a published one."""
    if spec.is_imported:  # what computed them is a claim that nothing here can check
        return [f"imported embeddings: {spec.modality} {spec.name}"]
    tuned = [f"fine-tuned encoder: {spec.modality} {spec.name}"] if spec.is_tuned else []
    if spec.is_random:
        return [*tuned, f"random encoder: {spec.modality} {spec.name}"]
    return [*tuned, f"small encoder: {spec.modality} {spec.name}"] if spec.is_small else tuned
