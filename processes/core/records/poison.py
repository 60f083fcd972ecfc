"""Poison: an event that ends the process which steps it. Which deaths are its fault, and when it is put aside. Pure.

    taken ──▶ step ends                             nothing is counted
      └─────▶ the process ends during the step ──▶ one death, if the process ended by its own fault
                                                   DEATHS_MAX deaths ──▶ put aside unstepped, as a dead letter

The successor of the process that died does the counting: before its own first pulse it reads its predecessor's last
pulse and finds out what ended the predecessor. So the count is right whichever other processes are dead at that moment.
A process ended by its own fault if it exited unasked, crashed (SIGSEGV and the like), was killed by the kernel for
memory, or was killed by the watchdog, which left a note before the kill, because the process was frozen in this very
event or had grown past its memory limit. No other SIGKILL is counted, and no death whose cause cannot be told.

An event is named by its kind and the digest of its content, not by its position in the queue: an agent that gets no
acknowledgement sends the same report again, and each copy would cost two more deaths. For that reason deaths count only
for WINDOW_S: an event that is equal every time (a heartbeat without metrics) must not be shut out for ever.

Deaths are counted against the event's host too, because an agent that changes one byte each time never sends the same
event twice. A host of which DEATHS_MAX different events were in hand at deaths within HOST_WINDOW_S is to blame,
whatever it sends (core/hub/flood.py). Copies of one event count once: a host with one poisonous event keeps its others.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import re
from typing import Final

import msgspec

from processes.core.travels import messages
from processes.core.travels.messages import AgentRegistered, CensusTaken, Change, Connection, Death, Event
from processes.core.travels.pulse import Pulse

DEATHS_MAX: Final = 2  # source: FAULTS 18: at most three starts
# guess: the slowest restart (FATAL, revived) takes a minute; an event that has not killed for an hour is tried again
WINDOW_S: Final = 3600.0  # seconds for which a death counts
HOST_WINDOW_S: Final = 600.0  # seconds for which a death counts against its host; source: as flood.FLOOD_S
KEPT_MAX: Final = 64  # deaths remembered; more than the restart budget allows in WINDOW_S by kills, and many by exits
STACKS_CHARS_MAX: Final = 16 * 1024  # of one death; all threads of a hub are about 6 KiB

CRASHES: Final = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS"})

MARKS_KEPT: Final = 20_000  # of hosts, so that a heartbeat does not pay for a digest
_MARK: Final = " @"  # in a pulse, between the event's name and the mark of its host


class Cause(enum.StrEnum):
    """Why a process ended by its own fault."""

    EXITED = "exited"
    CRASHED = "crashed"
    FROZEN = "frozen"
    MEMORY = "memory"


class Note(msgspec.Struct, frozen=True):
    """A note that the watchdog writes before it kills a process: which one, why, and during which event.

    `boot`, `pid` and `start_ticks` identify the process for ever.
    """

    boot: str
    pid: int
    start_ticks: int
    cause: str  # frozen, memory; anything else is not the event's fault
    in_hand: str
    in_hand_ns: int
    incident: str = ""


class DeathRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """The deaths under one process's name (hub, fanout:1 …), the oldest first.

    Invariant: len(deaths) <= KEPT_MAX, and each is of another pid or start.
    """

    deaths: list[Death] = []


def cause_of(
    pulse: Pulse, boot: str, note: Note | None, words: str, *, crashed: bool, out_of_memory: bool
) -> Cause | None:
    """Return why the process of this last pulse ended, if by its own fault; None: it was not, or nobody can tell.

    `words`: supervisord's, e.g. "exit status 1", "terminated by SIGKILL"; empty if it has none, or was asked to stop
    the process. `crashed`: the process left a fatal error in its stacks. `out_of_memory`: the kernel says that it
    killed the process for memory.
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
        return None  # the process went on after the note was written: to another event, or once more to the same
    return Cause(note.cause) if note.cause in (Cause.FROZEN, Cause.MEMORY) else None


def counted(record: DeathRecord, death: Death) -> DeathRecord:
    """Return the record with this death in it: only once, however often the death is examined."""
    who = (death.boot, death.pid, death.start_ticks)
    if any((known.boot, known.pid, known.start_ticks) == who for known in record.deaths):
        return record
    return DeathRecord([*record.deaths, death][-KEPT_MAX:])


def forgiven(record: DeathRecord, name: str) -> DeathRecord:
    """Return the record without the deaths by this event."""
    return DeathRecord([death for death in record.deaths if death.name != name])


def recent(record: DeathRecord, boot: str, boot_s: float) -> DeathRecord:
    """Return the record without deaths that are older than WINDOW_S, or of another boot of the machine.

    No queue outlives a boot, so the events of another boot are gone.
    """
    return DeathRecord([death for death in record.deaths if death.boot == boot and boot_s - death.boot_s < WINDOW_S])


def poisonous(record: DeathRecord) -> dict[str, list[Death]]:
    """Return the names of the events that must be put aside unstepped, each with its last DEATHS_MAX deaths."""
    found: dict[str, list[Death]] = {}
    for death in record.deaths:
        found.setdefault(death.name, []).append(death)
    return {name: deaths[-DEATHS_MAX:] for name, deaths in found.items() if len(deaths) >= DEATHS_MAX}


def by_host(record: DeathRecord) -> dict[str, list[Death]]:
    """Return the deaths at events of a host's agent, the oldest first, by the marks of the hosts."""
    found: dict[str, list[Death]] = {}
    for death in record.deaths:
        if death.host_mark:
            found.setdefault(death.host_mark, []).append(death)
    return found


def against_host(deaths: list[Death], boot_s: float, since_wall_s: float) -> list[Death]:
    """Return the last DEATHS_MAX deaths at different events, for which their host is to blame; empty: it is not.

    `deaths`: all at events of this one host. `since_wall_s`: deaths of that time and before are forgiven.
    """
    lately = {
        death.name: death for death in deaths if boot_s - death.boot_s < HOST_WINDOW_S and death.wall_s > since_wall_s
    }
    return list(lately.values())[-DEATHS_MAX:] if len(lately) >= DEATHS_MAX else []


def last_words(log: str, pid: int) -> str:
    """Return supervisord's words in its log about this process's end: "exit status 1", "terminated by SIGKILL".

    Empty if there are none, or if supervisord was asked to stop the process.
    Source: supervisor 4.3 process.py writes `spawned: 'NAME' with pid PID`, `exited: NAME (WORDS; not expected)`,
    `stopped: NAME (WORDS)`.
    """
    spawned = list(re.finditer(rf"spawned: '([^'\n]+)' with pid {pid}$", log, re.MULTILINE))
    if not spawned:
        return ""
    last = spawned[-1]  # the kernel uses pids again
    ended = re.search(rf"\b(exited|stopped): {re.escape(last[1])} \(([^;()\n]*)", log[last.end() :])
    return ended[2].strip() if ended is not None and ended[1] == "exited" else ""


def fatal(stacks: str) -> bool:
    """Return True if faulthandler wrote that the interpreter crashed."""
    return "Fatal Python error" in stacks


def name_of(event: Event, item: bytes) -> str:
    """Return the event's name in the hub's pulse: its kind and the digest of its content, 64 bytes at most.

    A registration and a census of the same connection have one name, because a poisonous connection arrives by both.
    """
    if isinstance(event, AgentRegistered):
        return f"Connection {_digest(_told(event.info))}"
    if isinstance(event, CensusTaken) and len(event.connections) == 1:
        return f"Connection {_digest(_told(event.connections[0]))}"
    return f"{type(event).__name__} {_digest(item)}"


@functools.lru_cache(MARKS_KEPT)
def mark_of_host(host: str) -> str:
    """Return what stands for the host in a pulse, where a name of 253 characters has no room."""
    return _digest(host.encode(errors="surrogatepass"))


def in_hand(name: str, host: str) -> str:
    """Return what stands in the pulse while the event of this name is stepped, 64 bytes at most. `host`: whose agent
    caused the event; empty: none.
    """
    return f"{name}{_MARK}{mark_of_host(host)}" if host else name


def of_in_hand(told: str) -> tuple[str, str]:
    """Return the event's name and the mark of its host, of a pulse. A pulse of the version before has no marks."""
    name, _, mark = told.partition(_MARK)
    return name, mark


def name_of_own(kind: str, *parts: str) -> str:
    """Return the name of something that is not in a queue: a timer, a host to look at, a dead letter, a row."""
    content = "\0".join(parts).encode(errors="surrogatepass")
    return f"{kind[:40]} {_digest(content)}"


def name_of_change(change: Change) -> str:
    """Return the change's name in a fanout's pulse: that of its row, whatever its fields.

    A fanout leaves out whole rows, and a delta and the snapshot that repeats it have different bytes.
    """
    return name_of_own(change.kind, change.id)


def singly(event: CensusTaken) -> list[CensusTaken]:
    """Return the piece of a census as pieces of one connection each, so that each can be put aside alone.

    The first piece of a census, which begins it, names no connection: putting one aside waits for the disk, and the
    others must not overtake the beginning.
    """
    if not event.connections:
        return [event]
    last = len(event.connections) - 1
    pieces = [
        msgspec.structs.replace(
            event, piece=max(1, event.piece), last=event.last and number == last, connections=[info]
        )
        for number, info in enumerate(event.connections)
    ]
    if event.piece == 0:
        pieces.insert(0, msgspec.structs.replace(event, last=False, connections=[]))
    return pieces


def _told(info: Connection) -> bytes:
    """Return what a connection's registration and every census of it share: all but `written`, `idle` and `told_s`."""
    same = msgspec.structs.replace(info, written=[], idle=False, told_s=0.0)
    return messages.encode(AgentRegistered(same.connection, same.gateway, same.host, same))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
