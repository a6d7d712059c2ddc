"""TIS Transformer as a plug-in: a Performer that finds where translation of a human transcript begins.

    pip install performer-pytorch
    pip install --no-deps transcript-transformer
    PYTHONPATH=examples embedcache build --modality rna --encoder tis_transformer:TisTransformer

The weights are in the package transcript-transformer (MIT), the layers in performer-pytorch (MIT); nothing of the
former is imported, and its checkpoint is read as tensors only. It holds five models, each trained without some
chromosomes: ``TisTransformer`` is the first, ``TisTransformer1`` to ``4`` the others.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

CODES = {letter: code for code, letter in enumerate("ATCGN")}
BEGIN, END = 5, 6


def package_file(name: str) -> Path:
    """A file of the published models; the package itself is not imported."""
    found = find_spec("transcript_transformer")
    if found is None or found.origin is None:
        raise ImportError("No module named 'transcript_transformer'")
    return Path(found.origin).parent / "pretrained" / "tt_models" / name


class TisTransformer:
    """The model of the first fold, see the module."""

    name = "tis-transformer-0"
    modality = "rna"
    width = 48
    max_tokens = 30_000
    version = "1"
    package = "performer-pytorch; pip install --no-deps transcript-transformer"
    licence = "MIT"
    commercial = True
    citation = "Clauwaert et al., NAR Genomics and Bioinformatics 2023, doi:10.1093/nargab/lqad021"
    fold = 0

    @classmethod
    def weights(cls) -> Path:
        """The file that says which weights these are."""
        return package_file(f"Homo_sapiens.GRCh38.113_f{cls.fold}.tt.ckpt")

    def __init__(self, device: str = "cpu") -> None:
        found = torch.load(self.weights(), map_location="cpu", weights_only=True)
        self.device = device
        self.network = _Network(found["hyper_parameters"])
        self.network.load_state_dict(found["state_dict"])
        self.network.to(device).eval()

    @torch.inference_mode()
    def encode(self, sequences: Sequence[str]) -> list[NDArray[np.float32]]:
        """Output of the last layer for each base, (bases, 48) each."""
        return [self.network(self._codes(one))[0, 1:-1].cpu().numpy() for one in sequences]

    @torch.inference_mode()
    def start_scores(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability that translation begins at each row."""
        hidden = torch.relu(self.network.ff_1(torch.from_numpy(rows).to(self.device)))
        scores: NDArray[np.float32] = self.network.ff_2(hidden).softmax(-1)[:, 1].cpu().numpy()
        return scores

    def _codes(self, sequence: str) -> Tensor:
        codes = [BEGIN, *(CODES.get(letter, CODES["N"]) for letter in sequence), END]
        return torch.tensor(codes, device=self.device)[None]


class TisTransformer1(TisTransformer):
    """The model of the second fold."""

    name, fold = "tis-transformer-1", 1


class TisTransformer2(TisTransformer):
    """The model of the third fold."""

    name, fold = "tis-transformer-2", 2


class TisTransformer3(TisTransformer):
    """The model of the fourth fold."""

    name, fold = "tis-transformer-3", 3


class TisTransformer4(TisTransformer):
    """The model of the fifth fold."""

    name, fold = "tis-transformer-4", 4


class _Network(nn.Module):
    """Modules under the names of the checkpoint; ``said`` are the settings in it."""

    def __init__(self, said: dict[str, Any]) -> None:
        from performer_pytorch import Performer
        from performer_pytorch.performer_pytorch import FixedPositionalEmbedding

        super().__init__()
        names = ("dim", "depth", "heads", "dim_head", "nb_features", "local_attn_heads", "local_window_size")
        self.transformer = Performer(causal=False, **{name: said[name] for name in names})
        self.nuc_emb = nn.Embedding(said["num_tokens"], said["dim"])
        self.pos_emb = FixedPositionalEmbedding(said["dim"], said["max_seq_len"] + 2)
        self.layer_pos_emb = FixedPositionalEmbedding(said["dim_head"], said["max_seq_len"] + 2)
        self.ff_1 = nn.Linear(said["dim"], 2 * said["dim"])
        self.ff_2 = nn.Linear(2 * said["dim"], 2)

    def forward(self, codes: Tensor) -> Tensor:
        """(1, bases + 2) codes to (1, bases + 2, 48)."""
        x = self.nuc_emb(codes)
        x = x + self.pos_emb(x)
        rows: Tensor = self.transformer(x, pos_emb=self.layer_pos_emb(x), mask=torch.ones_like(codes, dtype=torch.bool))
        return rows
