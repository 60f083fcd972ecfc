"""Each process killed or frozen under a real supervisord, while commands run: found, replaced, nothing lost, nobody disconnected."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.house import SLACK_S, House, Operator

pytestmark = [pytest.mark.house, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One installation for all drills: each must leave it as well as it found it."""
    with House() as house:
        yield house


@pytest.fixture(scope="module")
def marks(house: House) -> Path:
    """A host whose `mark` appends its command's id to a file: who ran, and how often."""
    path = house.state / "marks"
    path.touch()
    house.agent("marked", {"mark": ["sh", "-c", f"echo $FLEETHUB_COMMAND_ID >> {path}"]})
    return path


class Stream:
    """Commands given one after the other while something breaks."""

    def __init__(self, operator: Operator) -> None:
        self.ids: list[str] = []
        self._operator = operator
        self._task = asyncio.create_task(self._give())

    async def _give(self) -> None:
        while True:
            self.ids += await self._operator.give("mark", "marked")
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


def since(operator: Operator) -> float:
    """When the marked host's connection began."""
    return datetime.datetime.fromisoformat(operator.hosts["marked"]["connected_since"]).timestamp()


async def rehearse(house: House, marks: Path, process: str, fault: Any, *, disconnects: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """The fault under a stream of commands; afterwards all is well, each command ran exactly once, and the newest incident."""
    async with Operator(house) as operator:
        await operator.healthy()
        await operator.until(lambda: operator.hosts.get("marked", {}).get("presence") == "online")
        known = {incident["id"] for incident in house.json("incidents")["incidents"]}
        connected = since(operator)
        restarts = {row["name"]: row["pid"] for row in house.json("status")["processes"]}
        stream = Stream(operator)
        await operator.until(lambda: len(stream.ids) >= 3)
        await fault(operator)
        await operator.until(lambda: house.pulse(process).pid not in (0, restarts[process]), SLACK_S)
        await operator.healthy()
        count = len(stream.ids)
        await operator.until(lambda: len(stream.ids) >= count + 3)
        await stream.stop()
        for command_id in stream.ids:
            assert (await operator.ended(command_id))["state"] == "succeeded"
        assert sorted(line for line in marks.read_text().split() if line in stream.ids) == sorted(stream.ids), "each exactly once"
        if "operators" not in disconnects:
            assert operator.breaks == []
        if "agents" not in disconnects:
            assert abs(since(operator) - connected) < 0.5, "the agent was disconnected"
        for row in house.json("status")["processes"]:
            if row["name"] != process:
                assert row["pid"] == restarts[row["name"]], f"{row['name']} was restarted without a reason"
        status = house.json("status")
        ledger = status["commands"]
        assert ledger["accepted"] == sum(value for key, value in ledger.items() if key != "accepted")
        assert ledger["lost"] == 0
        fresh = [i for i in house.json("incidents")["incidents"] if i["id"] not in known]
        return fresh[0] if fresh else None


def send(house: House, process: str, number: int) -> Any:
    async def fault(_: Operator) -> None:
        os.kill(house.pulse(process).pid, number)

    return fault


DISCONNECTS = {"gateway": ("agents",), "fanout": ("operators",)}


@pytest.mark.parametrize("process", ["hub", "queues", "fanout", "gateway", "watchdog", "agent"])
def test_a_killed_process_is_replaced_and_nothing_is_lost(house: House, marks: Path, process: str) -> None:
    incident = asyncio.run(rehearse(house, marks, process, send(house, process, signal.SIGKILL), disconnects=DISCONNECTS.get(process, ())))
    if process != "watchdog":  # its own death is told by supervisord's log and its new pid
        assert incident is not None
        assert (incident["process"], incident["verdict"], incident["lost"]) == (process, "dead", 0)


@pytest.mark.parametrize("process", ["hub", "queues", "fanout", "gateway"])
def test_a_stopped_process_is_found_and_replaced(house: House, marks: Path, process: str) -> None:
    incident = asyncio.run(rehearse(house, marks, process, send(house, process, signal.SIGSTOP), disconnects=DISCONNECTS.get(process, ())))
    assert incident is not None
    assert (incident["process"], incident["verdict"], incident["lost"]) == (process, "frozen", 0)
    assert incident["found_after_s"] < SLACK_S
    assert incident["recovered_after_s"] < SLACK_S
    assert incident["stuck_at"], "a stopped process is witnessed from outside"


@pytest.mark.parametrize(
    ("fault", "function"), [("deadlock", "take_a_lock_twice"), ("busy", "turn_for_ever"), ("blocked", "wait_for_ever")]
)
def test_a_frozen_hub_is_found_its_line_is_named_and_it_is_replaced(house: House, marks: Path, fault: str, function: str) -> None:
    async def freeze(operator: Operator) -> None:
        """While the hub is frozen, /livez is green and /healthz is not: what the founding incident lacked."""
        asking = asyncio.create_task(operator.http.post("/api/v1/drill", json={"fault": fault}))
        lived, unwell = [], []
        pid = house.pulse("hub").pid
        while house.pulse("hub").pid == pid:
            lived.append((await operator.http.get("/livez")).status_code)
            unwell.append((await operator.http.get("/healthz")).status_code)
            await asyncio.sleep(0.05)
        assert set(lived) == {200}
        assert 503 in unwell
        await asking

    incident = asyncio.run(rehearse(house, marks, "hub", freeze))
    assert incident is not None
    assert (incident["process"], incident["verdict"], incident["lost"]) == ("hub", "frozen", 0)
    assert function in incident["stuck_at"]
    assert incident["found_after_s"] < SLACK_S
    assert incident["recovered_after_s"] < SLACK_S
    evidence = house.settings.evidence / incident["id"]
    assert any(function in path.read_text(errors="replace") for path in evidence.iterdir())
