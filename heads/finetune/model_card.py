"""The model card of an exported run: what it is, what it was trained on, what it scored, how to load it."""

import json
from collections.abc import Mapping
from typing import Any

from heads.trained import TrainedRun

__all__ = ["model_card"]

_HOW = {
    "full": "All weights were trained.",
    "lora": "LoRA adapters on queries and values were trained (rank {lora_rank}, alpha {lora_alpha:g}); they are added "
    "into the weights under `encoders/`, and lie alone under `adapters/`.",
    "last": "The last {blocks} blocks and the normalisation behind them were trained.",
}
_LOAD = """## How to load it

```python
from safetensors.torch import load_file
import json
from heads.config import ModelConfig
from heads.model import ExpressionModel

config = json.load(open("head/config.json"))
head = ExpressionModel(
    ModelConfig.from_json(config["model"]), config["widths"], len(config["tissues"]), config["layers"]
)
head.load_state_dict(load_file("head/model.safetensors"))
```

It takes packed token embeddings of each modality and gives z-scores; `config["scaler"]` takes them back to the unit of
the targets ({unit}).
"""
_ENCODER = """
The {modality} encoder (`{name}`): {how}

```python
from transformers import {class_name}

encoder = {class_name}.from_pretrained("encoders/{modality}"){part}
```
"""
_ADAPTER = """
or its adapters on the published weights:

```python
from peft import PeftModel

encoder = PeftModel.from_pretrained({class_name}.from_pretrained("{repository}"){part}, "adapters/{modality}")
```
"""
_FOREIGN = """
The {modality} encoder (`{name}`): {how} `encoders/{modality}` has the names and the layout of the published files, for
what reads those: `embedcache build --encoder {name} --weights encoders/{modality}`.
"""
_T5 = ("T5EncoderModel", ".encoder")  # AutoModel would add a decoder, with drawn weights
_CLASSES = {**dict.fromkeys(("esm2", "mini", "nt-v1", "esmc", "tuned"), ("AutoModel", "")), "t5": _T5}
"""Class of transformers, and the part of it that is trained, by the first word of an adapter."""


def model_card(run: TrainedRun) -> str:
    """Markdown, from what the run directory says."""
    said = run.description
    rows = ", ".join(f"{count:,} {name}" for name, count in said["dataset"]["rows"].items())
    lines = [
        f"# {run.directory.path.resolve().name}",
        "",
        f"Predicts expression in {len(said['tissues'])} tissues from {', '.join(run.model.config.modalities)} "
        f"({run.model.config.aggregator}). Made by isoheads {said['software']['isoheads']}.",
        "",
    ]
    if run.labels:
        lines += ["**Read results with care**: " + "; ".join(run.labels) + ".", ""]
    lines += [
        "## What it was trained on",
        "",
        f"- Rows: {rows}; divided by {run.split.unit}.",
        f"- Dataset: digest {said['dataset']['digest'][:12]}.",
        *(f"- {m}: encoder {one['name']}, width {one['width']}." for m, one in said["encoders"].items()),
        "- Settings: " + ", ".join(f"{name} {value}" for name, value in run.config.to_json().items()) + ".",
        "",
        *_scores(run),
        _LOAD.format(unit=said["dataset"]["target_unit"]),
    ]
    return "\n".join(lines) + "".join(_encoder(run, modality) for modality in run.learned)


def _encoder(run: TrainedRun, modality: str) -> str:
    assert run.finetune is not None, "a frozen run has learned nothing"
    spec: Mapping[str, Any] = run.description["specs"][modality]
    kind = "last" if run.finetune.last else run.finetune.method
    how = _HOW[kind].format(blocks=run.finetune.last, **run.finetune.to_json())
    about = {"modality": modality, "name": spec["name"], "how": how, "repository": spec["model_id"]}
    found = _CLASSES.get(str(spec["adapter"]).partition("/")[0])
    if found is None:
        return _FOREIGN.format(**about)
    about |= {"class_name": found[0], "part": found[1]}
    return _ENCODER.format(**about) + (_ADAPTER.format(**about) if kind == "lora" else "")


def _scores(run: TrainedRun) -> list[str]:
    lines = ["## What it scored", ""]
    history = [json.loads(line) for line in run.directory.history.read_text(encoding="utf-8").splitlines()]
    best = history[run.best_epoch - 1]
    lines.append(f"- Validation, best epoch {run.best_epoch}: {_said(best)}.")
    if not run.directory.test.exists():
        return [*lines, "- Test: not scored when this card was made (`heads evaluate`).", ""]
    models = json.loads(run.directory.test.read_text(encoding="utf-8"))["models"]
    return [*lines, *(f"- Test, {one['name']}: {_said(one['overall'])}." for one in models), ""]


def _said(scores: Mapping[str, Any]) -> str:
    names = {"r2": "R2", "spearman": "Spearman"}
    found = {shown: scores.get(name) for name, shown in names.items()}
    return ", ".join(f"{name} {'not defined' if x is None else format(x, '.3f')}" for name, x in found.items())
