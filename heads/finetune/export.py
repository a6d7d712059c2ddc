"""A run as a directory for others: encoders for transformers, adapters for peft, the head for torch, a model card.

README.md                  model card: what it is, what it was trained on, what it scored, how to load it
head/model.safetensors     weights of the head, by the names of ``heads.model.ExpressionModel``
head/config.json           its settings, tissues, and the scale of the targets
encoders/<modality>/       config.json and model.safetensors of each trained encoder, adapters added in; the blocks that
                           are not read are left out
adapters/<modality>/       adapter_config.json and adapter_model.safetensors, under ``lora``
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from embedcache.encoders.of_spec import card_name
from embedcache.encoders.registry import card
from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.partial import make_partial, remove_abandoned
from embedcache.sequences import Modality
from heads.finetune.cached import Merged, merge
from heads.finetune.encoder import TunedEncoder
from heads.finetune.model_card import model_card
from heads.trained import TrainedRun, load_trained

__all__ = ["VERSION", "ExportResult", "export_run"]

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What ``export_run`` wrote."""

    output: Path
    encoders: tuple[Modality, ...]
    adapters: tuple[Modality, ...]
    size_bytes: int

    def __str__(self) -> str:
        parts = ["the head", *(f"the {m} encoder" for m in self.encoders), *(f"adapters of {m}" for m in self.adapters)]
        return f"{self.output}: {', '.join(parts)} and a model card, {self.size_bytes / 1e6:,.1f} MB"


def export_run(run: Path | str, output: Path | str) -> ExportResult:
    """Write a finished run as files that others read without this package, in a new directory.

    Args:
        run: Directory of a finished run, fine-tuned or not; encoders that were not trained are not copied.
        output: Directory to make.

    Raises:
        CheckpointError: The run is missing, unfinished or damaged.
        InvalidInputError: The output exists, or cannot be written.
        InvalidSettingError: An encoder was trained behind an inner layer.
        EmbedCacheError: The weights that training began with are not on this machine.
    """
    trained, output = load_trained(run, "cpu"), Path(output)
    modalities = trained.finetune.modalities if trained.finetune else ()
    if output.exists():
        raise InvalidInputError(f"{output} exists. Give a directory that does not, or remove it.")
    tuned = {modality: trained.encoder(modality) for modality in modalities}
    if inner := [one for one in tuned.values() if one.spec.layer != -1]:
        raise InvalidSettingError(
            f"The {inner[0].spec.modality} encoder of {run} was trained behind layer {inner[0].spec.layer}, and others "
            "would put a normalisation behind its last block. Fine-tune a run on the last layer to export it."
        )
    adapters = tuple(m for m, one in tuned.items() if one.adapter is not None)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(output)
        partial, lock = make_partial(output)
    except OSError as error:
        raise _unwritable(output, error) from error
    try:
        _write_head(trained, partial / "head")
        for modality, encoder in tuned.items():
            if modality in adapters:
                _write_adapter(encoder, partial / "adapters" / modality)
            _write_encoder(merge(encoder), partial / "encoders" / modality)
        (partial / "README.md").write_text(model_card(trained), encoding="utf-8")
        size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
        partial.rename(output)
    except OSError as error:
        raise _unwritable(output, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)
    return ExportResult(output=output, encoders=modalities, adapters=adapters, size_bytes=size)


def _write_head(trained: TrainedRun, folder: Path) -> None:
    folder.mkdir()
    save_file(
        {name: one.contiguous() for name, one in trained.model.state_dict().items()}, folder / "model.safetensors"
    )
    said = trained.description
    config = {
        "format": "isoheads-head",
        "version": VERSION,
        "model": said["model"],
        "widths": {m: one["width"] for m, one in said["encoders"].items()},
        "layers": {m: len(one.get("layers", [1])) for m, one in said["encoders"].items()},
        "encoders": said["specs"],
        "tissues": said["tissues"],
        "scaler": said["scaler"],
        "target_unit": said["dataset"]["target_unit"],
        "labels": said["labels"],
    }
    _write_json(folder / "config.json", config)


def _write_adapter(encoder: TunedEncoder, folder: Path) -> None:
    for config in encoder.adapter.peft_config.values():
        config.base_model_name_or_path = encoder.spec.model_id
        config.inference_mode = True
    encoder.adapter.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # a card of peft with nothing filled in


def _write_encoder(merged: Merged, folder: Path) -> None:
    """Names of the published files, so that whatever reads those reads these."""
    folder.mkdir(parents=True)
    name, _ = card_name(merged.spec)
    prefix = card(name).key_prefix
    # frequencies of rotary positions follow from the shape
    tensors = {
        f"{prefix}{key}": one.contiguous().clone()
        for key, one in merged.model.state_dict().items()
        if not key.endswith("inv_freq")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config: Any = getattr(merged.model, "config", None)
    said = {} if config is None else json.loads(config.to_json_string(use_diff=False))
    blocks = (
        merged.core.network.get(merged.model, merged.core.network.blocks) if hasattr(merged.core, "network") else ()
    )
    said |= {"num_hidden_layers": len(blocks)} if "num_hidden_layers" in said else {}
    said |= dict(card(name).config)
    _write_json(folder / "config.json", {key: one for key, one in said.items() if not key.startswith("_")})
    _write_json(folder / "encoder_spec.json", merged.spec.to_json())


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _unwritable(output: Path, error: OSError) -> InvalidInputError:
    return InvalidInputError(
        f"{output} cannot be written: {error.strerror or error}. Choose another output, or free space."
    )
