"""Lines of a GTF file: their nine fields, and the names in the last of them, checked one line at a time."""

import re
from typing import NamedTuple

from embedcache.errors import InvalidInputError
from embedcache.text import control_character

__all__ = ["GtfLine", "Names", "exon_number", "parse_line", "read_names", "split_line"]

_TRANSCRIPT_ID = re.compile(r'(?:^|[;\s])transcript_id\s+(?:"([^"]+)"|([^";\s]+))\s*(?=;|$)', re.ASCII)
_GENE_ID = re.compile(r'(?:^|[;\s])gene_id(?=["\s]|$)(?:\s+(?:"([^"]*)"|([^";\s]+))\s*(?=;|$))?', re.ASCII)
_EXON_NUMBER = re.compile(r'(?:^|[;\s])exon_number\s+"?([0-9]{1,9})"?\s*(?:;|$)', re.ASCII)
_ATTRIBUTE = re.compile(r'(\w+)(?:\s+(?:"([^"]*)"|([^";\s]+))\s*(?:;|$)|([^;]*))', re.ASCII)
_BIOTYPES = ("transcript_type", "transcript_biotype", "gene_type", "gene_biotype")
_NAMES = ("gene_name", "gene", *_BIOTYPES)
_STRANDS = ("+", "-", ".", "?")
_PHASES = ("0", "1", "2", ".")
_MOST_DIGITS = 15


class GtfLine(NamedTuple):
    """A line of a transcript, an exon or a coding piece; start 0-based, end behind the last base."""

    contig: str
    feature: str
    start: int
    end: int
    strand: str
    phase: str
    transcript_id: str
    gene_id: str
    """"" where the line gives none."""
    attributes: str


class Names(NamedTuple):
    """Names that a line gives beside IDs."""

    gene_name: str | None
    biotype: str | None


def split_line(where: str, text: str) -> list[str]:
    """The nine fields of a line; ``where`` it stands, for messages.

    Raises:
        InvalidInputError: There are more or fewer, or characters that no text has.
    """
    fields = text.split("\t")
    if len(fields) != 9:
        raise InvalidInputError(f"{where}: {len(fields)} tab-separated fields instead of 9. Give a GTF file.")
    if wrong := control_character(text):
        raise InvalidInputError(f"{where}: {wrong!r} is no text. Remove it, or copy the file again.")
    if not text.isascii():
        _check_encoding(where, text)
    return fields


def parse_line(where: str, fields: list[str]) -> GtfLine:
    """Read and check the fields of a line that belongs to a transcript.

    Raises:
        InvalidInputError: It has no transcript ID or several, or a field that cannot be what it says.
    """
    contig, _, feature, start, end, _, strand, phase, attributes = fields
    match = _TRANSCRIPT_ID.search(attributes)
    if match is None:
        raise InvalidInputError(f'{where}: {feature} without transcript_id "...". Give a GTF file (GFF3 is not read).')
    identifier, gene = match[1] or match[2], _gene(where, attributes)
    for name, pattern in (("transcript_id", _TRANSCRIPT_ID), ("gene_id", _GENE_ID)):
        if attributes.count(name) > 1:
            _refuse_two(where, name, *(quoted or bare for quoted, bare in pattern.findall(attributes)))
    for name in (identifier, gene or identifier, contig):
        if not name.isprintable() or not name.strip():
            raise InvalidInputError(f"{where}: {name!r} is no name. Write contigs and IDs in printable letters.")
    if strand not in _STRANDS:
        raise InvalidInputError(
            f"{where}: transcript {identifier!r} has strand {strand!r}. Expected +, - or . (unknown). Mend the line."
        )
    if feature == "CDS" and phase not in _PHASES:
        raise InvalidInputError(
            f"{where}: CDS of {identifier!r} has phase {phase!r}. Expected 0, 1, 2 or . (unknown). Mend the line."
        )
    first = int(start) if _is_number(start) else 0
    last = int(end) if _is_number(end) else 0
    if not 1 <= first <= last:
        raise InvalidInputError(
            f"{where}: {feature} from {start!r} to {end!r}. Expected 1-based start <= end. Mend the line."
        )
    return GtfLine(contig, feature, first - 1, last, strand, phase, identifier, gene, attributes)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _check_encoding(where: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(f"{where}: text is not UTF-8. Save the file as UTF-8.") from None


def _refuse_two(where: str, name: str, *values: str) -> None:
    """A line that gives one name two values means one of them, and nobody knows which."""
    for other in values:
        if other != values[0]:
            raise InvalidInputError(
                f"{where}: {name} comes twice, as {values[0]!r} and {other!r}. Remove the wrong one, or copy it again."
            )


def _gene(where: str, attributes: str) -> str:
    match = _GENE_ID.search(attributes)
    if match is None:
        return ""
    if match.lastindex is None:
        raise InvalidInputError(f'{where}: gene_id has no value, or broken quotes. Write gene_id "...";.')
    return match[1] if match[1] is not None else match[2]


def exon_number(attributes: str) -> int | None:
    """The number that an exon gives itself."""
    match = _EXON_NUMBER.search(attributes)
    return None if match is None else int(match[1])


def read_names(where: str, attributes: str) -> Names:
    """Name of the gene and biotype, as far as the line gives them.

    Raises:
        InvalidInputError: One of them has broken quotes or two values; others may have what they like.
    """
    found: dict[str, str] = {}
    for name, quoted, bare, broken in _ATTRIBUTE.findall(attributes):
        if broken and name in _NAMES:
            raise InvalidInputError(f'{where}: {name} has no value, or broken quotes. Write {name} "...";.')
        if name in _NAMES:
            _refuse_two(where, name, found.setdefault(name, quoted or bare), quoted or bare)
    biotype = next((found[name] for name in _BIOTYPES if found.get(name)), None)
    return Names(found.get("gene_name") or found.get("gene") or None, biotype)
