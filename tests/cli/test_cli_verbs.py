"""The verbs as a script meets them: exit codes, one JSON document, one or two lines of error and never a traceback."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from doubles.api_server import ApiServer, running

from processes.adapters.settings import Settings, load
from processes.cli import client
from processes.cli.__main__ import cli, execute
from processes.core.report import CanaryReport, FleetReport, IncidentsReport, Overall, Report
from processes.core.views import Ledger


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    monkeypatch.setattr(client, "PAUSE_S", 0.01)
    return load()


@pytest.fixture
def run(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Done:
        code = execute(arguments)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with running() as found:
        settings.operator_token.write_text("secret\n")
        monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", found.url.removeprefix("http://"))
        yield found


LISTINGS = [
    ("hosts",), ("host", "web1"), ("commands",), ("command", "c1"), ("logs", "c1"), ("incidents",), ("incident", "i1"), ("status",),
    ("remove", "web1"), ("enroll", "web1"), ("revoke", "web1"), ("cancel", "c1"), ("run", "pull", "web1"),
    ("token", "create", "--role", "viewer"),
]  # fmt: skip


@pytest.mark.parametrize("verb", LISTINGS, ids=" ".join)
def test_json_is_one_document_even_when_nothing_was_ever_started(run: Run, verb: tuple[str, ...]) -> None:
    done = run(*verb, "--json")
    document = json.loads(done.out)
    if verb == ("incidents",):
        assert (done.code, document) == (0, {"incidents": []})
    else:
        assert set(document) == {"error", "message"}
        assert done.code == (3 if verb == ("status",) else 1)
        assert 1 <= len(done.err.splitlines()) <= 2


@pytest.mark.parametrize("verb", LISTINGS, ids=" ".join)
def test_json_is_one_document_when_the_verb_is_used_wrongly(run: Run, verb: tuple[str, ...]) -> None:
    done = run(*verb, "--json", "--no-such-option")
    assert done.code == 2
    assert json.loads(done.out)["error"] == "usage"


@pytest.mark.parametrize(
    "verb",
    [
        ("run", "pull"), ("run", "pull", "web1", "--all"), ("run", "pull,switch", "web1"), ("run", "pull", "web1", "--where", "a=b"),
        ("run", "pull", "--all", "--where", "ab"), ("logs", "c1", "--follow", "--json"), ("status", "--watch", "--json"),
        ("stop", "hup"), ("enroll", "bad_name"), ("token", "create", "--role", "king"), ("nonsense",), (),
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_exits_2_and_says_why(run: Run, server: ApiServer, verb: tuple[str, ...]) -> None:
    done = run(*verb)
    assert done.code == 2
    assert done.err
    assert server.asked == []


def test_a_wrong_setting_is_named_and_exits_78(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETHUB_OPERATOR_LISTEN", "x")
    done = run("up")
    assert done.code == 78
    assert "did you mean FLEETHUB_OPERATORS_LISTEN?" in done.err
    assert run("status").code == 3


def test_a_mistake_of_ours_is_one_line_and_its_traceback_is_in_the_log(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh\nno")

    settings.log.mkdir()
    monkeypatch.setattr("processes.adapters.incident_file.incidents", broken)
    done = run("incidents", "--json")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert json.loads(done.out)["message"] == "this should not happen: ZeroDivisionError: oh"
    assert "Traceback" in (settings.log / "cli.log").read_text()


@pytest.mark.parametrize(("verdict", "code"), [(Overall.OK, 0), (Overall.DEGRADED, 1), (Overall.STALLED, 2), (Overall.DOWN, 2)])
def test_status_exits_by_the_verdict_and_prints_the_report(run: Run, settings: Settings, verdict: Overall, code: int) -> None:
    report = Report(verdict, 3, [], CanaryReport(), FleetReport(), Ledger(), IncidentsReport(), at_mono_s=time.monotonic())
    settings.run.mkdir()
    settings.report.write_bytes(msgspec.json.encode(report))
    done = run("status", "--json")
    assert (done.code, done.err) == (code, "")
    document = json.loads(done.out)
    assert document["verdict"] == verdict
    assert set(document["commands"]) == {
        "accepted", "queued", "sent", "running", "succeeded", "failed", "rejected", "expired", "cancelled", "lost",
    }  # fmt: skip
    assert {"epoch", "processes", "canary", "fleet", "incidents"} < set(document)


def test_down_without_anything_running_says_so_and_succeeds(run: Run) -> None:
    assert run("down") == (0, "nothing was running\n", "")


def test_env_makes_what_supervisord_needs(run: Run, settings: Settings) -> None:
    done = run("env")
    assert done.code == 0
    assert f"export FLEETHUB_STATE='{settings.state}'\n" in done.out
    assert settings.log.is_dir()
    assert settings.run.is_dir()
    assert settings.operator_token.exists()


COMMANDS = "/api/v1/commands"
UNAVAILABLE = (503, {"error": "hub_unavailable", "message": "away"})


def accepted(*hosts: str) -> tuple[int, Any]:
    return 202, {"commands": [{"id": f"c-{host}", "host": host, "op": "pull", "state": "queued"} for host in hosts]}


def test_run_that_the_hub_cannot_accept_exits_5_and_names_the_key(run: Run, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ASK_AGAIN_S", 0.05)
    server.on("POST", COMMANDS, UNAVAILABLE)
    done = run("run", "pull", "web1")
    assert done.code == 5
    keys = {each.body["key"] for each in server.asked_for("POST", COMMANDS)}
    assert len(keys) == 1
    assert keys.pop() in done.err


def test_every_run_has_a_key_of_its_own_and_no_wait_returns_once_accepted(run: Run, server: ApiServer) -> None:
    server.on("POST", COMMANDS, accepted("a", "b"))
    for _ in range(2):
        done = run("run", "pull", "a", "b", "--no-wait", "--json", "--ttl", "0")
        assert done.code == 0
        assert [each["id"] for each in json.loads(done.out)["commands"]] == ["c-a", "c-b"]
    first, second = server.asked_for("POST", COMMANDS)
    assert first.body["key"] != second.body["key"]
    assert (first.body["hosts"], first.body["ttl_s"]) == (["a", "b"], 0)


def test_run_refused_by_the_hub_exits_1_and_is_not_repeated(run: Run, server: ApiServer) -> None:
    server.on("POST", COMMANDS, (404, {"error": "unknown_host", "message": "there is no host 'x'"}))
    done = run("run", "pull", "x", "--json")
    assert (done.code, json.loads(done.out)["error"]) == (1, "unknown_host")
    assert len(server.asked) == 1


def test_enroll_prints_the_token_alone_on_stdout(run: Run, server: ApiServer) -> None:
    server.on("POST", "/api/v1/hosts", (201, {"name": "web1", "token": "t0k", "host_id": "1"}))
    assert run("enroll", "web1").out == "t0k\n"
    document = json.loads(run("enroll", "web1", "--again", "--json").out)
    assert (document["name"], document["token"]) == ("web1", "t0k")
    assert [each.body["again"] for each in server.asked] == [False, True]


def test_errors_from_the_hub_are_shown_without_their_control_characters(run: Run, server: ApiServer) -> None:
    server.on("DELETE", "/api/v1/hosts/web1", (409, {"error": "no", "message": "\x1b]0;owned\x07\u202e"}))
    done = run("remove", "web1")
    assert done.code == 1
    assert done.err == "fleethub: \\x1b]0;owned\\x07\\u202e\n"


def test_every_verb_of_the_contract_is_there_and_has_a_help(run: Run) -> None:
    wanted = {
        "up", "down", "restart", "stop", "start", "env", "status", "hosts", "host", "remove", "enroll", "revoke", "run", "commands",
        "command", "cancel", "logs", "incidents", "incident", "agent", "token",
    }  # fmt: skip
    assert wanted <= set(cli.commands)
    for verb in sorted(cli.commands):
        done = run(verb, "--help")
        assert (done.code, done.err) == (0, "")
