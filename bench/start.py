"""Starts: of a killed hub over a large database, and of the command line; and what an idle installation costs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import time
import uuid
from typing import Any, Final

import msgspec
from doubles.deadline import WAIT_S
from doubles.house import CHECKOUT, House

from bench.heartbeats import USUAL_S
from bench.installation import Installation
from bench.load import Load
from bench.meter import Meter
from processes.adapters.state import fleet_db
from processes.core.records.command import Command, State
from processes.core.records.ledger import Ledger

WELL: Final = ("ok", "degraded")  # degraded: as long as an incident is young, or hosts are away
VERBS: Final = ("--version", "status", "hosts")


def remember(house: House, commands: int) -> None:
    """Write so many commands that have ended into the database of an installation that has not begun yet."""
    now_s = time.time()
    with contextlib.closing(fleet_db.open_for_writing(house.settings.database)) as connection:
        hosts = [host.name for host in fleet_db.hosts(connection)]
        enrolments = {host.name: host.enrolment for host in fleet_db.hosts(connection)}

        def row(number: int) -> tuple[object, ...]:
            name, at_s = hosts[number % len(hosts)], now_s - commands + number
            record = Command(
                uuid.uuid4().hex, number, name, enrolments[name], "noop", "operator", at_s, 600.0, at_s + 600.0, 0.0,
                "", State.SUCCEEDED, exit_code=0, attempt=1, sent_wall_s=at_s, started_wall_s=at_s, finished_wall_s=at_s,
            )  # fmt: skip
            return number, record.id, name, record.state, False, at_s, at_s, msgspec.json.encode(record).decode()

        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO commands VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(row, range(1, commands + 1)))
        for key, value in (("ledger", Ledger(accepted=commands, succeeded=commands)), ("number", commands)):
            connection.execute("INSERT INTO meta VALUES (?, ?)", (key, msgspec.json.encode(value).decode()))
        connection.execute("COMMIT")


def killed(hub: Installation) -> dict[str, Any]:
    """Kill the hub once nothing hinders it any more, and return how long it took until its successor has turned."""
    began_s = time.monotonic()
    while hub.verdict() not in WELL:
        if time.monotonic() - began_s > WAIT_S:
            raise TimeoutError(f"the installation was not well within {WAIT_S} s{hub.house.logs()}")
        time.sleep(0.2)
    before, began_s = hub.house.pulse("hub"), time.monotonic()
    os.kill(before.pid, signal.SIGKILL)
    while True:
        now = hub.house.pulse("hub")
        if now.pid != before.pid and now.turn:
            return {"first_turn_s": now.written_ns / 1e9 - began_s, "verdict": hub.verdict()}
        if time.monotonic() - began_s > WAIT_S:
            raise TimeoutError(f"no hub came back within {WAIT_S} s{hub.house.logs()}")
        time.sleep(0.002)


async def idle(hub: Installation, agents: int, seconds: float, settle_s: float = USUAL_S) -> dict[str, Any]:
    """Return the share of a core that each process uses while agents only send their usual heartbeats."""
    async with Load("agents", hub.agents_port, hub.tokens, agents) as load:
        await load.ask(f"beat {USUAL_S}")
        await asyncio.sleep(settle_s)
        async with Meter(hub, load) as meter:
            await asyncio.sleep(seconds)
    percent = {name: 100 * cores for name, cores in meter.told()["cores"].items()}
    return {"agents": agents, "percent_of_a_core": percent, "verdict": hub.verdict()}


def command_line(hub: Installation) -> dict[str, Any]:
    """Return how long each verb takes to its end, and how much of the CPU it uses. Units: ms."""
    found: dict[str, Any] = {}
    for verb in VERBS:
        before, began_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(
            [str(CHECKOUT / "bin" / "fleethub"), verb], env=hub.house.environment, capture_output=True, check=True
        )
        after, took_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began_s
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found[verb.removeprefix("--")] = {"ms": took_s * 1e3, "cpu_ms": cpu_s * 1e3}
    return found
