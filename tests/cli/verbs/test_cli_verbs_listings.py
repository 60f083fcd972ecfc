"""Every listing at every width: what is copied is whole, what has no room is named, and a pipe gets all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.api_server import ApiServer, command, fleet_run, host, part, running

from processes.cli.__main__ import execute
from processes.core.cli.tables import ID_CHARS

IDS = [f"{number:032x}"[::-1] for number in (0xABCDEF123, 0xFEDCBA321)]
AT = "2026-01-02T03:04:05.678Z"
HOSTS = [
    host("storage-07.example.org", presence="offline", last_seen=AT, commands=["uptime", "facts", "pull", "switch"]),
    host("web1", last_seen="2026-02-02T03:04:05.678Z", commands=["uptime"], pending_command="nixos-rebuild"),
]
COMMANDS = [
    command(IDS[0], "storage-07.example.org", "expired", op="nixos-rebuild", reason="host_offline"),
    command(IDS[1], "web1", "failed", exit_code=3, reason="exit"),
]
RUNS = [{**fleet_run(part("web1", "failed", 0, IDS[0], "timed_out")), "id": IDS[0]}]
SESSIONS = [{"id": "s1", "actor": "ann", "role": "admin", "signed_in_at": AT, "ends_at": AT,
             "address": "192.0.2.7", "browser": "Firefox on Linux, a long name", "current": False}]  # fmt: skip
QUERIES = [{"name": "web", "query": "role=web !os:debian online since>10m", "actor": "ann", "saved_at": AT}]
LINES = [{"number": 1, "at": AT, "kind": "cancel", "subject": IDS[0], "before": None, "after": "asked", "actor": "bob",
          "reason": "pull on web1"}]  # fmt: skip
ANSWERS = {
    "hosts": {"hosts": HOSTS, "next": None}, "commands": {"commands": COMMANDS, "next": None},
    "runs": {"runs": RUNS, "next": None}, "sessions": {"sessions": SESSIONS}, "queries": {"queries": QUERIES},
    "audit": {"audit": LINES, "next": None},
}  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    (tmp_path / "operator.token").write_text("secret\n")
    with running() as found:
        monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", found.url.removeprefix("http://"))
        for path, answer in ANSWERS.items():
            found.on("GET", f"/api/v1/{path}", (200, answer))
        yield found


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert execute(words) == 0, capsys.readouterr().err
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("verb", sorted(ANSWERS))
def test_no_word_and_no_id_is_broken_at_any_width(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, width: int
) -> None:
    """The bug it would catch: "PROCES/S", and ids over three lines, on the serial console of a broken machine."""
    whole = shown(capsys, verb)
    words = {*whole.split(), *(each[:ID_CHARS] for each in IDS), "ago", "days", "min", "h", "never"}
    assert AT in whole or verb == "commands"
    assert shown(capsys, verb, "--wide") == whole == shown(capsys, verb, "-o", "wide")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = shown(capsys, verb).splitlines()
    assert max(map(len, lines)) <= width
    assert [word for line in lines for word in line.split() if word not in words and not word.isdigit()] == []
    assert AT not in "".join(lines), "a person wants ages"
    assert shown(capsys, verb, "--wide") == whole, "as wide as it is"


def test_names_alone_are_for_scripts(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "hosts", "-o", "name") == "storage-07.example.org\nweb1\n"
    assert shown(capsys, "commands", "-o", "name").split() == IDS
    assert shown(capsys, "hosts", "-o", "json") == shown(capsys, "hosts", "--json")


def test_rows_are_sorted_by_any_column_and_another_word_names_them(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for sort, first in (("name", "storage"), ("-name", "web1"), ("last-seen", "storage"), ("-LAST SEEN", "web1")):
        assert shown(capsys, "hosts", "--sort", sort).splitlines()[1].startswith(first), sort
    assert execute(("hosts", "--sort", "size")) == 2
    assert "no column 'size' to sort by: name, presence, last-seen" in capsys.readouterr().err


def test_a_run_is_shown_with_its_failures_first_in_words_and_what_was_not_begun_in_one_line(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bug it would catch: 32 lines "not attempted" bury three failures, whose reason is "failed"."""
    names = [f"h{number}" for number in range(9)]
    run = fleet_run(
        part("a", "succeeded", 1, "c0"), part("b", "failed", 0, IDS[1], "exit"), *(part(n, "not_attempted") for n in names),
        {**part("d", "failed", 0, IDS[0], "cancelled"), "cancelled": True}, state="failed",
    )  # fmt: skip
    server.on("GET", "/api/v1/runs/r1", (200, {**run, "max_failures": 0, "cancelled": 1}))
    page = {"command_id": IDS[1], "records": [], "next_offset": 0, "complete": True, "truncated": False}
    server.on("GET", f"/api/v1/commands/{IDS[1]}/output", (200, page))
    server.on("GET", f"/api/v1/commands/{IDS[0]}/output", (200, page))
    lines = shown(capsys, "runs", "r1").splitlines()
    rows = [line.split("  ")[0].strip() for line in lines]
    assert rows.index("b") < rows.index("d") < rows.index("a")
    assert next(line for line in lines if line.startswith("b ")).endswith("exit code 3")
    assert "9 hosts not attempted: h0, h1, h2, h3, h4 and 4 more" in lines
    assert any(re.fullmatch(r"hosts +1 succeeded, 1 failed, 1 cancelled, 9 not attempted", line) for line in lines)
    assert any(line.startswith("stopped") and "after 2 failures: 9 hosts not attempted" in line for line in lines)


@pytest.mark.parametrize(("typed", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("0", 0)])
def test_a_time_is_typed_with_or_without_its_unit(
    server: ApiServer, capsys: pytest.CaptureFixture[str], typed: str, seconds: float
) -> None:
    server.on("POST", "/api/v1/runs", (202, RUNS[0]))
    assert execute(("run", "pull", "web1", "--no-wait", "--ttl", typed)) == 0
    assert server.asked_for("POST", "/api/v1/runs")[0].body["ttl_s"] == seconds
    for wrong in ("10x", "-1", "nan", "infd", "", "m"):
        assert execute(("run", "pull", "web1", "--no-wait", "--ttl", wrong)) == 2, wrong
        assert "as in 90s, 10m, 12h" in capsys.readouterr().err


def test_a_command_that_waits_says_for_what_and_who_cancelled(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = command(
        "c9", "web1", "queued", history=[], cancel_requested_at=AT, cancel_requested_by="bob", op="pull"
    )  # fmt: skip
    server.on("GET", "/api/v1/commands/c9", (200, waiting))
    server.on("GET", "/api/v1/hosts/web1", (200, HOSTS[1]))
    running_there = command(IDS[0], "web1", op="forever", actor="ann", started_at=AT)
    server.on("GET", "/api/v1/commands", (200, {"commands": [running_there], "next": None}))
    lines = shown(capsys, "command", "c9").splitlines()
    assert any(
        re.match(rf"waits +web1 runs forever.*\({IDS[0][:8]}, given by ann\), for \d+ days", line) for line in lines
    )
    assert any(re.match(rf"cancel asked +\d+ days ago, at {AT}, by bob", line) for line in lines)
    server.on("GET", "/api/v1/hosts/web1", (200, {**HOSTS[0], "name": "web1"}))
    assert "web1 is offline, for " in shown(capsys, "command", "c9")
    unheard = command("c9", "web1", "running", history=[], unheard_since=AT)
    server.on("GET", "/api/v1/commands/c9", (200, unheard))
    assert "web1 is not connected: whether it still runs there is not known, for " in shown(capsys, "command", "c9")
    server.on("POST", "/api/v1/commands/c9/cancel", (202, unheard))
    assert shown(capsys, "cancel", "c9") == (
        "c9: running, web1 is not connected: it is asked to end it when it is back\n"
    )
