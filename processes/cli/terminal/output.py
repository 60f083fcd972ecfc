"""What a verb shows: tables, lines, one JSON document, errors. Text from outside is escaped here."""

from __future__ import annotations

import codecs
import contextlib
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TextIO

import msgspec

from processes.cli.machine.environment import program
from processes.cli.terminal.failure import Failure
from processes.cli.terminal.streams import ReaderGone, Unwritable
from processes.cli.terminal.text import ascii_json, columns, harmless_json, plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

STYLES: Final = {
    "ok": "green", "online": "green", "advancing": "green", "succeeded": "green",
    "degraded": "yellow", "stale": "yellow", "lagging": "yellow", "starting": "yellow", "excused": "yellow",
    "silent": "yellow", "stopped": "dim",
    "stalled": "red", "deaf": "red", "memory": "red", "down": "red", "frozen": "red", "dead": "red",
    "unkillable": "red", "failed": "red", "lost": "red",
    "bad": "red", "warning": "yellow", "rejected": "red", "expired": "yellow", "cancelled": "yellow", "offline": "red",
}  # fmt: skip

VERBS: Final = (  # of our advice; `agent` is not among them: it is typed on other machines
    "alarms", "audit", "backup", "cancel", "command", "commands", "completion", "deadletter", "deadletters", "doctor",
    "down", "drill",
    "enroll", "env", "host", "hosts", "incident", "incidents", "inventory", "label", "lift", "logs", "man", "queries",
    "remove",
    "restart", "restore", "revoke", "run",
    "runs", "sessions", "start", "status", "stop", "systemd-unit", "token", "up", "wait",
)  # fmt: skip
ADVICE: Final = re.compile(rf"(?<![\w/])fleethub (?=(?:{'|'.join(VERBS)})\b)")
COLUMN_CHARS_LEGIBLE: Final = 12  # a column whose cells wrap at less would be read letter by letter; guess
COLUMN_CHARS_MIN: Final = 6  # a column that is cut shorter than this would tell nothing


def say(line: str = "") -> None:
    """Print one line on stdout."""
    print(plain(line), flush=True)


def note(line: str) -> None:
    """Print one line on stderr: progress and summaries, never what a script reads."""
    with contextlib.suppress(
        OSError, ReaderGone, Unwritable
    ):  # if stderr cannot be written, there is no one left to tell
        print(plain(as_typed(line)), file=sys.stderr, flush=True)


def as_typed(advice: str) -> str:
    """The advice with our verbs as the reader must type them: bin/fleethub in a checkout that is not on the PATH."""
    return ADVICE.sub(f"{program()} ", advice)


def progress(text: str) -> None:
    """Print the text on stderr if a person watches there."""
    if sys.stderr.isatty():
        for line in text.splitlines():
            note(line)


def stream(line: str, to_stderr: bool) -> None:
    """Print one line of a command's output; tabs stay as they are."""
    print(plain(line, keep="\t"), file=sys.stderr if to_stderr else sys.stdout, flush=True)


def document(value: bytes | msgspec.Struct | Mapping[str, object]) -> None:
    """Print the one JSON document of a `--json` verb; bytes are a document already.

    On a terminal what would do something there is escaped as JSON escapes it, so that the document stays the same; a
    program gets it as it is. JSON is UTF-8: where the locale has another encoding, it is ASCII with JSON's escapes.
    """
    encoded = value if isinstance(value, bytes) else msgspec.json.encode(value)
    text = msgspec.json.format(encoded, indent=2).decode()
    text = harmless_json(text) if sys.stdout.isatty() else text
    print(text if _speaks_utf8(sys.stdout) else ascii_json(text), flush=True)


def _speaks_utf8(stream: TextIO) -> bool:
    try:
        return codecs.lookup(stream.encoding or "ascii").name == "utf-8"
    except LookupError:
        return False


def table(header: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "") -> None:
    """Print rows under a header: coloured and within its width on a terminal, else as plain columns, nothing cut.

    Columns that a narrow terminal could only show in pieces are left out, from the right, and named.
    """
    clean = [[plain(cell) for cell in row] for row in rows]
    if not clean:
        say(empty)
    elif sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415  # rich is for a terminal, and its import takes long

        console = Console()
        count = _legible([header, *clean], console.width)
        console.print(rich_table(header[:count], [row[:count] for row in clean]))
        if count < len(header):
            note(f"no room for {', '.join(header[count:])}: widen the terminal, or add | cat")
    else:
        for line in columns(header, clean):
            print(line)
        sys.stdout.flush()


def none_found(thing: str, filters: Mapping[str, str | None], how: str = "") -> str:
    """The line for an empty table: nothing matches the filters, or nothing exists yet, and how to make it."""
    if asked := [f"{name} {value}" for name, value in filters.items() if value is not None]:
        return f"no {thing} with {', '.join(asked)}"
    return f"no {thing}s yet: {as_typed(how)}" if how else f"no {thing}s yet"


def rich_table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int = 0) -> Table:
    """A table for a terminal. Cells are Text, so that nothing in them is taken for markup.

    `width`: each row is one line of at most so many characters; the last column is cut to fit. 0: rows wrap.
    """
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=None, pad_edge=False, header_style="bold")
    left, cut = width, width > 0
    for number, name in enumerate(header):
        natural = _width([name, *(row[number] for row in rows)])
        column_width = min(natural, max(1, left)) if cut else None
        least = None if cut else min(natural, COLUMN_CHARS_LEGIBLE)
        made.add_column(
            Text(name, no_wrap=cut), overflow="ellipsis" if cut else "fold", width=column_width, min_width=least
        )
        left -= natural + 2
    for row in rows:
        made.add_row(*(Text(plain(cell), style=STYLES.get(cell, ""), no_wrap=cut) for cell in row))
    return made


def screen(
    first: str, header: Sequence[str], rows: Sequence[Sequence[str]], last: Sequence[str] = ()
) -> RenderableType | None:
    """A table between lines, as much of it as the terminal holds.

    Without a terminal, prints all of it and returns None.
    """
    if not sys.stdout.isatty():
        for line in (
            plain(first),
            *columns(header, [[plain(cell) for cell in row] for row in rows]),
            *map(plain, last),
        ):
            print(line)
        print(flush=True)
        return None
    from rich.console import Console, Group  # noqa: PLC0415

    size = Console().size
    room = max(1, size.height - 2 - len(last))  # the first line and the header
    shown = rows if len(rows) <= room else rows[: max(1, room - 1)]
    more = [f"… {len(rows) - len(shown)} more"] if len(rows) > len(shown) else []
    lines = [_cut(line) for line in (*more, *last)]
    count = _fitting([header, *shown], size.width)
    return Group(_cut(first, "bold"), rich_table(header[:count], [row[:count] for row in shown], size.width), *lines)


def _fitting(rows: Sequence[Sequence[str]], width: int) -> int:
    """How many columns, from the left, fit into the width; only the last of them may have to be cut."""
    count = 0
    for column in zip(*rows, strict=True):
        if count and width < COLUMN_CHARS_MIN:
            break
        count += 1
        width -= _width(column) + 2
    return count


def _legible(rows: Sequence[Sequence[str]], width: int) -> int:
    """How many columns, from the left, can be read though long cells wrap; one at least."""
    count = 0
    for column in zip(*rows, strict=True):
        width -= min(_width(column), COLUMN_CHARS_LEGIBLE)
        if count and width < 0:
            break
        count += 1
        width -= 2
    return count


def _width(column: Sequence[str]) -> int:
    from rich.cells import cell_len  # noqa: PLC0415

    return max(cell_len(plain(cell)) for cell in column)


def _cut(line: str, style: str = "") -> Text:
    """The line, cut at the terminal's edge: if it wrapped, it would push the lines below off the screen."""
    from rich.text import Text  # noqa: PLC0415

    return Text(plain(line), style=style, no_wrap=True, overflow="ellipsis")


def mark(word: str, line: str) -> None:
    """Print a line that begins with a word, which has its colour on a terminal."""
    line = as_typed(line)
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        Console().print(Text(f"{word:8} ", style=STYLES.get(word, "")) + Text(plain(line)))
    else:
        say(f"{word:8} {line}")


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line, without those whose value is empty."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{name.ljust(width)}  {value}")


def fail(failure: Failure, as_json: bool) -> int:
    """Show the failure on stderr, and with --json as the one document on stdout too. Returns its exit code."""
    message, advice = as_typed(failure.message), as_typed(failure.advice)
    note(f"fleethub: {message}")
    if advice:
        note(f"  {advice}")
    if as_json:
        document({"error": failure.code, "message": message} | ({"advice": advice} if advice else {}))
    return failure.exit_code
