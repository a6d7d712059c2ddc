"""Tokenizers and directories of tiny models, in the layout of published files."""

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    PreTrainedTokenizerFast,
)

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWYX"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
REMOTE = """
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

class ToyConfig(PreTrainedConfig):
    model_type = "toy-of-a-test"

class Toy(PreTrainedModel):
    config_class = ToyConfig
    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(30, config.hidden_size)
        self.register_buffer("turn", torch.arange(1.0, 1 + config.hidden_size), persistent=False)
        self.post_init()
    def forward(self, input_ids):
        return (self.embedding(input_ids).cumsum(1) * self.turn,)
"""


def tokenizer_of_letters(letters: str, before: str = "[CLS]", after: str = "[SEP]", spaced: bool = False) -> Any:
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters])}
    made: Any = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace() if spaced else pre_tokenizers.Split(Regex("."), "isolated")
    special = [("[CLS]", 2), ("[SEP]", 3)]
    made.post_processor = processors.TemplateProcessing(single=f"{before} $A {after}".strip(), special_tokens=special)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def tokenizer_of_pieces(pieces: list[str]) -> Any:
    made: Any = Tokenizer(
        models.BPE(
            {"[UNK]": 0, **{p: i + 1 for i, p in enumerate(pieces)}},
            [("A", "A")] if "AA" in pieces else [],
            unk_token="[UNK]",
        )
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


def save(path: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
