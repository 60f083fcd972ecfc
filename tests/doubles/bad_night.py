"""The story of alarms about hosts on a real installation: a rack of scripted hosts vanishes, one comes back sick, a
gateway is killed, the hub is frozen, a host reboots by command, maintenance is silenced. What is told is read where a
program gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

import websockets
from doubles.house import House, Operator
from websockets.asyncio.client import ClientConnection

RACK: Final = 40
OTHERS: Final = 30
BEAT_S: Final = 5.0
RULES: Final = """
[[rules]]
condition = "disk > 90 %"
for = "10s"
"""


class ScriptedHosts:
    """Hosts of one house, each a WebSocket that registers and beats; a host comes back by itself unless it vanished."""

    def __init__(self, house: House, operator: Operator, names: list[str]) -> None:
        self._house, self._operator, self.names = house, operator, names
        self._tokens: dict[str, str] = {}
        self._sockets: dict[str, ClientConnection] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.vanished: set[str] = set()
        self.online: set[str] = set()
        self.disk: dict[str, float] = {}
        self.boots: dict[str, int] = dict.fromkeys(names, 0)
        self.rebooting: set[str] = set()
        self._commands: dict[str, str] = {}  # of hosts that reboot, as their journals have them

    async def __aenter__(self) -> ScriptedHosts:
        for name in self.names:
            answer = await self._operator.http.post("/api/v1/hosts", json={"name": name})
            self._tokens[name] = str(answer.json()["token"])
        self._tasks = {name: asyncio.create_task(self._live(name)) for name in self.names}
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def vanish(self, *names: str) -> None:
        """Take these away, as a cut cable does."""
        self.vanished.update(names)
        for name in names:
            if (socket := self._sockets.get(name)) is not None:
                socket.transport.abort()

    def back(self, *names: str) -> None:
        """Bring these back."""
        self.vanished.difference_update(names)

    async def _live(self, name: str) -> None:
        while True:
            if name not in self.vanished:
                with contextlib.suppress(OSError, TimeoutError, websockets.WebSocketException):
                    await self._once(name)
                self.online.discard(name)
                self._sockets.pop(name, None)
            await asyncio.sleep(0.5)

    async def _once(self, name: str) -> None:
        socket = await websockets.connect(
            f"ws://{self._house.agents}/ws", additional_headers={"Authorization": f"Bearer {self._tokens[name]}"},
            compression=None, proxy=None, open_timeout=60, close_timeout=1, ping_interval=None,
        )  # fmt: skip
        self._sockets[name] = socket
        told: dict[str, Any] = {
            "hostname": name,
            "protocol": 1,
            "journal_id": name,
            "boot_id": f"{name}-{self.boots[name]}",
        }
        known = [{"command_id": id, "state": "started"} for id in [self._commands.get(name)] if id]
        told["known"] = known
        told |= {"commands": ["reboot"], "command_options": {"reboot": {"back_s": 300.0}}, "agent_version": "0.1.0"}
        await self._say(socket, "register", {**told, "heartbeat_interval": BEAT_S})
        beats = asyncio.create_task(self._beat(name, socket))
        try:
            async for text in socket:
                frame = json.loads(text)
                if frame["type"] == "registered":
                    self.online.add(name)
                    if name in self._commands:  # its journal says that the machine has booted since
                        await self._say(socket, "status", {"status": "ok", "command_id": self._commands[name]})
                elif frame["type"] == "command":
                    accepted = {"command_id": frame["payload"]["command_id"], "state": "accepted"}
                    await self._say(socket, "command_ack", accepted)
                    self.rebooting.add(name)
                    self._commands[name] = accepted["command_id"]
                elif frame["type"] == "ack":
                    self._commands.pop(name, None)
        finally:
            beats.cancel()

    async def _beat(self, name: str, socket: ClientConnection) -> None:
        with contextlib.suppress(websockets.WebSocketException):
            while True:
                metrics = {"cpu": 3.0, "ram": 40.0, "disk": self.disk.get(name, 40.0), "clock_s": time.time()}
                await self._say(socket, "heartbeat", {"metrics": metrics, "pending_command": None, "command_pid": None})
                await asyncio.sleep(BEAT_S)

    async def _say(self, socket: ClientConnection, kind: str, payload: dict[str, object]) -> None:
        await socket.send(json.dumps({"type": kind, "payload": payload}))


class BadNight:
    """One installation and the rounds of the story on it. `say` is told of each step."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.house = House(FLEETHUB_ALARMS_SEVERITY="info")
        self.told_file = self.house.state / "told.jsonl"
        script = f"cat >> {self.told_file}; echo >> {self.told_file}"
        self.house.environment["FLEETHUB_ALARMS_EXEC"] = f"/bin/sh -c '{script}'"
        (self.house.state / "rules.toml").write_text(RULES)
        self.rack = [f"b4-{number:02}" for number in range(RACK)]
        self.others = [f"web{number:02}" for number in range(OTHERS)]
        self.wrong: list[str] = []
        self.latencies_s: list[float] = []

    def told(self) -> list[dict[str, Any]]:
        """Return the alarms about hosts that begun, in order."""
        if not self.told_file.exists():
            return []
        messages = [json.loads(line) for line in self.told_file.read_text().splitlines() if line.strip()]
        found = [event for each in messages for event in each["events"] if event["subject"]]
        return [event for event in found if event["phase"] == "begun"]

    async def rounds(self, count: int) -> None:
        """Play so many rounds."""
        with self.house:
            async with (
                Operator(self.house) as operator,
                ScriptedHosts(self.house, operator, [*self.rack, *self.others]) as hosts,
            ):
                await operator.until(lambda: len(hosts.online) == RACK + OTHERS, 120)
                for names, rack in ((self.rack, "b4"), (self.others, "a1")):
                    body = {"hosts": names, "set": {"rack": rack}}
                    answer = await operator.http.post("/api/v1/hosts/labels", json=body)
                    assert answer.status_code == 200, answer.text
                await asyncio.sleep(70)  # the house is fresh for a minute
                for number in range(1, count + 1):
                    before = len(self.wrong)
                    await self._round(operator, hosts)
                    bad = "; ".join(self.wrong[before:]) or "as told in the story"
                    self._say(f"round {number}: {bad}")

    async def _round(self, operator: Operator, hosts: ScriptedHosts) -> None:
        seen = len(self.told())

        async def expect(what: str, *titles: str, within_s: float, quiet_s: float = 20.0) -> None:
            """Note it if what is told is not exactly this."""
            nonlocal seen
            began_s = time.monotonic()
            while len(self.told()) - seen < len(titles) and time.monotonic() - began_s < within_s:
                await asyncio.sleep(0.5)
            if titles and len(self.told()) - seen >= len(titles):
                self.latencies_s.append(time.monotonic() - began_s)
            await asyncio.sleep(quiet_s)
            found = [event["title"] for event in self.told()[seen:]]
            seen += len(found)
            if found != list(titles):
                self.wrong.append(f"{what}: told {found} instead of {list(titles)}")
            self._say(f"{what}: {found}")

        hosts.vanish(*self.rack)
        await expect("a rack vanishes", "40 hosts of rack=b4 went offline at once", within_s=90)
        status = (await operator.http.get("/api/v1/status")).json()
        if not any("rack=b4" in reason for reason in status["reasons"]):
            self.wrong.append(f"status does not tell of the loss: {status['verdict']} {status['reasons']}")
        sick = self.rack[7]
        hosts.disk[sick] = 97.0
        hosts.back(sick)
        await expect("one comes back sick", f"{sick} has a disk that is almost full", within_s=60)
        del hosts.disk[sick]
        hosts.back(*self.rack)
        await operator.until(lambda: len(hosts.online) == RACK + OTHERS, 60)
        await expect("they come back", within_s=0, quiet_s=30)
        self._kill("gateway", signal.SIGKILL)
        await expect("a gateway is killed", within_s=0, quiet_s=100)
        self._kill("hub", signal.SIGSTOP)
        await expect("the hub is frozen", within_s=0, quiet_s=100)
        await self._reboot(operator, hosts)
        await expect("a host rebooted by command", within_s=0, quiet_s=30)
        await self._maintenance(operator, hosts)
        await expect("maintenance", within_s=0, quiet_s=30)

    async def _reboot(self, operator: Operator, hosts: ScriptedHosts) -> None:
        name = self.others[3]
        (command_id,) = await operator.give("reboot", name)
        await operator.until(lambda: name in hosts.rebooting, 30)
        hosts.rebooting.discard(name)
        hosts.vanish(name)
        await asyncio.sleep(80)
        hosts.boots[name] += 1
        hosts.back(name)
        ended = await operator.ended(command_id, 60)
        if ended["state"] != "succeeded":
            self.wrong.append(f"the reboot ended as {ended['state']} {ended['reason']}")

    async def _maintenance(self, operator: Operator, hosts: ScriptedHosts) -> None:
        body = {"query": "rack=a1", "why": "maintenance", "for_s": 3600}
        silence = (await operator.http.post("/api/v1/silences", json=body)).json()
        hosts.vanish(*self.others)
        await asyncio.sleep(100)
        page = (await operator.http.get("/api/v1/conditions", params={"query": "rack=a1"})).json()
        states = [each["state"] for each in page["conditions"]]
        if states != ["silenced"] * OTHERS:
            self.wrong.append(f"the silenced hosts are listed as {states}")
        hosts.back(*self.others)
        await operator.until(lambda: len(hosts.online) == RACK + OTHERS, 60)
        await asyncio.sleep(30)
        await operator.http.delete(f"/api/v1/silences/{silence['id']}")

    def _kill(self, name: str, number: signal.Signals) -> None:
        pid = self.house.pulse(name).pid
        assert pid not in (0, os.getpid())
        assert self.house.signal(pid, number)
