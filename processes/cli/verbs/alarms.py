"""The verbs of alarms: what stands now, who was told, and a test.

They read the state folder, so they work while everything is down. The secret part of a URL is never shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from processes.adapters import alarm_sender, truth_reader
from processes.adapters.alarm_sender import Target
from processes.adapters.alarm_targets import targets_of
from processes.adapters.settings import Settings, load
from processes.adapters.state import audit_trail, fleet_db
from processes.cli.terminal import output
from processes.cli.terminal.failure import EXIT_FAILED, EXIT_OK, Failure
from processes.cli.terminal.options import as_json
from processes.core.alarms import outbox
from processes.core.alarms.alarm import AlarmEvent, AlarmState, Phase, Told
from processes.core.values import Severity, rfc3339

TEST_S_MAX: Final = 20.0  # for each target; all are tried at the same time
STATE_BYTES_MAX: Final = 4 << 20


@click.group("alarms", invoke_without_command=True)
@as_json
@click.pass_context
def alarms(context: click.Context, as_json: bool) -> None:
    """Show who is told when something is wrong, and which alarms stand now."""
    if context.invoked_subcommand is not None:
        return
    settings = load()
    state = _read(settings)
    rows = [_target(target, state) for target in _targets(settings)]
    standing = [
        {
            "key": key,
            "severity": s.condition.severity,
            "title": s.condition.title,
            "text": s.condition.text,
            "since": rfc3339(s.since_wall_s),
        }
        for key, s in state.standing.items()
    ]
    if as_json:
        output.document({"severity": settings.file.alarms.severity, "targets": rows, "standing": standing})
        return
    if warning := readable_by_others(settings):
        output.note(warning)
    shown = [
        [
            str(row[key] if row[key] is not None else "-")
            for key in ("name", "target", "state", "sent_at", "waiting", "error")
        ]
        for row in rows
    ]
    output.table(
        ["NAME", "TARGET", "STATE", "LAST SENT", "WAITING", "LAST ERROR"],
        shown,
        "nobody is told of alarms: set alarms.urls or alarms.exec in fleethub.toml",
    )
    for row in standing:
        output.say(f"{row['severity']} since {row['since']}: {row['title']}: {row['text']}".rstrip(": "))


@alarms.command()
@as_json
def test(as_json: bool) -> int:
    """Send a test alarm to each target, now. Exit code 0 only if every target took it."""
    settings = load()
    targets = _targets(settings)
    if not targets:
        raise Failure("no_targets", "nobody is told of alarms", "Set alarms.urls or alarms.exec in fleethub.toml.")
    event = AlarmEvent(
        0, "test", Phase.TEST, Severity.INFO, "a test alarm", "sent by hand; nothing is wrong", time.time()
    )
    message = outbox.message(socket.gethostname(), [event], _audit_head(settings))
    output.progress("sending …")
    errors = asyncio.run(_send(targets, message))
    if as_json:
        rows = zip(targets, errors, strict=True)
        output.document(
            {"targets": [{"name": t.name, "target": t.shown, "ok": not error, "error": error} for t, error in rows]}
        )
    else:
        for target, error in zip(targets, errors, strict=True):
            output.say(f"{target.name} ({target.shown}): {error or 'sent'}")
    return EXIT_FAILED if any(errors) else EXIT_OK


def readable_by_others(settings: Settings) -> str:
    """A warning if every user of this machine can read the passwords in fleethub.toml; else empty."""
    try:
        modes = settings.config.stat().st_mode, settings.config.parent.stat().st_mode
    except OSError:
        return ""
    if (
        settings.file.alarms.urls
        and "FLEETHUB_ALARMS_URLS" not in os.environ
        and modes[0] & stat.S_IROTH
        and modes[1] & stat.S_IXOTH
    ):
        return (
            f"everybody on this machine can read {settings.config}, and alarms.urls holds passwords: "
            f"chmod o-r {settings.config}"
        )
    return ""


def _audit_head(settings: Settings) -> str:
    """Return number and hash of the newest line of the audit trail; empty, while nobody can read them."""
    with contextlib.suppress(fleet_db.DatabaseUnreadable):
        return truth_reader.reading(settings, audit_trail.told_head)
    return ""


async def _send(targets: list[Target], message: outbox.AlarmMessage) -> list[str]:
    return list(await asyncio.gather(*(alarm_sender.deliver(target, message, TEST_S_MAX) for target in targets)))


def _targets(settings: Settings) -> list[Target]:
    return targets_of(settings.file.alarms)


def _target(target: Target, state: AlarmState) -> dict[str, Any]:
    """One target as it is shown. Its state is idle, waiting or failing, or new until the watchdog knows it."""
    told = state.targets.get(target.name)
    waiting = sum(event.number > told.number for event in state.events) if told else 0
    words = "new" if told is None else "failing" if told.attempts else "waiting" if waiting else "idle"
    told = told or Told()
    return {
        "name": target.name,
        "target": target.shown,
        "state": words,
        "sent": told.sent,
        "sent_at": rfc3339(told.sent_wall_s),
        "waiting": waiting,
        "attempts": told.attempts,
        "dropped": told.dropped,
        "error": told.error,
        "error_at": rfc3339(told.error_wall_s),
    }


def _read(settings: Settings) -> AlarmState:
    path: Path = settings.alarms
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(STATE_BYTES_MAX), type=AlarmState)
    except FileNotFoundError:
        return AlarmState()
    except (OSError, msgspec.DecodeError) as error:
        raise Failure("unreadable", f"{path} cannot be read: {error}") from None
