"""Transcripts that a newcomer can read: each file beside this one is what the real house did, in virtual time.

A change of behaviour changes them: FLEETHUB_REWRITE=1 writes them anew, and the diff is what is to be reviewed.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from scenarios.stage import Stage
from simulation.agent_side import Machine

from processes.core.travels.messages import GiveCommand

HERE = Path(__file__).parent


async def a_command_goes_out_and_its_report_comes_back(stage: Stage) -> None:
    """The whole life of one command."""
    await registered(stage)
    await stage.ask(GiveCommand("pull", ["h0"], "deploy-1", 60.0))
    await stage.until(lambda: stage.states() == ["succeeded"] or stage.states() == ["failed"])
    await asyncio.sleep(2.0)


async def a_hub_killed_between_commit_and_acknowledgement_delivers_once(stage: Stage) -> None:
    """The next hub reads the same request again, knows it, and gives no second command."""
    await registered(stage)
    stage.hubs[-1][0].dies_at = "after commit"
    await stage.ask(GiveCommand("pull", ["h0"], "deploy-1", 60.0))
    await stage.until(lambda: stage.states() == ["succeeded"] or stage.states() == ["failed"])
    await asyncio.sleep(2.0)
    assert len(stage.machines[0].executions) == 1


async def a_blocked_storage_refuses_aloud_and_the_next_hub_refuses_too(stage: Stage) -> None:
    """What was answered 503 is never carried out, not even by a hub that reads it again."""
    await registered(stage)
    stage.note("another program locks the database")
    stage.disk.locked_until_s = stage.loop.now_s + 20.0
    await stage.ask(GiveCommand("pull", ["h0"], "deploy-1", 60.0))
    await stage.ask(GiveCommand("pull", ["h0"], "deploy-2", 60.0))
    stage.hubs[-1][0].end("killed")
    await asyncio.sleep(25.0)
    stage.note("the database is free again")
    await asyncio.sleep(10.0)
    assert stage.machines[0].executions == []


async def an_agent_that_comes_back_with_a_new_journal_has_lost_its_command(stage: Stage) -> None:
    """Nobody can say any more whether it ran to its end: the hub says so, and does not run it again."""
    await registered(stage)
    await stage.ask(GiveCommand("switch", ["h0"], "deploy-1", 60.0))
    await stage.until(lambda: stage.states() == ["running"])
    stage.note("somebody replaces the state folder of the agent")
    stage.machines[0].lose_journal()
    await stage.until(lambda: stage.states() == ["lost"])
    await asyncio.sleep(2.0)


async def a_storm_of_heartbeats_is_conflated_while_the_queues_stand_still(stage: Stage) -> None:
    """Of a host's heartbeats only the newest waits."""
    await registered(stage)
    stage.heartbeats = True
    stage.note("the queues are stopped")
    stage.queues.stop_for(45.0)
    await asyncio.sleep(60.0)


async def a_second_connection_of_a_host_replaces_the_first(stage: Stage) -> None:
    """A copied machine, with the same token: the older connection is closed with a code that says why."""
    await registered(stage)
    stage.note("a copy of the machine is switched on")
    copy = Machine(stage, "h0", 0.0)
    copy.token, copy.journals = stage.machines[0].token, itertools.count(7)
    copy.start()
    assert copy.life is not None
    copy.life.name = "copy"
    await asyncio.sleep(5.0)
    await stage.ask(GiveCommand("pull", ["h0"], "deploy-1", 60.0))
    await stage.until(lambda: stage.states() == ["succeeded"] or stage.states() == ["failed"])
    assert (len(stage.machines[0].executions), len(copy.executions)) == (0, 1)
    await asyncio.sleep(1.0)


SCENARIOS: list[Callable[[Stage], Awaitable[None]]] = [
    a_command_goes_out_and_its_report_comes_back,
    a_hub_killed_between_commit_and_acknowledgement_delivers_once,
    a_blocked_storage_refuses_aloud_and_the_next_hub_refuses_too,
    an_agent_that_comes_back_with_a_new_journal_has_lost_its_command,
    a_storm_of_heartbeats_is_conflated_while_the_queues_stand_still,
    a_second_connection_of_a_host_replaces_the_first,
]


async def registered(stage: Stage) -> None:
    """Returns once every host is online; the tape runs from there."""
    await stage.until(lambda: len(stage.greeted) == len(stage.machines))
    await asyncio.sleep(1.0)
    stage.begin()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_house_does_what_the_transcript_says(scenario: Callable[[Stage], Awaitable[None]]) -> None:
    """And keeps its promises meanwhile."""
    stage = Stage(scenario)
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            outcome = stage.run()
    finally:
        gc.enable()
    assert outcome.wrong == []
    path = HERE / f"{scenario.__name__}.txt"
    text = "\n".join([f"# {line.strip()}" for line in (scenario.__doc__ or "").splitlines()] + ["", *stage.tape]) + "\n"
    if os.environ.get("FLEETHUB_REWRITE"):
        path.write_text(text)
    assert path.read_text() == text, "look at the difference; FLEETHUB_REWRITE=1 writes it anew"
