"""Faults: what they are, how often, and how all of them are healed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from simulation.agent_side import Machine
from simulation.schedule import Draws
from simulation.timeline import Clock, Life
from simulation.wire import Wire

if TYPE_CHECKING:
    from simulation.world import World

FUSE_MAX = 12  # I/O operations


class Faults:
    """One fault at a time, by name."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kinds: dict[str, tuple[int, Callable[[Draws], bool]]] = {
            "hub killed": (5, lambda _: self._kill(self._hub())),
            "hub dies at an effect": (10, lambda draws: self._light(draws, self._hub())),
            "gateway killed": (3, lambda draws: self._kill(self._gateway(draws))),
            "gateway dies at an effect": (5, lambda draws: self._light(draws, self._gateway(draws))),
            "fanout killed": (4, lambda draws: self._kill(self._fanout(draws))),
            "fanout dies at an effect": (2, lambda draws: self._light(draws, self._fanout(draws))),
            "queues killed": (5, self._kill_queues),
            "queues stopped": (3, self._stop_queues),
            "answers of queues lost": (3, self._lose_answers),
            "agent killed": (4, lambda draws: self._kill(self._agent(draws))),
            "agent dies at an effect": (10, lambda draws: self._light(draws, self._agent(draws))),
            "machine loses power": (3, self._reboot),
            "shim killed": (2, lambda draws: bool(self._machine(draws).kill_shim())),
            "agent's journal replaced": (1, self._replace_journal),
            "agent's journal removed": (1, lambda draws: self._befall(draws, Machine.remove_journal)),
            "run folders removed": (3, lambda draws: self._befall(draws, Machine.empty_folders)),
            "spools emptied": (2, lambda draws: self._befall(draws, Machine.cut_spools)),
            "agent's disk full": (3, self._fill_disk),
            "machine off for ever": (1, self._switch_off),
            "wire cut": (7, self._cut),
            "wire half open": (3, self._darken),
            "second hub": (3, self._second_hub),
            "hub stalled": (2, self._stall_hub),
            "database locked": (3, self._lock_disk),
            "database slow": (2, self._slow_disk),
            "house loses power": (1, self._house_reboot),
            "hub restarted": (2, lambda _: self._stop(self._hub())),
            "gateway restarted": (1, lambda draws: self._stop(self._gateway(draws))),
            "report for another host": (2, self._lie),
            "report said again": (1, self._repeat),
            "hub's clock set": (3, lambda draws: self._set_clock(draws, self._world.house_clock)),
            "agent's clock set": (3, lambda draws: self._set_clock(draws, self._machine(draws).clock)),
        }
        self._weights = [weight for weight, _ in self._kinds.values()]

    def strike(self, draws: Draws) -> None:
        """Does one of them, if it finds its victim."""
        name = draws.choice("kind", list(self._kinds), self._weights)
        if self._kinds[name][1](draws):
            self._world.count(name)
            self._world.trace("fault", name)

    # victims

    def _hub(self) -> Life | None:
        return next((life for life, _, _ in reversed(self._world.hubs) if life.alive), None)

    def _gateway(self, draws: Draws) -> Life | None:
        return self._one(draws, [life for life, _ in self._world.gateways if life.alive])

    def _fanout(self, draws: Draws) -> Life | None:
        return self._one(draws, [life for life, _ in self._world.fanouts if life.alive])

    def _agent(self, draws: Draws) -> Life | None:
        return self._one(draws, [m.life for m in self._world.machines if m.life is not None and m.life.alive])

    def _one(self, draws: Draws, lives: list[Life]) -> Life | None:
        name = draws.victim("whom", [life.name for life in lives])
        return next((life for life in lives if life.name == name), None)

    def _machine(self, draws: Draws) -> Any:
        name = draws.choice("host", [machine.name for machine in self._world.machines])
        return self._world.machine(name)

    # deaths

    def _kill(self, life: Life | None) -> bool:
        if life is not None:
            life.end("killed")
        return life is not None

    def _light(self, draws: Draws, life: Life | None) -> bool:
        if life is not None:
            life.fuse = draws.number("after_effects", 1, FUSE_MAX)
        return life is not None

    def _stop(self, life: Life | None) -> bool:
        if life is not None and life.machine is not None:
            life.machine.stop.set()
            return True
        return False

    def _kill_queues(self, draws: Draws) -> bool:
        self._world.queues.crash()
        self._world.after(draws.uniform("down_s", 0.1, 2.0), self._world.queues.start)
        return True

    def _stop_queues(self, draws: Draws) -> bool:
        self._world.queues.stop_for(draws.uniform("stopped_s", 0.5, 6.0))
        return True

    def _lose_answers(self, draws: Draws) -> bool:
        queues = self._world.queues
        queues.losing = draws.choice("lost_part", (0.05, 0.3))
        self._world.after(draws.uniform("lasts_s", 1.0, 10.0), lambda: setattr(queues, "losing", 0.0))
        return True

    def _reboot(self, draws: Draws) -> bool:
        self._machine(draws).reboot(draws.uniform("down_s", 0.5, 20.0))
        return True

    def _replace_journal(self, draws: Draws) -> bool:
        machine = self._machine(draws)
        if isinstance(machine, Machine) and not machine.off:
            machine.lose_journal()
            return True
        return False

    def _befall(self, draws: Draws, call: Callable[[Machine], object]) -> bool:
        """Something befalls the disk of a machine of ours, whether or not its agent runs."""
        machine = self._machine(draws)
        if isinstance(machine, Machine) and not machine.off:
            return call(machine) is not False
        return False

    def _fill_disk(self, draws: Draws) -> bool:
        lasts_s = draws.uniform("lasts_s", 0.5, 20.0)
        return self._befall(draws, lambda machine: machine.fill_disk(lasts_s))

    def _switch_off(self, draws: Draws) -> bool:
        machine = self._machine(draws)
        if draws.happens("spared", 0.5) or machine.off:
            return False
        machine.reboot(1.0)
        machine.off = True
        return True

    def _house_reboot(self, _: Draws) -> bool:
        world = self._world
        for life in (*(h[0] for h in world.hubs), *(g[0] for g in world.gateways), *(f[0] for f in world.fanouts)):
            life.end("house lost power")
        world.queues.crash()
        world.after(0.1, world.queues.start)
        world.hub_pulse = None
        world.house_clock.reboot()
        return True

    def _set_clock(self, draws: Draws, clock: Clock) -> bool:
        clock.set(draws.choice("by_s", (-86400.0, -3600.0, 3600.0, 86400.0)))
        return True

    # hubs

    def _second_hub(self, _: Draws) -> bool:
        self._world.start_hub()
        return True

    def _stall_hub(self, draws: Draws) -> bool:
        life = self._hub()
        if life is None:
            return False
        life.stalled_until_s = self._world.loop.now_s + draws.uniform("stalled_s", 0.5, 8.0)
        if draws.happens("replaced", 0.6):
            self._world.start_hub()  # somebody took it for dead; it will go on all the same
        return True

    def _lock_disk(self, draws: Draws) -> bool:
        self._world.disk.locked_until_s = self._world.loop.now_s + draws.uniform("locked_s", 0.2, 6.0)
        return True

    def _slow_disk(self, draws: Draws) -> bool:
        disk = self._world.disk
        disk.slow_s = draws.choice("commit_s", (0.1, 1.0, 2.5))
        self._world.after(draws.uniform("lasts_s", 1.0, 15.0), lambda: setattr(disk, "slow_s", 0.0))
        return True

    # wires

    def _wire(self, draws: Draws) -> Wire | None:
        wires = list(self._world.wires)
        name = draws.victim("wire", [wire.name for wire in wires])
        return next((wire for wire in wires if wire.name == name), None)

    def _cut(self, draws: Draws) -> bool:
        wire = self._wire(draws)
        if wire is not None:
            wire.cut()
        return wire is not None

    def _darken(self, draws: Draws) -> bool:
        if not self._world.wires:
            return False
        direction = draws.choice("direction", ("both", "up", "down"))
        wire = self._wire(draws)
        if wire is not None:
            wire.go_dark(direction != "down", direction != "up")
        return wire is not None

    # lies

    def _lie(self, draws: Draws) -> bool:
        """An agent reports a success for a command that belongs to another host."""
        liar = self._machine(draws)
        others = [c for c in self._world.witness.disk.values() if c.host != liar.name]
        wires = [wire for wire in self._world.wires if liar.life is not None and wire.belongs(liar.life)]
        if not others or not wires or not isinstance(liar, Machine):
            return False
        return self._say(wires[0], others[draws.number("command", 0, len(others) - 1) % len(others)].id, 0)

    def _repeat(self, draws: Draws) -> bool:
        """An agent says once more what it reported long ago."""
        machine = self._machine(draws)
        wires = [wire for wire in self._world.wires if machine.life is not None and wire.belongs(machine.life)]
        ended = [
            e for e in machine.executions if e.ended is not None and e.exit_code is not None and e.exit_code != 143
            # an agent that has not booted anew has not said of its reboot that it ended well
            and (e.op != "reboot" or e.exit_code != 0)
        ]  # fmt: skip
        if not ended or not wires or not isinstance(machine, Machine):
            return False
        execution = ended[draws.number("execution", 0, len(ended) - 1) % len(ended)]
        assert execution.exit_code is not None
        return self._say(wires[0], execution.command_id, execution.exit_code)

    def _say(self, wire: Wire, command_id: str, code: int) -> bool:
        status = {"status": "ok" if code == 0 else "error", "command_id": command_id, "exit_code": code}
        wire.up(msgspec.json.encode({"type": "status", "payload": status}))
        return True

    # the end of all faults

    def heal(self) -> None:
        """Ends every fault; only what is off for ever stays so."""
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
            if isinstance(machine, Machine):
                machine.full_until_s = 0.0
            machine.start()
