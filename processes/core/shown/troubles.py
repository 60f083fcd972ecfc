"""What can be wrong with an installation, and what to do: one list for status, API, page, alarms and docs. Pure.

Each trouble has a code, fixed words that say what it means, a severity and a remedy. What makes the verdict other than
ok is found by core/shown/status.py; conditions that stand (core/alarms/conditions.py) are added by `joined`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from processes.core.values import GRAVITY, Severity, Time, rfc3339

CHARS_MAX: Final = 400  # of a trouble's text: a line or two of the page's strip


class TroubleCode(enum.StrEnum):
    """What is wrong. The first ones are verdicts on a process."""

    STARTING = "starting"
    LAGGING = "lagging"
    STALLED = "stalled"
    DEAF = "deaf"
    MEMORY = "memory"
    FROZEN = "frozen"
    HALTED = "halted"
    DEAD = "dead"
    CRASHING = "crashing"
    EXCUSED = "excused"
    UNKILLABLE = "unkillable"
    STOPPED = "stopped"
    SILENT = "silent"
    STORAGE = "storage"
    QUEUES = "queues"
    CANARY = "canary"
    PORT = "port"
    SUPERVISORD = "supervisord"
    WATCHDOG_NEW = "watchdog_new"
    REPORT_UNWRITTEN = "report_unwritten"
    MASS_LOSS = "mass_loss"
    QUIET = "quiet"
    BUDGET = "budget"
    DISK = "disk"
    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105  # a word, not a token
    DEAD_LETTER = "deadletter"
    SUSPENDED = "suspended"
    CONTESTED = "contested"
    IMPERSONATED = "impersonated"
    GUESSED = "guessed"
    JUDGE = "judge"
    UNTOLD = "untold"
    HEARTBEAT = "heartbeat"


class TroubleEntry(NamedTuple):
    """What is fixed of a trouble. remedy: what to do; {of} is what it is about. view: of the page, where it is seen."""

    means: str
    remedy: str
    severity: Severity = Severity.WARNING
    view: str = "watchdog"


_REPLACED: Final = "Wait some seconds: the watchdog replaces it. If it happens again: fleethub incidents"
_CRITICAL: Final = Severity.CRITICAL

TROUBLES: Final[Mapping[TroubleCode, TroubleEntry]] = {
    TroubleCode.STARTING: TroubleEntry(
        "It was started and has not done anything yet.",
        "Wait some seconds. If it lasts, its log says why: log/ in the state folder.",
        Severity.INFO,
    ),
    TroubleCode.LAGGING: TroubleEntry(
        "It works, and work waits too long for its turn.",
        "Look at CPU and disk of this machine: fleethub status --watch",
    ),
    TroubleCode.STALLED: TroubleEntry("Its loop runs, and the work that waits is not done.", _REPLACED, _CRITICAL),
    TroubleCode.DEAF: TroubleEntry("It accepts no connection of those that wait at its port.", _REPLACED, _CRITICAL),
    TroubleCode.MEMORY: TroubleEntry("It uses more memory than it may.", _REPLACED, _CRITICAL),
    TroubleCode.FROZEN: TroubleEntry("It makes no progress, though it lives.", _REPLACED, _CRITICAL),
    TroubleCode.HALTED: TroubleEntry(
        "Somebody stopped it by a signal (SIGSTOP), or a debugger holds it.",
        "Wait some seconds: the watchdog replaces it. Then find out who did it: fleethub incidents",
        _CRITICAL,
    ),
    TroubleCode.DEAD: TroubleEntry(
        "It does not run, though it should.",
        "Wait some seconds: it is started again. If it lasts: fleethub start {of}; its log says why it ended.",
        _CRITICAL,
    ),
    TroubleCode.CRASHING: TroubleEntry(
        "It ends again and again as soon as it is started.",
        "Read the end of its log in log/ of the state folder, mend what it says, then: fleethub restart {of}",
        _CRITICAL,
    ),
    TroubleCode.EXCUSED: TroubleEntry(
        "It makes no progress, and it is not its fault: it had no CPU, or the machine slept.",
        "See what else uses the CPUs of this machine (top), and what its limits are.",
    ),
    TroubleCode.UNKILLABLE: TroubleEntry(
        "It was killed and is still there: it hangs in the kernel, mostly in a disk.",
        "Look at the machine's disks (dmesg). Only a reboot may end it.",
        _CRITICAL,
    ),
    TroubleCode.STOPPED: TroubleEntry(
        "An operator stopped it.", "When it is to run again: fleethub start {of}", Severity.WARNING
    ),
    TroubleCode.SILENT: TroubleEntry(
        "The watchdog tells nothing: now nobody would replace a frozen process.",
        "Wait 3 s, then: fleethub restart watchdog",
        _CRITICAL,
    ),
    TroubleCode.STORAGE: TroubleEntry(
        "The database cannot be written: new requests are refused, and nothing that was accepted is lost.",
        "Make room on the disk (df), or end the program that holds the database (fuser fleet.db). Then it goes on.",
        _CRITICAL,
    ),
    TroubleCode.QUEUES: TroubleEntry(
        "It cannot reach the process `queues`, through which all others talk.",
        "Wait some seconds: it is started again. If it lasts: fleethub restart queues",
        _CRITICAL,
    ),
    TroubleCode.CANARY: TroubleEntry(
        "The watchdog's test command (the canary) does not come back: commands may not reach the servers.",
        "See which process is not well: fleethub status; then: fleethub doctor",
        _CRITICAL,
    ),
    TroubleCode.PORT: TroubleEntry(
        "Nobody new can connect at this port.",
        "Wait 10 s: the process behind it is replaced. If it lasts: fleethub doctor",
        _CRITICAL,
    ),
    TroubleCode.SUPERVISORD: TroubleEntry(
        "The process that starts all others (supervisord) does not answer: nothing can be restarted.",
        "If it lasts for 10 s: fleethub down, then fleethub up",
        _CRITICAL,
    ),
    TroubleCode.WATCHDOG_NEW: TroubleEntry(
        "The watchdog was started a moment ago, and has not yet seen a test command come back.",
        "Wait some seconds.",
        Severity.INFO,
    ),
    TroubleCode.REPORT_UNWRITTEN: TroubleEntry(
        "The watchdog works, and cannot write what it finds: what is shown was read from the processes themselves.",
        "Make room on the disk of the state folder (df).",
    ),
    TroubleCode.MASS_LOSS: TroubleEntry(
        "Many servers went away together.",
        "See what they share: fleethub conditions. Then look at their network or site.",
        _CRITICAL,
        "conditions",
    ),
    TroubleCode.QUIET: TroubleEntry(
        "It has done nothing for a moment; the watchdog is looking at it.",
        "Wait some seconds: it goes on, or it is replaced.",
        Severity.INFO,
    ),
    TroubleCode.BUDGET: TroubleEntry(
        "It was replaced so often that the watchdog has paused: that does not help.",
        "Read what happened: fleethub incidents. Then: fleethub restart {of}",
        _CRITICAL,
    ),
    TroubleCode.DISK: TroubleEntry(
        "The disk of the state folder is almost full.", "Make room on it (df), before nothing can be written."
    ),
    TroubleCode.CERTIFICATE: TroubleEntry(
        "The TLS certificate ends soon, has ended or cannot be read: then no agent and no browser connects.",
        "Put a new certificate at the path of tls.certificate; it is read without a restart.",
        view="watchdog",
    ),
    TroubleCode.TOKEN: TroubleEntry(
        "An operator's token ends soon: whoever uses it is signed out then.",
        "fleethub token rotate ID, or let it end.",
        view="account",
    ),
    TroubleCode.DEAD_LETTER: TroubleEntry(
        "A message was put aside, because handling it failed or ended a process.",
        "Look at it: fleethub deadletters. Retry it after an update, or discard it.",
        view="deadletters",
    ),
    TroubleCode.SUSPENDED: TroubleEntry(
        "A server's agent is kept out, because it flooded the hub or its messages ended a process.",
        "Mend the agent on {of}, then: fleethub lift {of}",
        _CRITICAL,
        "host/{of}",
    ),
    TroubleCode.CONTESTED: TroubleEntry(
        "Two agents use one token in turn: was the machine copied?",
        "On the copy remove the agent's token and state, then: fleethub enroll NAME",
        view="host/{of}",
    ),
    TroubleCode.IMPERSONATED: TroubleEntry(
        "An agent claims the name of another server: its token may be in wrong hands.",
        "If you did not rename it: fleethub revoke {of}, and look at that machine.",
        _CRITICAL,
        "host/{of}",
    ),
    TroubleCode.GUESSED: TroubleEntry(
        "Somebody tries many wrong tokens.", "See who it is, and keep the address out by the firewall.", view="account"
    ),
    TroubleCode.JUDGE: TroubleEntry(
        "No process judges the servers' conditions: no new alarm about servers is sent.",
        "fleethub restart fanout",
        view="conditions",
    ),
    TroubleCode.UNTOLD: TroubleEntry(
        "Alarms do not reach this target.",
        "Mend its address or network, then: fleethub alarms test",
        view="conditions",
    ),
    TroubleCode.HEARTBEAT: TroubleEntry(
        "The service outside that watches this installation (the dead man's switch) cannot be told that all is well.",
        "Look at alarms.heartbeat_url and the network.",
        view="conditions",
    ),
}
# those that `status.judged` finds itself: a standing condition of the same code only says since when
FOUND_AT_ONCE: Final = frozenset(
    {
        TroubleCode.LAGGING, TroubleCode.UNKILLABLE, TroubleCode.STORAGE, TroubleCode.CANARY, TroubleCode.SUPERVISORD,
    }
)  # fmt: skip


class Trouble(msgspec.Struct, frozen=True):
    """Something that is wrong now. code: of TroubleCode. of: the process, port, host, token or target that it is about.

    view: the page's view where more is seen. Units: seconds, since `since`.
    """

    code: str
    severity: Severity
    text: str
    remedy: str
    of: str = ""
    since: Time | None = None
    seconds: float | None = None
    view: str = ""


def trouble(code: TroubleCode, text: str, of: str = "", remedy: str = "", severity: Severity | None = None) -> Trouble:
    """Return the trouble with its fixed words. `remedy`, `severity`: if this once another one is right."""
    entry = TROUBLES[code]
    return Trouble(
        code, severity or entry.severity, text[:CHARS_MAX], remedy or entry.remedy.replace("{of}", of), of,
        view=entry.view.replace("{of}", of),
    )  # fmt: skip


def code_of(key: str) -> TroubleCode | None:
    """Return the code of a condition with this key (`certificate:14`); None, if it is told by other means."""
    head = key.partition(":")[0]
    return TroubleCode(head) if head in TroubleCode.__members__.values() else None


def remedy_of(key: str) -> str:
    """Return what to do about a condition with this key; empty: nothing is known."""
    code, of = code_of(key), key.partition(":")[2]
    return TROUBLES[code].remedy.replace("{of}", of) if code is not None else ""


class StandingTrouble(NamedTuple):
    """A condition of the installation that stands, as its alarm has it."""

    key: str
    severity: Severity
    text: str
    since: Time | None


def joined(found: Iterable[Trouble], standing: Iterable[StandingTrouble]) -> list[Trouble]:
    """Return what is wrong with what stands besides. Several of one code are one line, which counts them."""
    troubles = list(found)
    more: dict[TroubleCode, list[StandingTrouble]] = {}
    for each in standing:
        code = code_of(each.key)
        if code is not None and code not in FOUND_AT_ONCE:
            more.setdefault(code, []).append(each)
    for code, alike in more.items():
        first = max(alike, key=lambda each: GRAVITY[each.severity])
        others = f" (and {len(alike) - 1} more of this kind)" if len(alike) > 1 else ""
        text = first.text[: CHARS_MAX - len(others)] + others
        of = first.key.partition(":")[2]
        joint = trouble(code, text, of, severity=first.severity)
        troubles.append(msgspec.structs.replace(joint, since=min((e.since for e in alike if e.since), default=None)))
    return troubles


class TroubleWatch(msgspec.Struct, frozen=True):
    """Since when each trouble is seen without a break. Units: seconds since 1970."""

    since_wall_s: Mapping[tuple[str, str], float] = {}


def aged(
    watch: TroubleWatch, troubles: Iterable[Trouble], known: Mapping[str, float], wall_s: float
) -> tuple[TroubleWatch, list[Trouble]]:
    """Return the troubles with their times, and what to remember for the next look. `known`: since when a condition of
    this key stands, which a watchdog before may have seen.
    """
    since: dict[tuple[str, str], float] = {}
    shown = []
    for each in troubles:
        key = each.code, each.of
        began_s = watch.since_wall_s.get(key, wall_s)
        for name in (each.code, f"{each.code}:{each.of}"):
            began_s = min(began_s, known.get(name, began_s))
        since[key] = began_s
        shown.append(
            msgspec.structs.replace(each, since=rfc3339(began_s), seconds=round(max(0.0, wall_s - began_s), 1))
        )
    return TroubleWatch(since), shown
