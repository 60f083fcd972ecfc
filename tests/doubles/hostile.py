"""A campaign of faults of all kinds, two or three at a time, over a whole installation under load.

Real agents, a foreign one and operators reach it through bad networks. After each round all faults end, and the house
must be well again; after the last, every command that was ever accepted is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import resource
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import httpx
import psutil
import websockets
from doubles.agent_keeper import Keeper
from doubles.bad_network import BadNetwork, Side, Way
from doubles.house import CHECKOUT, House, Operator
from doubles.nixfleet import NixFleet
from websockets.frames import Frame, Opcode

from processes.core.travels.pulse import Unreadable

HOSTS: Final = ("h1", "h2", "h3")
FOREIGN: Final = "nix1"
STRANGER: Final = "bad1"  # enrolled, and hostile
PROCESSES: Final = ("queues", "hub", "gateway", "fanout", "watchdog", "agent")
WELL_S_MAX: Final = 90.0  # after a round; a busy machine takes its time
QUIET_S_MAX: Final = 180.0  # after the last round, until every command is final
STOP_PAUSE_S: Final = 20.0  # of one process: the watchdog's budget is 5 kills in 60 s
CLI_WAIT_S: Final = 20
CLI_S_MAX: Final = CLI_WAIT_S + 15.0 + 14.0 + 30.0  # --wait, asking again, one request's deadline, a busy machine
ASK_S_MAX: Final = 60.0  # one request of an operator through the bad network, its own deadline being 20 s a step
FDS_MORE_MAX: Final = 40  # than before the campaign
RSS_MORE_BYTES_MAX: Final = 200 << 20
OUTPUTS_LOOKED_AT_MAX: Final = 200
SILENT: Final = 150  # connections that say nothing
EXCUSED_S: Final = 5.0  # after a disk has room again
CLI_EXITS: Final = (0, 1, 4, 5)

Fault = Callable[["Campaign"], AbstractAsyncContextManager[None]]
FAULTS: dict[str, Fault] = {}


def fault(name: str) -> Callable[[Callable[[Campaign], AsyncIterator[None]]], None]:
    """Adds a fault, which lasts as long as its context."""

    def add(work: Callable[[Campaign], AsyncIterator[None]]) -> None:
        FAULTS[name] = contextlib.asynccontextmanager(work)

    return add


@dataclass
class Summary:
    """What was done, and what is wrong afterwards."""

    seed: int
    rounds: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)  # of the command line
    well_s: list[float] = field(default_factory=list)  # after each round
    problems: list[str] = field(default_factory=list)

    def lines(self) -> str:
        """All of it for a person."""
        counted = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        states = ", ".join(f"{state} {count}" for state, count in sorted(self.states.items()))
        exits = ", ".join(f"{code}: {count}" for code, count in sorted(self.exits.items()))
        return "\n".join(
            [
                f"seed {self.seed}: {self.rounds} rounds; {counted}",
                f"well after at most {max(self.well_s, default=0.0):.1f} s; commands {states}; exit codes of run {exits}",
                *(f"PROBLEM {problem}" for problem in self.problems),
                "every invariant holds" if not self.problems else f"{len(self.problems)} invariants broken",
            ]
        )


class Campaign:
    """One campaign over a fresh house."""

    def __init__(self, house: House, seed: int, *, faults: Iterable[str], say: Callable[[str], None]) -> None:
        self.house, self._say = house, say
        self.chance = random.Random(seed)
        self.summary = Summary(seed)
        self.names = [name for name in FAULTS if name in set(faults)]
        self.agents_side: BadNetwork
        self.operators_side: BadNetwork
        self.keepers: dict[str, Keeper] = {}
        self.stranger_token = ""
        self._marks = house.state / "marks"
        self._ids: list[str] = []  # acknowledged
        self._disk_failures: list[tuple[str, float, float]] = []  # host, from and until by the wall clock
        self._stopped_s: dict[str, float] = {}
        self._stopping = asyncio.Event()
        self._operator: Operator
        self._foreign: NixFleet

    async def run(self, seconds: float, lasts_s: tuple[float, float] = (2.0, 8.0)) -> Summary:
        """Rounds for so long, then quiet, then a look at everything."""
        async with AsyncExitStack() as stack:
            await self._come(stack)
            usual = self._usage()
            load = [
                asyncio.create_task(work)
                for work in (*(self._give(host) for host in HOSTS), self._type(), self._look())
            ]
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s and not any(task.done() for task in load):
                await self._round(lasts_s)
            self._stopping.set()
            self._say("the faults are over: waiting for the commands and the operators")
            for task in load:
                await task
            await self._verify(usual)
        return self.summary

    async def _come(self, stack: AsyncExitStack) -> None:
        """Everybody is there and well."""
        house = self.house
        self._marks.touch()
        mark = f"echo begun $FLEETHUB_COMMAND_ID >> {self._marks}; echo begun; {{}}echo ended $FLEETHUB_COMMAND_ID >> {self._marks}; echo done"
        ops = {"mark": ["sh", "-c", mark.format("")], "slow": ["sh", "-c", mark.format("sleep 1.5; ")]}
        ports = [int(listen.rpartition(":")[2]) for listen in (house.agents, house.operators)]
        seed = self.summary.seed
        self.agents_side = await stack.enter_async_context(BadNetwork("127.0.0.1", ports[0], seed=seed))
        self.operators_side = await stack.enter_async_context(BadNetwork("127.0.0.1", ports[1], seed=seed + 1))
        folders = await asyncio.gather(*(asyncio.to_thread(house.host, name, ops) for name in HOSTS))
        tokens = await asyncio.gather(*(asyncio.to_thread(house.enroll, name) for name in (FOREIGN, STRANGER)))
        token, self.stranger_token = tokens
        for folder in folders:
            file = folder / "agent.toml"
            file.write_text(file.read_text().replace(house.agents, f"127.0.0.1:{self.agents_side.port}"))
            keeper = await stack.enter_async_context(Keeper(house, folder))
            self.keepers[keeper.name] = keeper
        url = f"ws://127.0.0.1:{self.agents_side.port}/ws"
        self._foreign = NixFleet(
            url, token, hostname=FOREIGN, interval_s=1.0, ping_s=2.0, mute_s=10.0, first_retry_s=0.5
        )
        await stack.enter_async_context(self._foreign)
        self._operator = await stack.enter_async_context(Operator(house))
        await self._operator.healthy(WELL_S_MAX)
        await self._operator.until(lambda: all(self._online(name) for name in (*HOSTS, FOREIGN)), WELL_S_MAX)

    def _online(self, name: str) -> bool:
        return bool(self._operator.hosts.get(name, {}).get("presence") == "online")

    # rounds

    async def _round(self, lasts_s: tuple[float, float]) -> None:
        """Two or three faults at once; afterwards the house is well, or that is a problem."""
        names = self.chance.sample(self.names, min(len(self.names), self.chance.choice((2, 2, 3))))
        spans = [(self.chance.uniform(0, lasts_s[0]), self.chance.uniform(*lasts_s)) for _ in names]
        self.summary.rounds += 1
        self.summary.faults.update(names)
        self._say(f"round {self.summary.rounds}: {' + '.join(names)}")
        results = await asyncio.gather(*map(self._suffer, names, spans), return_exceptions=True)
        for name, result in zip(names, results, strict=True):
            if isinstance(result, BaseException):
                self._problem(f"the fault {name} itself failed: {result!r}")
        await asyncio.gather(self.agents_side.heal(), self.operators_side.heal())
        begun_s = time.monotonic()
        with contextlib.suppress(AssertionError):
            await self._operator.healthy(WELL_S_MAX)
            await self._operator.until(lambda: all(self._online(name) for name in HOSTS), WELL_S_MAX)
            self.summary.well_s.append(time.monotonic() - begun_s)
            self._say(f"  well after {self.summary.well_s[-1]:.1f} s; {len(self._ids)} commands acknowledged")
            return
        self._problem(f"not well {WELL_S_MAX:.0f} s after {' + '.join(names)}: {self._told()}")

    async def _suffer(self, name: str, span: tuple[float, float]) -> None:
        await asyncio.sleep(span[0])
        async with FAULTS[name](self):
            await asyncio.sleep(span[1])

    def _problem(self, what: str) -> None:
        self.summary.problems.append(what)
        self._say(f"PROBLEM {what}")

    def _told(self) -> str:
        hosts = {name: self._operator.hosts.get(name, {}).get("presence") for name in HOSTS}
        report = self.house.json("status")
        unwell = [f"{each['name']} {each['state']} {each['verdict']}" for each in report["processes"]]
        return f"{report['verdict']} {report.get('reasons')} {unwell} {hosts}"

    # load

    async def _give(self, host: str) -> None:
        """Commands, each asked for with its key until it is acknowledged, through the bad network."""
        headers = {"Authorization": f"Bearer {(self.house.state / 'operator.token').read_text().strip()}"}
        url = f"http://127.0.0.1:{self.operators_side.port}"
        chance = random.Random(f"{self.summary.seed}{host}")
        number = 0
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=5) as http:
            while not self._stopping.is_set():
                number += 1
                hosts = [host, FOREIGN] if host == HOSTS[0] and number % 4 == 0 else [host]
                op = "pull" if FOREIGN in hosts else chance.choice(("mark", "mark", "slow"))
                hosts = [FOREIGN] if op == "pull" else hosts
                await self._accepted(http, {"op": op, "hosts": hosts, "key": f"{self.summary.seed}-{host}-{number}"})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), chance.uniform(0.3, 1.2))

    async def _accepted(self, http: httpx.AsyncClient, body: dict[str, Any]) -> None:
        """Asks again and again until it is acknowledged. An answer that never comes or says what it may not is told."""
        deadline_s = time.monotonic() + QUIET_S_MAX
        while time.monotonic() < deadline_s:
            asked_s = time.monotonic()
            try:
                async with asyncio.timeout(ASK_S_MAX):
                    answer = await http.post("/api/v1/commands", json=body)
            except httpx.HTTPError:
                pass
            except TimeoutError:
                self._problem(f"a request hung for {time.monotonic() - asked_s:.0f} s")
            else:
                if answer.status_code in (200, 202):
                    with contextlib.suppress(ValueError, KeyError):  # a stream that was corrupted
                        self._ids += [command["id"] for command in answer.json()["commands"]]
                        return
                elif answer.status_code >= 500 and answer.status_code not in (503, 504):
                    self._problem(f"answered {answer.status_code} {answer.text[:200]}")
            await asyncio.sleep(0.2)
        self._problem(f"not accepted within {QUIET_S_MAX:.0f} s: {body}")

    async def _type(self) -> None:
        """A person at the command line, through the bad network: it ends in time, with a code that it promises."""
        token_file = self.house.state / "operator.token"
        number = 0
        while not self._stopping.is_set():
            number += 1
            words = ["run", "mark", self.chance.choice(HOSTS), "--key", f"cli-{self.summary.seed}-{number}", "--wait"]
            there = ["--hub", f"http://127.0.0.1:{self.operators_side.port}", "--token-file", str(token_file)]
            process = await asyncio.create_subprocess_exec(
                str(CHECKOUT / "bin" / "fleethub"), *words, str(CLI_WAIT_S), *there,
                env=self.house.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                _, err = await asyncio.wait_for(process.communicate(), CLI_S_MAX)
            except TimeoutError:
                process.kill()
                await process.wait()
                self._problem(f"fleethub {' '.join(words)} hung for {CLI_S_MAX:.0f} s")
                continue
            self.summary.exits[process.returncode or 0] += 1
            said = err.decode(errors="replace")
            if process.returncode not in CLI_EXITS or "should not happen" in said or "Traceback" in said:
                self._problem(f"fleethub {' '.join(words)}: exit {process.returncode}, {said[-600:]}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 3.0)

    async def _look(self) -> None:
        """A page that looks on through the bad network and comes back; versions of one connection have no gap."""
        headers = {"Authorization": f"Bearer {(self.house.state / 'operator.token').read_text().strip()}"}
        while not self._stopping.is_set():
            corrupted = self.operators_side.corrupted
            with contextlib.suppress(OSError, TimeoutError, websockets.WebSocketException, ValueError, KeyError):
                async with websockets.connect(
                    f"ws://127.0.0.1:{self.operators_side.port}/ws", additional_headers=headers, max_size=None,
                    proxy=None, open_timeout=5, close_timeout=1, ping_interval=2, ping_timeout=4,
                ) as socket:  # fmt: skip
                    version = 0
                    while not self._stopping.is_set():
                        frame = json.loads(await asyncio.wait_for(socket.recv(), 15))
                        whole = corrupted == self.operators_side.corrupted
                        if frame["type"] == "delta" and frame["version"] != version + 1 and whole:
                            self._problem(f"an operator missed version {version + 1}: {frame['version']} came")
                        version = frame.get("version", version)
            await asyncio.sleep(0.2)

    # its victims

    def pid(self, name: str) -> int:
        """The process of that name, as its pulse tells; 0 if it is not there just now."""
        try:
            return self.house.pulse(name).pid
        except Unreadable:
            return 0

    def agent_pid(self) -> int:
        """One of the real agents."""
        return self.keepers[self.chance.choice(HOSTS)].agent.pid

    def may_stop(self, name: str) -> bool:
        """False when it was stopped a moment ago."""
        now_s = time.monotonic()
        if now_s - self._stopped_s.get(name, -STOP_PAUSE_S) < STOP_PAUSE_S:
            return False
        self._stopped_s[name] = now_s
        return True

    @contextlib.contextmanager
    def excused(self, host: str) -> Iterator[None]:
        """What is open on this host meanwhile may end otherwise than by success: its program could not write."""
        begun_wall_s = time.time()
        try:
            yield
        finally:
            self._disk_failures.append((host, begun_wall_s, time.time() + EXCUSED_S))

    def _is_excused(self, command: dict[str, Any]) -> bool:
        given, over = (_wall_s(command[name]) for name in ("created_at", "finished_at"))
        return any(
            host == command["host"] and given <= until and over >= since for host, since, until in self._disk_failures
        )

    # afterwards

    def _usage(self) -> dict[str, tuple[int, int]]:
        """Descriptors and memory in bytes, by process."""
        found = {}
        for name in PROCESSES:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(self.pid(name))
                found[name] = (process.num_fds(), process.memory_info().rss)
        return found

    async def _verify(self, usual: dict[str, tuple[int, int]]) -> None:
        """Every invariant, once all is quiet."""
        deadline_s = time.monotonic() + QUIET_S_MAX
        while True:
            report = (await self._operator.http.get("/api/v1/status")).json()
            ledger = report["commands"]
            open_now = sum(ledger.get(state, 0) for state in ("queued", "sent", "running"))
            over = self._over(usual)
            if (not open_now and report["verdict"] == "ok" and not over) or time.monotonic() > deadline_s:
                break
            self._say(f"waiting: {report['verdict']}, {open_now} commands open {over or ''}")
            await asyncio.sleep(1.0)
        for problem in over:
            self._problem(problem)
        # hosts that went all at once are told of until they have been back for a while
        if [each for each in report["reasons"] if not each.endswith("went offline at once")]:
            self._problem(f"not ok: {self._told()}")
        if open_now:
            self._problem(f"{open_now} commands are not final: {ledger}")
        if ledger["accepted"] != sum(count for state, count in ledger.items() if state != "accepted"):
            self._problem(f"the ledger does not add up: {ledger}")
        await self._verify_commands()

    def _over(self, usual: dict[str, tuple[int, int]]) -> list[str]:
        """Who has kept more than it had before."""
        now, found = self._usage(), []
        for name, (fds, rss) in usual.items():
            if name not in now:
                found.append(f"{name} is not there")
                continue
            if now[name][0] > fds + FDS_MORE_MAX:
                found.append(f"{name} holds {now[name][0]} descriptors, and held {fds}")
            if now[name][1] > rss + RSS_MORE_BYTES_MAX:
                found.append(f"{name} takes {now[name][1] >> 20} MiB, and took {rss >> 20}")
        return found

    async def _verify_commands(self) -> None:
        commands: dict[str, dict[str, Any]] = {}
        before = ""
        while True:
            answer = await self._operator.http.get(f"/api/v1/commands?limit=500{before}")
            page = answer.json()
            commands |= {command["id"]: command for command in page["commands"]}
            if page["next"] is None:
                break
            before = f"&before={page['next']}"
        for command_id in set(self._ids) - set(commands):
            self._problem(f"LOST {command_id}: it was acknowledged, and the hub does not know it")
        marks = Counter(self._marks.read_text().splitlines())
        foreign = 0
        for command_id, command in commands.items():
            self.summary.states[command["state"]] += 1
            begun, ended = marks[f"begun {command_id}"], marks[f"ended {command_id}"]
            if begun > 1 or ended > 1:
                self._problem(f"DOUBLED: {begun} times begun, {ended} times ended: {command}")
            if command["host"] == FOREIGN:
                foreign += 1
            elif command["state"] == "succeeded" and command["op"] in ("mark", "slow"):
                if (begun, ended) != (1, 1):
                    self._problem(f"GUESSED: {begun} times begun, {ended} times ended: {command}")
            elif command["state"] != "succeeded" and not self._is_excused(command):
                self._problem(f"ODD end: {begun} times begun, {ended} times ended: {command}")
        if len(self._foreign.executed) > foreign:
            self._problem(f"DOUBLED: the foreign agent ran {len(self._foreign.executed)} of {foreign} commands")
        if strays := {mark.split()[1] for mark in marks} - set(commands):
            self._problem(f"STRAY: {sorted(strays)} ran, and nobody gave them")
        await self._verify_output(
            [c for c in commands.values() if c["op"] in ("mark", "slow") and c["state"] == "succeeded"]
        )

    async def _verify_output(self, commands: list[dict[str, Any]]) -> None:
        for command in self.chance.sample(commands, min(OUTPUTS_LOOKED_AT_MAX, len(commands))):
            shown = (await self._operator.http.get(f"/api/v1/commands/{command['id']}/output")).json()
            if ([r["data"] for r in shown["records"]], shown["complete"]) != (["begun", "done"], True):
                self._problem(f"ODD output of {command['id']} on {command['host']}: {shown}")


def _wall_s(time_told: str | None) -> float:
    """Never is the end of time."""
    return math.inf if time_told is None else datetime.fromisoformat(time_told).timestamp()


# the network


def _network(name: str, act: Callable[[BadNetwork, random.Random], None]) -> None:
    """A fault of the agents' network and the same of the operators', until the round heals both."""

    def on(side: str) -> None:
        @fault(f"{side}-{name}")
        async def suffer(campaign: Campaign) -> AsyncIterator[None]:
            act(campaign.agents_side if side == "agents" else campaign.operators_side, campaign.chance)
            yield

    on("agents")
    on("operators")


_network("delay", lambda network, chance: network.delay(chance.uniform(0.05, 0.5), chance.uniform(0, 0.5)))
_network("slow", lambda network, chance: network.slow(chance.choice((20.0, 500.0, 5000.0)), chance.choice(list(Way))))
_network("stall", lambda network, _: network.stall())
_network("lose-up", lambda network, _: network.lose(Way.UP))
_network("lose-down", lambda network, _: network.lose(Way.DOWN))
_network("blackhole", lambda network, _: network.blackhole())
_network("cut", lambda network, _: network.cut())
_network("cut-mid", lambda network, chance: network.cut_after(chance.randrange(2000), chance.choice(list(Way))))
_network("half-open", lambda network, chance: network.half_open(chance.choice(list(Side))))
_network("duplicate", lambda network, chance: network.duplicate(0.1, chance.choice(list(Way))))
_network("reorder", lambda network, chance: network.reorder(0.1, chance.choice(list(Way))))
_network("refuse", lambda network, _: network.refuse())


# processes


def _processes() -> None:
    def killing(name: str) -> None:
        @fault(f"kill-{name}")
        async def suffer(campaign: Campaign) -> AsyncIterator[None]:
            campaign.house.signal(campaign.pid(name), signal.SIGKILL)
            yield

    def stopping(name: str) -> None:
        @fault(f"stop-{name}")
        async def suffer(campaign: Campaign) -> AsyncIterator[None]:
            pid = campaign.pid(name) if campaign.may_stop(name) else 0
            campaign.house.signal(pid, signal.SIGSTOP)
            try:
                yield
            finally:
                campaign.house.signal(pid, signal.SIGCONT)  # if the watchdog has not replaced it

    for name in PROCESSES:
        killing(name)
        stopping(name)


_processes()


@fault("kill-remote-agent")
async def _kill_remote_agent(campaign: Campaign) -> AsyncIterator[None]:
    os.kill(campaign.agent_pid(), signal.SIGKILL)
    yield


@fault("stop-remote-agent")
async def _stop_remote_agent(campaign: Campaign) -> AsyncIterator[None]:
    keeper = campaign.keepers[campaign.chance.choice(HOSTS)]
    agent = keeper.agent
    agent.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        agent.send_signal(signal.SIGCONT)


# storage


@fault("database-locked")
async def _database_locked(campaign: Campaign) -> AsyncIterator[None]:
    """Another program has begun a transaction: requests are refused, and the events' queue fills."""
    connection = sqlite3.connect(campaign.house.settings.database, timeout=5.0, isolation_level=None)
    try:
        with contextlib.suppress(sqlite3.OperationalError):  # the hub is in the middle of one
            connection.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        connection.close()


@fault("disk-hub")
async def _disk_hub(campaign: Campaign) -> AsyncIterator[None]:
    with _no_room(campaign.pid("hub")):
        yield


@fault("disk-remote-agent")
async def _disk_remote_agent(campaign: Campaign) -> AsyncIterator[None]:
    host = campaign.chance.choice(HOSTS)
    with campaign.excused(host), _no_room(campaign.keepers[host].agent.pid):
        yield


@contextlib.contextmanager
def _no_room(pid: int) -> Iterator[None]:
    """No file of this process may grow: it meets EFBIG as others meet a full disk, and needs no mount of its own."""
    before = None
    with contextlib.suppress(OSError):
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE) if pid else None
        if before is not None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


# clients


@fault("malformed")
async def _malformed(campaign: Campaign) -> AsyncIterator[None]:
    """An enrolled agent whose frames are wrong in every way."""
    async with _hostile(campaign, _garbage, 0.01):
        yield


@fault("flood")
async def _flood(campaign: Campaign) -> AsyncIterator[None]:
    """An enrolled agent that sends heartbeats as fast as it can."""
    beat = wire_frame(b'{"type":"heartbeat","payload":{"metrics":{"cpu":1}}}') * 500
    async with _hostile(campaign, lambda _: beat, 0.0):
        yield


@fault("silent")
async def _silent(campaign: Campaign) -> AsyncIterator[None]:
    """Many connections to both ports that say nothing."""
    writers = []
    with contextlib.suppress(OSError):
        for number in range(SILENT):
            listen = campaign.house.agents if number % 2 else campaign.house.operators
            writers.append((await asyncio.open_connection("127.0.0.1", int(listen.rpartition(":")[2])))[1])
    try:
        yield
    finally:
        for writer in writers:
            writer.transport.abort()


def wire_frame(text: bytes) -> bytes:
    """A text frame of a client."""
    return Frame(Opcode.TEXT, text).serialize(mask=True)


def _garbage(chance: random.Random) -> bytes:
    nested = b'{"type":"heartbeat","payload":{"a":' + b"[" * 900 + b"]" * 900 + b"}}"
    return chance.choice((
        wire_frame(b'{"type":"heartbeat"'),
        wire_frame(b"\xff\xfe"),
        wire_frame(nested),
        wire_frame(b'{"type":"register","payload":{"hostname":"h1"}}'),
        wire_frame(b'{"type":"status","payload":{"command_id":"x","command":"y","status":"ok","exit_code":1e400}}'),
        bytes([0x83, 0xFF]),  # an opcode that is not given
        bytes([0x81, 0x01, 0x61]),  # not masked
        bytes([0x82, 0xFF]) + (1 << 40).to_bytes(8, "big"),
        chance.randbytes(50),
    ))  # fmt: skip


@contextlib.asynccontextmanager
async def _hostile(campaign: Campaign, frame: Callable[[random.Random], bytes], pause_s: float) -> AsyncIterator[None]:
    """The stranger connects again and again and sends this."""
    port = int(campaign.house.agents.rpartition(":")[2])
    head = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {campaign.stranger_token}\r\n\r\n"
    ).encode()
    register = wire_frame(json.dumps({"type": "register", "payload": {"hostname": STRANGER}}).encode())
    chance = random.Random(campaign.summary.seed)

    async def attack() -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(head)
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(register)
                    while True:
                        writer.write(frame(chance))
                        await writer.drain()
                        await asyncio.sleep(pause_s)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.1)

    attacking = asyncio.create_task(attack())
    try:
        yield
    finally:
        attacking.cancel()
        await asyncio.wait({attacking})
