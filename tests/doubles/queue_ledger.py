"""The ledger of the queues in PostgreSQL: four publishers and a reader, while the server's processes are killed.

What was accepted has a position. Whatever is read there must be that item; nothing between two gaps is missing, doubled
or out of order; what a publisher gave up is not behind what it appended later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import psycopg
from doubles.deadline import WAIT_S, until
from doubles.postgres_server import PostgresServer

from processes.adapters.postgres.queues import PostgresQueues
from processes.adapters.queues import QueuesAway
from processes.core.values import Position

PUBLISHERS = 4
AT_ONCE = 3  # items of one append
KINDS = ("backend", "postmaster")


class Publisher:
    """Appends items without a pause, none of them twice."""

    def __init__(self, url: str, number: int) -> None:
        self.link = PostgresQueues(url, f"gateway:{number}")
        self.accepted: dict[Position, bytes] = {}
        self._number = number

    async def run(self) -> None:
        tried = 0
        while True:
            items = [b"%d %d" % (self._number, tried + index) for index in range(AT_ONCE)]
            tried += AT_ONCE
            try:
                appended = await self.link.append("events", items)
            except QueuesAway:
                await asyncio.sleep(0.002)
                continue
            if appended.accepted:
                epoch, last = appended.position
                for index, item in enumerate(items):
                    self.accepted[Position(epoch, last - AT_ONCE + 1 + index)] = item
            await asyncio.sleep(0)


class Ledger:
    """What was read, by its position; the epochs in their order."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self.publishers = [Publisher(server.url(), number) for number in range(PUBLISHERS)]
        self._reading = PostgresQueues(server.url(), "hub")
        self.read: dict[Position, bytes] = {}
        self.epochs: list[int] = []
        self.gaps = 0

    async def run(self, rounds: int, kinds: tuple[str, ...] = KINDS) -> str:
        """Kills one process of each kind, so often; returns what was counted. Raises: AssertionError."""
        tasks = [asyncio.create_task(self._read())]
        tasks += [asyncio.create_task(publisher.run()) for publisher in self.publishers]
        kills = [kind for _ in range(rounds) for kind in kinds]
        try:
            for kill, kind in enumerate(kills):
                await self._until_read(kill + 1, tasks)
                await asyncio.to_thread(self._kill_backend if kind == "backend" else self._kill_postmaster)
            await self._until_read(len(kills) + 1, tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for link in (self._reading, *(publisher.link for publisher in self.publishers)):
                await link.close()
        return self.check(len(kills))

    def check(self, kills: int) -> str:
        """Raises: AssertionError, with the item that is wrong."""
        assert len(self.epochs) == len(set(self.epochs)) == kills + 1, self.epochs
        assert self.gaps == kills, "each loss is told, once"
        accepted = {at: item for publisher in self.publishers for at, item in publisher.accepted.items()}
        assert len(accepted) == sum(len(publisher.accepted) for publisher in self.publishers), "a number for two items"
        assert len(set(self.read.values())) == len(self.read), "an item was read twice"
        newest = {epoch: max(at.sequence for at in self.read if at.epoch == epoch) for epoch in self.epochs}
        for epoch, last in newest.items():
            assert all(Position(epoch, number) in self.read for number in range(1, last + 1)), f"a hole in {epoch}"
        lost = 0
        for at, item in accepted.items():
            if at.sequence <= newest.get(at.epoch, 0):
                assert self.read[at] == item, (at, item, self.read[at])
            else:
                lost += 1  # the crash took it, and the reader was told
        order = sorted(self.read, key=lambda at: (self.epochs.index(at.epoch), at.sequence))
        for number in range(PUBLISHERS):
            said = [int(self.read[at].split()[1]) for at in order if self.read[at].startswith(b"%d " % number)]
            assert said == sorted(said), f"what publisher {number} gave up came later"
        return (
            f"{kills} kills: {len(accepted)} accepted, {len(self.read)} read, {lost} lost behind a gap, "
            "0 missing in the middle, 0 doubled, 0 out of order"
        )

    async def _read(self) -> None:
        at = Position(0, 0)
        while True:
            try:
                batch = await self._reading.read("events", at)
                self.gaps += batch.gap
                if batch.position.epoch != at.epoch:
                    self.epochs.append(batch.position.epoch)
                at = batch.position
                for index, item in enumerate(reversed(batch.items)):
                    where = Position(at.epoch, at.sequence - index)
                    assert where not in self.read
                    self.read[where] = item
                await self._reading.acknowledge("events", at)
            except QueuesAway:
                await asyncio.sleep(0.002)

    async def _until_read(self, epochs: int, tasks: list[asyncio.Task[None]]) -> None:
        """Each publisher's items are read, in so many epochs."""
        deadline_s = asyncio.get_running_loop().time() + WAIT_S
        while True:
            await asyncio.sleep(0.01)
            for task in tasks:
                assert not task.done(), task.exception()
            assert asyncio.get_running_loop().time() < deadline_s, (epochs, self.epochs)
            newest = {item.split()[0] for at, item in self.read.items() if at.epoch == self.epochs[-1]}
            if len(self.epochs) == epochs and len(newest) == PUBLISHERS:
                return

    def _kill_backend(self) -> None:
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            row = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'fleethub gateway% calls' LIMIT 1"
            ).fetchone()
        assert row is not None
        os.kill(row[0], signal.SIGKILL)

    def _kill_postmaster(self) -> None:
        pid = self._server.pid
        os.kill(pid, signal.SIGSTOP)  # it starts no more of them meanwhile
        pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
        for each in pids:  # the others end by themselves when they notice; a restart must find none
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        until(lambda: all(_is_dead(each) for each in pids))
        for left in (self._server.data / "postmaster.pid", *self._server.folder.glob(".s.PGSQL.*")):
            left.unlink()  # where nobody reaps the dead, it would seem to live
        self._server.start()


def _is_dead(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True
