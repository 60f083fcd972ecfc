"""What a verb shows: tables, lines, one JSON document, errors. Text from outside is escaped here."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TextIO

import msgspec

from processes.cli.machine.environment import program
from processes.cli.terminal.failure import EXIT_USAGE, Failure
from processes.cli.terminal.streams import ReaderGone, Unwritable
from processes.cli.terminal.text import ascii_json, coloured, colourless, columns, harmless_json, plain
from processes.core.cli.tables import (
    Column,
    Row,
    as_columns,
    cut_between_words,
    exact,
    fitted,
    in_order,
    shown,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

STYLES: Final = {
    "ok": "green", "online": "green", "advancing": "green", "standby": "green", "succeeded": "green",
    "degraded": "yellow", "stale": "yellow", "lagging": "yellow", "starting": "yellow", "excused": "yellow",
    "silent": "yellow", "stopped": "dim",
    "stalled": "red", "deaf": "red", "memory": "red", "down": "red", "frozen": "red", "dead": "red",
    "unkillable": "red", "failed": "red", "lost": "red",
    "bad": "red", "warning": "yellow", "rejected": "red", "expired": "yellow", "cancelled": "yellow", "offline": "red",
}  # fmt: skip

VERBS: Final = (  # of our advice; `agent` is not among them: it is typed on other machines
    "acknowledge", "alarms", "audit", "backup", "cancel", "command", "commands", "completion", "conditions",
    "deadletter", "deadletters", "doctor",
    "down", "drill",
    "enroll", "env", "host", "hosts", "incident", "incidents", "inventory", "label", "lift", "logs", "man", "queries",
    "remove", "restart", "restore", "revoke", "rules", "run", "silence", "silences", "unsilence",
    "runs", "sessions", "start", "status", "stop", "store", "systemd-unit", "token", "up", "wait",
)  # fmt: skip
ADVICE: Final = re.compile(rf"(?<![\w/])fleethub (?=(?:{'|'.join(VERBS)})\b)")


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
    """Print one line of a command's output: its tabs stay as they are, and on a terminal its colours."""
    to = sys.stderr if to_stderr else sys.stdout
    print(coloured(line) if _has_colours(to) else colourless(line), file=to, flush=True)


def _has_colours(stream: TextIO) -> bool:
    """True for a terminal whose owner has not forbidden colours. Source: no-color.org."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


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


class Form(NamedTuple):
    """How a listing is to be shown. `wide`: all columns with exact values; `names`: what names each row, alone on a
    line; `sort`: a column's name, with - before it for the largest first; empty: as the hub lists them.
    """

    wide: bool = False
    names: bool = False
    sort: str = ""


AS_IT_IS: Final = Form()


def table(header: Sequence[Column | str], rows: Sequence[Row], empty: str = "", form: Form = AS_IT_IS) -> None:
    """Print rows under a header: coloured and within its width on a terminal, else as plain columns, exact and whole.

    What a narrow terminal has no room for is left out by columns, the least important first, and named. No word is
    broken. Raises: Failure, if there is no column to sort by.
    """
    titles = as_columns(header)
    rows = _sorted(titles, rows, form.sort)
    if form.names:
        for row in rows:
            say(exact(row[0]))
    elif not rows:
        say(empty)
    elif sys.stdout.isatty() and not form.wide:
        from rich.console import Console  # noqa: PLC0415  # rich is for a terminal, and its import takes long

        console = Console()
        clean = [[plain(shown(cell)) for cell in row] for row in rows]
        widths = fitted(titles, clean, console.width, _cells)
        console.print(_rich_table(titles, clean, widths))
        if missing := [each.name for each, width in zip(titles, widths, strict=True) if not width]:
            note(f"no room for {', '.join(missing)}: widen the terminal, or add --wide or | cat")
    else:
        for line in columns([each.name for each in titles], [[plain(exact(cell)) for cell in row] for row in rows]):
            print(line)
        sys.stdout.flush()


def _sorted(titles: Sequence[Column], rows: Sequence[Row], sort: str) -> Sequence[Row]:
    """Return the rows in the order that `sort` names. Raises: Failure, if there is no such column."""
    if not sort:
        return rows
    names = [each.name.casefold().replace(" ", "-") for each in titles]
    wanted = sort.removeprefix("-").casefold().replace(" ", "-")
    if wanted not in names:
        raise Failure("usage", f"there is no column {sort!r} to sort by: {', '.join(names)}", exit_code=EXIT_USAGE)
    return in_order(rows, names.index(wanted), descending=sort.startswith("-"))


def none_found(thing: str, filters: Mapping[str, str | None], how: str = "") -> str:
    """The line for an empty table: nothing matches the filters, or nothing exists yet, and how to make it."""
    if asked := [f"{name} {value}" for name, value in filters.items() if value is not None]:
        return f"no {thing} with {', '.join(asked)}"
    return f"no {thing}s yet: {as_typed(how)}" if how else f"no {thing}s yet"


def _rich_table(titles: Sequence[Column], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
    """A table for a terminal, of the columns that have a width. Cells are Text: nothing in them is taken for markup."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    made = Table(box=None, pad_edge=False, header_style="bold")
    kept = [place for place, width in enumerate(widths) if width]
    for place in kept:
        made.add_column(Text(titles[place].name), overflow="fold", width=widths[place])
    for row in rows:
        made.add_row(*(Text(row[place], style=STYLES.get(row[place], "")) for place in kept))
    return made


def screen(
    first: str,
    header: Sequence[Column | str],
    rows: Sequence[Row],
    last: Sequence[str] = (),
    form: Form = AS_IT_IS,
) -> RenderableType | None:
    """A table between lines, as much of it as the terminal holds, each row on one line.

    Without a terminal, prints all of it and returns None. Raises: Failure, if there is no column to sort by.
    """
    titles = as_columns(header)
    rows = _sorted(titles, rows, form.sort)
    clean = [[plain(shown(cell)) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in (plain(first), *columns([each.name for each in titles], clean), *map(plain, last)):
            print(line)
        print(flush=True)
        return None
    from rich.console import Console, Group  # noqa: PLC0415

    size = Console().size
    room = max(1, size.height - 2 - len(last))  # the first line and the header
    seen = clean if len(clean) <= room else clean[: max(1, room - 1)]
    more = [f"… {len(clean) - len(seen)} more"] if len(clean) > len(seen) else []
    widths = fitted(titles, seen, size.width, _cells)
    for row in seen:
        for place, width in enumerate(widths):
            if titles[place].prose and width:
                row[place] = cut_between_words(row[place], width, _cells)
            elif width > size.width:  # of the first column alone: whatever wrapped would push the lines below off
                row[place] = f"{row[place][: size.width - 1]}…" if len(row[place]) > size.width else row[place]
    widths = [min(width, size.width) for width in widths]
    return Group(_cut(first, "bold"), _rich_table(titles, seen, widths), *(_cut(line) for line in (*more, *last)))


def _cells(text: str) -> int:
    """How many characters of a terminal the text takes."""
    from rich.cells import cell_len  # noqa: PLC0415

    return cell_len(text)


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
