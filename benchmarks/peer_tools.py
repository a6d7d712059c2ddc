"""The tools that ``bench_peers.py`` compares, each through its own public code, and the files they all start from.

A tool is a function of the folder: it loads its model and returns the work to be timed, which returns how to read one
sequence's rows back. Every tool is made to see the same weights, the same sequences and one thread.
"""

import hashlib
import os
import random
import sqlite3
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from embedcache import EmbeddingStore, SequenceRecord, build_cache, load_encoder
from embedcache.encoders.esm import config
from embedcache.encoders.registry import encoder_spec
from embedcache.encoders.tokens import ESM_VOCABULARY
from embedcache.encoders.weights import draw_weights
from embedcache.sequences import sequence_key

HUB_NAME = "facebook/esm2_t6_8M_UR50D"
REVISION = "0" * 40
LAYERS, WIDTH, HEADS = 6, 320, 20
FAIR_NAMES = {  # parts of a parameter's name in transformers, and in fair-esm; applied in this order
    "esm.embeddings.word_embeddings": "embed_tokens",
    "esm.encoder.emb_layer_norm_after": "emb_layer_norm_after",
    "esm.encoder.layer.": "layers.",
    "esm.contact_head": "contact_head",
    ".attention.LayerNorm": ".self_attn_layer_norm",
    ".attention.output.dense": ".self_attn.out_proj",
    ".attention.self.query": ".self_attn.q_proj",
    ".attention.self.key": ".self_attn.k_proj",
    ".attention.self.value": ".self_attn.v_proj",
    ".LayerNorm": ".final_layer_norm",
    ".intermediate.dense": ".fc1",
    ".output.dense": ".fc2",
    "lm_head.decoder.weight": "lm_head.weight",
}

Rows = NDArray[np.float32]
Work = Callable[[], Callable[[str], Rows]]


def prepare(folder: Path, n_sequences: int) -> None:
    """Write drawn weights in the layout of the hub cache and of fair-esm, and sequences of 50 to 400 residues."""
    from transformers import EsmForMaskedLM, EsmTokenizer

    settings = config(encoder_spec("esm2-8m", "protein", random_init=0))
    model = EsmForMaskedLM(settings)
    draw_weights(model, seed=0)
    hub = hub_folder(folder)
    hub.mkdir(parents=True)
    refs = hub.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text(REVISION)
    model.save_pretrained(hub, save_original_format=False)
    (hub / "vocab.txt").write_text("\n".join(ESM_VOCABULARY))
    EsmTokenizer(str(hub / "vocab.txt")).save_pretrained(hub)
    save_for_fair_esm(folder, model)
    draw = random.Random(1)
    with (folder / "proteins.fasta").open("w") as file:
        for i in range(n_sequences):
            file.write(f">P{i}\n{''.join(draw.choices('ACDEFGHIKLMNPQRSTVWY', k=draw.randint(50, 400)))}\n")


def save_for_fair_esm(folder: Path, model: torch.nn.Module) -> None:
    """The two files that fair-esm asks for: the network, and the regression of its contact head."""
    size = WIDTH // HEADS
    frequencies = 1 / 10_000 ** (torch.arange(0, size, 2) / size)
    named = {f"layers.{i}.self_attn.rot_emb.inv_freq": frequencies for i in range(LAYERS)}
    for name, tensor in model.state_dict().items():
        if "inv_freq" in name:
            continue
        for ours, theirs in FAIR_NAMES.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901
        named[name] = tensor
    for name in ("lm_head.decoder.bias", "esm.embeddings.position_ids"):
        named.pop(name, None)
    contact = {name: named.pop(name) for name in list(named) if name.startswith("contact_head")}
    shape = Namespace(encoder_layers=LAYERS, encoder_embed_dim=WIDTH, encoder_attention_heads=HEADS, token_dropout=True)
    trunk = {f"encoder.sentence_encoder.{name}": tensor for name, tensor in named.items()}
    target = fair_checkpoint(folder)
    target.parent.mkdir()
    torch.save({"cfg": {"model": shape}, "model": trunk}, target)
    torch.save({"model": contact}, target.with_name(f"{target.stem}-contact-regression.pt"))


def hub_folder(folder: Path) -> Path:
    """With HF_HOME set to the folder the hub finds the model by its name, without a network."""
    return folder / "hub" / f"models--{HUB_NAME.replace('/', '--')}" / "snapshots" / REVISION


def fair_checkpoint(folder: Path) -> Path:
    return folder / "fair" / "esm2_t6_8M_UR50D.pt"


def read_sequences(folder: Path) -> list[str]:
    return (folder / "proteins.fasta").read_text().split("\n")[1::2]


def load_transformers(folder: Path) -> tuple[torch.nn.Module, Callable[..., dict[str, torch.Tensor]]]:
    from transformers import EsmModel, EsmTokenizer

    model = EsmModel.from_pretrained(hub_folder(folder), attn_implementation="sdpa", add_pooling_layer=False).eval()
    tokenizer = EsmTokenizer.from_pretrained(hub_folder(folder))
    return model, lambda batch: tokenizer(batch, return_tensors="pt", padding=True)


def padded_batches(sequences: list[str], budget: int, most: int) -> Iterator[list[str]]:
    """Longest first; rows times the longest row stay within a budget of tokens."""
    left = sorted(sequences, key=len, reverse=True)
    while left:
        size = max(1, min(most, budget // (len(left[0]) + 2)))
        yield left[:size]
        left = left[size:]


def ours(dtype: str, store_dtype: str) -> Callable[[Path, Path], Work]:
    """``build_cache``: planning, tokenising, packing, rounding, checksums, flushed shards and the index."""

    def load(folder: Path, out: Path) -> Work:
        options = {"weights": hub_folder(folder), "dtype": dtype, "store_dtype": store_dtype}
        encoder = load_encoder("esm2-8m", "protein", **options)
        records = [SequenceRecord(f"P{i}", s, "protein") for i, s in enumerate(read_sequences(folder))]

        def work() -> Callable[[str], Rows]:
            build_cache(records, encoder, out / "store")
            store = EmbeddingStore(out / "store")
            return lambda s: store[sequence_key(s, "protein")].astype(np.float32)

        return work

    return load


def plain_loop(folder: Path, out: Path) -> Work:
    """The loop that one writes first, done well: sorted, 1,024 padded tokens a batch, one flat file of float32."""
    model, tokenize = load_transformers(folder)
    sequences = read_sequences(folder)

    def work() -> Callable[[str], Rows]:
        rows: dict[str, Rows] = {}
        for batch in padded_batches(sequences, 1024, most=len(sequences)):
            hidden = model(**tokenize(batch)).last_hidden_state
            for one, s in zip(hidden, batch, strict=True):
                rows[s] = one[1 : len(s) + 1].numpy().copy()
        np.save(out / "rows.npy", np.concatenate([rows[s] for s in sequences]))
        return rows.__getitem__

    return work


def fastplms_like(folder: Path, out: Path) -> Work:
    """The recipe of FastPLMs: windows of 1,024, at most 32 rows and 4,096 padded tokens, checksummed rows in SQLite."""
    model, tokenize = load_transformers(folder)
    sequences = read_sequences(folder)

    def work() -> Callable[[str], Rows]:
        base = sqlite3.connect(out / "rows.db")
        base.execute("create table rows (sequence text primary key, shape text, data blob, sha256 text)")
        for start in range(0, len(sequences), 1024):
            for batch in padded_batches(sequences[start : start + 1024], 4096, most=32):
                hidden = model(**tokenize(batch)).last_hidden_state
                for one, s in zip(hidden, batch, strict=True):
                    data = one[1 : len(s) + 1].numpy().tobytes()
                    row = (s, f"{len(s)},{WIDTH}", data, hashlib.sha256(data).hexdigest())
                    base.execute("insert into rows values (?, ?, ?, ?)", row)
                base.commit()
        find = "select data from rows where sequence = ?"
        return lambda s: np.frombuffer(base.execute(find, (s,)).fetchone()[0], np.float32).reshape(-1, WIDTH)

    return work


def fair_esm(folder: Path, out: Path) -> Work:
    """The steps of its extraction script with per-token rows and means: 4,096 tokens a batch, a file a sequence."""
    from esm import FastaBatchedDataset, pretrained

    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # its checkpoints hold an argparse.Namespace
    model, alphabet = pretrained.load_model_and_alphabet(str(fair_checkpoint(folder)))
    model.eval()
    data = FastaBatchedDataset.from_file(folder / "proteins.fasta")
    label_of = dict(zip(data.sequence_strs, data.sequence_labels, strict=True))

    def work() -> Callable[[str], Rows]:
        batches = data.get_batch_indices(4096, extra_toks_per_seq=1)
        collate = alphabet.get_batch_converter(1022)
        for labels, strings, tokens in torch.utils.data.DataLoader(data, collate_fn=collate, batch_sampler=batches):
            found = model(tokens, repr_layers=[LAYERS], return_contacts=False)["representations"][LAYERS]
            for one, label, s in zip(found, labels, strings, strict=True):
                rows = one[1 : min(1022, len(s)) + 1].clone()
                result = {"representations": {LAYERS: rows}, "mean_representations": {LAYERS: rows.mean(0)}}
                torch.save({"label": label, **result}, out / f"{label}.pt")
        return lambda s: torch.load(out / f"{label_of[s]}.pt")["representations"][LAYERS].numpy()

    return work


def sentence_transformers(folder: Path, out: Path) -> Work:
    """``encode`` with token embeddings, sorted, 16 a batch. It writes nothing, and gives special tokens too."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    network = Transformer(str(hub_folder(folder)), max_seq_length=1024)
    model = SentenceTransformer(modules=[network, Pooling(WIDTH, "mean")], device="cpu")
    sequences = read_sequences(folder)

    def work() -> Callable[[str], Rows]:
        found = model.encode(sequences, batch_size=16, output_value="token_embeddings", show_progress_bar=False)
        rows = dict(zip(sequences, found, strict=True))
        return lambda s: rows[s][1 : len(s) + 1].numpy()

    return work


def biotrainer(folder: Path, out: Path) -> Work:
    """Its embedding service, one HDF5 of rows a residue; version 1 (Python 3.11) or 2."""
    import h5py

    try:
        from biotrainer.embedding import get_embedding_service
        from biotrainer_core.data_classes import Protocol
    except ImportError:
        from biotrainer.embedders import get_embedding_service
        from biotrainer.protocols import Protocol

    service = get_embedding_service(HUB_NAME, None, False, torch.device("cpu"))

    def work() -> Callable[[str], Rows]:
        path = service.compute_embeddings(str(folder / "proteins.fasta"), out, Protocol["residue_to_class"])
        file = h5py.File(path)
        return lambda s: file[hashlib.sha256(f"{s}_{len(s)}".encode()).hexdigest()][:]

    return work


@dataclass(frozen=True, slots=True)
class Tool:
    """One line of the comparison."""

    load: Callable[[Path, Path], Work]
    tolerance: float = 1e-5
    """Largest difference from single sequences that passes, over the largest value."""
    package: str = ""
    """Distribution that must be installed; empty if our own dependencies are enough."""


OURS, HALF, BFLOAT = "ours", "ours to float16", "ours in bfloat16"
TOOLS: dict[str, Tool] = {
    OURS: Tool(ours("float32", "float32")),
    HALF: Tool(ours("float32", "float16"), tolerance=1e-3),
    BFLOAT: Tool(ours("bfloat16", "float16"), tolerance=0.1),
    "plain loop": Tool(plain_loop),
    "FastPLMs-like loop": Tool(fastplms_like),
    "fair-esm extract": Tool(fair_esm, package="fair-esm"),
    "sentence-transformers": Tool(sentence_transformers, package="sentence-transformers"),
    "biotrainer": Tool(biotrainer, package="biotrainer"),
}
