"""Deaths with an event in hand: run/poison/NAME.json, written by the successor when it starts; and the note before a
kill.

The watchdog writes run/poison/NAME.note before it kills a process by its own judgement. The successor of a process that
ended with an event in hand reads the note, supervisord's log, the kernel's log and the stacks of the dead process, and
counts the death (core/records/poison.py).
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from processes.adapters import clock, proc
from processes.adapters.settings import Settings
from processes.adapters.state import asked_to_end, durable, pulse_file, stacks_file
from processes.core.records import poison
from processes.core.records.poison import DeathRecord, Note
from processes.core.travels.messages import Death
from processes.core.travels.pulse import Pulse, Unreadable

LOG_TAIL_BYTES: Final = 256 * 1024  # of supervisord's log: some 2,500 starts and ends
FILE_BYTES_MAX: Final = 8 << 20
KERNEL_LINES_MAX: Final = 10_000  # of the kernel's log; its buffer holds about 256 KiB

_T = TypeVar("_T")
_record = msgspec.json.Decoder(DeathRecord)
_note = msgspec.json.Decoder(Note)


class Poison:
    """The events that one process must not step, because they ended its predecessors; and the deaths of each host."""

    def __init__(self, path: Path, record: DeathRecord) -> None:
        self._path, self._record = path, record
        self.events: dict[str, list[Death]] = {}  # by the event's name
        self.hosts: dict[str, list[Death]] = {}  # by the host's mark; see poison.against_host
        self.names: frozenset[str] = frozenset()  # of all events that were in hand at a death, be it once
        self._renew()

    def forget_old(self) -> bool:
        """Forget deaths that are too long ago. Return whether an event may be tried again because of that. Not written:
        the next start forgets them too.
        """
        before = len(self.events)
        self._renew()
        return len(self.events) != before

    def forgive(self, name: str) -> None:
        """Let this event be tried again, now and by the successors. Blocks until that is on disk. Raises: OSError."""
        self.forget(name)
        self.save()

    def forget(self, name: str) -> None:
        """Let this event be tried again from now on; the successors hear of it once it is saved."""
        self._record = poison.forgiven(self._record, name)
        self._renew()

    def save(self) -> None:
        """Tell the successors what was forgotten. Blocks until that is on disk. Raises: OSError."""
        _write(self._path, self._record)

    def _renew(self) -> None:
        self._record = poison.recent(self._record, clock.boot_id(), clock.now().boot_s)
        self.events = poison.poisonous(self._record)
        self.hosts = poison.by_host(self._record)
        self.names = frozenset(death.name for death in self._record.deaths)


def write_note(settings: Settings, name: str, note: Note) -> None:
    """Write the note durably, before the kill. Blocks until it is on disk. Raises: OSError."""
    _write(place(settings, name).with_suffix(".note"), note)


def examine(settings: Settings, name: str) -> Poison:
    """Examine the predecessor's end and count it. For a process that holds its name's lock, before it writes a pulse of
    its own.

    Never raises: a process that cannot examine the end must start all the same. A death that cannot be written counts
    for this start alone.
    """
    path = place(settings, name)
    record = _read(path, _record) or DeathRecord()
    record = poison.recent(record, clock.boot_id(), clock.now().boot_s)
    death = None
    with contextlib.suppress(Unreadable, OSError):
        last = pulse_file.read(settings.pulses, name)
        if last is not None and last.in_hand and not _asked_to_end(settings, name, last.pid):
            death = _look(settings, name, last)
    if death is not None:
        record = poison.counted(record, death)
        with contextlib.suppress(OSError):
            _write(path, record)
    return Poison(path, record)


def _look(settings: Settings, name: str, last: Pulse) -> Death | None:
    boot, now = clock.boot_id(), clock.now()
    note = _read(place(settings, name).with_suffix(".note"), _note)
    stacks = _tail(stacks_file.of_main(stacks_file.folder(settings.run), name), poison.STACKS_CHARS_MAX)
    words = last_words(settings, last.pid)
    out_of_memory = "SIGKILL" in words and _killed_for_memory(last)
    cause = poison.cause_of(last, boot, note, words, crashed=poison.fatal(stacks), out_of_memory=out_of_memory)
    if cause is None:
        return None
    noted = note is not None and (note.pid, note.start_ticks) == (last.pid, last.start_ticks)
    incident = note.incident if note is not None and noted else ""
    if not stacks and incident:
        stacks = _tail(settings.evidence / incident / "pyspy.txt", poison.STACKS_CHARS_MAX)
    told = stacks or f"no stack was left behind: {words or 'no last words'}"
    name, mark = poison.of_in_hand(last.in_hand)
    return Death(name, cause, boot, now.boot_s, now.wall_s, last.pid, last.start_ticks, incident, told, mark)


def _asked_to_end(settings: Settings, name: str, pid: int) -> bool:
    return asked_to_end.said(settings.run, name, pid)


def _killed_for_memory(last: Pulse) -> bool:
    """Return whether the kernel's log says that it killed exactly this process for memory. (The log has pids of the
    kernel's first namespace, so in a container nothing is found.)
    """
    started_s = last.start_ticks / proc.TICKS_PER_S
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False  # this user may not read it, or there is none
    try:
        for _ in range(KERNEL_LINES_MAX):
            try:
                line = os.read(fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return False  # read to its end
            except BrokenPipeError:
                continue  # lines were overwritten while we read
            head, _, text = line.partition(";")
            fields = head.split(",")
            killed = re.search(rf"Killed process {last.pid} \(", text)
            if killed and len(fields) > 2 and fields[2].isdigit() and int(fields[2]) / 1e6 >= started_s - 1.0:
                return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def _supervisor_log(settings: Settings) -> str:
    """Return the end of supervisord's log and of the file before, in case the log was rotated just now."""
    path = settings.log / "supervisord.log"
    return _tail(path.with_name(path.name + ".1"), LOG_TAIL_BYTES) + _tail(path, LOG_TAIL_BYTES)


def last_words(settings: Settings, pid: int) -> str:
    """Return supervisord's words about the end of this process: "terminated by SIGKILL". Empty: it has none."""
    return poison.last_words(_supervisor_log(settings), pid)


def place(settings: Settings, name: str) -> Path:
    """Return the file of a process's deaths."""
    return settings.run / "poison" / f"{name.replace(':', '-')}.json"


def _tail(path: Path, bytes_max: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - bytes_max))
            return file.read(bytes_max).decode(errors="replace")
    except OSError:
        return ""


def _read(path: Path, decoder: msgspec.json.Decoder[_T]) -> _T | None:
    try:
        with path.open("rb") as file:
            return decoder.decode(file.read(FILE_BYTES_MAX))
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _write(path: Path, value: msgspec.Struct) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.replace(path, msgspec.json.encode(value))
