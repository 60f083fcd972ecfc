"""Faults: what they are, how often, and how all of them are healed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from simulation.agent_side import Machine
from simulation.timeline import Clock, Life

if TYPE_CHECKING:
    from simulation.world import World

FUSE_MAX = 12  # I/O operations


class Faults:
    """One fault at a time, by name."""

    def __init__(self, world: World) -> None:
        self._world, self._dice = world, world.dice
        self._kinds: list[tuple[int, str, Callable[[], bool]]] = [
            (5, "hub killed", lambda: self._kill(self._hub())),
            (10, "hub dies at an effect", lambda: self._light(self._hub())),
            (3, "gateway killed", lambda: self._kill(self._gateway())),
            (5, "gateway dies at an effect", lambda: self._light(self._gateway())),
            (4, "fanout killed", lambda: self._kill(self._fanout())),
            (2, "fanout dies at an effect", lambda: self._light(self._fanout())),
            (5, "queues killed", self._kill_queues),
            (3, "queues stopped", self._stop_queues),
            (3, "answers of queues lost", self._lose_answers),
            (4, "agent killed", lambda: self._kill(self._agent())),
            (10, "agent dies at an effect", lambda: self._light(self._agent())),
            (3, "machine loses power", self._reboot),
            (2, "shim killed", lambda: self._machine().kill_shim()),
            (1, "agent's journal replaced", self._replace_journal),
            (1, "machine off for ever", self._switch_off),
            (7, "wire cut", self._cut),
            (3, "wire half open", self._darken),
            (3, "second hub", self._second_hub),
            (2, "hub stalled", self._stall_hub),
            (3, "database locked", self._lock_disk),
            (2, "database slow", self._slow_disk),
            (1, "house loses power", self._house_reboot),
            (2, "hub restarted", lambda: self._stop(self._hub())),
            (1, "gateway restarted", lambda: self._stop(self._gateway())),
            (2, "report for another host", self._lie),
            (1, "report said again", self._repeat),
            (3, "hub's clock set", lambda: self._set_clock(self._world.house_clock)),
            (3, "agent's clock set", lambda: self._set_clock(self._machine().clock)),
        ]
        self._weights = [weight for weight, _, _ in self._kinds]

    def strike(self) -> None:
        """One of them, if it finds its victim."""
        _, name, fault = self._dice.choices(self._kinds, self._weights)[0]
        if fault():
            self._world.count(name)
            self._world.trace("fault", name)

    # victims

    def _hub(self) -> Life | None:
        return next((life for life, _, _ in reversed(self._world.hubs) if life.alive), None)

    def _gateway(self) -> Life | None:
        return self._one([life for life, _ in self._world.gateways if life.alive])

    def _fanout(self) -> Life | None:
        return self._one([life for life, _ in self._world.fanouts if life.alive])

    def _agent(self) -> Life | None:
        return self._one([m.life for m in self._world.machines if m.life is not None and m.life.alive])

    def _machine(self) -> Any:
        return self._dice.choice(self._world.machines)

    def _one(self, lives: list[Life]) -> Life | None:
        return self._dice.choice(lives) if lives else None

    # deaths

    def _kill(self, life: Life | None) -> bool:
        if life is not None:
            life.end("killed")
        return life is not None

    def _light(self, life: Life | None) -> bool:
        if life is not None:
            life.fuse = self._dice.randint(1, FUSE_MAX)
        return life is not None

    def _stop(self, life: Life | None) -> bool:
        if life is not None and life.machine is not None:
            life.machine.stop.set()
            return True
        return False

    def _kill_queues(self) -> bool:
        self._world.queues.crash()
        self._world.after(self._dice.uniform(0.1, 2.0), self._world.queues.start)
        return True

    def _stop_queues(self) -> bool:
        self._world.queues.stop_for(self._dice.uniform(0.5, 6.0))
        return True

    def _lose_answers(self) -> bool:
        queues = self._world.queues
        queues.losing = self._dice.choice((0.05, 0.3))
        self._world.after(self._dice.uniform(1.0, 10.0), lambda: setattr(queues, "losing", 0.0))
        return True

    def _reboot(self) -> bool:
        self._machine().reboot(self._dice.uniform(0.5, 20.0))
        return True

    def _replace_journal(self) -> bool:
        machine = self._machine()
        if isinstance(machine, Machine) and not machine.off:
            machine.lose_journal()
            return True
        return False

    def _switch_off(self) -> bool:
        machine = self._machine()
        if self._dice.random() < 0.5 or machine.off:
            return False
        machine.reboot(1.0)
        machine.off = True
        return True

    def _house_reboot(self) -> bool:
        world = self._world
        for life in (*(h[0] for h in world.hubs), *(g[0] for g in world.gateways), *(f[0] for f in world.fanouts)):
            life.end("house lost power")
        world.queues.crash()
        world.after(0.1, world.queues.start)
        world.hub_pulse = None
        world.house_clock.reboot()
        return True

    def _set_clock(self, clock: Clock) -> bool:
        clock.set(self._dice.choice((-86400.0, -3600.0, 3600.0, 86400.0)))
        return True

    # hubs

    def _second_hub(self) -> bool:
        self._world.start_hub()
        return True

    def _stall_hub(self) -> bool:
        life = self._hub()
        if life is None:
            return False
        life.stalled_until_s = self._world.loop.now_s + self._dice.uniform(0.5, 8.0)
        if self._dice.random() < 0.6:
            self._world.start_hub()  # somebody took it for dead; it will go on all the same
        return True

    def _lock_disk(self) -> bool:
        self._world.disk.locked_until_s = self._world.loop.now_s + self._dice.uniform(0.2, 6.0)
        return True

    def _slow_disk(self) -> bool:
        disk = self._world.disk
        disk.slow_s = self._dice.choice((0.1, 1.0, 2.5))
        self._world.after(self._dice.uniform(1.0, 15.0), lambda: setattr(disk, "slow_s", 0.0))
        return True

    # wires

    def _cut(self) -> bool:
        wires = list(self._world.wires)
        if wires:
            self._dice.choice(wires).cut()
        return bool(wires)

    def _darken(self) -> bool:
        wires = list(self._world.wires)
        if wires:
            up, down = self._dice.choice(((True, True), (True, False), (False, True)))
            self._dice.choice(wires).go_dark(up, down)
        return bool(wires)

    # lies

    def _lie(self) -> bool:
        """An agent reports a success for a command that belongs to another host."""
        liar = self._machine()
        others = [c for c in self._world.witness.disk.values() if c.host != liar.name]
        wires = [wire for wire in self._world.wires if liar.life is not None and wire.belongs(liar.life)]
        if not others or not wires or not isinstance(liar, Machine):
            return False
        return self._say(wires[0], self._dice.choice(others).id, 0)

    def _repeat(self) -> bool:
        """An agent says once more what it reported long ago."""
        machine = self._machine()
        wires = [wire for wire in self._world.wires if machine.life is not None and wire.belongs(machine.life)]
        ended = [
            e for e in machine.executions if e.ended is not None and e.exit_code is not None and e.exit_code != 143
        ]
        if not ended or not wires or not isinstance(machine, Machine):
            return False
        execution = self._dice.choice(ended)
        assert execution.exit_code is not None
        return self._say(wires[0], execution.command_id, execution.exit_code)

    def _say(self, wire: Any, command_id: str, code: int) -> bool:
        status = {"status": "ok" if code == 0 else "error", "command_id": command_id, "exit_code": code}
        wire.up(msgspec.json.encode({"type": "status", "payload": status}))
        return True

    # the end of all faults

    def heal(self) -> None:
        """Nothing is broken any more, but what is off for ever."""
        world = self._world
        world.queues.losing = 0.0
        if world.queues.core is None:
            world.queues.start()
        world.disk.slow_s = 0.0
        world.disk.locked_until_s = 0.0
        for life in world.lives():
            life.fuse = 0
        for wire in list(world.wires):
            wire.cut() if wire._dark_up or wire._dark_down else None
        for machine in world.machines:
            machine.start()
