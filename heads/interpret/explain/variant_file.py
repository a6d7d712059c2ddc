"""Files of variants: VCF, or a table with the columns chrom, pos, ref and alt. Plain or gzip-compressed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from embedcache.errors import InvalidInputError, InvalidSettingError
from embedcache.text import control_character, read_lines
from heads.interpret.explain.apply import Variant

__all__ = ["VariantList", "parse_variant", "read_variants"]

LONGEST = 1000
"""Letters of an allele; longer ones are no small variants."""
_NAMES = {
    "contig": ("#chrom", "chrom", "chr", "chromosome", "contig"),
    "position": ("pos", "position"),
    "ref": ("ref", "reference"),
    "alt": ("alt", "alternative"),
}


@dataclass(frozen=True, slots=True)
class VariantList:
    """Variants, each once, in the order of their file, and what was left out by reason."""

    variants: list[Variant]
    left_out: Counter[str]


def parse_variant(text: str) -> Variant:
    """``chr1:12345:A:G``, the position 1-based on the forward strand; names of contigs may have colons.

    Raises:
        InvalidSettingError: It is written in another way.
    """
    parts = text.rsplit(":", 3)
    if len(parts) != 4:
        raise InvalidSettingError(
            f"--variant {text!r} is not CHROM:POS:REF:ALT. Write it as in --variant chr1:123:A:G."
        )
    try:
        found, reason = _variant(parts, "", "--variant")
    except InvalidInputError as error:
        raise InvalidSettingError(str(error)) from error
    if found is None:
        raise InvalidSettingError(f"--variant {text!r} cannot be applied: {reason}. Give letters for both alleles.")
    return found


def read_variants(path: Path) -> VariantList:
    """Read a VCF, or a tab-separated table whose first line names its columns; alternatives are split.

    Alleles without letters (``<DEL>``, ``*``, ``.``, break ends) or of more than ``LONGEST`` letters are left out and
    counted.

    Raises:
        InvalidInputError: A line that is none of a variant, with its number; no variant at all.
    """
    found: dict[tuple[str, int, int, str], Variant] = {}
    left_out: Counter[str] = Counter()
    columns: Mapping[str, int] | None = None
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        if line.startswith("##") or not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if control_character(line):
            raise InvalidInputError(
                f"{where}: holds a control character. Give plain text, or the file compressed by gzip."
            )
        if columns is None:
            columns = _columns(where, cells)
            continue
        for variant, reason in _of_line(where, cells, columns):
            if variant is None:
                left_out[reason] += 1
            elif (variant.contig, *variant.change) in found:
                left_out["variant that comes a second time"] += 1
            else:
                found[(variant.contig, *variant.change)] = variant
    if not found:
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.items())
        raise InvalidInputError(f"{path} has no variant{f': {reasons}' if reasons else ''}. Give one a line.")
    return VariantList(list(found.values()), left_out)


def _columns(where: str, cells: Sequence[str]) -> dict[str, int]:
    lower = [cell.lower() for cell in cells]
    columns = {name: next((lower.index(one) for one in known if one in lower), -1) for name, known in _NAMES.items()}
    if missing := [name for name, column in columns.items() if column < 0]:
        shown = ", ".join(repr(cell[:30]) for cell in cells[:8])
        raise InvalidInputError(
            f"{where}: no column {_NAMES[missing[0]][-1]!r} among {shown}. Expected a VCF, or a tab-separated table "
            "that begins with the names chrom, pos, ref and alt."
        )
    return {**columns, "name": lower.index("id") if "id" in lower else -1}


def _of_line(where: str, cells: Sequence[str], columns: Mapping[str, int]) -> Iterator[tuple[Variant | None, str]]:
    """One variant, or the reason why there is none, for each alternative of a line."""
    if len(cells) <= max(columns.values()):
        raise InvalidInputError(
            f"{where}: {len(cells)} columns, expected at least {max(columns.values()) + 1} with tabs between them. "
            "Mend the line."
        )
    contig, position, ref, alts = (cells[columns[name]] for name in ("contig", "position", "ref", "alt"))
    name = cells[columns["name"]] if columns["name"] >= 0 else ""
    for alt in alts.split(","):
        yield _variant([contig, position, ref, alt], "" if name == "." else name, where)


def _variant(parts: Sequence[str], name: str, where: str) -> tuple[Variant | None, str]:
    contig, position, ref, alt = parts
    ref, alt = ref.upper(), alt.upper()
    if not contig or not contig.isprintable():
        raise InvalidInputError(f"{where}: the name of the contig is {contig!r}. Give it as the genome does.")
    if not (position.isascii() and position.isdecimal() and int(position[:18]) > 0 and len(position) <= 18):
        raise InvalidInputError(f"{where}: position {position[:30]!r} is no number from 1 on. Mend it.")
    if alt in (".", "*") or any(letter in alt for letter in "<>[]"):
        return None, "allele without letters (symbolic, missing or a break end)"
    for allele in (ref, alt):
        if not allele or set(allele) - set("ACGTN"):
            raise InvalidInputError(
                f"{where}: allele {allele[:30]!r} is not in the letters A C G T N. Mend it, or drop the variant."
            )
    if ref == alt:
        return None, "allele that is the reference"
    if max(len(ref), len(alt)) > LONGEST:
        return None, f"allele of more than {LONGEST} letters"
    return Variant(contig, int(position), ref, alt, name, where), ""
