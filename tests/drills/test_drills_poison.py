"""Poison on a whole installation: what ends the hub, or a fanout, each time it is stepped is put aside, and nothing
else is harmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from doubles.deadline import WAIT_S, until
from doubles.house import House, Operator

from processes.adapters import failpoint
from processes.core.records.poison import DeathRecord
from processes.core.shown.status import Overall

pytestmark = pytest.mark.house

PUT_ASIDE_S = 3 * WAIT_S  # two freezes found and two hubs replaced take 8 s on an idle machine


@pytest.fixture(scope="module")
def shared() -> Iterator[House]:
    with House() as house:
        house.agent("worker", {"show": ["echo", "done"]})
        yield house


@pytest.fixture
def house(shared: House) -> Iterator[House]:
    """The house, which a test that fails leaves to the next one as it found it: no dead letter, every process wanted."""
    yield shared
    if dead_letters(shared) or shared.json("status")["verdict"] != "ok":
        for name in ("poison_row", "failpoint-watchdog"):
            (shared.state / "run" / name).unlink(missing_ok=True)
        shared.cli("start", "watchdog")
        until(lambda: shared.verdict() is Overall.OK, shared.logs)
        for dead_letter in dead_letters(shared):
            shared.cli("deadletter", dead_letter["id"], "--discard")


def dead_letters(house: House) -> list[dict[str, Any]]:
    """The dead letters, whole; none while the API does not answer."""
    listed = house.json("deadletters").get("deadletters", [])
    return [house.json("deadletter", dead_letter["id"]) for dead_letter in listed]


def deaths(house: House, name: str = "hub") -> list[int]:
    """The pids that are counted against anything."""
    try:
        record = msgspec.json.decode((house.state / "run" / "poison" / f"{name}.json").read_bytes(), type=DeathRecord)
    except OSError:
        return []
    return [death.pid for death in record.deaths]


@asynccontextmanager
async def poisoned(operator: Operator, fault: str) -> AsyncIterator[None]:
    """The poison is on its way; at the end its asker has an answer."""
    asking = asyncio.create_task(operator.http.post("/api/v1/drill", json={"fault": fault}))
    yield
    answer = await asking
    assert answer.status_code in (500, 503, 504), answer.text  # 500 if the third hub came before the request's deadline


async def put_aside(house: House, operator: Operator) -> dict[str, Any]:
    """The one dead letter there is, once it is there and not under way, and the house is well."""
    await operator.until(lambda: house.pulse("hub").dead_letters == 1, PUT_ASIDE_S)
    await operator.healthy(PUT_ASIDE_S)
    found = await asyncio.to_thread(dead_letters, house)
    assert len(found) == 1, found
    return found[0]


def test_poison_ends_two_hubs_and_is_put_aside_with_both_stacks_and_a_retry_ends_two_more_and_no_command_is_lost(
    house: House,
) -> None:
    async def scene() -> None:
        async with Operator(house) as operator:
            await operator.healthy()
            given = await operator.give("show", "worker")
            async with poisoned(operator, "poison"):
                given += await operator.give("show", "worker")
            dead_letter = await put_aside(house, operator)
            first = [death["pid"] for death in dead_letter["deaths"]]
            assert (dead_letter["why"], dead_letter["kind"]) == ("poison", "RequestReceived")
            assert [death["cause"] for death in dead_letter["deaths"]] == ["frozen", "frozen"]
            assert all("take_a_lock_twice" in death["stacks"] for death in dead_letter["deaths"])
            assert len(set(first)) == len({death["incident"] for death in dead_letter["deaths"]}) == 2
            assert dead_letter["event"]["request"]["fault"] == "poison"

            epoch = house.pulse("hub").epoch
            assert house.cli("deadletter", dead_letter["id"], "--retry").returncode == 0
            await operator.until(lambda: house.pulse("hub").epoch == epoch + 2, PUT_ASIDE_S)
            again = await put_aside(house, operator)
            assert (again["id"], again["retries"], again["retrying"]) == (dead_letter["id"], 1, False)
            assert not set(first) & {death["pid"] for death in again["deaths"]}
            assert house.pulse("hub").epoch == epoch + 2

            given += await operator.give("show", "worker")
            assert [(await operator.ended(id))["state"] for id in given] == ["succeeded"] * len(given)
            assert house.cli("deadletter", dead_letter["id"], "--discard").returncode == 0
            assert house.json("deadletters") == {"deadletters": []}
            assert operator.breaks == []

    asyncio.run(scene())


@pytest.fixture
def unspent() -> Iterator[House]:
    """A house of one test's own: the watchdog kills a hub at most five times a minute, and other tests had four."""
    with House() as house:
        house.agent("worker", {"show": ["echo", "done"]})
        yield house


def test_kills_from_outside_count_nothing_and_a_watchdog_that_dies_after_its_note_counts_once(unspent: House) -> None:
    async def scene() -> None:
        house = unspent
        async with Operator(house) as operator:
            await operator.healthy(PUT_ASIDE_S)
            before = set(deaths(house))
            outside = []
            async with poisoned(operator, "poison"):
                for _ in range(2):
                    await operator.until(lambda: house.pulse("hub").in_hand.startswith("RequestReceived"))
                    pid = house.pulse("hub").pid
                    os.kill(pid, signal.SIGKILL)
                    outside.append(pid)
                    await operator.until(lambda pid=pid: house.pulse("hub").pid != pid)  # type: ignore[misc]
                assert set(deaths(house)) == before
                failpoint.arm(house.state / "run" / "failpoint-watchdog", "watchdog.noted")
                watchdog = house.pulse("watchdog").pid
                await operator.until(lambda: house.pulse("watchdog").pid != watchdog)
            dead_letter = await put_aside(house, operator)
            blamed = [death["pid"] for death in dead_letter["deaths"]]
            assert not set(outside) & set(blamed)
            assert len(set(deaths(house)) - before) == 2, "the hub that was noted twice is one death"
            assert house.cli("deadletter", dead_letter["id"], "--discard").returncode == 0

    asyncio.run(scene())


def test_an_event_that_makes_the_hub_exit_is_put_aside_though_no_watchdog_runs(house: House) -> None:
    async def scene() -> None:
        async with Operator(house) as operator:
            await operator.healthy(PUT_ASIDE_S)
            assert house.cli("stop", "watchdog").returncode == 0
            async with poisoned(operator, "poison_exit"):
                await operator.until(lambda: house.pulse("hub").dead_letters == 1, PUT_ASIDE_S)
            assert house.cli("start", "watchdog").returncode == 0
            dead_letter = await put_aside(house, operator)
            assert [death["cause"] for death in dead_letter["deaths"]] == ["exited", "exited"]
            assert house.cli("deadletter", dead_letter["id"], "--discard").returncode == 0

    asyncio.run(scene())


def test_a_row_that_ends_the_fanout_is_left_out_and_said_to_be_until_it_is_tried_again(house: House) -> None:
    async def scene() -> None:
        async with Operator(house) as operator:
            await operator.healthy(PUT_ASIDE_S)
            (house.state / "run" / "poison_row").write_text("worker")
            os.kill(house.pulse("fanout").pid, signal.SIGKILL)  # its successor meets the row at its start
            await operator.until(lambda: house.pulse("fanout").dead_letters == 1, PUT_ASIDE_S)
            (house.state / "run" / "poison_row").unlink()
            dead_letter = await put_aside(house, operator)
            assert (dead_letter["process"], dead_letter["kind"], dead_letter["event"]["id"]) == (
                "fanout",
                "host",
                "worker",
            )
            assert all("take_a_lock_twice" in death["stacks"] for death in dead_letter["deaths"])
            rows = {row["name"]: row for row in house.json("hosts")["hosts"]}
            assert "left out" in rows["worker"]["put_aside"]
            assert all(not row["put_aside"] for name, row in rows.items() if name != "worker")
            (command_id,) = await operator.give("show", "worker")
            assert (await operator.ended(command_id))["state"] == "succeeded", (
                "what is not shown can be commanded all the same"
            )

            pid = house.pulse("fanout").pid
            assert house.cli("deadletter", dead_letter["id"], "--retry").returncode == 0
            await operator.until(lambda: not deaths(house, "fanout"))
            # this one freezes at the row all the same, and on a slow machine the watchdog has ended it already; its
            # successor finds no drill, and the row good
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await operator.until(lambda: house.pulse("fanout").pid != pid)
            await operator.healthy(PUT_ASIDE_S)
            await operator.until(lambda: house.row("worker").get("put_aside") == "", PUT_ASIDE_S)
            assert house.pulse("fanout").dead_letters == 0

    asyncio.run(scene())
