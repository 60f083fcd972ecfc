"""What the shell completes: names of hosts, processes, drills and incidents; nothing, and no word of why, when they
cannot be had.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from doubles.api_server import command, fleet_run, host, part, running

from processes.adapters.settings import load
from processes.cli.__main__ import cli
from processes.core.cli.drills import DRILLS


def completed(*words: str) -> list[str]:
    """What is offered for the last word."""
    return [
        item.value for item in ShellComplete(cli, {}, "fleethub", "_X").get_completions(list(words[:-1]), words[-1])
    ]


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", "127.0.0.1:9")  # nobody answers there
    return tmp_path


def test_hosts_are_asked_for_and_one_that_was_given_is_not_offered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:
        load().operator_token.write_text("secret\n")
        monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", server.url.removeprefix("http://"))
        server.on("GET", "/api/v1/hosts", (200, {"hosts": [host("web1"), host("web2"), host("intraweb")]}))
        assert completed("host", "we") == ["web1", "web2"]
        assert completed("run", "pull", "web1", "we") == ["web2"]
        assert completed("commands", "--host", "intra") == ["intraweb"]
        assert {each.query for each in server.asked} == {"search=we", "search=intra"}
        server.on("GET", "/api/v1/hosts", (401, {"error": "unauthorized", "message": "no"}))
        assert completed("host", "we") == []


def test_names_of_processes_and_drills_are_known(capfd: pytest.CaptureFixture[str]) -> None:
    assert completed("stop", "ga") == ["gateway"]
    assert completed("restart", "") == ["queues", "hub", "gateway", "fanout", "watchdog", "agent"]
    assert completed("drill", DRILLS[0].name[:-1]) == [DRILLS[0].name]
    assert completed("incident", "") == []
    assert capfd.readouterr() == ("", "")


def test_a_hub_that_is_away_offers_nothing_and_is_asked_once(
    state: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert completed("host", "we") == []
    (state / "operator.token").write_text("secret\n")
    assert completed("host", "we") == []
    with running() as server:
        monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", server.url.removeprefix("http://"))
        server.on("GET", "/api/v1/hosts", None)
        assert completed("host", "we") == []
        assert len(server.asked_for("GET", "/api/v1/hosts")) == 1
    assert capfd.readouterr() == ("", "")


def test_operations_ids_and_queries_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:
        load().operator_token.write_text("secret\n")
        monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", server.url.removeprefix("http://"))
        hosts = [host("web1", commands=["pull", "push"], labels={"role": "web"}), host("db", commands=["dump"])]
        server.on("GET", "/api/v1/hosts", (200, {"hosts": hosts}))
        server.on("GET", "/api/v1/commands", (200, {"commands": [command("c1", "web1"), command("d2", "db")]}))
        server.on("GET", "/api/v1/runs", (200, {"runs": [fleet_run(part("web1", "failed"))]}))
        assert completed("run", "pu") == ["pull", "push"]
        assert completed("run", "dump,pu") == ["dump,pull", "dump,push"]
        assert completed("command", "") == ["c1", "d2"]
        assert completed("runs", "r") == ["r1"]
        assert completed("cancel", "") == completed("logs", "") == completed("wait", "") == ["r1", "c1", "d2"]
        assert completed("run", "pull", "--failed-of", "") == ["r1"]
        assert completed("hosts", "!os") == ["!os:", "!os_version:"]
        assert "online role=web" in completed("run", "pull", "--query", "online ro")
