"""The state folder of an installation of the version before, kept in tests/house/old_installation.tar.xz.

It was made with the code of commit 803da06, the last one in which core/ was one flat room:

    git worktree add /tmp/before 803da06 && /tmp/before/bin/venv test
    cd /tmp/before && .venv/bin/python HERE/tests/doubles/old_installation.py HERE/tests/house/old_installation.tar.xz

So this file runs under the old code when it makes the folder, and uses of it what did not change since: the command
line, the HTTP API, and the doubles `house` and `agent_wire`. Beside the installation's own files the archive holds
`made.json`, which says what is in it. Its tokens and keys are of an installation that never existed for anybody else.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import httpx

ARCHIVE = Path(__file__).resolve().parents[1] / "house" / "old_installation.tar.xz"
KEY = "asked-once"
WAIT_S = 120.0  # a guard: not that of doubles/deadline.py, which the old code does not have
OFFLINE, GONE, OTHER = "offline", "gone", "other"
SPARED = ("log", "run/supervisor.sock", "run/queues.sock")  # of no use to whoever comes after


def unpack(state: Path) -> dict[str, Any]:
    """Puts the old installation into the folder. What is in it, as `made.json` says."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(state, filter="tar")
    found: dict[str, Any] = json.loads((state / "made.json").read_text())
    (state / "made.json").unlink()
    return found


def _shrink(state: Path) -> None:
    for name in SPARED:
        path = state / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in state.rglob("*.log"):
        path.unlink()
    for name in ("fleet.db", "incidents.db"):
        connection = sqlite3.connect(state / name, isolation_level=None)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("VACUUM")
        connection.close()


async def _stray(house: Any, token: str) -> None:
    """A report of a command that nobody gave: put aside as a dead letter."""
    from doubles.agent_wire import AgentWire  # noqa: PLC0415  # of the code that makes the folder

    wire = await AgentWire.dial(int(house.agents.rpartition(":")[2]), token)
    wire.register(OTHER)
    await wire.hear("registered")
    wire.say("status", command_id="never-given", status="ok", exit_code=0, message="done long ago")
    deadline = time.monotonic() + WAIT_S
    while not _rows(house, "deadletters"):
        assert time.monotonic() < deadline, house.logs()
        await asyncio.sleep(0.1)
    await wire.close()


def _rows(house: Any, verb: str) -> list[dict[str, Any]]:
    document = house.json(verb)
    found: list[dict[str, Any]] = document
    if isinstance(document, dict):
        (found,) = (value for value in document.values() if isinstance(value, list))
    return found


def _until(house: Any, what: Any) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := what()):
        assert time.monotonic() < deadline, house.logs()
        time.sleep(0.1)
    return found


def _given(api: httpx.Client, op: str, host: str, **more: Any) -> dict[str, Any]:
    answer = api.post("/api/v1/commands", json={"op": op, "hosts": [host], **more})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()["commands"][0]
    return found


def make(archive: Path) -> None:
    """Makes the archive with the code that stands first on sys.path."""
    from doubles.house import House  # noqa: PLC0415  # of the code that makes the folder

    # an alarm's target that nobody listens at: so there is a state of alarms that are still to be sent
    with House(FLEETHUB_ALARMS_EXEC="/bin/false") as house:
        admin = house.settings.operator_token.read_text().strip()
        api = httpx.Client(
            base_url=f"http://{house.operators}", headers={"Authorization": f"Bearer {admin}"}, timeout=WAIT_S
        )
        house.agent("worker", {"greet": ["/bin/echo", "hello"], "fail": ["/bin/false"]})
        agents = list(house._agents)
        offline = house.host(OFFLINE, {"greet": ["/bin/echo", "hello again"], "wait": ["/bin/sleep", "600"]})
        house.host(GONE, {})
        other = house.enroll(OTHER)
        _until(house, lambda: any(h["presence"] == "online" for h in _rows(house, "hosts") if h["name"] == "worker"))
        states: dict[str, str] = {}

        def ended(command: dict[str, Any], state: str) -> str:
            found = _until(house, lambda: api.get(f"/api/v1/commands/{command['id']}").json()["state"] == state)
            assert found
            states[command["id"]] = state
            return str(command["id"])

        keyed = ended(_given(api, "greet", "worker", key=KEY), "succeeded")
        ended(_given(api, "fail", "worker"), "failed")
        run = api.post("/api/v1/runs", json={"steps": ["greet"], "hosts": ["worker"]})
        assert run.status_code == 202, run.text
        run_id = run.json()["id"]
        _until(house, lambda: api.get(f"/api/v1/runs/{run_id}").json()["state"] == "succeeded")
        lost_agent = house.start_agent(offline)
        _until(house, lambda: any(h["presence"] == "online" for h in _rows(house, "hosts") if h["name"] == OFFLINE))
        lost = _given(api, "wait", OFFLINE)
        _until(house, lambda: api.get(f"/api/v1/commands/{lost['id']}").json()["state"] == "running")
        lost_agent.send_signal(signal.SIGTERM)
        lost_agent.wait()
        for path in offline.glob("state/runs/*/lock"):
            pid = int(path.read_text().partition("pid=")[2].split()[0])
            os.kill(pid, signal.SIGKILL)
        for pid in _programs(lost["id"]):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(offline / "state")  # the journal that follows is another one: what ran under this one is lost
        lost_agent = house.start_agent(offline)
        ended(lost, "lost")
        lost_agent.send_signal(signal.SIGTERM)
        lost_agent.wait()
        _until(house, lambda: any(h["presence"] == "offline" for h in _rows(house, "hosts") if h["name"] == OFFLINE))
        queued = _given(api, "greet", OFFLINE, ttl_s=7 * 86400)
        states[queued["id"]] = "queued"
        assert house.cli("revoke", GONE).returncode == 0
        asyncio.run(_stray(house, other))
        operator = house.json("token", "create", "--role", "operator", "--label", "ops")["token"]
        void = house.json("token", "create", "--role", "operator", "--label", "void")
        house.cli("token", "revoke", str(void["id"]))
        browser = httpx.Client(base_url=f"http://{house.operators}", timeout=WAIT_S)
        signed_in = browser.post("/login", json={"token": operator})
        assert signed_in.status_code in (200, 204), signed_in.text
        os.kill(house.pulse("gateway").pid, signal.SIGSTOP)
        _until(house, lambda: [each for each in _rows(house, "incidents") if each.get("over_at")])
        _until(house, lambda: all((house.state / name).exists() for name in ("alarms.json", "history/fanout")))
        api.close()
        made = {
            "wall_s": time.time(), "admin": admin, "operator": operator, "void": void["token"], "keyed": keyed,
            "run": run_id, "states": states, "queued": queued["id"], "lost": lost["id"],
            "output": "hello", "epoch": house.json("status")["epoch"],
            "ledger": house.json("status")["commands"],
            "incidents": [each["id"] for each in _rows(house, "incidents")],
            "letters": [(each["id"], each["kind"], each["why"]) for each in _rows(house, "deadletters")],
            "audit": len(_rows(house, "audit")),
            "cookies": dict(browser.cookies), "gone": (house.state / f"host-{GONE}" / "agent.token").read_text(),
        }  # fmt: skip
        for agent in agents:
            agent.send_signal(signal.SIGTERM)
            agent.wait()
        done = house.cli("down")
        assert done.returncode == 0, done.stdout + done.stderr
        (house.state / "made.json").write_text(json.dumps(made, indent=1))
        _shrink(house.state)
        with tarfile.open(archive, "w:xz", preset=9) as packed:
            packed.add(house.state, ".", filter=_nobody)
        print(archive.stat().st_size, "bytes", json.dumps(made, indent=1))


def _nobody(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uname = member.gname = ""
    return member if member.isfile() or member.isdir() else None


def _programs(command_id: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"FLEETHUB_COMMAND_ID={command_id}".encode() in environment:
            found.append(int(folder.name))
    return found


if __name__ == "__main__":
    sys.path[:0] = [os.getcwd(), f"{os.getcwd()}/tests"]
    make(Path(sys.argv[1]).absolute())
