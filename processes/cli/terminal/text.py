"""Text for a terminal: text from outside made harmless; ages, counts and columns. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from processes.core.cli.tables import Cell

# Unicode's general categories of characters that are invisible, or move what stands beside them
_REFUSED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"  # format characters that some scripts and emoji need; they move nothing


_SGR: Final = re.compile(r"\x1b\[((?:\d{0,3};){0,15}\d{0,3})m")  # select graphic rendition. Source: ECMA-48, 8.3.117
_CONCEAL: Final = 8


def plain(text: str, keep: str = "") -> str:
    """The text with every control, bidirectional and other invisible character escaped, except those in `keep`.

    An agent's output, a host's facts or an incident's stack may hold escape sequences that retitle a terminal, write
    its clipboard or reverse the line. Escaped, they are visible and do nothing.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if character in keep or not _refused(character) else _escaped(character) for character in text
    )


def harmless_json(document: str) -> str:
    """The same JSON document with every character that `plain` would escape written as JSON's escape of it.

    Outside strings a document has no such character but line breaks, which stay.
    """
    return "".join(
        character if character == "\n" or not _refused(character) else json.dumps(character)[1:-1]
        for character in document
    )


def ascii_json(document: str) -> str:
    """The same JSON document in ASCII alone."""
    if document.isascii():
        return document
    return "".join(character if character < "\x80" else json.dumps(character)[1:-1] for character in document)


def drawn(line: str) -> str:
    """What a terminal finally shows of a line of output: the part after the last carriage return."""
    return line.rstrip("\r").rpartition("\r")[2]


def age(seconds: float | None) -> str:
    """A duration in the one unit that a person would use; "-" if it is not known."""
    if seconds is None:
        return "-"
    for limit_s, unit_s, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit_s:
            return f"{max(seconds, 0.0) / unit_s:.0f} {unit}"
    return f"{seconds / 86_400:.0f} days"


def count(number: int, thing: str) -> str:
    """A number with its noun: "1 host", "2 hosts"."""
    return f"{number} {thing}{'s' * (number != 1)}"


def took(seconds: float) -> str:
    """How long something took; to a tenth of a second if it was short."""
    return f"{seconds:.1f} s" if seconds < 10 else age(seconds)


def ago(at: str | None, now_wall_s: float) -> str:
    """How long ago a time of the API was. `now_wall_s`: the time now by the clock of the hub that told it."""
    return "never" if at is None else f"{age(now_wall_s - datetime.fromisoformat(at).timestamp())} ago"


def since(at: str | None, now_wall_s: float, never: str = "") -> Cell:
    """How long ago a time of the API was, with the time itself behind it; `never`, if there was none."""
    return Cell(never, never) if at is None else Cell(ago(at, now_wall_s), at)


def until(at: str | None, now_wall_s: float, never: str = "") -> Cell:
    """How far a time of the API lies ahead, or how long ago it was, with the time itself behind it."""
    if at is None:
        return Cell(never, never)
    left_s = datetime.fromisoformat(at).timestamp() - now_wall_s
    return Cell(f"in {age(left_s)}" if left_s > 0 else f"{age(-left_s)} ago", at)


def coloured(text: str) -> str:
    """Return a line of a command's output as `plain` does, but with the colours and styles that it has, and none left
    at its end. No other sequence comes through, nor one that hides text.
    """
    if "\x1b[" not in text:
        return plain(text, keep="\t")
    parts = _SGR.split(text)  # text, the numbers of a sequence, text …
    shown = [plain(part, keep="\t") if number % 2 == 0 else _style(part) for number, part in enumerate(parts)]
    return "".join((*shown, "\x1b[0m"))


def colourless(text: str) -> str:
    """Return a line of a command's output as `plain` does, without the colours and styles that it has."""
    return plain(_SGR.sub("", text), keep="\t")


def _style(numbers: str) -> str:
    """Return a sequence that sets colours and styles; nothing for one that hides text, or says something else."""
    left = [int(number or 0) for number in numbers.split(";")]
    while left:
        number = left.pop(0)
        if number == _CONCEAL:
            return ""
        if number in (38, 48):  # a colour by its number in a table (5;N) or by its parts (2;R;G;B)
            del left[: 2 if left[:1] == [5] else 4]
    return f"\x1b[{numbers}m"


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
