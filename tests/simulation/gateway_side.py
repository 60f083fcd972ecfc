"""The gateway: the real Gate and Loop on virtual time; only its `__main__` is copied, and its sockets are wires."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulation import hub_side
from simulation.timeline import Life

from processes.core.travels.messages import Delivery
from processes.gateway.gate import Gate
from processes.gateway.loop import Loop
from processes.gateway.tokens import Tokens

if TYPE_CHECKING:
    from simulation.world import World


class NoCanary(Tokens):
    """Tokens without the canary's file: there is no watchdog in this house."""

    def look_for_canary(self) -> bool:
        """Part of Tokens."""
        return False


class WatchedGate(Gate):
    """The gate; the witness hears for which hub it acts."""

    def __init__(self, world: World, life: Life, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._world, self._own_life = world, life

    def deliver(self, message: Delivery) -> None:
        """Part of Gate."""
        self._world.witness.speaks(self._own_life, message.epoch)
        super().deliver(message)


async def main(world: World, life: Life) -> None:
    """A gateway's life."""
    await asyncio.sleep(world.dice.uniform(0.02, 0.2))
    life.spend("open")
    opened = hub_side.process(world, life, f"{world.dice.getrandbits(32):08x}")
    life.machine = opened
    gate = WatchedGate(
        world,
        life,
        life.name,
        opened.boot,
        NoCanary(Path("/nonexistent")),
        opened.log,
        clock=hub_side.ProcessClock(life),
    )
    link: Any = world.link(life, life.name)
    loop = Loop(gate, link, opened.pulse, opened.stop, clock=hub_side.ProcessClock(life), turn_s_max=4.0)
    world.gateways.append((life, gate))
    await loop.run()
    await loop.drain()
