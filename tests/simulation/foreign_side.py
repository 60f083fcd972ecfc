"""A foreign agent, as NixFleet's 3.1.5 behaves: no ids, no journal, one command at a time, nothing replayed after a
disconnect.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from simulation.agent_side import Execution
from simulation.timeline import Clock, Life
from simulation.wire import Refusal, Wire

from processes.core.agent import reconnect

if TYPE_CHECKING:
    from simulation.world import World

FOREIGN_OPS = {"pull": 1.0, "switch": 10.0, "test": 5.0, "restart": 0.1}


class ForeignMachine:
    """One host with such an agent. Its truth is told by the ids that it itself ignores."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.token = ""
        self.clock = Clock(world.loop, name)
        self.life: Life | None = None
        self.off = False
        self.executions: list[Execution] = []
        self.replaced_s: list[float] = []
        self.rebooted_s: list[float] = []
        self._wire: Wire | None = None
        self._registered = False
        self._running: Execution | None = None
        self.down_until_s = 0.0

    def start(self) -> None:
        """The agent runs."""
        if self.off or (self.life is not None and self.life.alive) or self.world.loop.now_s < self.down_until_s:
            return
        self.life = life = Life(self.world.loop, f"foreign:{self.name}", self.clock, self.world.ended)
        life.machine = self
        self._wire, self._running, self._registered = None, None, False
        life.begin(self._main(life))

    def reboot(self, down_s: float) -> None:
        """Agent and command are gone."""
        if self.off:
            return
        self.rebooted_s.append(self.world.loop.now_s)
        if self.life is not None:
            self.life.end("power loss")
        self.down_until_s = self.world.loop.now_s + down_s
        self.world.after(down_s + 0.001, self.start)

    def kill_shim(self) -> bool:
        """It has none."""
        return False

    async def _main(self, life: Life) -> None:
        failures = 0
        await asyncio.sleep(self.world.dice.uniform(0.01, 0.3))
        while True:
            heard: asyncio.Queue[bytes | int] = asyncio.Queue()
            await asyncio.sleep(self.world.net_s())
            dialled = Wire.dial(self.world, life, self.token, self.name, hear=heard.put_nowait, lost=heard.put_nowait)
            if isinstance(dialled, Wire):
                failures = 0
                self._wire, self._registered = dialled, False
                self._say("register", {"hostname": self.name, "heartbeat_interval": self.world.heartbeat_s})
                await self._serve(heard)
                self._wire = None
            elif isinstance(dialled, Refusal) and dialled.status == reconnect.HTTP_UNAUTHORIZED:
                failures = max(failures, 3)
            await asyncio.sleep(min(30.0, 2.0**failures))
            failures += 1

    async def _serve(self, heard: asyncio.Queue[bytes | int]) -> None:
        while not isinstance(text := await heard.get(), int):
            frame = msgspec.json.decode(text)
            if frame["type"] == "registered" and not self._registered:
                self._registered = True
                self._beat(self._wire)
            elif frame["type"] == "command":
                self._command(frame["payload"])
            elif frame["type"] == "kill_command" and self._running is not None:
                self._finish(self._running, -1)

    def _say(self, kind: str, payload: dict[str, Any]) -> None:
        if self._wire is not None:
            self._wire.up(msgspec.json.encode({"type": kind, "payload": payload}))

    def _beat(self, wire: Wire | None) -> None:
        if wire is not None and wire is self._wire and self._registered:
            self._pending(self._running)
            assert self.life is not None
            self.life.later(self.world.heartbeat_s, self._beat, wire)

    def _pending(self, execution: Execution | None) -> None:
        self._say(
            "heartbeat", {"pending_command": execution.op if execution else None, "command_pid": None, "metrics": None}
        )

    def _command(self, payload: dict[str, Any]) -> None:
        op = payload["command"]
        if self._running is not None:
            self._say(
                "command_rejected",
                {"reason": "command already running", "current_command": self._running.op, "current_pid": 7},
            )
            return
        if op not in FOREIGN_OPS:
            self.executions.append(Execution(payload["command_id"], op, self.world.loop.now_s, 1))
            self.world.witness.executed(self, self.executions[-1])
            self._say("status", {"status": "error", "command": op, "exit_code": 1, "message": "unknown command"})
            return
        execution = self._running = Execution(payload["command_id"], op, self.world.loop.now_s)
        self.executions.append(execution)
        self.world.witness.executed(self, execution)
        assert self.life is not None
        if op == "restart":
            self.life.end("restart")
            return
        self._say("operation_progress", {"progress": {op: {"current": 0, "total": 4, "status": "in_progress"}}})
        lasts_s = self.world.dice.uniform(0.02, FOREIGN_OPS[op])
        self.life.later(lasts_s / 2, self._print, execution)
        self.life.later(lasts_s, self._finish, execution, self.world.dice.choice((0, 0, 0, 1)))

    def _print(self, execution: Execution) -> None:
        if execution.exit_code is None:
            self._say("output", {"line": f"{execution.command_id} 0", "stream": "stdout", "command": ""})

    def _finish(self, execution: Execution, code: int) -> None:
        if execution.exit_code is not None:
            return
        execution.exit_code = code
        status = "ok" if code == 0 else "error"
        self._say("status", {"status": status, "command": execution.op, "exit_code": code, "generation": "917d168"})
        if self._registered:
            self._pending(execution)  # one more that still names it
        self._running = None
        if execution.op == "switch" and code == 0:
            assert self.life is not None
            life = self.life
            if self._wire is not None:
                self._wire.close(life, 1000)
            life.end("exit 101")
