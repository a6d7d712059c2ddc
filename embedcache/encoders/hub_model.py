"""Any model of transformers: its configuration and weights, building it, and running it one sequence at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embedcache.encoders.hub_files import HubFiles
from embedcache.encoders.layers import Done, Starting, check_layers
from embedcache.encoders.output import PendingRows
from embedcache.encoders.packing import TOLERANCE
from embedcache.encoders.repair import repair_buffers
from embedcache.encoders.spec import EncoderSpec, Pending
from embedcache.encoders.weights import cast_weights, draw_weights, seed_of
from embedcache.errors import EmbedCacheError, InvalidInputError, MissingDependencyError
from embedcache.ragged import Ragged

__all__ = ["HubEncoder", "ModelFacts", "describe_model", "find_tokenizer", "load", "read_config"]

_FAILURES = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, AssertionError)
"""What transformers, and code that comes with a model, raise at files that they do not like."""
_POSITIONS = ("position_embeddings", "position_embedding", "embed_positions", "wpe", "pos_embedding")
_HEADS = ("pooler.", "lm_head.", "cls.", "contact_head.", "classifier.")
"""Beginnings of names of parts that rows of tokens do not go through."""


class ModelFacts(NamedTuple):
    """What a model tells without its weights."""

    class_name: str
    attention: str
    positions: int
    """Tokens of its table of learned positions, special ones counted; 0 if it has none."""


def read_config(name: str, directory: Path, *, trust: bool) -> Any:
    """The configuration of a model.

    Raises:
        InvalidInputError: transformers does not know it.
        MissingDependencyError: It needs a package that is not here.
    """
    from transformers import AutoConfig

    with _one_line(name, directory, "config.json"):
        return AutoConfig.from_pretrained(directory, trust_remote_code=trust, local_files_only=True)


def find_tokenizer(name: str, directory: Path, *, trust: bool) -> Any:
    """The tokenizer of a model. Errors as in ``read_config``."""
    from transformers import AutoTokenizer

    with _one_line(name, directory, "the tokenizer"):
        return AutoTokenizer.from_pretrained(directory, trust_remote_code=trust, local_files_only=True)


def describe_model(name: str, config: Any, *, trust: bool) -> ModelFacts:
    """Build a model without its weights, and look at it. Errors as in ``read_config``."""
    attention, model = "sdpa", None
    with _one_line(name, None, "the model"):
        try:
            model = _build(config, attention, trust=trust, device="meta")
        except ValueError as error:
            if "attention implementation" not in str(error):
                raise
            attention = "eager"  # the only one that its class has
            model = _build(config, attention, trust=trust, device="meta")
    return ModelFacts(type(model).__name__, attention, _positions(config, model))


def load(spec: EncoderSpec, weights: Any, device: str) -> "HubEncoder":
    """Load a model; ``weights`` is what ``hub.find`` gave."""
    files = cast("HubFiles", weights)
    seed = seed_of(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # should anything be drawn that no file holds, then always the same
        with _one_line(files.name, files.directory, "the model"), _quiet():
            fresh = _build(files.config, files.attention, trust=files.trust, device="cpu")
            model = fresh if seed is not None else _read(files)
    if seed is not None:
        draw_weights(model, seed)
    else:
        repair_buffers(model, fresh)
    cast_weights(model, getattr(torch, spec.compute_dtype))
    return HubEncoder(spec, model, files, device)


class HubEncoder(Starting):
    """A model of transformers that embeds one sequence at a time: see ``spec.LayeredEncoder``.

    Attributes:
        spec: What it is.
        model: The torch module.
    """

    def __init__(self, spec: EncoderSpec, model: nn.Module, files: HubFiles, device: str) -> None:
        self.spec = spec
        self.model: Any = model.to(device).eval()
        self.files = files
        self._device = torch.device(device)
        self._check()

    def start_layers(
        self, sequences: Sequence[str], layers: Sequence[int]
    ) -> Pending[dict[int, list[NDArray[np.float32]]]]:
        """Begin what ``encode_layers`` does, see ``spec.StartingEncoder``."""
        check_layers(self.spec, layers)
        if not sequences:
            return Done({layer: [] for layer in layers})
        with torch.inference_mode():
            found = [self._rows(one, layers) for one in sequences]
            offsets = torch.tensor([0, *np.cumsum([len(one[layers[0]]) for one in found]).tolist()])
            packed = {layer: Ragged(torch.cat([one[layer] for one in found]), offsets) for layer in layers}
            return PendingRows(self.spec, packed)

    def _rows(self, sequence: str, layers: Sequence[int]) -> dict[int, Tensor]:
        """Rows of one sequence by layer, (tokens, width); a piece of several letters gives each of them its row."""
        spelling = self.files.spelling
        found = self._run(spelling.ids(sequence), layers)
        if not spelling.pieces:
            return found
        sizes = torch.from_numpy(spelling.letters_of_pieces(sequence)).to(self._device)
        return {layer: rows.repeat_interleave(sizes, dim=0) for layer, rows in found.items()}

    def _run(self, ids: NDArray[np.int64], layers: Sequence[int]) -> dict[int, Tensor]:
        """Rows of one sequence by layer, (tokens, width), special tokens left out."""
        wants_states = list(layers) != [-1]
        output = self.model(
            input_ids=torch.from_numpy(ids)[None].to(self._device),
            **({"output_hidden_states": True} if wants_states else {}),
        )
        states = getattr(output, "hidden_states", None)
        if states is None:
            states = ()
        if wants_states and len(states) <= max(layers):
            raise EmbedCacheError(f"Encoder {self.spec.name} gives no output of single layers. Ask for the last, -1.")
        before, after = len(self.files.spelling.before), len(self.files.spelling.after)
        rows = {}
        for layer in layers:
            values = _last(output) if layer == -1 else states[layer]  # the first entry is the input of layer 1
            if values.shape != (1, len(ids), self.spec.width):
                raise EmbedCacheError(
                    f"Encoder {self.spec.name} made {list(values.shape)} numbers of {len(ids)} tokens, expected "
                    f"{[1, len(ids), self.spec.width]}. Write a plug-in for it, --encoder module:Class."
                )
            rows[layer] = values[0, before : len(ids) - after]
        return rows

    @torch.inference_mode()
    def _check(self) -> None:
        """Run two sequences of ordinary tokens, and the first one again; and one that is as long as may be.

        Raises:
            EmbedCacheError: A sequence is not the same after another one, or the longest one does not pass.
        """
        spelling = self.files.spelling
        first, second = (spelling.ids(one[: self.spec.max_tokens or None]) for one in _ordinary(spelling))
        one, _, again = (self._run(ids, [-1])[-1] for ids in (first, second, first))
        error = ((one - again).abs().max() / one.abs().max()).item()
        if not error <= TOLERANCE[one.dtype]:
            raise EmbedCacheError(
                f"Encoder {self.spec.name} gives other numbers for a sequence after another one (off by {error:.2g} of "
                "the largest): its rows would depend on the batch. Write a plug-in for it, --encoder module:Class."
            )
        if limit := self.spec.max_tokens:
            inner = first[len(spelling.before) : len(first) - len(spelling.after)]
            longest = np.concatenate([spelling.before, np.resize(inner, limit), spelling.after]).astype(np.int64)
            with _one_line(self.spec.name, self.files.directory, f"a sequence of {limit} tokens, its limit,"):
                self._run(longest, [-1])


def _ordinary(spelling: Any) -> tuple[str, str]:
    letters = "".join(spelling.letters) or "ACGT"
    return (letters * 12)[:48], (letters[::-1] * 24)[:96]


def _last(output: Any) -> Tensor:
    """Output of the last layer, also of a model that gives a plain tuple."""
    found = getattr(output, "last_hidden_state", None)
    if found is None:
        found = output[0] if isinstance(output, tuple) else output
    if not isinstance(found, Tensor):
        raise EmbedCacheError(f"the model returned a {type(found).__name__}, expected tensors of hidden states.")
    return found


def _auto(config: Any) -> Any:
    """The class that gives an encoder: AutoModel of T5 and its kin is an encoder and a decoder.

    Encoders of these write into their configuration that there is no decoder, hence they get copies.
    """
    from transformers import AutoModel, AutoModelForTextEncoding

    return AutoModelForTextEncoding if getattr(config, "is_encoder_decoder", False) else AutoModel


def _build(config: Any, attention: str, *, trust: bool, device: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = _auto(config).from_config(
            deepcopy(config), attn_implementation=attention, trust_remote_code=trust, dtype=torch.float32
        )
    return cast("nn.Module", model)


def _read(files: HubFiles) -> nn.Module:
    """The model with its published weights; every tensor that rows go through must be there."""
    model, said = _auto(files.config).from_pretrained(
        files.directory,
        config=deepcopy(files.config),
        attn_implementation=files.attention,
        dtype=torch.float32,
        trust_remote_code=files.trust,
        local_files_only=True,
        ignore_mismatched_sizes=True,  # refused below, in one line
        output_loading_info=True,
    )
    missing = sorted(one for one in said["missing_keys"] if not one.startswith(_HEADS))
    if wrong := [*missing, *(one[0] for one in said["mismatched_keys"])]:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InvalidInputError(
            f"Weights in {files.directory} do not fit {type(model).__name__}: {', '.join(wrong[:3])}{more} missing, or "
            "of another shape. Give the complete published files of this model."
        )
    return cast("nn.Module", model)


def _positions(config: Any, model: nn.Module) -> int:
    if getattr(config, "position_embedding_type", "absolute") not in ("absolute", None):
        return 0  # a table that is there all the same is never read
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _POSITIONS:
            # where padding has a position, those of tokens begin behind it
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    return 0


@contextmanager
def _one_line(name: str, directory: Path | None, what: str) -> Iterator[None]:
    """Turn what transformers raises, whose texts are long, into one line."""
    where = f" in {directory}" if directory is not None else ""
    try:
        yield
    except EmbedCacheError:
        raise
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} of {name}{where} needs a package that is not here: {_first(error)}. Install it."
        ) from error
    except _FAILURES as error:
        raise InvalidInputError(
            f"{what} of {name}{where} cannot be used: {type(error).__name__}: {_first(error)}. Give the complete files "
            "of a model that transformers knows, or write a plug-in, --encoder module:Class."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without bars and tables of transformers, which would stand between the lines of a build."""
    from transformers.utils import logging as untyped

    logging: Any = untyped
    was_shown = logging.is_progress_bar_enabled()
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if was_shown:
            logging.enable_progress_bar()


def _first(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")[:300].rstrip(".")
