"""A whole installation with as many hosts as wanted from its beginning, and what its processes cost."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import httpx
import msgspec
import psutil
from doubles.deadline import WAIT_S
from doubles.house import House

from bench.meter import Cost
from processes.adapters import proc
from processes.adapters.state import fleet_db
from processes.core.budgets import TOKEN_WEBSOCKETS_MAX
from processes.core.records.host import HostRecord

SUBSCRIBERS: Final = 990  # at most; a fanout has room for 1,000, of which it keeps some
PROCESSES: Final = ("hub", "gateway", "fanout", "queues", "watchdog")


def cost(pid: int) -> Cost:
    """Return what a process has cost so far. Raises: OSError, if there is none.

    Memory is what it shares with none, and its part of the rest (Pss; source: proc_pid_smaps(5)).
    """
    stat = proc.stat(pid)
    memory = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    waited = proc.scheduled(pid)
    return Cost(
        stat.cpu_ticks / proc.TICKS_PER_S if stat else 0.0,
        int(memory[1]) / 1024 if memory else 0.0,
        waited.run_delay_ns / 1e9 if waited else 0.0,
    )


class Installation:
    """What is measured: where its ports are, and which processes it is made of."""

    dialect = "fleethub"

    def __init__(self, house: House, tokens: Path, viewers: Path) -> None:
        self.house, self.tokens, self.operator_token = house, tokens, viewers
        self.enrolled = len(tokens.read_text().split())  # hosts
        self.agents_port = int(house.agents.rpartition(":")[2])
        self.operators_port = int(house.operators.rpartition(":")[2])

    def pids(self) -> dict[str, int]:
        """Return the processes by name, with the one that has started them."""
        found = {name: house_pid for name in PROCESSES if (house_pid := self.house.pulse(name).pid)}
        return {**found, "supervisord": psutil.Process(found["watchdog"]).ppid()}

    def costs(self) -> dict[str, Cost]:
        """Return what each process has cost so far."""
        return {name: cost(pid) for name, pid in self.pids().items()}

    def turned_s(self) -> dict[str, float]:
        """Return when each process last finished a turn. Units: s of CLOCK_MONOTONIC."""
        return {name: self.house.pulse(name).written_ns / 1e9 for name in PROCESSES}

    def incidents(self) -> int:
        """Return how many incidents the watchdog has noted so far."""
        return len(self.house.incidents())

    def verdict(self) -> str:
        """Return what the watchdog says of the whole."""
        return str(self.house.json("status")["verdict"])


def fill(house: House, hosts: int) -> Path:
    """Write so many enrolled hosts, bench0 and on, into the state of an installation that has not begun yet. Return the
    file of their tokens, a line each.
    """
    tokens = [secrets.token_urlsafe(24) for _ in range(hosts)]
    path = house.state / "bench.tokens"
    path.write_text("".join(f"{token}\n" for token in tokens))
    path.chmod(0o600)
    records = [
        HostRecord(f"bench{number}", secrets.token_hex(8), hashlib.sha256(token.encode()).hexdigest(), time.time())
        for number, token in enumerate(tokens)
    ]
    with contextlib.closing(fleet_db.open_for_writing(house.settings.database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT INTO hosts VALUES (?, ?)", [(host.name, msgspec.json.encode(host).decode()) for host in records]
        )
        connection.execute("COMMIT")
    house.settings.database.chmod(0o600)
    return path


@contextlib.contextmanager
def installed(hosts: int, prepare: Callable[[House], None] = lambda _: None) -> Iterator[Installation]:
    """Start an installation with so many enrolled hosts, of which none is connected; it ends with the context.

    `prepare`: called before it begins, with the hosts in its database.
    """
    # as it is delivered: where failures may be rehearsed, gateway and fanout look for one ten times a second
    house = House(prefix="fhbench", FLEETHUB_DRILLS_ENABLED="false")
    with contextlib.ExitStack() as ends:
        ends.push(house.__exit__)  # also if it does not come up
        tokens = fill(house, hosts)
        prepare(house)
        house.__enter__()
        yield Installation(house, tokens, _viewers(house))


def _made(api: httpx.Client, label: str) -> str:
    """Return a new operator's token. A disk that others use too may be too slow at first."""
    until_s = time.monotonic() + WAIT_S
    while True:
        answer = api.post("/api/v1/tokens", json={"role": "admin", "label": label})
        if answer.status_code != 503 or time.monotonic() > until_s:
            assert answer.status_code == 201, answer.text
            return str(answer.json()["token"])
        time.sleep(0.25)


def _viewers(house: House) -> Path:
    """Make so many viewers' tokens that SUBSCRIBERS subscribers may connect; the file with them, a line each."""
    path = house.state / "bench.viewers"
    tokens = [house.settings.operator_token.read_text().strip()]
    headers = {"Authorization": f"Bearer {tokens[0]}"}
    with httpx.Client(base_url=f"http://{house.operators}", headers=headers, timeout=WAIT_S) as api:
        for number in range(1, -(-SUBSCRIBERS // TOKEN_WEBSOCKETS_MAX) + 1):
            tokens.append(_made(api, f"bench{number}"))
    path.write_text("".join(f"{token}\n" for token in tokens))
    path.chmod(0o600)
    return path
