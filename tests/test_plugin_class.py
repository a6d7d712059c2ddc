"""Classes of others as encoders: what they must have, what is made of the rest, and that they go everywhere."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import embedcache.encoders.plugin_class as documented
from embedcache.build import build_cache
from embedcache.encoders.cards import CARDS
from embedcache.encoders.registry import card, encoder_spec, load_encoder
from embedcache.encoders.selftest import check_encoder
from embedcache.errors import EmbedCacheError, InvalidInputError, InvalidSettingError, MissingDependencyError
from embedcache.prepare.fasta import prepare_fasta
from embedcache.sequences import SequenceRecord, sequence_key
from embedcache.store import EmbeddingStore
from embedcache.store.find import find_store
from heads.mending import how_to_fill

Write = Callable[..., str]
BODY = """
import numpy as np
class Mine:
    {attributes}
    def encode(self, sequences):
        return [np.array([[ord(letter), i] for i, letter in enumerate(one)]) for one in sequences]
"""
COUNT = iter(range(1000))


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a module with a class of these attributes; its place."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("embedcache.encoders.registry.CARDS", known := dict(CARDS))
    monkeypatch.setattr("embedcache.encoders.registry._LOADERS", {})

    def writing(attributes: str = 'modality, width, version = "protein", 2, "1"', body: str = BODY) -> str:
        name = f"plugged_{next(COUNT)}"  # a module is imported once
        known.pop("mine", None)
        lines = textwrap.dedent(attributes).strip().replace("\n", "\n    ")
        (tmp_path / f"{name}.py").write_text(body.replace("{attributes}", lines))
        return f"{name}:Mine"

    return writing


def test_the_example_of_the_manual_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment and command are those of the docstring; workers are processes of their own."""
    text = str(documented.__doc__)
    example = textwrap.dedent(re.findall(r"\n\n((?:    .*\n|\n)+)\n?", text)[0])
    assert "class Hydropathy" in example and len(example.strip().splitlines()) <= 20
    (tmp_path / "hydropathy.py").write_text(example)
    (tmp_path / "proteins.fa").write_text(">a\nMKILARW\n>b\nMARNDX\n>c\nW\n")
    prepare_fasta(output=tmp_path / "dataset", protein=tmp_path / "proteins.fa")
    words = re.findall(r"``PYTHONPATH=\. embedcache (.*?)``", text)[0].split()
    done = subprocess.run(
        [sys.executable, "-c", "import cli; cli.embedcache()", *words, "--workers", "2", "--device", "cpu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    store = EmbeddingStore(find_store(tmp_path / "cache", "protein"))
    assert store.spec.name == "hydropathy" and not store.spec.is_random
    rows = store[sequence_key("MARNDX", "protein")]
    assert rows[:, 0].tolist() == np.float16([1.9, 1.8, -4.5, -3.5, -3.5, 0.0]).tolist()
    assert "--encoder hydropathy:Hydropathy " in how_to_fill(store.spec, tmp_path / "dataset", "cache")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("embedcache.encoders.registry.CARDS", dict(CARDS))
    assert EmbeddingStore(find_store(tmp_path / "cache", "protein", "hydropathy:Hydropathy")).spec == store.spec


def test_attributes_become_card_and_spec(write: Write) -> None:
    place = write("""
        modalities, width, version = ("rna", "dna"), 2, "7"
        name, licence, commercial, citation, max_tokens = "letters", "MIT", True, "Me 2026", 9
    """)
    found = card(place)
    assert (found.name, found.licence, found.commercial, found.citation) == ("letters", "MIT", True, "Me 2026")
    assert card("letters") == found  # known by its name from now on
    spec = encoder_spec(place, "rna")
    assert (spec.name, spec.adapter, spec.width, spec.max_tokens) == ("letters", f"{place}/7", 2, 9)
    assert (spec.crop, spec.attention, spec.weights, spec.is_random) == ("keep-3-prime", "single", "none", False)
    with pytest.raises(InvalidInputError, match=r"letters reads rna or dna, not protein"):
        encoder_spec(place, "protein")


def test_a_default_name_is_that_of_the_class(write: Write) -> None:
    found = card(write(body=BODY.replace("class Mine", "class OneHotV2") + "Mine = OneHotV2"))
    assert found.name == "one-hot-v2"


def test_other_weights_or_another_version_make_another_store(write: Write, tmp_path: Path) -> None:
    for version in ("1", "2"):
        place = write(f'modality, width, version = "protein", 2, "{version}"')
        assert encoder_spec(place, "protein").adapter == f"{place}/{version}"
    file = tmp_path / "weights.npy"
    digests = set()
    for content in ("one", "two"):
        file.write_text(content)
        weights = f"from pathlib import Path; weights = [Path({str(file)!r}), 'revision 3']"
        place = write(f'modality, width, version = "protein", 2, "1"\n{weights}')
        digests.add(encoder_spec(place, "protein").weights)
    method = "weights = staticmethod(lambda: 'one')"
    digests.add(encoder_spec(write(f'modality, width, version = "protein", 2, "1"\n{method}'), "protein").weights)
    assert len(digests) == 3 and all(one.startswith("blake2b:") for one in digests)


def test_without_a_version_the_code_says_it(write: Write) -> None:
    attributes = 'modality, width = "protein", 2'
    codes = {
        encoder_spec(write(attributes, body), "protein").adapter.partition("/")[2]
        for body in (BODY, BODY, BODY.replace("ord(letter)", "-ord(letter)"))
    }
    assert len(codes) == 2 and all(re.fullmatch("code-[0-9a-f]{12}", one) for one in codes)


def test_it_gets_one_sequence_at_a_time_unless_it_asks_for_more(write: Write) -> None:
    body = BODY.replace("return [", "self.seen = [*getattr(self, 'seen', []), len(sequences)]\n        return [")
    for more, seen in (("", [1, 1, 1]), ("\nbatched = True", [3])):
        encoder = load_encoder(write(f'modality, width, version = "protein", 2, "1"{more}', body), "protein")
        found = encoder.encode(["MK", "A", "W"])
        assert encoder.plugin.seen == seen  # type: ignore[attr-defined]
        assert [one.tolist() for one in found] == [[[77, 0], [75, 1]], [[65, 0]], [[87, 0]]]
        assert all(one.dtype == np.float32 for one in found)
        assert encoder.encode([]) == []


def test_a_constructor_may_take_the_device(write: Write) -> None:
    attributes = """
        modality, width, version = "protein", 2, "1"
        def __init__(self, device): self.device = device
    """
    assert load_encoder(write(attributes), "protein", device="cpu").plugin.device == "cpu"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ("width = 2", "has modality .., expected one of dna, rna, protein"),
        ('modality, width = "proteins", 2', "has modality 'proteins'"),
        ('modality = "protein"', "has width 0, expected numbers a token"),
        ('modality, width = "protein", 2.0', "has width 2.0"),
        ('modality, width, encode = "protein", 2, None\ndef other(self): ...', "has no method encode"),
        ('modality, width, name = "protein", 2, "a/b"', "has name 'a/b'"),
        ('modality, width, version = "protein", 2, 1', "has version 1, expected text"),
        ('modality, width, max_tokens = "protein", 2, -1', "has max_tokens -1"),
        ('modality, width, tokens = "protein", 2, "words"', "has tokens 'words'. Unknown token rule"),
        ('modality, width, name = "protein", 2, "esm2-8m"', "'esm2-8m' is already registered"),
    ],
)
def test_a_wrong_class_is_told_in_one_line(write: Write, attributes: str, words: str) -> None:
    body = BODY.replace("def encode", "def encoding") if "no method" in words else BODY
    with pytest.raises(InvalidInputError, match=re.escape(words).replace(r"\.\.", "..")):
        card(write(attributes, body))


@pytest.mark.parametrize(
    ("attributes", "error", "words"),
    [
        ("def __init__(self, size): ...", InvalidInputError, "cannot be made: TypeError.*`device` and nothing else"),
        ("def __init__(self): import nowhere_at_all", MissingDependencyError, "No module named 'nowhere_at_all'"),
        ("def __init__(self): import nope\npackage = 'nope-kit'", MissingDependencyError, "`pip install nope-kit`"),
        ("weights = 7", InvalidInputError, "Weights of .* cannot be told: TypeError"),
        ("weights = __import__('pathlib').Path('gone.npz')", InvalidInputError, "cannot be told: FileNotFoundError"),
        ("weights = staticmethod(lambda: __import__('nope'))", MissingDependencyError, "Weights of .* need a package"),
    ],
)
def test_what_goes_wrong_when_it_is_made(
    write: Write, attributes: str, error: type[EmbedCacheError], words: str
) -> None:
    with pytest.raises(error, match=words):
        load_encoder(write(f'modality, width, version = "protein", 2, "1"\n{attributes}'), "protein")


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("None", "returned a NoneType for 1 sequences"),
        ("[]", "returned a list of 0 for 1 sequences"),
        ("[np.zeros((2, 2))]", r"returned rows \(2, 2\) for a sequence of 3 letters, expected \(3, 2\)"),
        ("[np.full((3, 2), np.nan)]", "not finite"),
        ("[np.full((3, 2), 1j)]", "returned an array of complex128, expected real numbers"),
    ],
)
def test_wrong_rows_are_refused(write: Write, returned: str, words: str) -> None:
    body = re.sub("return .*", f"return {returned}", BODY)
    with pytest.raises(EmbedCacheError, match=words):
        load_encoder(write(body=body), "protein").encode(["MKT"])


def test_wrong_rows_are_told_once(write: Write) -> None:
    """What the plug-in's wrapper says is not followed by advice of the self-test."""
    encoder = load_encoder(write(body=re.sub("return .*", "return []", BODY)), "protein")
    with pytest.raises(EmbedCacheError, match=r"arrays\. Mend the plug-in\. Nothing was written\.$"):
        check_encoder(encoder)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": Path("there")}, "Leave out --weights"),
        ({"random_init": 0}, "Leave out --random-init"),
        ({"revision": "main"}, "Leave out --revision"),
        ({"trust_remote_code": True}, "Leave out --trust-remote-code"),
    ],
)
def test_options_of_published_weights_mean_nothing_to_it(write: Write, options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidSettingError, match=words):
        encoder_spec(write(), "protein", **options)  # type: ignore[arg-type]
    if options.keys() & {"revision", "trust_remote_code"}:
        with pytest.raises(InvalidSettingError, match="Leave out"):
            encoder_spec("tiny-random-protein", "protein", **options)  # type: ignore[arg-type]


def test_a_class_may_be_named_in_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.encoders.plugins.CARDS", known := dict(CARDS))
    monkeypatch.setattr("embedcache.encoders.registry.CARDS", known)
    monkeypatch.setenv("EMBEDCACHE_ENCODERS", write('modality, width, name, version = "protein", 2, "mine-a", "1"'))
    assert load_encoder("mine-a", "protein").encode(["A"])[0].tolist() == [[65, 0]]


def test_a_module_beside_us_is_said_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beside_us.py").touch()
    with pytest.raises(InvalidInputError, match=r"'beside_us:Mine' .*on PYTHONPATH \(PYTHONPATH=. for this folder\)"):
        card("beside_us:Mine")


def test_it_builds_a_store_and_embeds_nothing_twice(write: Write, tmp_path: Path) -> None:
    encoder = load_encoder(write(), "protein")
    records = [SequenceRecord("a", "MKT", "protein"), SequenceRecord("b", "W", "protein")]
    for computed in (2, 0):
        assert build_cache(records, encoder, tmp_path / "store").computed == computed
