"""What only a whole installation can show of the watchdog: storage that hangs, pulses that are doubted, memory that
grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from doubles.deadline import WAIT_S
from doubles.house import House, Operator

from processes.adapters import failpoint
from processes.core.shown.status import IncidentView

pytestmark = pytest.mark.house

MEMORY_MB = 160


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One installation; each test leaves it well."""
    with House(FLEETHUB_MEMORY_HUB_MB=str(MEMORY_MB)) as house:
        yield house


def incident_of(house: House, fault: Callable[[Operator], Any], seconds: float = 60.0) -> IncidentView:
    """The one incident of a fault, when all is well again; nothing was lost, and nobody else was harmed."""

    async def rehearse() -> IncidentView:
        async with Operator(house) as operator:
            await operator.healthy(60)
            known = {each.id for each in house.incidents()}
            given = await operator.give("uptime", next(iter(operator.hosts)))
            await fault(operator)

            def fresh() -> list[IncidentView]:
                return [each for each in house.incidents() if each.id not in known]

            await operator.until(lambda: bool(found := fresh()) and all(each.over_at for each in found), seconds)
            await operator.healthy(60)
            for command_id in given:
                assert (await operator.ended(command_id))["state"] == "succeeded"
            (incident,) = fresh()
            return incident

    found = asyncio.run(rehearse())
    assert found.lost == 0
    return found


def test_a_database_call_that_never_returns_is_found_and_the_hub_replaced(house: House) -> None:
    """The hub turns on all the while, refuses aloud, and is not killed before ten seconds: a disk may be slow."""
    seen: set[str | None] = set()

    async def hang(operator: Operator) -> None:
        failpoint.arm(house.settings.failpoint, "hub.after_begin", hang=True)
        pid = house.pulse("hub").pid
        asking = asyncio.create_task(
            operator.http.post("/api/v1/commands", json={"op": "uptime", "hosts": [next(iter(operator.hosts))]})
        )
        while house.pulse("hub").pid == pid:
            seen.add(house.pulse("hub").blocked_on)
            await asyncio.sleep(0.05)
        with contextlib.suppress(Exception):
            await asking  # 503 or 504: said aloud

    incident = incident_of(house, hang)
    assert (incident.process, incident.verdict) == ("hub", "stalled")
    assert "a database call has not returned" in incident.reason
    assert (incident.found_after_s or 0) >= 10
    assert "storage" in seen


@pytest.mark.parametrize("process", ["hub"])
def test_a_stopped_process_whose_pulse_is_gone_is_killed_only_on_a_second_witness(house: House, process: str) -> None:
    async def stop(_: Operator) -> None:
        os.kill(house.pulse(process).pid, signal.SIGSTOP)
        (house.settings.pulses / process).unlink()

    incident = incident_of(house, stop)
    assert (incident.process, incident.verdict) == (process, "frozen")
    assert "takes nothing from its queue" in incident.reason
    assert (incident.found_after_s or 0) >= 10


def test_a_hub_whose_memory_grows_is_replaced_before_the_machine_suffers(house: House) -> None:
    async def leak(operator: Operator) -> None:
        pid, deadline_s = house.pulse("hub").pid, time.monotonic() + WAIT_S
        while house.pulse("hub").pid == pid:
            assert time.monotonic() < deadline_s, "it grew for ever"
            with contextlib.suppress(Exception):
                await operator.http.post("/api/v1/drill", json={"fault": "leak"}, timeout=5)

    incident = incident_of(house, leak)
    assert (incident.process, incident.verdict, incident.remedy) == ("hub", "memory", "killed and replaced")
    assert f"may hold {MEMORY_MB}" in incident.reason
