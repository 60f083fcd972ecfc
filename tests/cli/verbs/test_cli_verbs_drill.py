"""The verb `drill` without an installation: what it lists, and what it refuses before anything is broken."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import httpx
import msgspec
import pytest
from doubles.deadline import WAIT_S

from processes.adapters import proc
from processes.adapters.settings import load
from processes.adapters.state import drill_mark, pulse_file
from processes.adapters.state.pulse_file import PulseFile, start_ticks
from processes.cli.__main__ import execute
from processes.cli.drills import programme
from processes.cli.drills.programme import impossible
from processes.cli.drills.scene import held
from processes.cli.drills.stage import Late, Stage, send
from processes.cli.machine import environment
from processes.cli.terminal.failure import Failure
from processes.core.cli.drills import BY_NAME, DRILLS
from processes.core.errors import ResourceError
from processes.core.shown.status import (
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    Overall,
    ProcessReport,
    Report,
    Verdict,
)


@pytest.fixture
def say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = execute(["drill", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


Say = Callable[..., tuple[int, str, str]]


def test_the_list_names_every_drill_with_its_bounds(say: Say) -> None:
    code, out, _ = say("--list")
    assert code == 0
    lines = out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == [drill.name for drill in DRILLS]
    document = json.loads(say("--list", "--json")[1])
    assert [drill["name"] for drill in document["drills"]] == [drill.name for drill in DRILLS]
    assert (document["drills"][1]["found_s"], document["drills"][1]["well_s"]) == (3.0, 5.0)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 2, "name drills, or say --all"),
        (("--all", "hub-kill"), 2, "name drills, or say --all"),
        (("hub-kil",), 2, "there is no drill 'hub-kil'; did you mean hub-kill?"),
        (("hub-kill", "--rounds", "0"), 2, "--rounds"),
        (("hub-kill",), 1, "nothing was started here yet"),
    ],
)
def test_what_makes_no_sense_is_refused(say: Say, arguments: tuple[str, ...], code: int, said: str) -> None:
    ended, out, err = say(*arguments)
    assert (ended, out) == (code, "")
    assert said in err


def test_an_installation_that_is_not_well_is_not_drilled(say: Say, tmp_path: Path) -> None:
    """Here nothing runs at all: that is told before an agent is enrolled or anything is broken."""
    (tmp_path / "operator.token").write_text("token")
    stage = Stage(load())
    with pytest.raises(Failure, match="the installation is not well: down: ") as told:
        asyncio.run(stage.well(0.0))
    assert told.value.code == "unwell"
    assert "fleethub status" in told.value.advice


def test_what_has_only_just_started_is_well_and_yet_no_drill_begins(say: Say, tmp_path: Path) -> None:
    """supervisord would take its death for a failed start, and make the next one wait: a figure of the drill, not of
    the house.
    """
    (tmp_path / "operator.token").write_text("token")
    settings = load()
    settings.pulses.mkdir(parents=True)
    PulseFile(settings.pulses, "hub").beat()
    state = "STARTING"

    def report() -> Report:
        row = ProcessReport("hub", state, os.getpid(), 0.5, 0, None, Verdict.ADVANCING)
        return Report(
            Overall.OK, 1, [row], CanaryReport(True), FleetReport(), CommandsReport(), IncidentsReport(),
            at_mono_s=time.monotonic(), writer_pid=os.getpid(), writer_start_ticks=start_ticks(os.getpid()) or 0,
        )  # fmt: skip

    async def look() -> tuple[str | None, str | None]:
        settings.report.write_bytes(msgspec.json.encode(report()))
        stage = Stage(settings)
        transport = httpx.MockTransport(lambda _: httpx.Response(200))
        async with httpx.AsyncClient(base_url=stage.url, transport=transport) as stage.http:
            return await stage.unwell(), await stage.unwell(rested=True)

    assert asyncio.run(look()) == (None, "hub has only just started")
    state = "RUNNING"
    assert asyncio.run(look()) == (None, None)


class Agentless:
    """A stage whose installation was not asked for an agent."""

    def pids(self) -> dict[str, int]:
        """What is wanted."""
        return {"hub": 1}


@pytest.mark.parametrize(
    ("name", "enabled", "root", "code"),
    [
        ("hub-busy", False, True, "drills_disabled"),
        ("hub-busy", True, True, None),
        ("hub-kill", False, False, None),
        ("disk-full", True, False, "not_root"),
        ("log-disk-full", True, True, None),
        ("agent-kill", True, True, "no_agent"),
    ],
)
def test_what_is_not_possible_here_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, name: str, enabled: bool, root: bool, code: str | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    why = impossible(BY_NAME[name], cast(Stage, Agentless()), enabled)
    assert (why.code if why else None) == code
    assert why is None or why.advice


def test_the_mark_is_seen_while_it_is_held_and_only_once(tmp_path: Path) -> None:
    assert not drill_mark.is_held(tmp_path)
    held_fd = drill_mark.hold(tmp_path)
    assert drill_mark.is_held(tmp_path)
    with pytest.raises(ResourceError, match=f"held by process {os.getpid()}"):
        drill_mark.hold(tmp_path)
    os.close(held_fd)
    descriptors = proc.descriptors(os.getpid())
    assert not drill_mark.is_held(tmp_path)
    assert proc.descriptors(os.getpid()) == descriptors, "a watchdog looks ten times a second"


def state_of(pid: int) -> str:
    found = proc.stat(pid)
    return found.state if found else "-"


def test_what_is_held_is_stopped_and_goes_on_afterwards() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        ticks = pulse_file.start_ticks(child.pid) or 0
        with held({child.pid: ticks}):
            deadline_s = time.monotonic() + WAIT_S
            while state_of(child.pid) != "T":
                assert time.monotonic() < deadline_s
        assert state_of(child.pid) != "T"
        with pytest.raises(Late, match="is gone"):
            send(child.pid, ticks + 1, signal.SIGKILL)  # the same number, another process
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_the_small_disk_of_a_drill_is_fit_for_a_state_folder(tmp_path: Path) -> None:
    """The bug it would catch: a tmpfs is everybody's, so no installation starts on it and two drills cannot run."""
    disk = tmp_path / "state"
    disk.mkdir()
    programme.mount(disk, programme.STATE_DISK)
    try:
        environment.make_folders(load({"FLEETHUB_STATE": str(disk)}))
    finally:
        subprocess.run(["umount", str(disk)], check=True)
