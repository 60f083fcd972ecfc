"""Poison: an event that ends the process which steps it. Which deaths it is blamed for, and when it is put aside. Pure.

    taken ──steps──▶ put down                      nothing is counted
      └──the process ends with it in hand──▶ one death, if the process ended by its own fault
                                              DEATHS_MAX of them ──▶ put aside unstepped, as a dead letter

The count lives with the process that dies: its successor, before its own first pulse, looks at the predecessor's last
pulse and asks what ended it. So the count is right whoever else is dead at that moment. Its own fault is: an exit that
nobody asked for, a crash (SIGSEGV and the like), the kernel's kill for memory, and a kill by the watchdog that
announced it in a note before, because the process was frozen in this very event or had grown past its memory limit. Any
other SIGKILL counts nothing, and neither does a death whose cause cannot be told.

An event is named by its kind and the digest of its content, not by its place in the queue: an agent that is not
acknowledged says the same again, and each copy would cost two more deaths. So an event that is equal every time (a
heartbeat without metrics) is not shut out for ever: deaths count for WINDOW_S.
"""

from __future__ import annotations

import enum
import hashlib
import re
from typing import Final

import msgspec

from processes.core.travels import messages
from processes.core.travels.messages import AgentRegistered, CensusTaken, Change, Connection, Death, Event
from processes.core.travels.pulse import Pulse

DEATHS_MAX: Final = 2  # source: FAULTS 18: at most three starts
# guess: the slowest restart (FATAL, revived) takes a minute; what has not killed for an hour may be tried again
WINDOW_S: Final = 3600.0
KEPT_MAX: Final = 64  # deaths remembered; more than the restart budget allows in WINDOW_S by kills, and many by exits
STACKS_CHARS_MAX: Final = 16 * 1024  # of one death; all threads of a hub are about 6 KiB

CRASHES: Final = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"})


class Cause(enum.StrEnum):
    """Why a process ended by its own fault."""

    EXITED = "exited"
    CRASHED = "crashed"
    FROZEN = "frozen"
    MEMORY = "memory"


class Note(msgspec.Struct, frozen=True):
    """What the watchdog writes down before it kills: whom (boot, pid and start name a process for ever), why, and with
    what in hand.
    """

    boot: str
    pid: int
    start_ticks: int
    cause: str  # frozen, memory; anything else is not the event's fault
    in_hand: str
    in_hand_ns: int
    incident: str = ""


class DeathRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of one process's deaths, the oldest first. Invariant: len(deaths) <= KEPT_MAX, no two of one
    process.
    """

    deaths: list[Death] = []


def cause_of(
    pulse: Pulse, boot: str, note: Note | None, words: str, *, crashed: bool, out_of_memory: bool
) -> Cause | None:
    """Why the process of this last pulse ended, if that was its own fault; None: it was not, or nobody can say.

    `words`: supervisord's, e.g. "exit status 1", "terminated by SIGKILL"; empty if it said none, or was asked to stop
    it. `crashed`: it left a fatal error in its stacks. `out_of_memory`: the kernel said that it killed it for memory.
    """
    if crashed or any(signal in words for signal in CRASHES):
        return Cause.CRASHED
    if words.startswith("exit status"):
        return Cause.EXITED
    if out_of_memory:
        return Cause.MEMORY
    if note is None or (note.boot, note.pid, note.start_ticks) != (boot, pulse.pid, pulse.start_ticks):
        return None
    if (note.in_hand, note.in_hand_ns) != (pulse.in_hand, pulse.in_hand_ns):
        return None  # it went on after the note was written: this is another event, or the same one another time
    return Cause(note.cause) if note.cause in (Cause.FROZEN, Cause.MEMORY) else None


def counted(record: DeathRecord, death: Death) -> DeathRecord:
    """The record with this death in it, once however often it is looked at."""
    who = (death.boot, death.pid, death.start_ticks)
    if any((known.boot, known.pid, known.start_ticks) == who for known in record.deaths):
        return record
    return DeathRecord([*record.deaths, death][-KEPT_MAX:])


def forgiven(record: DeathRecord, name: str) -> DeathRecord:
    """The record without the deaths of this event."""
    return DeathRecord([death for death in record.deaths if death.name != name])


def recent(record: DeathRecord, boot: str, boot_s: float) -> DeathRecord:
    """The record without what is too long ago: of another boot of the machine (no queue outlives it), or older than
    WINDOW_S.
    """
    return DeathRecord([death for death in record.deaths if death.boot == boot and boot_s - death.boot_s < WINDOW_S])


def poisonous(record: DeathRecord) -> dict[str, list[Death]]:
    """The events that are to be put aside unstepped, each with its last DEATHS_MAX deaths."""
    found: dict[str, list[Death]] = {}
    for death in record.deaths:
        found.setdefault(death.name, []).append(death)
    return {name: deaths[-DEATHS_MAX:] for name, deaths in found.items() if len(deaths) >= DEATHS_MAX}


def last_words(log: str, pid: int) -> str:
    """What supervisord's log says of this process's end: "exit status 1", "terminated by SIGKILL"; empty if nothing, or
    it was asked.

    Source: supervisor 4.3 process.py: `spawned: 'NAME' with pid PID`, `exited: NAME (WORDS; not expected)`, `stopped:
    NAME (WORDS)`.
    """
    spawned = list(re.finditer(rf"spawned: '([^'\n]+)' with pid {pid}$", log, re.MULTILINE))
    if not spawned:
        return ""
    last = spawned[-1]  # a pid comes again
    ended = re.search(rf"\b(exited|stopped): {re.escape(last[1])} \(([^;()\n]*)", log[last.end() :])
    return ended[2].strip() if ended is not None and ended[1] == "exited" else ""


def fatal(stacks: str) -> bool:
    """True if faulthandler wrote that the interpreter crashed."""
    return "Fatal Python error" in stacks


def name_of(event: Event, item: bytes) -> str:
    """What stands in the hub's pulse while it steps this event: its kind and the digest of its content, 64 bytes at
    most.

    A registration and the census that repeats it have one digest: a connection that is poison is met by both ways.
    """
    if isinstance(event, AgentRegistered):
        return f"Connection {_digest(_told(event.info))}"
    if isinstance(event, CensusTaken) and len(event.connections) == 1:
        return f"Connection {_digest(_told(event.connections[0]))}"
    return f"{type(event).__name__} {_digest(item)}"


def name_of_own(kind: str, *parts: str) -> str:
    """The same for what a process does by itself: a timer, a host to look at, a dead letter that is tried again, a
    row.
    """
    content = "\0".join(parts).encode(errors="surrogatepass")
    return f"{kind[:40]} {_digest(content)}"


def name_of_change(change: Change) -> str:
    """What stands in a fanout's pulse while it enters this change: the row, whatever its fields. A delta and the
    snapshot that repeats it have different bytes, and the row is what is left out.
    """
    return name_of_own(change.kind, change.id)


def singly(event: CensusTaken) -> list[CensusTaken]:
    """The same piece of a census in pieces of one connection each, so that each can be put aside alone."""
    if len(event.connections) < 2:
        return [event]
    last = len(event.connections) - 1
    return [
        msgspec.structs.replace(
            event,
            piece=event.piece if number == 0 else max(1, event.piece),
            last=event.last and number == last,
            connections=[info],
        )
        for number, info in enumerate(event.connections)
    ]


def _told(info: Connection) -> bytes:
    """What is the same in its registration and in every census: `written` and `idle` are of the moment."""
    same = msgspec.structs.replace(info, written=[], idle=False)
    return messages.encode(AgentRegistered(same.connection, same.gateway, same.host, same))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
