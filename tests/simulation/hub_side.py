"""The hub: the real Loop, Publisher and the journal's own statements, on virtual time and a disk that can be slow,
locked, or cut off.

Of the shell only `__main__` (open, restore, run) and the journal's thread are copied: begin an epoch, write, and tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from simulation.timeline import Life

from processes.adapters.clock import Clock
from processes.adapters.state import fleet_db
from processes.core.hub import step
from processes.core.hub.rules import Rules
from processes.core.hub.step import StoredState
from processes.core.hub.turn import CommitBatch
from processes.core.travels.pulse import Pulse
from processes.core.values import Now, Position
from processes.hub import store as hub_journal
from processes.hub.loop import Loop
from processes.hub.store import StorageBlocked, StorageBroken, Store

if TYPE_CHECKING:
    from simulation.world import World

LOST_AFTER_S = 90.0  # a day in the installation; here short enough to be met in every other run


class HubDisk:
    """fleet.db: one SQLite in memory with the real schema. A transaction is there wholly or not at all."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sqlite = fleet_db.open_for_writing(Path(":memory:"))
        self.locked_until_s = 0.0
        self.slow_s = 0.0  # a commit takes up to so much longer

    def begin_epoch(self) -> int:
        """As the journal's: one more than ever before, durably."""
        epoch = fleet_db.epoch(self.sqlite) + 1
        hub_journal.put_meta(self.sqlite, epoch=str(epoch))
        return epoch


class ProcessClock(Clock):
    """The clocks of a simulated process's machine."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def now(self) -> Now:
        """Both clocks."""
        return self._life.clock.now()

    def mono_s(self) -> float:
        """Virtual time."""
        return self._life.loop.now_s

    def mono_ns(self) -> int:
        """The same in nanoseconds."""
        return int(self._life.loop.now_s * 1e9)


class VirtualJournal(Store):
    """The journal on such a disk."""

    def __init__(self, disk: HubDisk, life: Life, epoch: int) -> None:
        self._disk, self._life, self.epoch = disk, life, epoch
        self.call_since_ns = 0
        self.has_log = False
        self.written = 0

    async def restored(self) -> StoredState:
        """As the journal's."""
        return hub_journal.restored(self._disk.sqlite)

    async def position(self) -> Position:
        """As the journal's."""
        return fleet_db.position(self._disk.sqlite)

    async def commit(self, batch: CommitBatch, blocked: Callable[[str], None]) -> list[tuple[str, str]]:
        """As the journal's."""
        world = self._disk.world
        self._life.spend("before commit")
        await self._disk_takes(world.io_s() + world.dice.random() * self._disk.slow_s)
        while self._disk.locked_until_s > world.loop.now_s:
            blocked("database is locked")
            await asyncio.sleep(0.2)
        self._life.spend("commit")
        unsaid = hub_journal.write(self._disk.sqlite, batch, self.epoch, self.written + len(batch.writes))
        self.written += len(batch.writes)
        world.witness.committed(batch, self.epoch)
        await self._disk_takes(world.io_s())
        self._life.spend("after commit")
        return unsaid

    async def _disk_takes(self, seconds: float) -> None:
        done = asyncio.Event()
        self._life.later(seconds, done.set)
        await done.wait()

    is_of_another = False
    is_shared = False

    async def renew(self, position: Position, blocked: Callable[[str], None]) -> None:
        """Nothing, as the journal's."""

    async def prune(self, now: Now, kept_s: float, output_bytes_max: int) -> int:
        """As the journal's; a locked disk refuses it."""
        if self._disk.locked_until_s > self._disk.world.loop.now_s:
            raise StorageBlocked("database is locked")
        return hub_journal.prune(self._disk.sqlite, now, "boot", kept_s, output_bytes_max)

    async def fold_log(self) -> None:
        """Nothing: a disk in memory has no log."""
        self.has_log = False

    async def close(self) -> None:
        """Nothing: the disk stays."""


NO_POISON = SimpleNamespace(events={}, hosts={}, names=frozenset(), forget_old=lambda: False)


class QuietPulse:
    """A pulse of which only the next hub reads what was refused: its file's page outlives the process, and not the
    machine's power.
    """

    def __init__(self, before: Pulse | None = None) -> None:
        refused = (before.refused_epoch, before.refused_sequence) if before is not None else (0, 0)
        self.pulse = Pulse(pid=1, start_ticks=1, refused_epoch=refused[0], refused_sequence=refused[1])

    def refuse(self, epoch: int, sequence: int) -> None:
        self.pulse.refused_epoch, self.pulse.refused_sequence = epoch, sequence

    def beat(self) -> None:
        self.pulse.turn += 1

    def take(self, event: str) -> None:
        pass

    def put_down(self) -> None:
        pass


def process(world: World, life: Life, boot: str) -> Any:
    """What a process gets from its `__main__`."""
    file = SimpleNamespace(
        drills=SimpleNamespace(enabled=False),
        retention=SimpleNamespace(commands_days=90, output_mb=1024),
        commands=SimpleNamespace(ttl_s=3600.0, lost_after_s=LOST_AFTER_S),
    )
    settings = SimpleNamespace(file=file)
    return SimpleNamespace(
        name=life.name, boot=boot, settings=settings, log=world.log(life), pulse=QuietPulse(), stop=asyncio.Event(),
        poison=NO_POISON
    )  # fmt: skip


async def main(world: World, life: Life) -> None:
    """A hub's life, as `processes/hub/__main__.py` has it."""
    await asyncio.sleep(world.dice.uniform(0.05, 0.4))
    life.spend("open")
    disk = world.disk
    while disk.locked_until_s > world.loop.now_s:
        await asyncio.sleep(0.2)
    journal = VirtualJournal(disk, life, disk.begin_epoch())
    world.witness.hub_began(journal.epoch)
    now = life.clock.now()
    rules = Rules(
        gateways=world.gateway_names,
        fanouts=world.fanout_names,
        lost_after_s=LOST_AFTER_S,
        heartbeats_per_s=world.heartbeats_per_s,
        run_parts_max=world.run_parts_max,
    )
    kept = await journal.restored()
    memory = step.restore(rules, journal.epoch, life.clock.boot_id, now, kept)
    link: Any = world.link(life, "hub")
    link.epoch = memory.epoch
    door = process(world, life, f"hub-{journal.epoch}")
    door.pulse = world.hub_pulse = QuietPulse(world.hub_pulse.pulse if world.hub_pulse is not None else None)
    life.machine = door
    loop = Loop(
        door, journal, memory, link, await journal.position(), clock=ProcessClock(life), tick_s=1.0, prune_s=7.0
    )
    world.hubs.append((life, loop, memory))
    try:
        await loop.run()
    except StorageBroken:
        world.count("hub refused by the database")
        raise
