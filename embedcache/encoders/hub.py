"""Any other model of Hugging Face as an encoder: ``hf:OWNER/NAME``, or ``hf:`` and a directory with its files.

What a card says of other encoders is found out here from the files: width and layers from ``config.json``, the rule
from letters to tokens by trying the tokenizer (see ``hub_tokens``), the limit from the table of positions. A model
whose rows cannot be laid to letters is refused. Sequences run one at a time, without padding or a mask, so that numbers
do not depend on the batch. Nothing is fetched, and no code that comes with the files runs, unless the user asked for it
(``--trust-remote-code``) and said which commit.
"""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedcache.encoders.cards import EncoderCard
from embedcache.encoders.hub_files import HubFiles
from embedcache.encoders.options import EncoderOptions
from embedcache.encoders.spec import EncoderSpec
from embedcache.errors import InvalidInputError, InvalidSettingError, MissingDependencyError
from embedcache.sequences import MODALITIES, Modality

__all__ = ["PREFIX", "find", "hub_card", "portable_name", "typed_name"]

PREFIX = "hf:"
_STORE = "hf--"
"""Names of stores cannot hold ``:`` and ``/``; the hub forbids ``--`` in its own."""
_COMMIT = re.compile("[0-9a-f]{40}")
_VOLATILE = ("transformers_version", "_name_or_path", "architectures", "dtype", "torch_dtype", "use_cache")
"""Of ``config.json``: says nothing about the numbers."""
_WIDTHS = ("hidden_size", "d_model", "n_embd", "embed_dim", "dim")
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_blocks")


def hub_card(name: str) -> EncoderCard:
    """What can be said of ``hf:OWNER/NAME`` or ``hf:DIRECTORY`` before the files are looked at.

    Raises:
        InvalidSettingError: It is neither.
    """
    place = name.removeprefix(PREFIX)
    if place and Path(place).is_dir():
        path = Path(place).absolute()
        repository, store = str(path), re.sub("[^A-Za-z0-9._]+", "-", path.name).strip("-") or "model"
    elif re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", place) and "--" not in place:
        repository, store = place, place.replace("/", "--")
    else:
        raise InvalidSettingError(
            f"{name!r} is neither a directory nor a repository. Write hf:OWNER/NAME, or hf: and a directory that is "
            "here."
        )
    return EncoderCard(
        name=_STORE + store,
        modalities=MODALITIES,
        adapter="hf/1",
        loader="embedcache.encoders.hub_model:load",
        finder="embedcache.encoders.hub:find",
        width=0,  # this and all else is found in the files
        tokens="letter",
        attention="single",
        repository=repository,
        licence="see its repository",
    )


def portable_name(name: str) -> str:
    """The name as processes in other directories understand it."""
    prefix, sign, place = name.partition(":")
    is_local = sign and prefix in ("hf", "run") and Path(place).is_dir()
    return f"{prefix}:{Path(place).absolute()}" if is_local else name


def typed_name(spec: EncoderSpec) -> tuple[str, list[str]] | None:
    """What a user types to get the encoder of a spec again, with its options; None if it is not one of these."""
    if not spec.adapter.startswith("hf/"):
        return None
    seed = spec.weights.removeprefix("seed:") if spec.is_random else ""
    owner, _, name = spec.name.removeprefix(_STORE).removesuffix(f"-random{seed}").partition("--")
    flags = [f"--random-init {seed}"] if seed else []
    flags += [f"--revision {spec.revision}"] if spec.revision else []
    flags += ["--trust-remote-code"] if "code" in spec.architecture else []
    return (f"{PREFIX}{owner}/{name}" if name else f"{PREFIX}DIRECTORY"), flags


def find(card: EncoderCard, modality: Modality, options: EncoderOptions) -> tuple[EncoderCard, HubFiles]:
    """The card with what the files say, and the files; see ``registry.Finder``.

    Raises:
        MissingDependencyError: They are not on this machine, or a package that they need is not.
        InvalidInputError: They are of no model that can be used, or damaged.
        InvalidSettingError: They come with code that may not run.
    """
    from embedcache.encoders.hub_model import describe_model, find_tokenizer, read_config
    from embedcache.encoders.hub_tokens import find_spelling
    from embedcache.encoders.weights import find_weights, weights_digest

    directory, revision = _directory(card, options)
    trust = bool(options.get("trust_remote_code"))
    said = _read_json(directory, "config.json", needed=True)
    code = _check_code(card, directory, said, options)
    config = read_config(card.name, directory, trust=trust)
    spelling = find_spelling(find_tokenizer(card.name, directory, trust=trust), modality, card.name)
    model = describe_model(card.name, config, trust=trust)
    said = {key: value for key, value in said.items() if key not in _VOLATILE}
    found = replace(
        card,
        width=_number(card, config, _WIDTHS, "the width"),
        layers=_number(card, config, _LAYERS, "the number of layers"),
        tokens=spelling.rule,
        max_tokens=max(0, model.positions - spelling.special) if model.positions else 0,
        settings={
            "class": model.class_name,
            "attention": model.attention,
            "config": _digest(said),
            "spelling": spelling.to_json(),
            "vocabulary": _digest(spelling.tokenizer.get_vocab()),
            **({"code": code} if code else {}),
        },
        repository=Path(card.repository).name if Path(card.repository).is_absolute() else card.repository,
        revision=revision,
    )
    files = HubFiles(
        name=card.name, directory=directory, config=config, trust=trust, attention=model.attention, spelling=spelling
    )
    if options.get("random_init") is None:
        found = replace(found, weights=weights_digest(find_weights(found, directory).tensors))
    return found, files


def _directory(card: EncoderCard, options: EncoderOptions) -> tuple[Path, str]:
    """Where the files are, and their commit if they are of a repository."""
    revision, given = options.get("revision"), options.get("weights")
    local = given or (Path(card.repository) if Path(card.repository).is_absolute() else None)
    if local is None:
        return _snapshot(replace(card, revision=revision or ""), download=options.get("download", False))
    if revision is not None:
        raise InvalidSettingError(f"{local} is a directory, which has no revision {revision}. Leave out --revision.")
    if not local.is_dir():
        raise MissingDependencyError(f"{local} is not a directory. Give the one with the files of {card.name}.")
    return local, ""


def _snapshot(card: EncoderCard, *, download: bool) -> tuple[Path, str]:
    """The files of a repository in the hub cache; fetched only if the user said so."""
    from embedcache.encoders.fetching import snapshot

    found = snapshot(card, None, download=download)
    return found, found.name  # a snapshot is named by its commit


def _check_code(card: EncoderCard, directory: Path, said: dict[str, Any], options: EncoderOptions) -> str:
    """Digest of the code that comes with the files, empty if there is none; raises unless it may run."""
    of_tokenizer = _read_json(directory, "tokenizer_config.json").get("auto_map")
    places = [said.get("auto_map"), of_tokenizer]
    classes = [str(one) for place in places if isinstance(place, dict) for one in place.values()]
    if not classes:
        return ""
    commit = options.get("revision") or ""
    is_local = options.get("weights") is not None or Path(card.repository).is_absolute()
    if not options.get("trust_remote_code"):
        pin = "" if is_local else " --revision COMMIT"
        raise InvalidSettingError(
            f"Encoder {card.name} comes with code of its own ({classes[0]}), which was not run. Read it, and add "
            f"--trust-remote-code{pin} if you trust it."
        )
    if not is_local and not _COMMIT.fullmatch(commit):
        raise InvalidSettingError(
            f"Code of {card.name} runs only at a commit that is named in full, not at {commit or 'any'}. Give its 40 "
            "hexadecimal digits (--revision)."
        )
    if elsewhere := [one for one in classes if "--" in one]:
        raise InvalidSettingError(
            f"Encoder {card.name} takes code from another repository ({elsewhere[0]}), which no commit pins. Write a "
            "plug-in for it, --encoder module:Class."
        )
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(directory.rglob("*.py")):
        digest.update(f"{file.relative_to(directory)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _read_json(directory: Path, name: str, *, needed: bool = False) -> dict[str, Any]:
    try:
        found = json.loads((directory / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not needed:
            return {}
        raise MissingDependencyError(f"{directory} has no {name}. Give the complete files of the model.") from error
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{directory / name} cannot be read: {error}. Download it again.") from error
    if not isinstance(found, dict):
        raise InvalidInputError(f"{directory / name} is not a JSON object. Download it again.")
    return found


def _number(card: EncoderCard, config: Any, names: tuple[str, ...], what: str) -> int:
    found = next((getattr(config, name) for name in names if type(getattr(config, name, None)) is int), 0)
    if found < 1:
        raise InvalidInputError(
            f"config.json of {card.name} does not say {what} ({', '.join(names)}). Write a plug-in for it, --encoder "
            "module:Class."
        )
    return int(found)


def _digest(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
