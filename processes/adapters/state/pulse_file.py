"""Pulse files in run/pulse/, one for each process: its loop writes it through mmap, the watchdog and others read it."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import time
from pathlib import Path
from typing import Final

from processes.adapters import ownership, proc
from processes.adapters.state import durable
from processes.core.travels import pulse as record
from processes.core.travels.pulse import Pulse, Unreadable

MEND_S: Final = 0.5  # between two tries to put a lost file back


class PulseFile:
    """The writing side. Change the fields of `pulse` at any time; `beat` makes them visible as one turn.

    Cost: about 4 µs a beat. Nothing here blocks: the file's page is in memory, and no reader can take a lock. A file
    that was removed, cut off or overwritten is made again at one of the next beats, unless it is a living successor's.
    The predecessor's last refused position is taken over into the first record, and so are its epoch and what it
    committed, until this process knows better.
    """

    def __init__(self, folder: Path, name: str, *, mend_s: float = MEND_S) -> None:
        self.pulse = Pulse(pid=os.getpid(), start_ticks=start_ticks(os.getpid()) or 0)
        with contextlib.suppress(Unreadable, OSError):
            before = read(folder, name)
            if before is not None:
                self.pulse.refused_epoch, self.pulse.refused_sequence = before.refused_epoch, before.refused_sequence
                self.pulse.epoch, self.pulse.committed = before.epoch, before.committed
        self._folder, self._name, self._mend_s = folder, name, mend_s
        self._sequence = 0
        self._slot = record.pack(self.pulse, 0)  # as it was written last
        self._mended_s = 0.0
        try:
            self._fd, self._map = self._make()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._fd, self._map = _nowhere()  # a full disk must not keep a process from starting; later beats try again

    def beat(self) -> None:
        """Complete a turn: its number grows by one, and all fields become visible."""
        self.pulse.turn += 1
        self.pulse.written_ns = time.monotonic_ns()
        self._write(record.pack(self.pulse, self._sequence + 1))

    def take(self, event: str) -> None:
        """Make it visible that `event` is in hand from now on, before it is stepped. Not a turn: other fields are not
        made visible.
        """
        self.pulse.in_hand, self.pulse.in_hand_ns = event, time.monotonic_ns()
        self._write(record.repack(self._slot, self.pulse, self._sequence + 1))

    def put_down(self) -> None:
        """Make it visible that no event is in hand any more. Not a turn."""
        self.pulse.in_hand, self.pulse.in_hand_ns = "", 0
        self._write(record.repack(self._slot, self.pulse, self._sequence + 1))

    def refuse(self, epoch: int, sequence: int) -> None:
        """Make it visible that requests up to this position are refused, by any later hub too. To be called before the
        refusal is published. Not a turn.
        """
        self.pulse.refused_epoch, self.pulse.refused_sequence = epoch, sequence
        self._write(record.pack(self.pulse, self._sequence + 1))

    @property
    def is_on_disk(self) -> bool:
        """Return whether readers can see it."""
        return os.fstat(self._fd).st_nlink > 0

    def close(self) -> None:
        """Release the mapping; the file stays, as the last pulse."""
        self._map.close()
        os.close(self._fd)

    def _make(self) -> tuple[int, mmap.mmap]:
        """Make a new file each time, so that no reader sees a mixture of two processes' pulses. Raises: OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._folder / f".{self._name}.{os.getpid()}"
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            group = ownership.group_let_into(self._folder)
            if group is not None:
                ownership.let_read(fd, group)
            durable.write_all(fd, record.pack(self.pulse, self._sequence) * 2)
            found = mmap.mmap(fd, record.SIZE)
            fresh.replace(self._folder / self._name)
        except BaseException:
            os.close(fd)
            fresh.unlink(missing_ok=True)
            raise
        return fd, found

    def _write(self, slot: bytes) -> None:
        self._sequence, self._slot = self._sequence + 1, slot
        stat = os.fstat(self._fd)
        if (stat.st_nlink == 0 or stat.st_size < record.SIZE) and not self._mended(stat.st_size):
            return
        at = self._sequence % 2 * record.SLOT_SIZE
        self._map[at : at + record.SLOT_SIZE] = slot

    def _mended(self, size: int) -> bool:
        """True if the mapping may be written: beyond the end of a file that was cut off lies SIGBUS. Tried once in
        `mend_s`.
        """
        now_s = time.monotonic()
        if now_s - self._mended_s >= self._mend_s:
            self._mended_s = now_s
            with contextlib.suppress(OSError):  # the disk is full: a later beat tries again
                if size < record.SIZE or not _is_a_living_ones(self._folder, self._name):
                    before, old = self._map, self._fd
                    self._fd, self._map = self._make()
                    before.close()
                    os.close(old)
                    return True
        return size >= record.SIZE


def _nowhere() -> tuple[int, mmap.mmap]:
    """Return a mapping that no reader can see. A file without a name counts as lost, so a later beat makes it anew."""
    fd = os.memfd_create("pulse")
    os.ftruncate(fd, record.SIZE)
    return fd, mmap.mmap(fd, record.SIZE)


def _is_a_living_ones(folder: Path, name: str) -> bool:
    try:
        pulse = read(folder, name)
    except Unreadable:
        return False
    return pulse is not None and proc.alive(pulse.pid, pulse.start_ticks)


def read(folder: Path, name: str) -> Pulse | None:
    """Return the last pulse written under this name; None if there is no file.

    Raises: Unreadable, if the content is not a pulse. Neither case proves health, nor is it alone a reason to kill.
    """
    try:
        fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)  # pathlib's open costs more than the rest
    except FileNotFoundError:
        return None
    try:
        return record.unpack(os.pread(fd, record.SIZE, 0))
    finally:
        os.close(fd)


def last(folder: Path, name: str) -> Pulse | None:
    """The last pulse written under this name; None if there is none that can be read. Never raises."""
    try:
        return read(folder, name)
    except (Unreadable, OSError):
        return None


def start_ticks(pid: int) -> int | None:
    """Return when a process started, which with its pid identifies it for ever; None if there is no such process.

    Units: clock ticks since boot.

    Source: proc(5), /proc/PID/stat field 22.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(stat[stat.rindex(b")") + 2 :].split()[19])
