"""One round of a drill: wait until all is well, give commands, inflict the fault, wait again, and count the cost."""

from __future__ import annotations

import contextlib
import datetime
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from processes.adapters.state import drill_mark
from processes.cli.drills import faults
from processes.cli.drills.scene import FOUND_S_MAX, Scene
from processes.cli.drills.stage import FIRST_S_MAX, WELL_S_MAX, Late, Stage
from processes.cli.drills.stream import Stream
from processes.cli.terminal.failure import Failure
from processes.core.cli import drills
from processes.core.cli.drills import Drill, Figures, Left
from processes.core.shown.status import IncidentView
from processes.core.shown.views import HostView
from processes.core.values import Presence

FIRST_COMMANDS: Final = 3  # accepted before the fault, and again after it
SAME_CONNECTION_S: Final = 0.5  # a new hub hears from the gateway when a connection began: nearly the same time
BACK_S_MAX: Final = 40.0  # by then an agent that lost its connection is back: its longest pause is 30 s


async def rehearse(stage: Stage, drill: Drill, short: bool, slack: float) -> Figures:
    """Play one round, and return its figures, judged against the drill's bounds.

    Afterwards the installation is as well as before, or the figures say why not. Raises: Failure("unwell"), if it is
    not well to begin with.
    """
    await stage.well(FIRST_S_MAX, rested=True)  # the drill before this one has waited for that too
    figures = Figures(name=drill.name)
    async with AsyncExitStack() as stack:
        stack.callback(os.close, drill_mark.hold(stage.settings.run))
        fleet, before, breaks = await stage.fleet(), set(stage.incidents()), len(stage.breaks)
        stream = Stream(stage)
        stack.push_async_callback(stream.stop)
        scene = Scene(stage, drill, stream, stack, drill.short_s if short and drill.short_s else drill.lasts_s)
        scene.dead_letters = await stage.dead_letters() if drill.inside else set()
        left: list[IncidentView] = []
        try:
            await stream.more(FIRST_COMMANDS)
            stream.wait_s = 0.0
            async with AsyncExitStack() as undo:
                scene.stack = undo
                await faults.inflict(scene)
            left = await _settled(scene, before)
            await stream.more(FIRST_COMMANDS)
        except (Late, OSError) as error:
            scene.trouble.append(str(error))
        await stream.stop()
        try:
            outcome = await stream.outcome()
            figures.commands, figures.lost, figures.late = outcome.commands, outcome.lost, outcome.late
            figures.doubled = outcome.doubled
            scene.trouble += outcome.trouble
            figures.agents_disconnected = await _disconnected(stage, fleet)
            await stage.well(WELL_S_MAX)
        except (Late, Failure) as error:
            scene.trouble.append(str(error))
        replaced = [name for name, pid in stage.pids().items() if scene.pids.get(name) != pid]
    figures.wait_s = stream.wait_s
    figures.operators_disconnected = len(stage.breaks) - breaks
    figures.trouble = scene.trouble
    _tell_times(figures, scene, left)
    shown = [Left(view.id, view.process, view.verdict, view.stuck_at, view.lost, view.drill) for view in left]
    if own := [each for each in shown if each.process == drill.process]:
        figures.incident, figures.stuck_at = own[0].id, own[0].stuck_at
        if drill.guilty and not _names(stage.settings.evidence / own[0].id, drill.guilty):
            figures.trouble.append(f"no file of the evidence names {drill.guilty}")
    figures.trouble = drills.trouble(drill, figures, shown, replaced, slack)
    figures.ok = not figures.trouble
    return figures


async def _settled(scene: Scene, before: set[str]) -> list[IncidentView]:
    """Wait until all is well again, and return the fault's incidents, oldest first. Raises: Late."""
    stage, process = scene.stage, scene.drill.process

    def fresh() -> list[IncidentView]:
        return [view for view_id, view in reversed(stage.incidents().items()) if view_id not in before]

    if process:
        await stage.until(
            lambda: any(view.process == process for view in fresh()), f"an incident of {process}", FOUND_S_MAX
        )
    try:
        await stage.well(WELL_S_MAX)
        found = fresh()
        while any(view.over_at is None for view in found):  # the watchdog rescues first, and writes the incident later
            await stage.well(WELL_S_MAX)
            found = fresh()
    except Failure as failure:
        raise Late(failure.message) from None
    if scene.recovered_s is None and not process:
        scene.recovered_s = time.monotonic() - scene.since_s
    return found


async def _disconnected(stage: Stage, before: dict[str, HostView]) -> int:
    """Wait until all hosts that were online are so again. Returns how many have a new connection. Raises: Late."""
    online = {name: host for name, host in before.items() if host.presence == Presence.ONLINE}

    async def all_back() -> bool:
        after = await stage.fleet()
        return all(name in after and after[name].presence == Presence.ONLINE for name in online)

    await stage.until(all_back, "every host that was online is online again", BACK_S_MAX)
    after = await stage.fleet()
    return sum(
        abs(_since(host) - _since(after[name])) > SAME_CONNECTION_S for name, host in online.items() if name in after
    )


def _names(folder: Path, word: str) -> bool:
    """True if any file of the incident's folder contains the word."""
    with contextlib.suppress(OSError):
        return any(word in path.read_text(errors="replace") for path in folder.iterdir())
    return False


def _since(host: HostView) -> float:
    return _wall_s(host.connected_since) if host.connected_since else 0.0


def _wall_s(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def _tell_times(figures: Figures, scene: Scene, left: list[IncidentView]) -> None:
    """Fill in how long after the fault it was found and well: as the drill saw it, else as the incident tells."""
    figures.detected_s, figures.recovered_s = scene.detected_s, scene.recovered_s
    own = [view for view in left if view.process == scene.drill.process]
    if not own:
        return
    offset_s = time.time() - time.monotonic()
    first, last = own[0], own[-1]
    if figures.detected_s is None and first.found_at:
        figures.detected_s = max(0.0, _wall_s(first.found_at) - offset_s - scene.began_s)
    if (
        figures.recovered_s is None
        and last.found_at
        and last.recovered_after_s is not None
        and last.found_after_s is not None
    ):
        over_s = _wall_s(last.found_at) - offset_s - last.found_after_s + last.recovered_after_s
        figures.recovered_s = max(0.0, over_s - scene.since_s)
