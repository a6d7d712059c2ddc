"""How the tokenizer of any model writes sequences, found out by trying it.

Sequences are given to it as they are, with spaces between letters (ProtT5, ProtBert), or RNA with U for T. A way fits
if every letter of the modality is known and the tokens are one a letter, 6-mers as those of the Nucleotide Transformer,
or pieces of some other fixed size. Pieces of changing size, as of byte-pair encodings, are laid to letters: each letter
gets the row of its piece, if the tokenizer tells where its pieces are. Else the model is refused, for nobody could say
which letters a row stands for. What was found on the trials is looked at again for every sequence.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedcache.encoders.tokens import count_tokens
from embedcache.errors import InvalidInputError, InvalidSequenceError
from embedcache.sequences import Modality

__all__ = ["Spelling", "find_spelling"]

LETTERS: dict[Modality, str] = {"protein": "ACDEFGHIKLMNPQRSTVWY", "rna": "ACGT", "dna": "ACGT"}
_PIECES = (6, 3, 2, 4, 5, 7, 8)
"""Letters a token that are tried; a codon and a 6-mer first, for the sake of what is reported."""
_FAILURES = (ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError, AssertionError)
"""What tokenizers raise at text that they do not like."""


@dataclass(frozen=True, kw_only=True)
class Spelling:
    """How one tokenizer writes the sequences of one modality."""

    tokenizer: Any
    rule: str
    """See ``tokens``."""
    separator: str = ""
    """Between letters."""
    uracil: bool = False
    """Whether T is written as U."""
    before: tuple[int, ...] = ()
    """Special tokens in front."""
    after: tuple[int, ...] = ()
    name: str = ""
    letters: dict[str, int] = field(default_factory=dict)
    """Id of each letter, where a token is a letter."""
    pieces: bool = False
    """Whether a token is a piece of any number of letters, each of which gets its row."""

    @property
    def special(self) -> int:
        """Special tokens of a sequence."""
        return len(self.before) + len(self.after)

    def to_json(self) -> dict[str, Any]:
        """What changes the ids, besides the vocabulary."""
        said = {"separator": self.separator, "uracil": self.uracil, "before": [*self.before], "after": [*self.after]}
        return {**said, "pieces": True} if self.pieces else said

    def ids(self, sequence: str) -> NDArray[np.int64]:
        """Ids of a normalised sequence with its special tokens.

        A letter that the tokenizer does not know is one unknown token, also in a run of them, which many tokenizers
        write as one.

        Raises:
            InvalidSequenceError: The tokens are not those that the rule expects.
        """
        kept = _between(self, _encode(self, sequence))
        if self.pieces and kept is not None:
            self.letters_of_pieces(sequence)
            return np.array([*self.before, *kept, *self.after], np.int64)
        expected = count_tokens(sequence, self.rule)
        if self.letters:
            is_plain = all(letter in self.letters for letter in sequence)
            single = [self._letter(letter) for letter in sequence]
            if is_plain and kept != single:
                kept = None
            elif not is_plain:
                kept = single
        if kept is None or len(kept) != expected:
            raise InvalidSequenceError(
                f"The tokenizer of {self.name} does not write {sequence[:20]}{'...' * (len(sequence) > 20)} as "
                f"{expected} tokens ({self.rule}), so that rows could not be laid to letters. Leave the sequence out."
            )
        return np.array([*self.before, *kept, *self.after], np.int64)

    def letters_of_pieces(self, sequence: str) -> NDArray[np.int64]:
        """Letters of each piece of a sequence, in order.

        Raises:
            InvalidSequenceError: The pieces leave a letter out, or do not follow one another.
        """
        sizes = _piece_sizes(self, sequence)
        if sizes is None:
            raise InvalidSequenceError(
                f"The pieces that the tokenizer of {self.name} makes of {sequence[:20]}{'...' * (len(sequence) > 20)} "
                "do not cover its letters one after the other. Leave the sequence out."
            )
        return np.array(sizes, np.int64)

    def _letter(self, letter: str) -> int:
        if letter in self.letters:
            return self.letters[letter]
        found = _between(self, _encode(self, letter))
        if found is None or len(found) != 1:
            raise InvalidSequenceError(
                f"The tokenizer of {self.name} writes {letter!r} as {len(found or [])} tokens, expected one. Replace "
                "the letter, or leave the sequence out."
            )
        return found[0]


def find_spelling(tokenizer: Any, modality: Modality, name: str) -> Spelling:
    """How a tokenizer writes sequences of a modality.

    Args:
        tokenizer: Of transformers.
        modality: Of the sequences.
        name: Of the encoder, for errors.

    Raises:
        InvalidInputError: In no way that has a rule.
    """
    ways = [("", False), (" ", False)] + ([("", True), (" ", True)] if modality == "rna" else [])
    for separator, uracil in ways:
        way = _with_special(
            Spelling(tokenizer=tokenizer, rule="", separator=separator, uracil=uracil, name=name), modality
        )
        if way is not None and (found := _with_rule(way, modality)) is not None:
            return found
    sample = "".join(random.Random(1).choices(LETTERS[modality], k=24))
    made = tokenizer.convert_ids_to_tokens(tokenizer(sample)["input_ids"])
    raise InvalidInputError(
        f"The tokenizer of {name} writes {sample} as {' '.join(map(str, made))}: not one token a letter, nor pieces "
        f"whose letters it tells, or without all letters of {modality}, so that no row could be laid to letters. Write "
        "a plug-in for it, --encoder module:Class."
    )


def _with_special(way: Spelling, modality: Modality) -> Spelling | None:
    """The way with the special tokens that the tokenizer's own mask names; None if they stand among the others."""
    text = _text(way, LETTERS[modality] * 3)
    try:
        found = way.tokenizer(text, return_special_tokens_mask=True)
        plain = list(way.tokenizer(text, add_special_tokens=False)["input_ids"])
    except _FAILURES:
        return None
    ids, mask = list(found["input_ids"]), list(found["special_tokens_mask"])
    if 0 not in mask:
        return None
    start = mask.index(0)
    stop = len(mask) - mask[::-1].index(0)
    if any(mask[start:stop]) or ids[start:stop] != plain:
        return None
    return Spelling(
        tokenizer=way.tokenizer,
        rule="",
        separator=way.separator,
        uracil=way.uracil,
        before=tuple(ids[:start]),
        after=tuple(ids[stop:]),
        name=way.name,
    )


def _with_rule(way: Spelling, modality: Modality) -> Spelling | None:
    """The way with the rule that all trials fit, if there is one."""
    said = {**vars(way)}
    letters = {letter: found[0] for letter in LETTERS[modality] if (found := _known(way, letter)) and len(found) == 1}
    if len(set(letters.values())) == len(LETTERS[modality]):
        one_each = Spelling(**{**said, "rule": "letter", "letters": letters})
        if all(_known(way, trial) == [letters[letter] for letter in trial] for trial in _trials(modality, 1)):
            return one_each
    for rule, size in (("nt-6mer", 6), *((f"bins-{size}", size) for size in _PIECES)):
        tail = 1 if rule == "nt-6mer" else size  # lengths that are no multiple of a piece
        if all(_cuts_there(way, trial, rule, size) for trial in _trials(modality, tail)):
            return Spelling(**{**said, "rule": rule})
    if not way.separator and all(_known(way, one) and _piece_sizes(way, one) for one in _trials(modality, 1)):
        return Spelling(**{**said, "rule": "letter", "pieces": True})
    return None


def _piece_sizes(way: Spelling, sequence: str) -> list[int] | None:
    """Letters of each piece; None if the tokenizer does not tell, or they do not follow one another to the end."""
    if not getattr(way.tokenizer, "is_fast", False):
        return None
    text = _text(way, sequence)
    places = way.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ends = [0, *(end for _, end in places)]
    if [start for start, _ in places] != ends[:-1] or ends[-1] != len(text):
        return None
    sizes = [end - start for start, end in places]
    return sizes if min(sizes, default=0) > 0 else None


def _cuts_there(way: Spelling, trial: str, rule: str, size: int) -> bool:
    """Whether a trial is as many tokens as the rule says, and those of its two parts one after the other."""
    found = _known(way, trial)
    if found is None or len(found) != count_tokens(trial, rule):
        return False
    cut = len(trial) // size // 2 * size
    first, second = (_known(way, part) if part else [] for part in (trial[:cut], trial[cut:]))
    return first is not None and second is not None and found == first + second


def _trials(modality: Modality, step: int) -> Iterator[str]:
    """Sequences to try, of lengths that are multiples of ``step``."""
    draw, letters = random.Random(0), LETTERS[modality]
    for size in (*range(1, 20), 40, 100, 250):
        yield "".join(draw.choices(letters, k=size * step))
    for letter in letters:  # runs are what pair encodings merge first
        yield letter * 12 * step


def _known(way: Spelling, sequence: str) -> list[int] | None:
    """Ids of a sequence without special tokens; None if one of its letters is unknown."""
    try:
        found = _between(way, _encode(way, sequence))
    except _FAILURES:
        return None
    unknown = way.tokenizer.unk_token_id
    return None if found is None or (unknown is not None and unknown in found) else found


def _encode(way: Spelling, sequence: str) -> list[int]:
    return [int(one) for one in way.tokenizer(_text(way, sequence))["input_ids"]]


def _text(way: Spelling, sequence: str) -> str:
    return way.separator.join(sequence.replace("T", "U") if way.uracil else sequence)


def _between(way: Spelling, ids: list[int]) -> list[int] | None:
    """Ids without the special tokens in front and behind; None if those are not there."""
    stop = len(ids) - len(way.after)
    if tuple(ids[: len(way.before)]) != way.before or tuple(ids[stop:]) != way.after or stop < len(way.before):
        return None
    return ids[len(way.before) : stop]
