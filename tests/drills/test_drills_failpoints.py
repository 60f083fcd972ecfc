"""Hub, agent and shim killed at each stage of a command's way: every accepted command ran once, and ends in what is
true.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.agent_process import AgentProcess, until
from doubles.house import House
from doubles.hub_wire import TOKEN, HubWire
from doubles.strike import Stricken

from processes.adapters import failpoint
from processes.agent import shim


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with House() as house:
        yield house


@pytest.mark.house
@pytest.mark.parametrize("room", ["hub", "agent", "shim"])
def test_every_command_is_carried_out_once_whatever_point_its_process_dies_at(house: House, room: str) -> None:
    async def strike_all() -> list[str]:
        async with Stricken(house) as stricken:
            return [(await stricken.strike(name)).name for name in failpoint.NAMES if name.startswith(room + ".")]

    assert asyncio.run(strike_all()), "no points"


def test_a_point_strikes_at_the_nth_reach_and_once(tmp_path: Path) -> None:
    file = tmp_path / "failpoint"
    failpoint.arm(file, "hub.after_commit", 3)
    program = (
        "import pathlib, sys; from processes.adapters import failpoint; failpoint.allow(pathlib.Path(sys.argv[1]))\n"
        "for turn in range(9): print(turn, flush=True); failpoint.reach('hub.before_send'); failpoint.reach('hub.after_commit')"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True) for _ in range(2)
    )
    assert (first.returncode, first.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"])
    assert not file.exists()
    assert (second.returncode, len(second.stdout.split())) == (0, 9)


def test_an_agent_without_drills_of_its_own_passes_every_point(tmp_path: Path) -> None:
    """Whoever can write into the state folder of a fleet's agent must not find a way to kill it there."""

    async def scene(command_id: str, **environ: str) -> int | None:
        async with HubWire() as hub:
            agent = AgentProcess(tmp_path, hub.url, TOKEN, {"show": ["env"]})
            agent.state.mkdir(exist_ok=True)
            failpoint.arm(agent.state / "failpoint", "agent.acknowledged")
            agent.start(**environ)
            assert agent.process is not None
            try:
                await hub.registered()
                await hub.command("show", command_id)
                if environ:
                    return await asyncio.to_thread(agent.process.wait, 20)
                await hub.report(command_id)
                await until(lambda: not agent.run_folder(command_id).exists(), "what follows the point")
                return agent.process.poll()
            finally:
                agent.end_all()
                assert not any("FAILPOINT" in line or "DRILLS" in line for line in hub.lines(command_id))

    assert asyncio.run(scene("c1")) is None
    assert asyncio.run(scene("c2", FLEETHUB_DRILLS_ENABLED="true")) == -signal.SIGKILL


def test_an_unknown_point_cannot_be_armed(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        failpoint.arm(tmp_path / "failpoint", "hub.nowhere")


def test_every_named_point_is_somewhere_and_every_point_is_named() -> None:
    """A name without a place would be a rehearsal that never happens."""
    rooms = [Path(shim.__file__).parents[1] / room for room in ("hub", "agent", "watchdog")]
    code = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    assert [name for name in failpoint.NAMES if f'"{name}"' not in code] == []
    assert set(re.findall(r'reach\("([^"]+)"', code)) <= set(failpoint.NAMES)
