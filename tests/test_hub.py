"""Any model of Hugging Face as an encoder: tiny ones in the layout of published files, with tokenizers of their own."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_models import AMINO_ACIDS, COMMIT, REMOTE, SMALL, save, tokenizer_of_letters, tokenizer_of_pieces
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    EsmConfig,
    EsmModel,
    EsmTokenizer,
    GPT2Config,
    GPT2Model,
    T5Config,
    T5EncoderModel,
    T5Model,
)

from embedcache.encoders.cards import CARDS
from embedcache.encoders.hub import portable_name, typed_name
from embedcache.encoders.registry import card, encoder_spec, load_encoder, load_layers
from embedcache.encoders.tokens import ESM_VOCABULARY
from embedcache.errors import EmbedCacheError, InvalidInputError, InvalidSettingError, MissingDependencyError
from embedcache.store.find import find_store
from heads.mending import how_to_fill


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config: Any = BertConfig(**SMALL, vocab_size=30, max_position_embeddings=64)
    return save(
        tmp_path_factory.mktemp("hub") / "bert", BertModel(config), tokenizer_of_letters(AMINO_ACIDS, spaced=True)
    )


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with code of its own, and a buffer that its files do not hold."""
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("hub") / "toy"
    path.mkdir()
    (path / "toy_model.py").write_text(REMOTE)
    places = {"AutoConfig": "toy_model.ToyConfig", "AutoModel": "toy_model.Toy"}
    said = {"model_type": "toy-of-a-test", "hidden_size": 8, "num_hidden_layers": 1, "auto_map": places}
    (path / "config.json").write_text(json.dumps(said))
    draw = torch.Generator().manual_seed(0)
    save_file({"embedding.weight": torch.randn(30, 8, generator=draw)}, path / "model.safetensors", {"format": "pt"})
    tokenizer_of_letters("ACGT").save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, an empty hub cache, and what is registered is forgotten."""

    def connect(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("embedcache.encoders.registry.CARDS", dict(CARDS))
    monkeypatch.setattr("embedcache.encoders.registry._LOADERS", {})


@pytest.fixture
def in_hub_cache(tmp_path: Path) -> Callable[[Path, str], None]:
    """Puts a directory into the hub cache, as a download of this repository at COMMIT would."""

    def put(directory: Path, repository: str) -> None:
        place = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        shutil.copytree(directory, place / "snapshots" / COMMIT)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(COMMIT)

    return put


def test_rows_are_those_of_a_plain_pass_and_do_not_depend_on_the_batch(bert: Path) -> None:
    encoder = load_encoder(f"hf:{bert}", "protein")
    sequences = ["MKTAYIAKQRX", "W", "MKTAYIAKQRX" * 5]
    plain, tokenizer = BertModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    together = encoder.encode(sequences)
    for sequence, rows in zip(sequences, together, strict=True):
        with torch.no_grad():
            wanted = plain(**tokenizer(" ".join(sequence), return_tensors="pt")).last_hidden_state[0, 1:-1].numpy()
        assert np.abs(rows - wanted).max() < 1e-6
        assert np.array_equal(encoder.encode([sequence])[0], rows)
    assert encoder.encode([]) == []


def test_the_spec_tells_two_models_apart(bert: Path, tmp_path: Path) -> None:
    spec = encoder_spec(f"hf:{bert}", "protein")
    assert (spec.name, spec.model_id, spec.revision, spec.is_random) == ("hf--bert", "bert", "", False)
    assert (spec.width, spec.tokens, spec.max_tokens, spec.attention) == (32, "letter", 62, "single")
    assert spec.architecture["layers"] == 2 and spec.architecture["class"] == "BertModel"
    assert spec.architecture["spelling"] == {"separator": " ", "uracil": False, "before": [2], "after": [3]}
    other = shutil.copytree(bert, tmp_path / "bert")
    assert encoder_spec("hf--bert", "protein", weights=other) == spec  # a copy is the same model
    said = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**said, "layer_norm_eps": 1e-5}))
    assert encoder_spec("hf--bert", "protein", weights=other).digest != spec.digest
    tensors = {name: value + 1 for name, value in BertModel.from_pretrained(bert).state_dict().items()}
    torch.save(tensors, other / "pytorch_model.bin")
    (other / "model.safetensors").unlink()
    (other / "config.json").write_text(json.dumps(said))
    assert encoder_spec("hf--bert", "protein", weights=other).weights != spec.weights


def test_layers_and_limit(bert: Path) -> None:
    encoder = load_layers(f"hf:{bert}", "protein", [1, -1])
    plain = BertModel.from_pretrained(bert).eval()
    ids = torch.tensor([[2, 14, 12, 3]])
    with torch.no_grad():
        states = plain(input_ids=ids, output_hidden_states=True).hidden_states
    found = encoder.encode_layers(["MK"], [1, -1])
    for layer in (1, -1):
        assert np.abs(found[layer][0] - states[layer][0, 1:-1].numpy()).max() < 1e-6
    with pytest.raises(InvalidInputError, match="cannot take 63 tokens"):
        encoder_spec(f"hf:{bert}", "protein", max_tokens=63)
    with pytest.raises(InvalidInputError, match="no layer 3"):
        encoder_spec(f"hf:{bert}", "protein", layer=3)


def test_a_model_with_a_decoder_gives_its_encoder(tmp_path: Path) -> None:
    config = T5Config(vocab_size=30, d_model=32, num_layers=2, num_heads=4, d_kv=8, d_ff=64, decoder_start_token_id=0)
    path = save(tmp_path / "t5", T5Model(config), tokenizer_of_letters(AMINO_ACIDS, before=""))
    encoder = load_encoder(f"hf:{path}", "protein")
    assert encoder.spec.architecture["class"] == "T5EncoderModel" and encoder.spec.max_tokens == 0
    plain = T5EncoderModel.from_pretrained(path).eval()
    with torch.no_grad():
        wanted = plain(input_ids=torch.tensor([[14, 12, 1, 3]])).last_hidden_state[0, :3].numpy()
    assert np.abs(encoder.encode(["MKJ"])[0] - wanted).max() < 1e-6


def test_drawn_weights_need_no_files_of_weights_and_rna_may_have_u(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=8, n_embd=32, n_layer=2, n_head=4, n_positions=50, bos_token_id=2, eos_token_id=3)
    path = save(tmp_path / "gpt", GPT2Model(config), tokenizer_of_letters("ACGU", before="", after=""))
    (path / "model.safetensors").unlink()
    first, again, other = (load_encoder(f"hf:{path}", "rna", random_init=seed) for seed in (3, 3, 4))
    assert first.spec.name == "hf--gpt-random3" and first.spec.is_random and first.spec.max_tokens == 50
    assert first.spec.architecture["spelling"]["uracil"] is True
    rows = first.encode(["ACGTTT"])[0]
    assert np.array_equal(rows, again.encode(["ACGTTT"])[0])
    assert np.abs(rows - other.encode(["ACGTTT"])[0]).max() > 0.1
    assert np.abs(rows[3] - rows[4]).max() > 0.1  # a T behind another one
    with pytest.raises(InvalidInputError, match="without all letters of dna"):
        encoder_spec(f"hf:{path}", "dna", random_init=3)
    with pytest.raises(MissingDependencyError, match="has no weights"):
        encoder_spec(f"hf:{path}", "rna")


def test_half_precision_leaves_rotary_frequencies_alone(tmp_path: Path) -> None:
    config: Any = EsmConfig(**SMALL, vocab_size=33, pad_token_id=1, mask_token_id=32, position_embedding_type="rotary")
    (tmp_path / "words").write_text("\n".join(ESM_VOCABULARY))
    model = EsmModel(config)
    model.save_pretrained(tmp_path / "esm", save_original_format=False)
    EsmTokenizer(str(tmp_path / "words")).save_pretrained(tmp_path / "esm")
    encoder: Any = load_encoder(f"hf:{tmp_path / 'esm'}", "protein", dtype="bfloat16")
    assert encoder.spec.max_tokens == 0  # its table of positions is never read
    assert encoder.files.spelling.ids("MKJJV").tolist() == [0, 20, 15, 3, 3, 7, 2]  # EsmTokenizer writes JJ as one
    frequencies = [value for name, value in encoder.model.named_buffers() if name.endswith("inv_freq")]
    assert frequencies and all(one.dtype == torch.float32 for one in frequencies)
    assert next(encoder.model.parameters()).dtype == torch.bfloat16


def test_code_that_comes_with_a_model_runs_only_when_asked_and_pinned(
    remote: Path, in_hub_cache: Callable[[Path, str], None]
) -> None:
    in_hub_cache(remote, "lab/toy")
    with pytest.raises(InvalidSettingError, match=r"code of its own \(toy_model.ToyConfig\).*was not run"):
        encoder_spec("hf:lab/toy", "dna")
    for revision in (None, "main"):
        with pytest.raises(InvalidSettingError, match="runs only at a commit that is named in full"):
            encoder_spec("hf:lab/toy", "dna", trust_remote_code=True, revision=revision)
    with pytest.raises(InvalidSettingError, match=r"was not run\. Read it, and add --trust-remote-code if"):
        encoder_spec(f"hf:{remote}", "dna")
    encoder: Any = load_encoder("hf:lab/toy", "dna", trust_remote_code=True, revision=COMMIT)
    spec = encoder.spec
    assert (spec.name, spec.model_id, spec.revision) == ("hf--lab--toy", "lab/toy", COMMIT)
    assert encoder.model.turn.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]  # from_pretrained leaves it unwritten
    rows = encoder.encode(["ACGTA"])[0]
    wanted = encoder.model.embedding.weight[torch.tensor([2, 4, 5, 6, 7, 4])].cumsum(0)[1:] * torch.arange(1, 9)
    assert np.abs(rows - wanted.detach().numpy()).max() < 1e-5
    line = how_to_fill(spec, Path("dataset"), "cache")
    assert f"--encoder hf:lab/toy --revision {COMMIT} --trust-remote-code" in line


def test_other_code_is_another_store_and_code_of_elsewhere_is_refused(remote: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(remote, tmp_path / "toy")
    codes = set()
    for text in (REMOTE, REMOTE + "\n# changed"):
        (copy / "toy_model.py").write_text(text)
        codes.add(encoder_spec(f"hf:{copy}", "dna", trust_remote_code=True).architecture["code"])
    assert len(codes) == 2
    said = (copy / "config.json").read_text().replace('toy_model.Toy"', 'other/place--toy_model.Toy"')
    (copy / "config.json").write_text(said)
    with pytest.raises(InvalidSettingError, match="code from another repository"):
        encoder_spec(f"hf:{copy}", "dna", trust_remote_code=True)


def test_a_repository_is_found_in_the_cache_only(bert: Path, in_hub_cache: Callable[[Path, str], None]) -> None:
    with pytest.raises(MissingDependencyError, match=r"Run `hf download lab/bert --revision main`, or give"):
        encoder_spec("hf:lab/bert", "protein", revision="main")
    in_hub_cache(bert, "lab/bert")
    spec = encoder_spec("hf:lab/bert", "protein")
    assert (spec.name, spec.model_id, spec.revision) == ("hf--lab--bert", "lab/bert", COMMIT)
    assert typed_name(spec) == ("hf:lab/bert", [f"--revision {COMMIT}"])
    assert encoder_spec("hf:lab/bert", "protein", revision=COMMIT) == spec
    with pytest.raises(InvalidSettingError, match="is a directory, which has no revision"):
        encoder_spec("hf:lab/bert", "protein", weights=bert, revision=COMMIT)


@pytest.mark.parametrize("name", ["hf:", "hf:bert", "hf:a/b/c", "hf:a--b/c", "hf:../x y"])
def test_a_name_of_nothing_is_told(name: str) -> None:
    with pytest.raises(InvalidSettingError, match="neither a directory nor a repository"):
        card(name)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("config.json", None, "has no config.json"),
        ("config.json", lambda text: text[:-9], "config.json cannot be read"),
        ("config.json", lambda text: text.replace('"bert"', '"nothing-known"'), "cannot be used: ValueError"),
        ("config.json", lambda text: text.replace('"vocab_size": 30', '"vocab_size": 31'), "do not fit BertModel"),
        (
            "config.json",
            lambda text: text.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'),
            "missing, or of",
        ),
        ("tokenizer.json", lambda text: text[:-9], "the tokenizer of hf--bert"),
        ("model.safetensors", lambda text: "", "cannot be read"),
    ],
)
def test_damaged_files_are_told_in_one_line(
    bert: Path, tmp_path: Path, file: str, change: Callable[[str], str] | None, words: str
) -> None:
    copy = shutil.copytree(bert, tmp_path / "bert")
    if change is None:
        (copy / file).unlink()
    else:
        (copy / file).write_text(change((copy / file).read_text() if file.endswith("json") else ""))
    with pytest.raises(EmbedCacheError, match=words):
        load_encoder(f"hf:{copy}", "protein")


def test_a_model_that_remembers_its_last_sequence_is_refused(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))
    forward = BertModel.forward

    def forgetful(self: Any, *args: Any, **options: Any) -> Any:
        found = forward(self, *args, **options)
        found.last_hidden_state = found.last_hidden_state + next(calls)
        return found

    monkeypatch.setattr(BertModel, "forward", forgetful)
    with pytest.raises(EmbedCacheError, match="other numbers for a sequence after another one"):
        load_encoder(f"hf:{bert}", "protein")


def test_a_store_is_found_by_the_place_that_it_was_built_with(bert: Path, tmp_path: Path) -> None:
    from embedcache.build import build_cache
    from embedcache.sequences import SequenceRecord

    encoder = load_encoder(f"hf:{bert}", "protein")
    path = tmp_path / "cache" / "protein" / encoder.spec.directory
    build_cache([SequenceRecord("a", "MKT", "protein")], encoder, path)
    assert find_store(tmp_path / "cache", "protein", f"hf:{bert}") == path


def test_a_directory_is_named_in_full_for_other_processes(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bert.parent)
    assert portable_name("hf:bert") == portable_name(f"hf:{bert}") == f"hf:{bert}"
    for name in ("hf:lab/bert", "esm2-8m", "bert"):
        assert portable_name(name) == name


def test_each_letter_of_a_piece_gets_the_row_of_the_piece(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config: Any = BertConfig(**SMALL, vocab_size=12, max_position_embeddings=64)
    path = save(tmp_path / "pairs", BertModel(config), tokenizer_of_pieces(["A", "C", "G", "T", "AA"]))
    encoder: Any = load_encoder(f"hf:{path}", "dna")
    (rows,) = encoder.encode(["CAAAGT"])
    with torch.no_grad():
        plain = encoder.model(input_ids=torch.tensor([[2, 5, 1, 3, 4]])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(rows, plain[[0, 1, 1, 2, 3, 4]], atol=1e-5)
    assert encoder.spec.n_tokens("CAAAGT") == 6 and encoder.spec.tokens == "letter"
    letters = load_encoder(f"hf:{save(tmp_path / 'one', BertModel(config), tokenizer_of_letters('ACGT'))}", "dna")
    assert encoder.spec.architecture["spelling"]["pieces"] and "pieces" not in letters.spec.architecture["spelling"]
