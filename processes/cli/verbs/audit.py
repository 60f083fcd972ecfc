"""The verb `audit`: who did or tried what, and whether that trail is whole."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import msgspec
from click.core import ParameterSource

from processes.adapters.state import audit_trail, fleet_db, fleet_schema
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.cli.terminal import output
from processes.cli.terminal.failure import EXIT_UNKNOWN, Failure
from processes.cli.terminal.options import as_json, asking, asks_hub, listed
from processes.cli.terminal.text import count, since
from processes.client.api import Api
from processes.core.cli.tables import ID_CHARS, Cell, Column, Row
from processes.core.shown.pages import AuditPage
from processes.core.travels import audit_chain
from processes.core.travels.audit import AuditView, Head, Kind
from processes.core.travels.audit_chain import Verified, Verifier

PAGE_MAX = 1000  # lines in one answer of the API
TOLD_EVERY = 20  # pages
HEADER: Final = [
    Column("AT", 2), Column("BY", 1), Column("KIND", 5), Column("WHAT", 0), Column("BECAME", 3),
    Column("REASON", 4, prose=True),
]  # fmt: skip


class HeadOption(click.ParamType[Head]):
    """A head as an alarm tells it."""

    name = "NUMBER:HASH"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Head:
        """The head that was typed. Raises: click.BadParameter."""
        found = value if isinstance(value, Head) else audit_chain.parse_head(str(value))
        if found is None:
            self.fail(f"{value!r} is no head: take NUMBER:HASH from an alarm, with all 64 digits", param, ctx)
        return found


@click.group("audit", invoke_without_command=True)
@click.option(
    "--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many lines, newest first."
)
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]), help="Only lines of this kind.")
@click.option("--subject", help="Only lines about this host, command, token or address.")
@click.option("--actor", help="Only what this actor did.")
@listed
@asks_hub
@click.pass_context
def audit(
    context: click.Context,
    *,
    limit: int,
    kind: str | None,
    subject: str | None,
    actor: str | None,
    as_json: bool,
    form: output.Form,
    hub: str | None,
    token_file: Path | None,
) -> None:
    """List who did or tried what, newest first: commands' states, hosts, tokens, sign-ins, refused attempts.

    `audit verify` checks that no line was changed or removed.
    """
    if context.invoked_subcommand is not None:
        for name in context.params:  # another hub's trail is meant: never check ours instead
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"Give options behind `audit {context.invoked_subcommand}`.")
        return
    filters = {"kind": kind, "subject": subject, "actor": actor}
    with asking(hub, token_file) as api:
        asked = {name: value for name, value in filters.items() if value is not None}
        found, following = api.paged(
            "/audit", AuditPage, asked, limit, page_max=PAGE_MAX, rows=lambda page: (page.audit, page.next)
        )
        now_wall_s = api.now_wall_s()
    if as_json:
        output.document({"audit": found, "next": following})
        return
    rows: list[Row] = [
        [since(line.at, now_wall_s), line.actor, line.kind, _short(line), _change(line), line.reason] for line in found
    ]
    output.table(HEADER, rows, output.none_found("line", filters), form)


def _short(line: AuditView) -> Cell:
    """Return what the line is about: an id as it is shown elsewhere."""
    is_id = line.kind in (Kind.COMMAND, Kind.CANCEL, Kind.DEAD_LETTER)
    return Cell(line.subject[:ID_CHARS] if is_id else line.subject, line.subject)


@audit.command("verify")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="A backup or a replaced database.")
@click.option("--head", "heads", multiple=True, type=HeadOption(), help="A head that an alarm told; may be repeated.")
@as_json
@asks_hub
@click.pass_context
def verify(
    context: click.Context,
    *,
    file: Path | None,
    heads: tuple[Head, ...],
    as_json: bool,
    hub: str | None,
    token_file: Path | None,
) -> None:
    """Check the audit trail: that no line was changed, removed or put in since it was written.

    The hashes of all lines are computed again here. They begin at a checkpoint: older lines have gone by their age, or
    are of a version that did not chain them. A trail whose end was cut off, or that was written anew, is whole in
    itself; only a head from elsewhere shows that. Each alarm has one: give it with --head.

    Exit code 0: whole; 1: not whole, and the first broken lines are named; 3: it could not be checked.
    """
    if file is not None and any(
        context.get_parameter_source(name) is ParameterSource.COMMANDLINE for name in ("hub", "token_file")
    ):
        raise click.UsageError("Give either --file or a hub.")
    verifier = Verifier(heads)
    if file is not None:
        _read(verifier, _of_file(file))
    else:
        with asking(hub, token_file) as api:
            _read(verifier, _of_hub(api))
    verified = verifier.finish()
    if as_json:
        output.document({"whole": verified.is_whole, **msgspec.to_builtins(verified)})
    else:
        _show(verified)
    context.exit(0 if verified.is_whole else 1)


def _show(verified: Verified) -> None:
    for text in verified.notes:
        output.note(text)
    for each in verified.breaks:
        output.say(f"broken at line {each.number}: {each.why}")
    if (more := verified.broken - len(verified.breaks)) > 0:
        output.say(f"and {count(more, 'further break')}")
    if verified.is_whole:
        output.say(f"whole: {count(verified.lines, 'line')} checked")
    output.say(f"head: {verified.head}")


def _read(verifier: Verifier, pages: Iterator[AuditPage]) -> None:
    """Hand all pages to the verifier, newest first."""
    for number, page in enumerate(pages, 1):
        if page.checkpoint is None:
            raise _unchained("the hub's fleethub does not chain its audit trail")
        verifier.take(page.audit, page.checkpoint)
        if number % TOLD_EVERY == 0:
            output.progress(f"{count(verifier.lines, 'line')} checked …")
        if verifier.is_done:
            return


def _of_hub(api: Api) -> Iterator[AuditPage]:
    following: int | None = None
    while True:
        more: dict[str, str | int] = {} if following is None else {"before": following}
        page = api.read("/audit", AuditPage, {"limit": PAGE_MAX, **more}).view
        yield page
        following = page.next
        if following is None:
            return


def _of_file(file: Path) -> Iterator[AuditPage]:
    try:
        with contextlib.closing(fleet_db.open_for_reading(file)) as connection:
            fleet_db.refuse_newer(connection, file)
            if fleet_schema.version_of(connection) < audit_trail.CHAINED_SINCE:
                raise _unchained(f"{file} is of a version that did not chain the audit trail")
            before: int | None = None
            while lines := fleet_db.audit(connection, limit=PAGE_MAX, before=before):
                before = lines[-1].number
                yield AuditPage(lines, before, audit_trail.checkpoint(connection))
            yield AuditPage([], None, audit_trail.checkpoint(connection))
    except (DatabaseUnreadable, sqlite3.Error, ValueError, OverflowError) as error:
        told = f"{file} cannot be read: {error}" if not isinstance(error, DatabaseUnreadable) else str(error)
        raise Failure("unreadable", told, "Name another backup.", EXIT_UNKNOWN) from None


def _unchained(why: str) -> Failure:
    return Failure("not_chained", f"nothing to check: {why}", "Its lines are listed by: fleethub audit", EXIT_UNKNOWN)


def _change(line: AuditView) -> str:
    return f"{line.before} → {line.after}" if line.before else line.after
