"""What an agent reads of its machine: whatever the files hold, the rest is read, and the agent lives."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import psutil
import pytest
from doubles.agent_process import agent_process
from doubles.hub_wire import TOKEN, HubWire

from processes.adapters import clock
from processes.agent import facts, metrics
from processes.agent.__main__ import _identity
from processes.agent.config import Config
from processes.core.travels import agent_frames

LATIN_1 = b'NAME="B\366se"\nPRETTY_NAME="B\366se 7 (M\374hle)"\n'


def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> str:
    path = tmp_path / "os-release"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(facts, "OS_RELEASE", (str(tmp_path / "missing"), str(path)))
    return facts.os_name()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (LATIN_1, "B\ufffdse 7 (M\ufffdhle)"),
        (b'NAME=Small\n', "Small"),
        (b'PRETTY_NAME="Two words"\n', "Two words"),
        (b"PRETTY_NAME='it is \"so\"'\n", 'it is "so"'),
        (b'PRETTY_NAME="not closed\n', '"not closed'),
        (b'# a comment\n\nPRETTY_NAME=\nNAME=Second\n', "Second"),
    ],
)  # fmt: skip
def test_name_of_the_system_is_read_from_whatever_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, name: str
) -> None:
    assert release(tmp_path, monkeypatch, content) == name


@pytest.mark.parametrize("content", [None, b"", b"\0\377\n" * 9, b"no equals sign\n"])
def test_without_a_name_the_kernels_stands_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    assert release(tmp_path, monkeypatch, content) == os.uname().release


def test_fact_that_cannot_be_read_is_left_out_and_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def empty(path: str) -> str:
        return ""

    whole = facts.facts()
    monkeypatch.setattr(facts, "_read", empty)
    found = facts.facts()
    assert set(whole) - set(found) == {"memory_mib", "uptime_s"}
    assert found["cpus"] == str(os.cpu_count())


def test_number_that_cannot_be_read_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty /proc/stat made all of them null, without a word."""

    def broken(*_: object, **__: object) -> float:
        raise IndexError("list index out of range")

    monkeypatch.setattr(psutil, "cpu_percent", broken)
    monkeypatch.setattr(psutil, "sensors_temperatures", b"\366".decode)
    taken = metrics.take()
    assert (taken.cpu, taken.temperatures) == (None, None)
    assert None not in (taken.ram, taken.load, taken.disk, taken.uptime_s)


def test_facts_are_utf_8_in_any_locale_and_whatever_bytes_they_come_of() -> None:
    """The bug it would catch: in a legacy locale `facts` ends in a traceback, or what it prints is read as rubbish."""
    program = "import platform, runpy, sys; platform.node = lambda: 'B\\udcf6se ü 🚀'; runpy.run_path(sys.argv[1], run_name='__main__')"
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run([sys.executable, "-c", program, facts.__file__], env=environ, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.decode().startswith("hostname: B?se ü 🚀\n")
    assert b"\nmachine: " in ran.stdout


def test_register_can_be_sent_whatever_the_kernel_calls_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = SimpleNamespace(release="6.1-B\udcf6se", machine="x\udcff")
    monkeypatch.setattr("platform.uname", lambda: named)
    monkeypatch.setattr("platform.release", lambda: named.release)
    monkeypatch.setattr(facts, "OS_RELEASE", ())
    monkeypatch.setattr(clock, "boot_id", b"\xf6".decode)
    config = Config(tmp_path / "agent.toml", "ws://h/ws", "web1", tmp_path / "t", 1.0, tmp_path, 1 << 20, None, {})
    register = _identity(config).register([])
    sent = msgspec.json.decode(agent_frames.encode(register))["payload"]
    assert (sent["os_version"], sent["kernel"], sent["machine"], sent["boot_id"]) == (
        "6.1-B?se", "6.1-B?se", "x?", "unknown",
    )  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize("fault", ["latin-1 in os-release", "no /proc/sys", "empty /proc/stat and /proc/meminfo"])
def test_agent_lives_whatever_the_machines_files_hold(tmp_path: Path, fault: str) -> None:
    """CASE: exit 70 at each start. Run in a mount namespace of its own: nobody else sees these files."""
    odd = tmp_path / "odd"
    odd.write_bytes(LATIN_1 if "os-release" in fault else b"")
    (tmp_path / "nothing").mkdir()
    places = {
        "latin-1 in os-release": [(odd, os.path.realpath("/etc/os-release"))],
        "no /proc/sys": [(tmp_path / "nothing", "/proc/sys")],
    }.get(fault, [(odd, "/proc/stat"), (odd, "/proc/meminfo")])
    mounts = "; ".join(f"mount --bind '{here}' '{there}'" for here, there in places)

    async def scene() -> None:
        async with HubWire() as hub, agent_process(tmp_path, hub.url, TOKEN) as agent:
            await agent.kill()
            assert agent.process is not None
            words = shlex.join([sys.executable, "-m", "processes.agent", "--config", str(agent.config)])
            inside = ["unshare", "-m", "sh", "-c", f"{mounts}; exec {words}"]
            with agent.log.open("ab") as log:
                agent.process = subprocess.Popen(inside, stdout=log, stderr=log, start_new_session=True)
            register = await hub.registered(len(hub.of("register")) + 1)
            if "os-release" in fault:
                assert register["os_version"] == "B\ufffdse 7 (M\ufffdhle)"
            await hub.until(lambda: [beat for beat in hub.of("heartbeat") if beat.get("metrics")], "metrics")
            metrics = hub.of("heartbeat")[-1]["metrics"]
            assert {"load", "disk", "uptime_s"} <= set(metrics)
            await hub.command("facts", "c1")
            assert (await hub.report("c1"))["status"] == "ok"
            assert any(line.startswith("kernel: ") for line in hub.lines("c1"))
            assert not any("Traceback" in line for line in hub.lines("c1"))

    asyncio.run(scene())
