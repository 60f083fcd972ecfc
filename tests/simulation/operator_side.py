"""Operators and their fanout: the real Mirror and the real Requests; the fanout's turn is copied in small.

An operator is a careful script: every command has a key, and after 503, 504 or silence the same is asked again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from simulation.hub_side import ProcessClock
from simulation.timeline import Life

from processes.adapters.queues import QueuesAway
from processes.core.fanout.mirror import Mirror
from processes.core.travels import messages
from processes.core.travels.messages import (
    CancelCommand,
    CancelRun,
    EnrollHost,
    GiveCommand,
    RemoveHost,
    Request,
    SnapshotWanted,
    StartRun,
)
from processes.core.values import Position
from processes.fanout.requests import DEADLINE_S, Answer, Requests

if TYPE_CHECKING:
    from simulation.world import World

# to ask again for one of these changes nothing; of other requests the first may yet be carried out
KEYED = (GiveCommand, CancelCommand, StartRun, CancelRun)
ASK_S = 1.1  # between two looks whether a snapshot should be asked for


class Fanout:
    """One fanout's life."""

    def __init__(self, world: World, life: Life) -> None:
        self._world, self._life = world, life
        self._link: Any = world.link(life, life.name)
        self.mirror = Mirror()
        self.requests = Requests(
            self._link, life.name, world.log(life), clock=ProcessClock(life),
            new_id=lambda: f"{world.dice.getrandbits(128):032x}",
        )  # fmt: skip

    async def run(self) -> None:
        """Broadcasts into the mirror, until the life ends: as fanout/loop.py."""
        position, queue = Position(0, 0), messages.broadcasts_of(self._life.name)
        asking = asyncio.create_task(self._ask_again_and_again())
        while not asking.done():
            try:
                batch = await self._link.read(queue, position, items_max=500)
                position = batch.position
                if batch.gap:
                    self.mirror.gap()
                    await self._ask_for_snapshot()
                    self.requests.again()
                for item in batch.items:
                    await self._take(item)
                self._link.epoch = self.mirror.epoch
                if batch.items or batch.gap:
                    await self._link.acknowledge(queue, position)
            except QueuesAway:
                await asyncio.sleep(0.2)

    async def _take(self, item: bytes) -> None:
        before = self.mirror.epoch, self.mirror.shown_epoch
        seen = self.mirror.take(messages.decode_broadcast(item), self._world.loop.now_s)
        self._world.witness.shown(self._life, before, (self.mirror.epoch, self.mirror.shown_epoch))
        if seen.new_hub:
            await self._ask_for_snapshot()
            self.requests.again()
        if seen.replied is not None:
            self.requests.replied(seen.replied)

    async def _ask_again_and_again(self) -> None:
        while True:
            await self._ask_for_snapshot()
            await asyncio.sleep(ASK_S)

    async def _ask_for_snapshot(self) -> None:
        if self.mirror.wants(self._world.loop.now_s):
            name = f"snapshot-{next(self._world.numbers)}"
            self.mirror.ask(name, self._world.loop.now_s)
            try:
                await self._link.append(messages.EVENTS, [messages.encode(SnapshotWanted(self._life.name, name))])
            except QueuesAway:
                return


async def main(world: World, life: Life) -> None:
    """A fanout's life."""
    await asyncio.sleep(world.dice.uniform(0.02, 0.2))
    fanout = Fanout(world, life)
    world.fanouts.append((life, fanout))
    await fanout.run()


class Operator:
    """Scripts against whichever fanout lives. They themselves never die."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.open = 0  # requests without an answer yet
        self._moving: dict[str, asyncio.Lock] = {}  # by host: nobody removes what another is enrolling

    async def ask(self, request: Request) -> Answer | None:
        """One try: the answer; None: silence, for the fanout is not there or died."""
        fanouts = [(life, fanout) for life, fanout in self._world.fanouts if life.alive]
        if not fanouts:
            await asyncio.sleep(0.5)
            return None
        life, fanout = self._world.dice.choice(fanouts)
        asking = life.spawn(fanout.requests.ask("ann", request))
        await asyncio.wait({asking})
        return None if asking.cancelled() else asking.result()

    async def insist(self, request: Request) -> Answer:
        """Asked until the answer is known."""
        self.open += 1
        while True:
            answer = await self.ask(request)
            if answer is not None and answer.status not in (500, 503, 504):
                self.open -= 1
                return answer
            if answer is not None:
                self._world.count(f"request answered {answer.status}")
                if answer.status == 500:
                    self._world.witness.blame("I1", f"the hub could not do {request}: {answer.body!r}")
            await asyncio.sleep(
                self._world.dice.uniform(0.2, 3.0) + (0.0 if isinstance(request, KEYED) else DEADLINE_S)
            )

    async def enroll(self, machine: Any) -> None:
        """The host has a token, and its agent knows it."""
        async with self._moving.setdefault(machine.name, asyncio.Lock()):
            await self._enroll(machine)

    async def _enroll(self, machine: Any) -> None:
        token = f"token-{machine.name}-{next(self._world.numbers)}"
        answer = await self.insist(EnrollHost(machine.name, self._world.hash(token), again=True))
        self._world.witness.expect("I1", answer.status == 201, f"enrolling {machine.name}: {answer}")
        machine.token = token
        machine.start()

    async def give(
        self, op: str, hosts: list[str], ttl_s: float | None, *, insists: bool = True, keyed: bool = True
    ) -> list[str]:
        """Gives commands by one request; returns their ids. Who does not insist asks once, though the fanout may ask the
        hub again, and believes a refusal.
        """
        name = f"key-{next(self._world.numbers)}"
        request = GiveCommand(op, hosts, name if keyed else None, ttl_s)
        answer = await self.insist(request) if insists else await self.ask(request)
        if not insists and answer is not None and answer.status == 503:
            self._world.witness.refused(name)
        if answer is None or answer.status not in (200, 202):
            self._world.count(f"command refused {answer.status if answer else 'by silence'}")
            return []
        ids = [view["id"] for view in msgspec.json.decode(answer.body)["commands"]]
        self._world.witness.accepted(name, ids)
        return ids

    async def start(self, asked: StartRun) -> str:
        """A fleet run; its id, "" if it was refused."""
        answer = await self.insist(asked)
        if answer.status not in (200, 202):
            self._world.count(f"run refused {answer.status}")
            return ""
        run_id = str(msgspec.json.decode(answer.body)["id"])
        self._world.witness.runs.accepted(run_id)
        return run_id

    async def cancel(self, command_id: str) -> None:
        """The command is asked to end."""
        await self.insist(CancelCommand(command_id))

    async def move(self, machine: Any) -> None:
        """The host is removed and enrolled anew under its name."""
        async with self._moving.setdefault(machine.name, asyncio.Lock()):
            await self.insist(RemoveHost(machine.name))
            await asyncio.sleep(self._world.dice.uniform(0.0, 2.0))
            await self._enroll(machine)
