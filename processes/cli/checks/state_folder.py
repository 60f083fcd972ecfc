"""Checks of `doctor`: the state folder, its secrets, the databases, the processes."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from processes.adapters import ownership
from processes.adapters.settings import Settings
from processes.adapters.state import fleet_db, hindrance, private_files, pulse_file, sqlite_file, status_file
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.cli.checks.finding import Finding, Level
from processes.cli.machine import own_processes, supervision
from processes.cli.terminal.text import count
from processes.cli.verbs import backup
from processes.core.records import beginning
from processes.core.shown.status import Overall

CHECK_S_MAX: Final = 0.4  # for one database, unless --deep: `doctor` answers within a second
LOG_BYTES_MAX: Final = (
    64 << 20
)  # of a write-ahead log; it only grows so large while one reader holds a transaction open


def folder(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Check that the state folder exists, is this user's, is writable, and is closed to others."""
    state = settings.state
    try:
        found = state.stat()
    except FileNotFoundError:
        yield Finding(
            "state folder",
            Level.WARNING,
            f"there is none at {state}: nothing was started here yet",
            "Start it: fleethub up",
        )
        return
    except OSError as error:
        yield Finding(
            "state folder", Level.BAD, f"{state}: {error.strerror}", "Run this as the user who runs fleethub."
        )
        return
    if found.st_uid != os.geteuid():
        yield Finding(
            "state folder", Level.BAD, f"{state} belongs to user {found.st_uid}, and this is user {os.geteuid()}",
            "Run this as the user who runs fleethub, or set FLEETHUB_STATE to a folder of your own.",
        )  # fmt: skip
    elif not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("state folder", Level.BAD, f"{state} is not writable", f"chmod u+rwx {state}")
    elif wrong := ownership.fault(state, found, ownership.CHANGEABLE, ownership.owners()):
        yield Finding("state folder", Level.BAD, f"{wrong.what}: who can write there can do all", wrong.mend)
    else:
        yield Finding("state folder", Level.OK, f"{state} is ours and writable")
    for above in ownership.faults_above(state):
        what = f"above the state folder {above.what}: who can do that can put another folder in its place"
        yield Finding("state folder", Level.WARNING, what, above.mend)
    for name in ("run", "log"):
        path = state / name
        if not path.exists() or ownership.group_let_into(path) is not None:
            continue
        if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            yield Finding(
                name,
                Level.BAD,
                f"{path} is open to others (mode {mode:04o}): sockets and logs are in it",
                f"chmod 700 {path}",
            )


def secrets(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Find out whether others can get at the files that hold secrets or say who may do what."""
    wrong = {each.path: each for each in private_files.faults(settings) if each.path != settings.state}
    for path in private_files.records(settings):
        each = ownership.file_fault(path, ownership.PRIVATE, ownership.owners())
        if each is not None:
            wrong.setdefault(path, each)
    for each in wrong.values():
        yield Finding("file modes", Level.BAD, each.what, each.mend)
    if not wrong:
        yield Finding("file modes", Level.OK, "tokens, keys and databases are this user's alone")


def databases(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Check that both databases are undamaged, and that the ledger adds up."""
    if fleet_db.restored_name(settings.database).exists():
        yield Finding(
            "restore",
            Level.WARNING,
            "a restore was interrupted after the point of no return",
            "The next fleethub up completes it.",
        )
    last = pulse_file.last(settings.pulses, "hub")
    if settings.file.store.url:
        pass  # the truth is not here
    elif why := fleet_db.refusal(settings.database, settings.epoch_file, last, timeout_s=CHECK_S_MAX / 2):
        yield Finding("fleet.db", Level.BAD, f"no hub begins with it: {why}", beginning.ADVICE)
    elif settings.database.exists():
        yield _checked("fleet.db", settings.database, deep)
    if settings.database.exists() and (why := hindrance.now(settings.database, last.pid if last else 0)):
        advice = "Make room, or let that program end: until then new requests are refused."
        yield Finding("storage", Level.WARNING, why, advice)
    if settings.database.exists() and settings.database.stat().st_nlink > 1:
        yield Finding(
            "fleet.db",
            Level.WARNING,
            f"{settings.database} has another name (a hard link), and what is written here is written there",
            f"find {settings.state} -samefile {settings.database}, then copy it and remove the other name.",
        )
    if settings.incidents_database.exists():
        yield _checked("incidents.db", settings.incidents_database, deep)
    log = settings.database.with_name(settings.database.name + "-wal")
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        size_mb = log.stat().st_size >> 20
        yield Finding(
            "fleet.db-wal",
            Level.WARNING,
            f"the write-ahead log has {size_mb} MiB",
            "Which program reads fleet.db for so long? fuser -v fleet.db",
        )


def _checked(name: str, path: Path, deep: bool) -> Finding:
    advice = "Nothing is replaced by itself: fleethub down, then fleethub restore FILE."
    try:
        connection = sqlite_file.open_for_reading(path, CHECK_S_MAX / 2)
    except (OSError, sqlite_file.NoFile, sqlite3.Error) as error:
        return Finding(name, Level.BAD, f"{path} cannot be opened: {error}", advice)
    timer = threading.Timer(CHECK_S_MAX, connection.interrupt)
    if not deep:
        timer.start()
    try:
        damage = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
        if damage != ["ok"]:
            return Finding(name, Level.BAD, f"damaged: {'; '.join(damage)}", advice)
        if name == "fleet.db":
            held = backup.checked(path, whole=False)
            return Finding(
                name,
                Level.OK,
                f"whole; {count(held.hosts, 'host')}, {count(held.commands.accepted, 'command')}, the ledger adds up",
            )
        return Finding(name, Level.OK, "whole")
    except DatabaseUnreadable as error:
        return Finding(name, Level.BAD, str(error), advice)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return Finding(
                name, Level.OK, f"no damage found within {CHECK_S_MAX:g} s; fleethub doctor --deep reads it all"
            )
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Finding(name, Level.BAD, f"cannot be read: {error}; was its log ({path}-wal) removed?", advice)
        return Finding(
            name,
            Level.WARNING,
            f"cannot be read now: {error}",
            "Does another program hold a lock on it? fuser -v fleet.db",
        )
    except sqlite3.Error as error:
        return Finding(name, Level.BAD, f"damaged: {error}", advice)
    finally:
        timer.cancel()
        connection.close()


def processes(settings: Settings, deep: bool) -> Iterator[Finding]:
    """Check that supervisord runs, and that the watchdog finds nothing wrong."""
    supervisord = own_processes.supervisord_of(settings)
    if supervisord is None:
        left = own_processes.members_of(settings)
        if left:
            pids = ", ".join(str(each.pid) for each in left)
            yield Finding(
                "processes", Level.BAD, f"processes without their supervisord: {pids}", "fleethub down ends them."
            )
        elif supervision.somebody_answers(settings):
            yield Finding("processes", Level.BAD, "they run as another user, or in another container", "See above.")
        else:
            yield Finding("processes", Level.WARNING, "nothing runs", "Start it: fleethub up")
        return
    report = status_file.current_report(settings)
    if report.verdict is Overall.OK:
        yield Finding("processes", Level.OK, f"all well, supervisord is process {supervisord.pid}")
    else:
        level = Level.WARNING if report.verdict is Overall.DEGRADED else Level.BAD
        yield Finding(
            "processes", level, f"{report.verdict}: {'; '.join(report.reasons)}", "fleethub status; fleethub incidents"
        )
