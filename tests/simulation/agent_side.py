"""An agent's machine: its disk, its shims, and the real agent loop with a journal, a runner and a link made of virtual
things.

Copied from the shell, in small: journal.py (a row is durable when the call returns; killed in the middle it is there or
not), runner.py with folder.py, leftovers.py and shim.py (what a run folder and the machine's processes say, and in
which order they come to say so), link.py (dial, serve, come back).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from simulation import hub_side
from simulation.timeline import LIFE, Clock, Life
from simulation.wire import Refusal, Wire

from processes.agent.journal import JournalFailed
from processes.agent.loop import JournalGone, Loop
from processes.core.agent import reconnect
from processes.core.agent.effects import Connected, Disconnected, Input, Look, Observed, Received
from processes.core.agent.flow import RECORD_BYTES
from processes.core.agent.remembered import (
    Ended,
    Folder,
    FolderVerdict,
    JournalRow,
    JournalState,
    ReportStatus,
    SpoolRecord,
    Started,
    judge,
)
from processes.core.agent.step import Identity
from processes.core.travels import agent_frames
from processes.core.values import CloseCode, Now, Stream

if TYPE_CHECKING:
    from simulation.world import World

OPS = {
    "pull": (1.0, False),
    "switch": (12.0, False),
    "test": (6.0, False),
    "probe": (3.0, True),
    "reboot": (0.5, False),
}  # how long at most; concurrent?
TIMEOUT_S = 30.0
BACK_S = 60.0  # of the reboot


@dataclass
class Execution:
    """One run of one command, as it really was."""

    command_id: str
    op: str
    begun_s: float
    exit_code: int | None = None  # None: it never came to its end
    ended: Ended | None = None  # as the shim wrote it, and nobody removed it


@dataclass
class RunFolder:
    """What stands in a run folder. `gone`: it was removed; who works in it goes on with what nobody finds any more."""

    shim: Shim | None = None  # holds the lock
    unstarted: bool = True
    started: Started | None = None
    ended: Ended | None = None
    cancel: str = ""
    spool: list[SpoolRecord] = field(default_factory=list)
    synced: int = 0  # records that a power loss leaves
    gone: bool = False


class Machine:
    """One host. Everything in `rows`, `journal_id` and the folders is on its disk."""

    def __init__(self, world: World, name: str, clock_off_s: float) -> None:
        self.world, self.name = world, name
        self.token = ""
        self.clock = Clock(world.loop, name)
        self.clock.wall_offset_s += clock_off_s
        self.clock.reboot()
        self.life: Life | None = None
        self.off = False  # for ever
        self.journal_id = ""
        self.journals = itertools.count(1)
        self.rows: dict[str, JournalRow] = {}
        self.folders: dict[str, RunFolder] = {}
        self.shims: dict[Shim, None] = {}
        self.executions: list[Execution] = []
        self.replaced_s: list[float] = []  # when the journal was lost
        self.rebooted_s: list[float] = []
        self.down_until_s = 0.0
        self.full_until_s = 0.0  # its disk takes nothing
        self.emptied_s: list[float] = []  # when run folders vanished
        self.journal_gone = False  # its file was removed under the agent that has it open

    @property
    def is_full(self) -> bool:
        """True while the disk is full or read-only: nothing new can be made durable."""
        return self.world.loop.now_s < self.full_until_s

    def start(self) -> None:
        """The agent runs, if the machine does."""
        world = self.world
        if self.off or (self.life is not None and self.life.alive) or world.loop.now_s < self.down_until_s:
            return
        self.life = life = Life(world.loop, f"agent:{self.name}", self.clock, world.ended)
        life.machine = self
        life.begin(self._main(life))

    async def _main(self, life: Life) -> None:
        await asyncio.sleep(self.world.dice.uniform(0.01, 0.3))
        identity = Identity(
            self.name, life.clock.boot_id, "", self.world.heartbeat_s,
            {op: agent_frames.CommandOptions(TIMEOUT_S, beside, BACK_S if op == "reboot" else None)
             for op, (_, beside) in OPS.items()},
        )  # fmt: skip
        stand_ins: dict[str, Any] = {
            "journal": VirtualJournal(self), "runner": VirtualRunner(self), "link": VirtualAgentLink(self),
            "gauge": NoGauge(), "log": self.world.log(life), "pulse": hub_side.QuietPulse(),
            "clock": hub_side.ProcessClock(life),
        }  # fmt: skip
        self.agent = Loop(identity, stop=asyncio.Event(), tick_s=1.0, tick_running_s=0.4, **stand_ins)
        with contextlib.suppress(JournalGone):  # it begins anew
            await self.agent.run()

    # faults

    def reboot(self, down_s: float) -> None:
        """Power loss: what was not synced is gone, whatever ran has ended without a word."""
        if self.off:
            return
        self.rebooted_s.append(self.world.loop.now_s)
        if self.life is not None:
            self.life.end("power loss")
        for shim in list(self.shims):
            shim.die()
        for folder in self.folders.values():
            del folder.spool[self.world.dice.randint(folder.synced, max(folder.synced, len(folder.spool))) :]
        self.clock.reboot()
        self.down_until_s = self.world.loop.now_s + down_s
        self.world.after(down_s + 0.001, self.start)

    def lose_journal(self) -> None:
        """Somebody replaced the state folder: journal and run folders are gone, the agent starts anew. What runs, runs
        on.
        """
        if self.life is not None:
            self.life.end("state folder replaced")
        self.replaced_s.append(self.world.loop.now_s)
        self._empty_folders()
        self.rows, self.journal_id, self.journal_gone = {}, "", False

    def remove_journal(self) -> None:
        """Somebody removes the journal under an agent that goes on, or does not run."""
        self.replaced_s.append(self.world.loop.now_s)
        if self.life is not None and self.life.alive:
            self.journal_gone = True
        self.rows, self.journal_id = {}, ""

    def empty_folders(self) -> None:
        """A cleaner removes what is in `runs`. What runs, runs on."""
        self.emptied_s.append(self.world.loop.now_s)
        self._empty_folders()

    def _empty_folders(self) -> None:
        for folder in self.folders.values():
            folder.gone = True
        for execution in self.executions:
            if execution.command_id in self.folders:
                execution.ended = None
        self.folders.clear()

    def cut_spools(self) -> bool:
        """A cleaner empties every spool."""
        cut = [folder for folder in self.folders.values() if folder.spool]
        for folder in cut:
            folder.spool.clear()
            folder.synced = 0
        return bool(cut)

    def fill_disk(self, lasts_s: float) -> None:
        """The disk is full, or read-only, for a while."""
        self.full_until_s = self.world.loop.now_s + lasts_s

    def kill_shim(self) -> bool:
        """The oldest running shim dies (out of memory), and its program with it."""
        shim = next(iter(self.shims), None)
        if shim is not None:
            shim.die()
        return shim is not None


class Shim:
    """One shim, as shim.py: lock, looks, `started`, run, spool, `exit`. It outlives the agent, not the machine."""

    def __init__(self, machine: Machine, command_id: str, op: str, folder: RunFolder) -> None:
        self._machine, self._world = machine, machine.world
        self.command_id, self._op, self._folder = command_id, op, folder
        self.alive = True
        self._execution: Execution | None = None
        self._waits = 0
        machine.shims[self] = None
        self._after(self._world.dice.uniform(0.001, 0.2), self._lock)

    def die(self) -> None:
        """It is gone, with its lock."""
        self.alive = False
        self._machine.shims.pop(self, None)
        if self._folder.shim is self:
            self._folder.shim = None

    def wake(self) -> None:
        """SIGUSR1: look at `cancel`."""
        self._after(0.002, self._look_at_cancel)

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self._world.after(seconds, lambda: call() if self.alive else None)

    def _lock(self) -> None:
        folder = self._folder
        if folder.shim is not None and self._waits < 20:
            self._waits += 1
            self._after(0.1, self._lock)
            return
        if folder.shim is not None:
            self.die()
            return
        if folder.gone:
            self.die()  # it has nowhere to go to
            return
        folder.shim = self
        if not folder.unstarted or folder.ended is not None:
            self.die()
        elif folder.cancel:
            self._end(Ended(ReportStatus.CANCELLED, None, "cancelled before it was started"))
        else:
            self._after(self._world.io_s(), self._start)

    def _start(self) -> None:
        dice = self._world.dice
        if self._folder.gone or self._machine.is_full or not self._folder.unstarted:
            self.die()  # `unstarted` cannot be turned into `started`: nothing is begun
            return
        self._folder.unstarted = False
        self._folder.started = Started(next(self._world.numbers), 1, self._machine.clock.boot_id)
        self._execution = Execution(self.command_id, self._op, self._world.loop.now_s)
        self._machine.executions.append(self._execution)
        self._world.witness.executed(self._machine, self._execution)
        lasts_s = dice.uniform(0.02, OPS[self._op][0])
        for number in range(dice.randint(0, 4)):
            self._after(dice.uniform(0.0, lasts_s), functools.partial(self._say, f"{self.command_id} {number}"))
        code = dice.choice((0, 0, 0, 1, 7))
        if self._op == "reboot" and code == 0 and dice.random() < 0.9:  # else its init forgets it
            self._world.count("reboot by command")
            # before or after the program has said that it is done
            self._world.after(dice.uniform(0.0, lasts_s * 3), lambda: self._machine.reboot(dice.uniform(0.5, 20.0)))
        self._after(lasts_s, lambda: self._exit(code, ReportStatus.OK if code == 0 else ReportStatus.ERROR))
        if self._folder.cancel:
            self.wake()

    def cancel(self) -> None:
        """SIGUSR2: a cancel for a folder that takes no file."""
        self._after(0.002, self._obey)

    def _say(self, text: str) -> None:
        if self._machine.is_full:
            return
        self._folder.spool.append(SpoolRecord(Stream.STDOUT, text))

    def _look_at_cancel(self) -> None:
        if self._folder.cancel and not self._folder.gone:
            self._obey()

    def _obey(self) -> None:
        if self._execution is not None and self._execution.exit_code is None:
            if self._world.dice.random() < 0.1:
                self._exit(0, ReportStatus.OK)  # it had its own idea of SIGTERM; a completed exit wins
            else:
                self._exit(143, ReportStatus.CANCELLED)

    def _exit(self, code: int, status: ReportStatus) -> None:
        assert self._execution is not None
        if self._execution.exit_code is None:
            self._execution.exit_code = code
            self._folder.synced = len(self._folder.spool)
            self._after(self._world.io_s(), lambda: self._end(Ended(status, code, "")))

    def _end(self, ended: Ended) -> None:
        if not self._folder.gone:  # its room was taken before: a full disk takes it all the same
            self._folder.ended = ended
            if self._execution is not None:
                self._execution.ended = ended
        self.die()


class VirtualJournal:
    """Stands in for agent.journal.Journal."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._life = machine, LIFE.get()
        self._rows = machine.rows
        machine.journal_gone = False
        self._turns = asyncio.Lock()  # one thread
        self.id = ""
        self.put_aside = None

    async def open(self) -> list[JournalRow]:
        """As Journal."""
        await asyncio.sleep(self._machine.world.io_s())
        self._life.spend("journal open")
        machine = self._machine
        if not machine.journal_id:
            machine.journal_id = f"{machine.name}-journal-{next(machine.journals)}"
        self.id = machine.journal_id
        unsettled = (JournalState.ADMITTED, JournalState.LAUNCHED, JournalState.CANCELLED)
        return [row for row in self._rows.values() if row.state in unsettled]

    async def is_ours(self) -> bool:
        """As Journal."""
        return not self._machine.journal_gone

    async def record(self, row: JournalRow) -> JournalRow | None:
        """As Journal."""
        known = await self._durably(row.command_id, lambda: self._record(row))
        return known

    async def update(self, row: JournalRow) -> None:
        """As Journal."""
        await self._durably(row.command_id, lambda: self._update(row))

    async def prune(self, now: Now, boot_id: str) -> None:
        """Nothing is old enough here."""

    def close(self) -> None:
        """Part of Journal."""

    async def _durably(self, command_id: str, call: Callable[[], JournalRow | None]) -> JournalRow | None:
        async with self._turns:
            self._life.spend("before a row")
            await asyncio.sleep(self._machine.world.io_s())
            self._life.spend("a row")
            if self._machine.is_full or self._machine.journal_gone:
                raise JournalFailed("it takes nothing", is_full=self._machine.is_full)
            result = call()
            await asyncio.sleep(self._machine.world.io_s())
            self._life.spend("after a row")
            return result

    def _record(self, row: JournalRow) -> JournalRow | None:
        known = self._rows.get(row.command_id)
        if known is None:
            self._rows[row.command_id] = msgspec.convert(msgspec.to_builtins(row), JournalRow)
        return known

    def _update(self, row: JournalRow) -> None:
        if row.command_id in self._rows:
            self._rows[row.command_id] = row


class VirtualRunner:
    """Stands in for agent.runner.Runner."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._life = machine, LIFE.get()
        self._boot_id = self._life.clock.boot_id
        self._folders = self._machine.folders
        self.on_exit: Callable[[], None] = lambda: None  # never called: an end is found by looking
        self._turns = asyncio.Lock()

    async def prepare(self, command_id: str) -> None:
        """As Runner."""
        async with self._turns:
            await self._thread("before a folder")
            if self._machine.is_full:
                raise OSError("No space left on device")
            self._folders.setdefault(command_id, RunFolder()).unstarted = True

    async def launch(self, command_id: str, op: str) -> None:
        """As Runner."""
        async with self._turns:
            await self._thread("before a launch")
            folder = self._folders.get(command_id)
            if folder is None:
                raise OSError("No such file or directory")
            Shim(self._machine, command_id, op, folder)
            self._life.spend("after a launch")

    async def kill(self, command_id: str, signal: str) -> None:
        """As Runner."""
        async with self._turns:
            await self._thread("before a cancel")
            folder = self._folders.get(command_id)
            is_written = folder is not None and not self._machine.is_full
            if folder is not None and is_written:
                folder.cancel = signal
            shim = self._shim_of(command_id)
            if shim is not None:
                shim.wake() if is_written else shim.cancel()

    async def look(self, wanted: Look) -> Observed:
        """As Runner."""
        async with self._turns:
            await self._thread("a look")
            folder = self._folders.get(wanted.command_id) or RunFolder(unstarted=False)
            lives = self._shim_of(wanted.command_id) is not None
            found = Folder(lives, folder.started, folder.unstarted, folder.ended)
            run, ended = judge(found, self._boot_id)
            records, room = [], wanted.room_bytes
            for record in folder.spool[wanted.first :]:
                if room <= 0:
                    break
                records.append(record)
                room -= len(record.text) + RECORD_BYTES
            pid = found.started.pid if found.started else None
            total = len(folder.spool) if run is FolderVerdict.ENDED else None
            return Observed(
                wanted.command_id, run, pid, wanted.first, records if wanted.room_bytes else [], ended, total
            )

    def _shim_of(self, command_id: str) -> Shim | None:
        """The command's shim as the machine's processes have it, whatever became of its folder."""
        return next((shim for shim in self._machine.shims if shim.command_id == command_id), None)

    async def remove(self, command_id: str) -> None:
        """As Runner."""
        async with self._turns:
            await self._thread("a removal")
            self._folders.pop(command_id, None)

    async def tidy(self, open_ids: Collection[str]) -> list[str]:
        """As Runner."""
        stale = [name for name, folder in self._folders.items() if name not in open_ids and folder.shim is None]
        for name in stale:
            del self._folders[name]
        return stale

    async def reap(self) -> None:
        """As Runner."""

    def close(self) -> None:
        """Part of Runner."""

    async def _thread(self, what: str) -> None:
        await asyncio.sleep(self._machine.world.io_s())
        self._life.spend(what)


class VirtualAgentLink:
    """Stands in for agent.link.Link."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._life = machine, LIFE.get()
        self._world = machine.world
        self._tell: Callable[[Input], Awaitable[None]]
        self._number = self._failures = 0
        self._wire: Wire | None = None
        self._heard: asyncio.Queue[bytes | int] = asyncio.Queue()
        self.malformed = 0
        self.is_full = False

    async def run(self, tell: Callable[[Input], Awaitable[None]]) -> None:
        """As Link."""
        self._tell = tell
        while True:
            wait_s = await self._once()
            self._failures += 1
            await asyncio.sleep(wait_s)

    def send(self, number: int, text: bytes, mark: str = "") -> None:
        """As Link."""
        if self._wire is not None and number == self._number:
            self._life.spend("before a frame")
            self._world.witness.said(self._machine, text)
            self._wire.up(text)

    async def close(self) -> None:
        """As Link."""
        if self._wire is not None:
            self._wire.close(self._life, CloseCode.GOING_AWAY)

    async def _once(self) -> float:
        chance = self._world.dice.random()
        await asyncio.sleep(self._world.net_s())
        heard: asyncio.Queue[bytes | int] = asyncio.Queue()
        self._life.spend("dial")
        dialled = Wire.dial(
            self._world, self._life, self._machine.token, self._machine.name, hear=heard.put_nowait,
            lost=heard.put_nowait
        )  # fmt: skip
        if dialled is None:
            return reconnect.backoff_s(self._failures, chance)
        if isinstance(dialled, Refusal):
            return reconnect.after_refusal_s(dialled.status, dialled.retry_after_s, self._failures, chance)
        self._number += 1
        self._wire = dialled
        await self._tell(Connected(self._number))
        code = await self._serve(heard)
        self._wire = None
        await self._tell(Disconnected())
        return reconnect.after_close_s(code, self._failures, chance)

    async def _serve(self, heard: asyncio.Queue[bytes | int]) -> int:
        while True:
            text = await heard.get()
            if isinstance(text, int):
                return text
            frame = agent_frames.decode_hub(text)
            if isinstance(frame, agent_frames.Registered):
                self._failures = 0
            if frame is not None:
                await self._tell(Received(frame))


class NoGauge:
    """Stands in for agent.metrics.Gauge."""

    def poll(self) -> None:
        """No numbers."""

    def close(self) -> None:
        """Part of Gauge."""
