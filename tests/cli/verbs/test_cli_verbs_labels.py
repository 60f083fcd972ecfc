"""The verbs of labels, of queries and of runs on what a query finds: what they ask, show, and never send unasked."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from doubles.api_server import ApiServer, active, fleet_run, host, part, running

from processes.cli.__main__ import execute
from processes.cli.terminal import interrupt

API = "/api/v1"
FOUND = {"hosts": [host("a", commands=["pull"]), host("b", commands=["switch"])], "next": None}
BEGUN = fleet_run(active("a", "c1"), part("b", "pending"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ApiServer]:
    with running() as found:
        token = tmp_path / "token"
        token.write_text("t0k")
        monkeypatch.setenv("FLEETHUB_HUB", found.url)
        monkeypatch.setenv("FLEETHUB_TOKEN_FILE", str(token))
        found.on("GET", f"{API}/hosts", (200, FOUND))
        found.on("POST", f"{API}/runs", (202, BEGUN))
        yield found


def test_labels_are_set_and_removed_by_name_and_by_query(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("POST", f"{API}/hosts/labels", (200, {"hosts": ["a", "b"], "changed": 1, "query": "x"}))
    assert execute(["label", "a", "b", "role=web", "env=", "spare-"]) == 0
    assert execute(["label", "--query", "role=web", "tier=1"]) == 0
    assert capsys.readouterr().out.splitlines() == ["a", "b"], "whom a query found is told"
    assert [each.body for each in server.asked_for("POST", f"{API}/hosts/labels")] == [
        {"hosts": ["a", "b"], "set": {"role": "web", "env": ""}, "remove": ["spare"]},
        {"query": "role=web", "set": {"tier": "1"}, "remove": []},
    ]


def test_hosts_are_listed_by_a_query_and_its_mistakes_are_told(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["hosts", "role=web", "!os:debian", "--json"]) == 0
    assert [each.query for each in server.asked_for("GET", f"{API}/hosts")] == ["query=role%3Dweb+%21os%3Adebian"]
    server.on("GET", f"{API}/hosts", (400, {"error": "bad_query", "message": "os: has nothing after it", "start": 0}))
    assert execute(["hosts", "os:"]) == 1
    assert "os: has nothing after it" in capsys.readouterr().err


def test_commands_are_listed_of_the_hosts_that_a_query_finds(server: ApiServer) -> None:
    server.on("GET", f"{API}/commands", (200, {"commands": [], "next": None}))
    assert execute(["commands", "--query", "role=web !os:debian", "--json"]) == 0
    (asked,) = server.asked_for("GET", f"{API}/commands")
    assert parse_qs(asked.query)["query"] == ["role=web !os:debian"]


def test_a_run_on_what_a_query_finds_names_exactly_what_was_found(server: ApiServer) -> None:
    """The hub gets the names that were looked up, and the text; a dry run sends nothing."""
    assert execute(["run", "pull", "--query", "role=web", "--yes", "--no-wait", "--key", "k"]) == 0
    assert [each.body for each in server.asked_for("POST", f"{API}/runs")] == [
        {"steps": ["pull"], "hosts": ["a", "b"], "query": "role=web", "key": "k", "parallel": 10}
    ]


def test_a_dry_run_shows_the_hosts_and_sends_nothing(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", "pull", "--query", "web", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == ["a", "b"]
    assert "not all offer that, and the hub would refuse it: b" in told.err
    assert execute(["run", "pull", "--all", "--where", "name=a", "--dry-run", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"query": None, "steps": ["pull"], "hosts": ["a"], "not_offering": []}
    assert execute(["run", "pull", "b", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == ["b"]
    assert [each.method for each in server.asked] == ["GET"] * 3


def test_a_query_that_finds_nobody_begins_nothing(server: ApiServer) -> None:
    server.on("GET", f"{API}/hosts", (200, {"hosts": [], "next": None}))
    assert execute(["run", "pull", "--query", "web", "--yes"]) == 1
    assert server.asked_for("POST", f"{API}/runs") == []


@pytest.mark.parametrize(("answer", "runs"), [("n\n", 0), ("\n", 0), ("", 0), ("y\n", 1), ("YES\n", 1)])
@pytest.mark.parametrize("chosen", ["--query=role=web", "--all"])
def test_on_a_terminal_the_hosts_are_shown_and_asked_about(  # noqa: PLR0917  # fixtures
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], chosen: str, answer: str,
    runs: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(interrupt, "asks", lambda: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert execute(["run", "pull", chosen, "--no-wait"]) == (0 if runs else 1)
    assert "pull on 2 hosts, all at once: a, b.\nRun it? [y/N]" in capsys.readouterr().err
    assert len(server.asked_for("POST", f"{API}/runs")) == runs


def test_a_host_is_enrolled_with_labels(server: ApiServer) -> None:
    server.on("POST", f"{API}/hosts", (201, {"name": "a", "token": "t"}))
    assert execute(["enroll", "a", "--label", "role=web", "--label", "env=prod"]) == 0
    (asked,) = server.asked_for("POST", f"{API}/hosts")
    assert asked.body == {"name": "a", "again": False, "labels": {"role": "web", "env": "prod"}}


def test_queries_are_listed_saved_and_removed(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    view = {"name": "web", "query": "role=web", "actor": "ann", "saved_at": None}
    server.on("GET", f"{API}/queries", (200, {"queries": [view]}))
    server.on("POST", f"{API}/queries", (200, view))
    server.on("DELETE", f"{API}/queries/web", (200, {"name": "web", "removed": True}))
    assert execute(["queries"]) == 0
    assert "role=web" in capsys.readouterr().out
    assert execute(["queries", "save", "web", "role=web"]) == 0
    assert [each.body for each in server.asked_for("POST", f"{API}/queries")] == [{"name": "web", "query": "role=web"}]
    capsys.readouterr()
    assert execute(["queries", "remove", "web", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "web", "removed": True}
