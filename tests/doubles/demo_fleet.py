"""A fleet to look at: scripted agents on a whole installation, with metrics that wander, commands in every state, and
an incident.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from functools import partial
from typing import Any

import httpx
from doubles.agent_wire import AgentWire
from doubles.deadline import WAIT_S
from doubles.house import House, Operator

BEAT_S = 1.0
OPS = ["pull", "switch", "test", "reboot"]
PLACES = ["fra", "ams", "waw"]
DEBIAN, OLDER, NIXOS = "Debian GNU/Linux 13 (trixie)", "Debian GNU/Linux 12 (bookworm)", "NixOS 26.05 (Yarara)"
KINDS = [("web", 9, DEBIAN), ("db", 4, OLDER), ("build", 5, NIXOS), ("edge", 8, NIXOS)]
PULL = [
    "\x1b[1mremote:\x1b[0m Enumerating objects: 212, done.",
    "remote: Compressing objects:  14% (9/64)\rremote: Compressing objects: 100% (64/64), done.",
    "From git.example.org:infra/hosts",
    "   \x1b[33m2c4ef43..917d168\x1b[0m  main       -> origin/main",
    "Updating 2c4ef43..917d168",
    " flake.lock            | 18 \x1b[32m+++++++++\x1b[31m---------\x1b[0m",
    " modules/nginx.nix     | 12 \x1b[32m++++++++\x1b[31m----\x1b[0m",
    " 2 files changed, 17 insertions(+), 13 deletions(-)",
]
SWITCH = [
    "\x1b[36mbuilding the system configuration...\x1b[0m",
    "these 3 derivations will be built:",
    "  /nix/store/8xk1-nginx.conf.drv",
    "  /nix/store/k02v-unit-nginx.service.drv",
    "  /nix/store/p9sd-nixos-system-26.05.drv",
    "\x1b[32m✔\x1b[0m nginx.conf",
    "\x1b[32m✔\x1b[0m unit-nginx.service",
    "\x1b[33mwarning:\x1b[0m Git tree '/etc/nixos' is dirty",
    "activating the configuration...",
    "reloading the following units: \x1b[1mnginx.service\x1b[0m",
]
FAIL = [
    "running 48 checks",
    "\x1b[32m47 passed\x1b[0m",
    "\x1b[41;97m FAIL \x1b[0m tls.expiry: certificate of db2 ends in \x1b[1;31m3 days\x1b[0m",
]


class DemoAgent:
    """One agent of protocol 1, or a foreign one that tells NixFleet's facts."""

    def __init__(self, name: str, system: str, seed: int) -> None:
        self.name, self.system, self.foreign = name, system, name.startswith("edge")
        self._random = random.Random(seed)
        self._phase = self._random.uniform(0, 6.3)
        self._base = {
            "cpu": self._random.uniform(5, 60),
            "ram": self._random.uniform(25, 88),
            "disk": self._random.uniform(20, 96),
        }
        self._beats, self._pending = 0, ""
        self._tasks: set[asyncio.Task[None]] = set()
        self.wire: AgentWire | None = None
        self.fails = name in ("db2", "web7")

    async def connect(self, port: int, token: str) -> None:
        """Online, and beating."""
        self.wire = await AgentWire.dial(port, token)
        more: dict[str, Any] = {"commands": OPS, "journal_id": f"journal-{self.name}", "known": []}
        if self.foreign:
            more = {
                "protocol": 0,
                "generation": "917d168",
                "location": PLACES[self._beats % 3],
                "device_type": "server",
                "repo_dir": "/etc/nixos",
            }
        else:
            more |= {
                "kernel": "6.12.57+deb13-amd64" if self.system == DEBIAN else "6.1.0-41-amd64",
                "machine": "x86_64",
            }
        self.wire.register(
            self.name, host_type="nixos" if "Nix" in self.system else "debian",
            agent_version="3.1.5" if self.foreign else "0.1.0",
            os_version=self.system, **{"heartbeat_interval": BEAT_S, **more},
        )  # fmt: skip
        for run in (self._beat(), self._obey()):
            task = asyncio.create_task(run)
            self._tasks.add(task)

    async def leave(self) -> None:
        """Offline, without a word."""
        for task in self._tasks:
            task.cancel()
        if self.wire is not None:
            await self.wire.hang_up()

    async def _beat(self) -> None:
        assert self.wire is not None
        while True:
            self._beats += 1
            wave = math.sin(self._beats / 9 + self._phase)
            cpu = min(100.0, max(0.5, self._base["cpu"] + 14 * wave + self._random.gauss(0, 4)))
            metrics: dict[str, Any] = {
                "cpu": round(cpu, 1),
                "ram": round(self._base["ram"] + 2 * wave, 1),
                "swap": 0,
                "load": round(cpu / 24, 2),
            }
            more: dict[str, Any] = {}
            if self.foreign:
                checked = "2026-11-23T16:27:14Z"
                parts = {
                    "git": ("ok", "Up to date"),
                    "lock": ("ok", "Updated today"),
                    "system": ("outdated", "2 generations behind"),
                }
                more["update_status"] = {
                    part: {"status": s, "message": m, "checked_at": checked} for part, (s, m) in parts.items()
                }
                more |= {"generation": "917d168", "pending_command": self._pending or None}
            else:
                metrics |= {
                    "disk": round(self._base["disk"], 1),
                    "uptime_s": 86400 * 41 + self._beats,
                    "temperatures": {"cpu": 51.0},
                }
            self.wire.say("heartbeat", metrics=metrics, **more)
            await asyncio.sleep(BEAT_S)

    async def _obey(self) -> None:
        assert self.wire is not None
        while True:
            for frame in self.wire.heard():
                if frame["type"] == "command":
                    task = asyncio.create_task(self._run(frame["payload"]))
                    self._tasks.add(task)
            await asyncio.sleep(0.05)

    async def _run(self, command: dict[str, Any]) -> None:
        assert self.wire is not None
        op = command["command"]
        ids = {} if self.foreign else {"command_id": command["command_id"]}
        if ids:
            self.wire.say("command_ack", state="accepted", **ids)
        lines = (
            FAIL
            if op == "test" and self.fails
            else SWITCH
            if op == "switch"
            else PULL
            if op == "pull"
            else ["all well"]
        )
        if self.foreign:
            self._pending = op
            self.wire.say("operation_progress", progress={op: {"current": 3, "total": 4, "status": "in_progress"}})
        for offset, line in enumerate(lines):
            self.wire.say(
                "output", command=op, line=line, stream="stdout", **({"offset": offset, **ids} if ids else {})
            )
            await asyncio.sleep(0.06)
        if op == "reboot" or (op == "switch" and self.foreign):
            return  # it goes on for ever
        failed, self._pending = op == "test" and self.fails, ""
        self.wire.say(
            "status",
            command=op,
            status="error" if failed else "ok",
            exit_code=1 if failed else 0,
            message="1 check failed" if failed else "",
            **ids,
        )


def running(operator: Operator, command_id: str) -> bool:
    """True once the operator has seen that the command runs."""
    return operator.commands.get(command_id, {}).get("state") == "running"


class DemoFleet:
    """The agents, and what happened to them."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.agents: dict[str, DemoAgent] = {}
        self._tokens: dict[str, str] = {}
        self._port = int(house.agents.rpartition(":")[2])
        token = house.settings.operator_token.read_text().strip()
        self.http = httpx.AsyncClient(
            base_url=f"http://{house.operators}", headers={"Authorization": f"Bearer {token}"}, timeout=WAIT_S
        )

    async def gather(self) -> None:
        """All are enrolled and online; two more were never seen."""
        names = [(f"{kind}{number}", system) for kind, count, system in KINDS for number in range(1, count + 1)]
        for seed, (name, system) in enumerate([*names, ("spare1", ""), ("spare2", "")]):
            answer = await self.http.post("/api/v1/hosts", json={"name": name})
            assert answer.status_code == 201, answer.text
            if system:
                agent = self.agents[name] = DemoAgent(name, system, seed)
                self._tokens[name] = answer.json()["token"]
                await agent.connect(self._port, self._tokens[name])

    async def live(self) -> dict[str, str]:
        """Commands in many states, a run, and a hub that was found in a deadlock. The ids: command, run, incident,
        lost, queued.
        """
        ids: dict[str, str] = {}
        async with Operator(self._house) as operator:
            (ids["command"],) = await operator.give("pull", "web1")
            await operator.give("pull", "web2", "web3", "db1", "db2")
            (failed,) = await operator.give("test", "db2")
            await operator.ended(failed)
            (ids["running"],) = await operator.give("switch", "build1")
            await operator.give("reboot", "build3")
            await operator.give("switch", "edge2")
            (ids["unheard"],) = await operator.give("reboot", "edge5")
            (ids["lost"],) = await operator.give("reboot", "build5")
            for given in ("unheard", "lost"):
                await operator.until(partial(running, operator, ids[given]))
            await self.agents["edge5"].leave()
            await self.agents["build5"].leave()
            await self.agents["build5"].connect(
                self._port, self._tokens["build5"]
            )  # with a journal that knows of nothing
            await self.agents["web9"].leave()
            (ids["queued"],) = await operator.give("pull", "web9")
            run = await self.http.post(
                "/api/v1/runs",
                json={
                    "steps": ["pull", "test"],
                    "hosts": [f"web{n}" for n in range(1, 9)],
                    "parallel": 3,
                    "max_failures": 2,
                },
            )
            ids["run"] = run.json()["id"]
            with contextlib.suppress(httpx.HTTPError):
                await self.http.post("/api/v1/drill", json={"fault": "deadlock"}, timeout=3)
            await operator.healthy(30)
            await operator.give("switch", "build1", "build2", "build4")
        found = (await self.http.get("/api/v1/incidents")).json()["incidents"]
        ids["incident"] = next(row["id"] for row in found if row["process"] == "hub")
        return ids

    async def close(self) -> None:
        """All agents are gone."""
        for agent in self.agents.values():
            await agent.leave()
        await self.http.aclose()
