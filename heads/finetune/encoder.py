"""An encoder that can be trained: what of it learns, and what it makes of sequences or of rows of an inner layer.

Shapes: N packed tokens, D width.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from embedcache.encoders.of_spec import encoder_of_spec, source_spec
from embedcache.encoders.pooling import pooled_tokens
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.windows import WindowedEncoder
from embedcache.errors import InvalidSettingError, MissingDependencyError
from embedcache.ragged import Ragged
from heads.finetune.config import FinetuneConfig
from heads.finetune.sharding import Together
from heads.shards import local, part_of
from heads.team import Alone

__all__ = ["TunedEncoder", "pool_tokens"]

_ATTENTION = (("query", "value"), ("q_proj", "v_proj"), ("q", "v"), ("to_q", "to_v"), ("Wqkv",))
"""Names of the layers that LoRA adds to, queries and values, by family."""


class TunedEncoder:
    """The encoder of a store, its weights in float32, of which some learn.

    Args:
        spec: Of the store that the frozen run read.
        config: What learns.
        device: Where it computes.
        weights: Directory with the published files; the hub cache is searched without it.
        among: Processes that its weights are shared out among; None to hold all of them here.

    Raises:
        InvalidSettingError: An encoder without such weights, or with fewer blocks.
        EmbedCacheError: See ``encoder_of_spec``.
    """

    def __init__(
        self,
        spec: EncoderSpec,
        config: FinetuneConfig,
        device: torch.device,
        weights: Path | None = None,
        *,
        among: Alone | None = None,
    ) -> None:
        self.spec = spec
        source = replace(source_spec(spec), compute_dtype="float32")
        found: Any = encoder_of_spec(source, device=str(device), weights=weights)
        self.encoder = found
        core: Any = found.encoder if isinstance(found, WindowedEncoder) else found
        if not hasattr(core, "encode_packed"):
            raise InvalidSettingError(
                f"Encoder {spec.name} gives no tensors that could be trained through. Choose a built-in one (see "
                "`embedcache encoders`), or leave its modality out of --finetune."
            )
        self.core = core
        self.model: nn.Module = core.model
        self.adapter: Any = None
        """The model as peft sees it, under ``lora``."""
        self.n_blocks: int | None = None
        """Blocks that are run; None where they are not counted."""
        if hasattr(core, "network"):
            self.n_blocks = len(core.network.get(core.model, core.network.blocks))
        self._choose(config)
        if config.checkpointing:
            self._run_blocks_again()
        self.together = None if among is None else Together(core, among)
        """What keeps processes in step that share its weights."""
        self.trained: Mapping[str, nn.Parameter] = {
            name: one for name, one in self.model.named_parameters() if one.requires_grad
        }
        """What learns, by name."""

    def embed(self, sequences: Sequence[str]) -> Ragged:
        """Embed cropped sequences, at least one, open to gradients: float32 (N, D), pooled as in the store."""
        found = self._finished(self.encoder.encode_packed(sequences))
        self.rest()
        return found

    def finish(self, rows: Ragged, done: int) -> Ragged:
        """Run the blocks that are left behind block ``done``, as ``PackedEncoder.continue_packed``."""
        found = self._finished(self.core.continue_packed(rows, done))
        self.rest(done)
        return found

    def rest(self, done: int | None = None) -> None:
        """Let other processes make their passes, where they share its weights; behind ``done`` blocks, if any."""
        if self.together is not None:
            self.together.catch_up(done)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put what learned in place.

        Raises:
            KeyError: A tensor is missing.
            RuntimeError: A tensor has another shape.
        """
        with torch.no_grad():
            for name, parameter in self.trained.items():
                local(parameter).copy_(local(part_of(tensors[name], parameter)))

    def _finished(self, tokens: Ragged) -> Ragged:
        pooled = pool_tokens(tokens, self.spec.pooling)
        return pooled._replace(values=pooled.values.float())

    def _choose(self, config: FinetuneConfig) -> None:
        self.model.requires_grad_(config.method == "full")
        if config.method == "lora":
            self._add_adapters(config)
        elif config.last is not None:
            blocks, norm = self._blocks()
            if config.last > len(blocks):
                raise InvalidSettingError(
                    f"Encoder {self.spec.name} runs {len(blocks)} blocks, fewer than --method {config.method} trains. "
                    f"Give last:{len(blocks)} or less."
                )
            for part in (*blocks[-config.last :], norm):
                part.requires_grad_(True)

    def _blocks(self) -> tuple[Any, nn.Module]:
        """The blocks that are run, and the normalisation behind them."""
        network = getattr(self.core, "network", None)
        if network is None:
            raise InvalidSettingError(
                f"The blocks of {self.spec.name} are not counted here. Use --method full or lora for it."
            )
        return network.get(self.model, network.blocks), network.get(self.model, network.norm)

    def _run_blocks_again(self) -> None:
        if not hasattr(self.core, "checkpointing"):
            raise InvalidSettingError(
                f"Encoder {self.spec.name} cannot run blocks again. Leave out --checkpointing, or lower "
                "--max-tokens-per-batch."
            )
        self.core.checkpointing = True

    def _add_adapters(self, config: FinetuneConfig) -> None:
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise MissingDependencyError(
                "--method lora needs peft, which is not installed. Run `pip install 'isoheads[finetune]'`."
            ) from error
        leaves = {name.rpartition(".")[2] for name, part in self.model.named_modules() if isinstance(part, nn.Linear)}
        targets = next((names for names in _ATTENTION if leaves.issuperset(names)), None)
        if targets is None:
            raise InvalidSettingError(
                f"Encoder {self.spec.name} has no queries and values that LoRA could add to. Use --method full."
            )
        said = LoraConfig(
            r=config.lora_rank,
            lora_alpha=config.lora_alpha,  # type: ignore[arg-type]  # a float does as well
            lora_dropout=config.lora_dropout,
            target_modules=list(targets),
        )
        with warnings.catch_warnings():  # peft asks transformers in a way that those will not answer for ever
            warnings.simplefilter("ignore", FutureWarning)
            self.adapter = get_peft_model(self.model, said)
        self.model.eval()  # what peft adds begins in training, with its dropout


def pool_tokens(tokens: Ragged, rule: str) -> Ragged:
    """Pool tokens (N, D) by the rule of a store, open to gradients; see ``embedcache.encoders.pooling``."""
    if rule == "none":
        return tokens
    lengths, starts = tokens.lengths.tolist(), tokens.offsets.tolist()
    spans = [pooled_tokens(length, rule) + start for length, start in zip(lengths, starts, strict=False)]
    rows = [torch.arange(first, last) for one in spans for first, last in one.tolist()]
    first = torch.tensor([0, *(len(one) for one in rows)]).cumsum(0)[:-1]
    device = tokens.values.device
    means = nn.functional.embedding_bag(
        torch.cat(rows).to(device), tokens.values.float(), first.to(device), mode="mean"
    )
    return Ragged(means, torch.tensor([0, *(len(one) for one in spans)]).cumsum(0))
