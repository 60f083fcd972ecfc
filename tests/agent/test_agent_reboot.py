"""A real agent whose machine reboots: its double of an init ends the agent and its shim, and the test begins the next
boot, of which the kernel's boot id, as the agent and its shims see it, is another.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from doubles.agent_process import AgentProcess, until
from doubles.hub_wire import TOKEN, HubWire

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="another boot id needs a mount, which needs root")
INSIDE = 'mount --make-rprivate /; mount --bind "$0" /proc/sys/kernel/random/boot_id; exec "$@"'


class Boots:
    """A machine's boots, one agent in each."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent = agent
        self.number = 0

    def boot(self) -> None:
        """The machine boots, and its agent is started."""
        self.number += 1
        (self.agent.home / "boot_id").write_text(f"boot-{self.number}\n")
        self.start()

    def start(self) -> None:
        """The agent is started, in the same boot."""
        self.agent.start(["unshare", "--mount", "sh", "-c", INSIDE, str(self.agent.home / "boot_id")])
        assert self.agent.process is not None
        (self.agent.home / "agent.pid").write_text(str(self.agent.process.pid))

    async def down(self) -> None:
        """The agent is gone, by whatever ended it."""
        assert self.agent.process is not None
        await asyncio.to_thread(self.agent.process.wait)


def play(home: Path, script: str, claim: Callable[[HubWire, Boots], Coroutine[Any, Any, None]], **more: Any) -> None:
    """Plays the first boot's agent, which offers a reboot that is this piece of shell."""
    argv = ["/bin/sh", "-c", f"echo run >> {home}/runs.txt; {script}"]
    commands: dict[str, Any] = {"reboot": {"builtin": True, "argv": argv, **more}, "next": ["true"]}

    async def scene() -> None:
        async with HubWire() as hub:
            agent = AgentProcess(home, hub.url, TOKEN, commands)
            boots = Boots(agent)
            try:
                boots.boot()
                await hub.registered()
                await claim(hub, boots)
                assert (home / "runs.txt").read_text() == "run\n", "once, whatever was lost"
            finally:
                agent.end_all()

    asyncio.run(scene())


AGENT = "kill -9 $(cat {home}/agent.pid)"
ALL = f"{AGENT}; kill -9 $PPID"


@pytest.mark.parametrize(
    ("ends", "lost"),
    [
        (AGENT, ""),  # the init was told, and all went down in good order
        (ALL, ""),  # nothing could be written down any more
        (ALL, "runs"),  # and the disk has lost what was written last
    ],
)
def test_a_reboot_has_succeeded_once_the_next_boot_has_an_agent(tmp_path: Path, ends: str, lost: str) -> None:
    async def claim(hub: HubWire, boots: Boots) -> None:
        await hub.command("reboot", "c1")
        await boots.down()
        if lost:
            shutil.rmtree(boots.agent.state / lost)
        boots.boot()
        register = await hub.registered(2)
        known = [each["command_id"] for each in register["known"]]
        assert (register["boot_id"], known) == ("boot-2", ["c1"]), "the journal has it, whatever else was lost"
        report = await hub.report("c1")
        assert (report["status"], report["message"]) == ("ok", "the machine booted anew")
        await hub.command("next", "n1")
        assert (await hub.report("n1"))["status"] == "ok"
        await hub.command("reboot", "c1", attempt=2)
        await hub.first("command_ack", "n1")

    play(tmp_path, ends.format(home=tmp_path), claim)


def test_a_refused_reboot_has_failed_though_the_machine_boots_later(tmp_path: Path) -> None:
    async def claim(hub: HubWire, boots: Boots) -> None:
        hub.acknowledges_reports = False
        await hub.command("reboot", "c1")
        first = await hub.report("c1")
        assert (first["status"], first["exit_code"], hub.lines("c1")) == ("error", 1, ["Access denied"])
        await boots.agent.kill()
        hub.acknowledges_reports = True
        boots.boot()
        await hub.until(lambda: len(hub.reports["c1"]) > 1, "the same report again")
        assert hub.reports["c1"][-1] == first

    play(tmp_path, "echo Access denied >&2; exit 1", claim)


def test_an_agent_that_begins_anew_in_the_same_boot_waits_and_then_says_that_nothing_happened(tmp_path: Path) -> None:
    async def claim(hub: HubWire, boots: Boots) -> None:
        await hub.command("reboot", "c1")
        await until((boots.agent.run_folder("c1") / "exit").exists, "the end of the program")
        await boots.agent.kill()
        boots.start()
        report = await hub.report("c1")
        assert (report["status"], report["exit_code"]) == ("timed_out", 0)
        assert report["message"] == "it said that it reboots, and 3 s later the machine has not"

    play(tmp_path, "true", claim, back_s=3)


def test_register_tells_the_hub_that_it_can_be_rebooted_and_how_long_that_takes(tmp_path: Path) -> None:
    async def claim(hub: HubWire, boots: Boots) -> None:
        register = await hub.registered()
        assert register["command_options"]["reboot"] == {"timeout_s": 60.0, "back_s": 77.0}
        (tmp_path / "runs.txt").write_text("run\n")

    play(tmp_path, "true", claim, back_s=77)
