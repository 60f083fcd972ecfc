"""Text from outside, made fit for a terminal; and columns. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

_REFUSED: Final = frozenset(
    {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
)  # Unicode's general categories that show nothing, or show it elsewhere
_JOINERS: Final = "\u200c\u200d"  # format characters that scripts and emoji are written with; they move nothing


def plain(text: str, keep: str = "") -> str:
    """The text with every control, bidirectional and other invisible character escaped, but those in `keep`.

    An agent's output, a host's facts or an incident's stack may hold escape sequences that retitle a terminal, write its
    clipboard or turn the line around; after this they are shown and do nothing.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if character in keep or not _refused(character) else _escaped(character) for character in text)


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Header and rows as lines with aligned columns, two spaces apart; nothing is cut off."""
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _refused(character: str) -> bool:
    return unicodedata.category(character) in _REFUSED and character not in _JOINERS


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
