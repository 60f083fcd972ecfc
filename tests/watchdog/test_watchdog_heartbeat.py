"""The dead man's switch: it is called only while a command goes all the way round now, and it is known when it answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from doubles.deadline import WAIT_S

from processes.adapters import settings
from processes.core.shown.status import (
    HEALTH_ROUND_S_MAX,
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    Overall,
    Report,
)
from processes.watchdog.heartbeat import DeadMansSwitch, goes_round

ROUND_S = 5000.0


def report(round_mono_s: float | None = ROUND_S, epoch: int = 3, canary_epoch: int = 3) -> Report:
    canary = CanaryReport(epoch=canary_epoch, round_mono_s=round_mono_s)
    return Report(Overall.OK, epoch, [], canary, FleetReport(), CommandsReport(), IncidentsReport())


@pytest.mark.parametrize(
    ("seen", "now_s", "called"),
    [
        (report(), ROUND_S, True),
        (report(), ROUND_S + HEALTH_ROUND_S_MAX, True),
        (report(), ROUND_S + HEALTH_ROUND_S_MAX + 0.1, False),  # the last round was long ago
        (report(None), ROUND_S, False),  # nothing ever went round
        (report(epoch=4), ROUND_S, False),  # under a hub that is no more
        (report(epoch=0, canary_epoch=0), ROUND_S, False),  # there was no hub yet
    ],
)
def test_somebody_outside_is_called_only_while_a_command_goes_round_under_the_hub_of_now(
    seen: Report, now_s: float, called: bool
) -> None:
    assert goes_round(seen, now_s) is called


def test_the_calls_stay_away_with_the_rounds_and_what_answered_last_is_kept(tmp_path: Path) -> None:
    """The bug it would catch: the switch is called by a clock, so that it never tells of a hub that takes no command."""
    told, fails = tmp_path / "told", tmp_path / "fails"
    script = f"test ! -e {fails} || exit 3; cat >> {told}; echo >> {told}"
    file = settings.load({"FLEETHUB_STATE": str(tmp_path)})
    alarms = msgspec.structs.replace(file.file.alarms, heartbeat_exec=["/bin/sh", "-c", script])
    file = msgspec.structs.replace(file, file=msgspec.structs.replace(file.file, alarms=alarms))

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in told.read_text().split("\n") if line] if told.exists() else []

    async def play() -> None:
        switch = DeadMansSwitch(file, structlog.stdlib.get_logger("fleethub.test"), beat_s=0.02)
        running = asyncio.create_task(switch.run())

        async def until(condition: Any) -> None:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    await asyncio.sleep(0.01)

        assert switch.reports[0].target == "/bin/sh"
        switch.look(report(time.monotonic() - HEALTH_ROUND_S_MAX - 1, epoch=2, canary_epoch=2))
        for _ in range(8):
            await asyncio.sleep(0.02)  # it looks again meanwhile, and would call with epoch 2
        switch.look(report(time.monotonic() + 1e6))
        await until(lambda: len(lines()) >= 2)
        assert {(line["verdict"], line["epoch"]) for line in lines()} == {("ok", 3)}
        await until(lambda: switch.reports[0].ok)
        answered = switch.reports[0].answered_at
        fails.touch()
        await until(lambda: not switch.reports[0].ok)
        assert switch.reports[0].error.startswith("exit code 3")
        assert switch.reports[0].answered_at is not None
        assert answered is not None
        assert switch.reports[0].answered_at >= answered
        fails.unlink()
        await until(lambda: switch.reports[0].ok)
        switch._beat_s, last = 3600.0, switch.reports[0]
        await until(lambda: switch.reports[0] is not last)  # from now on it waits, and no program of it runs
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    asyncio.run(play())
