"""An installation of the version before goes on with its state folder: nothing that it had is missing, or other."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from doubles import old_installation
from doubles.deadline import WAIT_S, until
from doubles.house import House

from processes.adapters.state import revocations

CLOCK = Path(__file__).resolve().parents[1] / "doubles" / "wall_clock"


class Taken:
    """The old folder under today's code, with the wall clock of a minute after it was left."""

    def __init__(self, clock: Path) -> None:
        self.moved = {"PYTHONPATH": str(CLOCK), "WALL_CLOCK_FILE": str(clock)}
        self.house = House(**self.moved)
        self.made = old_installation.unpack(self.house.state)
        clock.write_text(str(self.made["wall_s"] + 60 - time.time()))

    def get(self, path: str, token: str | None = None) -> Any:
        """What the API answers to the old admin's token."""
        answer = self.ask("GET", path, token)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx.Response:
        """The answer to a request with a token."""
        headers = {"Authorization": f"Bearer {token or self.made['admin']}"}
        return httpx.request(method, f"http://{self.house.operators}{path}", headers=headers, timeout=WAIT_S, **more)

    def until(self, what: Callable[[], object]) -> None:
        """Waits for it."""
        until(what, self.house.logs)


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taken]:
    found = Taken(tmp_path_factory.mktemp("clock") / "offset")
    with found.house:
        yield found


def test_hosts_are_there_and_whoever_was_revoked_stays_revoked(taken: Taken) -> None:
    hosts = {host["name"]: host for host in taken.get("/api/v1/hosts")["hosts"]}
    assert {"worker", "offline", "gone", "other"} <= set(hosts)
    assert hosts["gone"]["revoked"]
    assert not hosts["worker"]["revoked"]
    listed = revocations.read(revocations.beside(taken.house.settings.database))
    with sqlite3.connect(taken.house.settings.database) as database:
        good = {row[0] for row in database.execute("SELECT token_hash FROM tokens")}
    assert len(listed) == 2
    assert not listed & good


def test_commands_have_their_states_and_outputs_and_the_ledger_adds_up(taken: Taken) -> None:
    for command_id, state in taken.made["states"].items():
        if command_id != taken.made["queued"]:
            assert taken.get(f"/api/v1/commands/{command_id}")["state"] == state
    output = taken.get(f"/api/v1/commands/{taken.made['keyed']}/output")
    assert taken.made["output"] in json.dumps(output)
    ledger = taken.get("/api/v1/status")["commands"]
    assert ledger["lost"] == 1
    assert ledger["failed"] == 1
    assert ledger["accepted"] == sum(count for state, count in ledger.items() if state != "accepted")


def test_a_key_asked_again_answers_with_the_same_command(taken: Taken) -> None:
    asked = {"op": "greet", "hosts": ["worker"], "key": old_installation.KEY}
    answer = taken.ask("POST", "/api/v1/commands", json=asked)
    assert answer.status_code == 200, answer.text
    assert [command["id"] for command in answer.json()["commands"]] == [taken.made["keyed"]]


def test_the_run_is_there(taken: Taken) -> None:
    run = taken.get(f"/api/v1/runs/{taken.made['run']}")
    assert (run["state"], run["succeeded"]) == ("succeeded", 1)


def test_tokens_are_good_and_void_ones_are_not_and_a_browser_signs_in_anew(taken: Taken) -> None:
    assert taken.get("/api/v1/me", taken.made["operator"])["role"] == "operator"
    assert taken.ask("GET", "/api/v1/me", taken.made["void"]).status_code == 401
    with httpx.Client(base_url=f"http://{taken.house.operators}", cookies=taken.made["cookies"]) as browser:
        assert browser.get("/api/v1/me").status_code == 401, "its cookie does not say to which token it belongs"
        browser.cookies.clear()
        assert browser.post("/login", json={"token": taken.made["operator"]}).status_code == 200
        me = browser.get("/api/v1/me")
        assert (me.status_code, me.json().get("actor")) == (200, "ops"), me.text
        listed = browser.get("/api/v1/sessions").json()["sessions"]
        assert [session["current"] for session in listed] == [True]


def test_the_epoch_has_grown_and_incidents_and_audit_are_listed(taken: Taken) -> None:
    assert taken.get("/api/v1/status")["epoch"] > taken.made["epoch"]
    incidents = {incident["id"] for incident in taken.get("/api/v1/incidents")["incidents"]}
    assert set(taken.made["incidents"]) <= incidents
    whole = taken.get(f"/api/v1/incidents/{taken.made['incidents'][0]}")
    assert whole["evidence_text"]
    assert all("cannot be read" not in text for text in whole["evidence_text"].values())
    assert len(taken.get("/api/v1/audit?limit=200")["audit"]) > 0


def test_the_dead_letter_has_its_kind_and_can_be_tried_again(taken: Taken) -> None:
    ((letter_id, kind, why),) = taken.made["letters"]
    letters = next(iter(taken.get("/api/v1/deadletters").values()))
    assert [(each["id"], each["kind"], each["why"]) for each in letters] == [(letter_id, kind, why)]
    answer = taken.ask("POST", f"/api/v1/deadletters/{letter_id}/retry")
    assert answer.status_code in (200, 202), answer.text


def test_a_command_that_waited_is_delivered_when_its_agent_comes(taken: Taken) -> None:
    """And the agent of today goes on with the old one's journal."""
    folder = taken.house.state / f"host-{old_installation.OFFLINE}"
    file = folder / "agent.toml"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([f'hub = "ws://{taken.house.agents}/ws"', *lines[1:]]))
    assert taken.get(f"/api/v1/commands/{taken.made['queued']}")["state"] == "queued"
    journal = folder / "state" / "journal.db"
    with sqlite3.connect(journal) as database:
        before = database.execute("SELECT * FROM sqlite_master").fetchall()
    taken.house.start_agent(folder, **taken.moved)
    taken.until(lambda: taken.get(f"/api/v1/commands/{taken.made['queued']}")["state"] == "succeeded")
    assert "hello again" in json.dumps(taken.get(f"/api/v1/commands/{taken.made['queued']}/output"))
    with sqlite3.connect(journal) as database:
        assert database.execute("SELECT * FROM sqlite_master").fetchall() == before
