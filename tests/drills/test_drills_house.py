"""The house as a whole: no orphans, no refused connections, a clean end, and the storm of the founding incident."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import websockets
from doubles.deadline import WAIT_S, until
from doubles.house import House, Operator

from processes.adapters import own_user
from processes.adapters.supervisor import Supervisor

pytestmark = pytest.mark.house


class HouseOfOwnUsers(House):
    """One whose gateway and fanout are no root."""

    own_users = True


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One installation; each test leaves it running."""
    with HouseOfOwnUsers() as house:
        yield house


def wait_for_death(pids: list[int]) -> None:
    until(lambda: all(state_of(pid) == "Z" for pid in pids), f"still there: {pids}")


def state_of(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
    return "Z"


def test_a_second_up_says_ok_and_gives_a_new_link(house: House) -> None:
    done = house.cli("up")
    assert done.returncode == 0
    assert "ok" in (done.stdout + done.stderr)
    assert next(line for line in done.stdout.splitlines() if line.startswith("http")).startswith(
        f"http://{house.operators}/#code="
    )


def test_a_host_enrols_itself_by_a_code_while_the_hub_is_killed_and_makes_its_token_anew(house: House) -> None:
    made = house.json("enroll", "coded", "--code")
    assert house.signal(house.pulse("hub").pid, signal.SIGKILL)
    folder = house.state / "host-coded"
    typed = ("agent", "--hub", f"ws://{house.agents}", "--code", made["code"], "--place", str(folder), "--init")
    done = house.cli(*typed)
    assert done.returncode == 0, done.stderr + house.logs()
    secret = (folder / "agent.token").read_text().strip()
    assert secret not in done.stdout + done.stderr
    assert house.cli(*typed).returncode == 0, "the same line again does the same as once"
    elsewhere = [str(house.state / "elsewhere") if word == str(folder) else word for word in typed]
    assert house.cli(*elsewhere).returncode == 1, "a code is good for one use: another token is refused"
    assert (folder / "agent.token").read_text().strip() == secret
    agent = house.start_agent(folder)
    until(lambda: house.row("coded").get("presence") == "online", house.logs)
    assert house.cli("enroll", "coded", "--rotate").returncode == 0
    until(lambda: (folder / "agent.token").read_text().strip() != secret, house.logs)
    assert house.cli("run", "uptime", "coded").returncode == 0, "by the new token, on the same host"
    agent.kill()
    assert house.cli("remove", "coded").returncode == 0


def test_a_host_without_fleethub_installs_its_agent_from_one_file_and_installs_it_again(house: House) -> None:
    """The line that `enroll --code` prints, with the code given; no network: the file carries this Python's libraries."""
    made = house.json("enroll", "bare", "--code")
    script, folder = house.state / "agent.sh", house.state / "host-bare"
    with urllib.request.urlopen(f"http://{house.operators}/agent", timeout=WAIT_S) as answer:
        script.write_bytes(answer.read())
    assert hashlib.sha256(script.read_bytes()).hexdigest() == made["agent_sha256"]
    words = ["sh", str(script), "--folder", str(folder), "--hub", f"ws://{house.agents}", "--no-service"]
    environ = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "PIP_NO_INDEX": "1"}

    def install(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*words, *more], env=environ, capture_output=True, text=True, timeout=3 * WAIT_S)

    assert "--code CODE" in install().stderr
    assert not folder.exists(), "nothing is made for nothing"
    done = install("--code", made["code"])
    assert done.returncode == 0, done.stderr + house.logs()
    line = next(line for line in done.stdout.splitlines() if "start.py" in line).split()
    assert line[-4:] == ["-I", str(folder / "program" / "start.py"), "--config", str(folder / "agent.toml")]
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 15_000_000
    with (folder / "agent.log").open("ab") as log:
        agent = subprocess.Popen(line, env=environ, cwd="/", stderr=log)
    try:
        until(lambda: house.row("bare").get("presence") == "online", (folder / "agent.log").read_text)
        modules = Path(f"/proc/{agent.pid}/maps").read_text()
        assert f"{folder}/programs" in modules
        assert ".venv" not in modules, "its libraries are its own"
        assert house.cli("run", "uptime", "bare").returncode == 0
        journal = (folder / "agent-state" / "journal.db").stat().st_ino
        done = install()
        assert done.returncode == 0, done.stderr
        assert (folder / "agent-state" / "journal.db").stat().st_ino == journal
        assert house.cli("run", "uptime", "bare").returncode == 0
    finally:
        agent.kill()
        agent.wait(WAIT_S)
    assert house.cli("remove", "bare").returncode == 0


def test_this_machine_is_a_host_with_real_metrics_and_runs_a_real_command(house: House) -> None:
    (host,) = house.json("hosts")["hosts"]
    assert host["presence"] == "online"
    until(lambda: house.row(host["name"]).get("metrics"), house.logs)
    metrics = house.json("hosts")["hosts"][0]["metrics"]
    assert 0 < metrics["ram"] <= 100
    done = house.cli("run", "uptime", host["name"])
    assert done.returncode == 0, done.stderr
    assert "load average:" in done.stdout
    environ = Path(f"/proc/{house.pulse('agent').pid}/environ").read_bytes().split(b"\0")
    assert f"PATH={os.environ['PATH']}".encode() in environ, "its commands find the system's pip and python3"
    refused = house.cli("run", "rm", host["name"])
    assert refused.returncode == 1
    assert "does not offer 'rm'; it offers: uptime" in refused.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="only root's processes have something to give up")
def test_gateway_and_fanout_run_without_capabilities_and_without_new_privileges(house: House) -> None:
    """In each of their threads, and as users of their own; the fanout has the gateway's group. They serve all the same, as the other tests of this
    house show.
    """
    for name in ("gateway", "fanout"):
        threads = list(Path(f"/proc/{house.pulse(name).pid}/task").iterdir())
        assert len(threads) > 1
        for thread in threads:
            told = dict(line.split(":\t") for line in (thread / "status").read_text().splitlines() if ":\t" in line)
            sets = {key: int(told[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
            assert (set(sets.values()), told["NoNewPrivs"]) == ({0}, "1"), (name, sets)
            users = {int(each) for field in ("Uid", "Gid", "Groups") for each in told[field].split()}
            theirs = {"gateway": ["gateway"], "fanout": ["fanout", "gateway"]}[name]
            assert users == {own_user.of(house.state, kind) for kind in theirs}
    hub = Path(f"/proc/{house.pulse('hub').pid}/status").read_text()
    assert "NoNewPrivs:\t0" in hub


def test_connecting_clients_wait_and_are_never_refused_while_gateway_and_fanout_are_replaced(house: House) -> None:
    """Five kills of each under a stream of fresh connections: all are served."""

    async def fetch(address: str) -> bytes:
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(f"GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
            return await asyncio.wait_for(reader.readline(), WAIT_S)
        finally:
            writer.close()

    async def connects(name: str, address: str) -> list[str]:
        """A connection that was accepted by the process that is then killed may break: it is tried again; a refused one
        may not be.
        """
        trouble = []
        kills = 0
        for number in range(150):
            if number % 30 == 15:
                pid = house.pulse(name).pid
                os.kill(pid, signal.SIGKILL)
                wait_for_death([pid])
                kills += 1
            try:
                line = await fetch(address)
                if not line.startswith(b"HTTP/1.1 "):
                    trouble.append(f"{number}: {line!r}")
            except OSError as error:
                trouble.append(f"{number}: {error!r}")
        assert kills == 5
        return trouble

    async def work() -> None:
        assert await connects("fanout", house.operators) == []
        assert await connects("gateway", house.agents) == []
        async with Operator(house) as operator:
            await operator.healthy()

    asyncio.run(work())


def test_each_process_ends_with_0_after_sigterm(house: House) -> None:
    """State flushed, sockets closed with 1012, exit 0: supervisord's own words."""
    supervisor = Supervisor(house.settings.supervisor_socket)
    for name in ("hub", "fanout", "gateway", "watchdog", "agent", "queues"):
        pid = house.pulse(name).pid
        os.kill(pid, signal.SIGTERM)
        wait_for_death([pid])
        until(lambda: supervisor.processes()[name].pid not in (0, pid), house.logs)  # noqa: B023
        log = (house.state / "log" / "supervisord.log").read_text()
        told = [line for line in log.splitlines() if "exited: " in line and f"exited: {name}" in line][-1]
        assert "exit status 0" in told, told
    asyncio.run(well(house))


async def well(house: House) -> None:
    async with Operator(house) as operator:
        await operator.healthy()


def test_sigterm_closes_operators_and_agents_with_1012(house: House) -> None:
    async def work() -> None:
        token = (house.state / "operator.token").read_text().strip()
        agent_token = house.enroll("closing")
        async with (
            websockets.connect(
                f"ws://{house.operators}/ws", additional_headers={"Authorization": f"Bearer {token}"}, max_size=None
            ) as operator,
            websockets.connect(
                f"ws://{house.agents}/ws", additional_headers={"Authorization": f"Bearer {agent_token}"}
            ) as agent,
        ):
            await agent.send(json.dumps({"type": "register", "payload": {"hostname": "closing"}}))
            await asyncio.wait_for(agent.recv(), WAIT_S)
            await asyncio.wait_for(operator.recv(), WAIT_S)
            os.kill(house.pulse("fanout").pid, signal.SIGTERM)
            os.kill(house.pulse("gateway").pid, signal.SIGTERM)
            for one in (operator, agent):
                with contextlib.suppress(websockets.ConnectionClosed):
                    while True:
                        await asyncio.wait_for(one.recv(), WAIT_S)
                assert one.close_code in (1001, 1012)
        await well(house)

    asyncio.run(work())
    assert house.cli("remove", "closing").returncode == 0


def test_an_agent_disconnects_during_heartbeats_and_broadcasts_and_the_loop_goes_on(house: House) -> None:
    """The founding incident against real processes: many rounds of heartbeat, broadcast and disconnect at once, and
    commands given meanwhile arrive exactly once.
    """

    async def storm(name: str, token: str, rounds: int) -> None:
        beat = json.dumps(
            {
                "type": "heartbeat",
                "payload": {"metrics": {"cpu": 1, "ram": 2, "swap": 0, "load": 0.5}, "pending_command": None},
            }
        )
        for _ in range(rounds):
            async with websockets.connect(
                f"ws://{house.agents}/ws", additional_headers={"Authorization": f"Bearer {token}"}
            ) as agent:
                await agent.send(json.dumps({"type": "register", "payload": {"hostname": name}}))
                await asyncio.wait_for(agent.recv(), WAIT_S)
                for _ in range(5):
                    await agent.send(beat)
                agent.transport.abort()  # in the middle of it all

    async def work() -> None:
        tokens = {f"storm{number}": house.enroll(f"storm{number}") for number in range(4)}
        (here,) = [
            host["name"]
            for host in house.json("hosts")["hosts"]
            if host["agent_version"] and not host["name"].startswith("storm")
        ]
        async with Operator(house) as operator, Operator(house) as other:
            pid, restarts = house.pulse("hub").pid, len(house.json("incidents")["incidents"])
            storms = [asyncio.create_task(storm(name, token, 25)) for name, token in tokens.items()]
            given = []
            while not all(task.done() for task in storms):
                turn = house.pulse("hub").turn
                await operator.until(lambda: house.pulse("hub").turn > turn)  # noqa: B023
                given += await operator.give("uptime", here)
                await asyncio.sleep(0.1)
            for task in storms:
                task.result()
            for command_id in given:
                assert (await operator.ended(command_id))["state"] == "succeeded"
            await operator.until(lambda: all(operator.hosts[name]["presence"] == "offline" for name in tokens))
            await operator.until(lambda: all(other.hosts[name]["presence"] == "offline" for name in tokens))
            assert (operator.breaks, other.breaks) == ([], [])
            for versions in (operator.versions, other.versions):
                assert all(b == (a[0], a[1] + 1) for a, b in itertools.pairwise(versions)), (
                    "each delta is the next version"
                )
            assert house.pulse("hub").pid == pid
            assert len(house.json("incidents")["incidents"]) == restarts
        for name in tokens:
            assert house.cli("remove", name).returncode == 0

    asyncio.run(work())


def test_two_installations_run_side_by_side_and_never_share_a_state_folder(house: House) -> None:
    with House() as other:
        assert other.json("status")["verdict"] == "ok"
        assert house.json("status")["verdict"] == "ok"
        theft = subprocess.run(
            [str(House.__init__.__globals__["CHECKOUT"] / "bin" / "fleethub"), "up"],
            env={**other.environment, "FLEETHUB_STATE": str(house.state)}, capture_output=True, text=True, timeout=WAIT_S,
        )  # fmt: skip
        assert "already running" in theft.stdout + theft.stderr, "the one that is there is found, not doubled"
        assert theft.returncode == 0 or "listen" in theft.stderr
        assert other.json("status")["verdict"] == "ok"
    assert house.json("status")["verdict"] == "ok"


def test_a_killed_process_that_supervisord_gave_up_is_revived(house: House) -> None:
    """FATAL and unasked-for STOPPED are not the end."""
    supervisor = Supervisor(house.settings.supervisor_socket)
    supervisor.stop("hub", wait=True)
    until(lambda: supervisor.processes()["hub"].state == "RUNNING", house.logs)
    asyncio.run(well(house))


def test_down_leaves_no_process(house: House) -> None:
    done = house.cli("down")
    assert done.returncode == 0, done.stderr
    assert house.pids() == []
    status = house.cli("status")
    assert status.returncode in (2, 3)
