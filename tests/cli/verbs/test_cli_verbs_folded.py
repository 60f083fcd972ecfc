"""`run -b`, `--failed-of`, `--offering`, `logs RUN`, `wait`, `runs ID`, `inventory`: against a double of the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.api_server import ApiServer, command, fleet_run, host, part, running

from processes.cli.__main__ import execute

SAID = {"c1": ["up to date"], "c2": ["up to date"], "c3": ["starting", "fetching", "checking", "no space left"]}
HOSTS = {"c1": "web1", "c2": "web2", "c3": "db1"}
RUN = fleet_run(
    part("db1", "failed", 0, "c3", "exit_code"),
    part("late", "not_attempted"),
    part("web1", "succeeded", 0, "c1"),
    part("web2", "succeeded", 0, "c2"),
    state="failed",
    steps=("pull",),
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A hub with a run of three commands, of which one failed, and four hosts."""
    (tmp_path / "token").write_text("token\n")
    (tmp_path / "token").chmod(0o600)
    with running() as api:
        monkeypatch.setenv("FLEETHUB_HUB", api.url)
        monkeypatch.setenv("FLEETHUB_TOKEN_FILE", str(tmp_path / "token"))
        commands = []
        for command_id, lines in SAID.items():
            state, code = ("failed", 3) if command_id == "c3" else ("succeeded", 0)
            view = command(command_id, HOSTS[command_id], state, run="r1", exit_code=code, output_next=len(lines))
            commands.append(view)
            api.on("GET", f"/api/v1/commands/{command_id}", (200, {**view, "history": []}))
            api.on("GET", f"/api/v1/commands/{command_id}/output", (200, page(command_id, lines)))
        api.on("GET", "/api/v1/commands", (200, {"commands": commands[::-1], "next": None}))
        api.on("GET", "/api/v1/runs/r1", (200, RUN))
        api.on("POST", "/api/v1/runs", (202, RUN))
        offered = {"web1": ["pull"], "web2": ["pull", "switch"], "db1": ["pull"], "new": None}
        api.on("GET", "/api/v1/hosts", (200, {"hosts": [host(name, commands=ops) for name, ops in offered.items()]}))
        yield api


def page(command_id: str, lines: list[str]) -> dict[str, Any]:
    records = [{"offset": place, "stream": "stdout", "data": line} for place, line in enumerate(lines)]
    ends = {"next_offset": len(lines), "complete": True, "truncated": False}
    return {"command_id": command_id, "records": records, **ends}


def asked_hosts(hub: ApiServer) -> Any:
    return hub.asked_for("POST", "/api/v1/runs")[-1].body["hosts"]


@pytest.mark.parametrize("words", [["run", "pull", "web1", "web2", "db1", "-b"], ["runs", "r1", "--follow", "-b"]])
def test_what_several_hosts_said_is_printed_once_and_failures_come_first(
    hub: ApiServer, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert execute(words) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "--- 2 of 3 at pull: web1, web2",
        "up to date",
        "--- 1 of 3 at pull: db1",
        *SAID["c3"],
    ]
    lines = printed.err.splitlines()
    failed = ["db1: failed at pull: exit code 3  (fleethub command c3)", *(f"  | {line}" for line in SAID["c3"][1:])]
    assert lines[:4] == [f"fleethub: {failed[0]}", *failed[1:]], "told as it happened"
    assert lines[4:9] == [*failed, "late: not attempted"], "and once more before the end"


def test_a_run_is_shown_with_its_failures_first_and_what_they_said_last(
    hub: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    double = {**RUN, "hosts": [*RUN["hosts"][1:], RUN["hosts"][0]]}
    hub.on("GET", "/api/v1/runs/r1", (200, double))
    hub.on("GET", "/api/v1/commands/c3/output", (200, page("c3", SAID["c3"])))
    assert execute(["runs", "r1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[next(place for place, line in enumerate(lines) if line.startswith("HOST")) + 1 :]
    assert [line.split()[0] for line in table[:4]] == ["db1", "web1", "web2", "late:"]
    assert table[5:] == ["db1 at pull: exit code 3", *(f"  | {line}" for line in SAID["c3"][1:])]
    assert hub.asked_for("GET", "/api/v1/commands/c3/output")[-1].query == "from=1"


def test_a_run_whose_failed_command_is_not_kept_any_more_is_shown_all_the_same(
    hub: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.answers.pop(("GET", "/api/v1/commands/c3"))
    hub.answers.pop(("GET", "/api/v1/commands/c3/output"))
    assert execute(["runs", "r1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "late: not attempted"


def test_logs_of_a_run_are_those_of_its_commands_host_by_host(
    hub: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["logs", "r1"]) == 0
    lines = [*(f"db1  | {line}" for line in SAID["c3"]), "web1 | up to date", "web2 | up to date"]
    assert capsys.readouterr().out.splitlines() == lines
    assert execute(["logs", "r1", "--fold"]) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "--- 2 of 3 at pull: web1, web2",
        "up to date",
        "--- 1 of 3 at pull: db1",
    ]
    assert execute(["logs", "r1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [(each["command_id"], len(each["records"])) for each in document["commands"]] == [
        ("c3", 4),
        ("c1", 1),
        ("c2", 1),
    ]


@pytest.mark.parametrize("verb", ["logs", "wait"])
def test_an_id_of_nothing_is_said_to_be_that(hub: ApiServer, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert execute([verb, "nothing"]) == 1
    assert "there is no command and no run 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("its_id", "code", "says"),
    [
        ("c1", 0, "c1: succeeded"),
        ("c3", 1, "c3: failed, exit code 3"),
        ("r1", 1, "r1: failed: 2 succeeded, 1 failed, 1 not attempted"),
    ],
)
def test_wait_ends_with_what_it_waited_for(
    hub: ApiServer, capsys: pytest.CaptureFixture[str], its_id: str, *, code: int, says: str
) -> None:
    assert execute(["wait", its_id]) == code
    assert capsys.readouterr().out.splitlines() == [says]
    assert execute(["wait", its_id, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["id"] == its_id
    assert not [each for each in hub.asked if each.path.endswith("/output")], "nobody reads its output"


def test_wait_for_what_does_not_end_in_time_makes_4(hub: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    hub.on("GET", "/api/v1/commands/c1", (200, {**command("c1", "web1"), "history": []}))
    assert execute(["wait", "c1", "--wait", "0"]) == 4
    hub.on("GET", "/api/v1/runs/r1", (200, fleet_run(part("web1", "active", 0, "c1"))))
    assert execute(["wait", "r1", "--wait", "0"]) == 4
    assert capsys.readouterr().out.splitlines() == ["c1: running", "r1: running: 1 under way"]


def test_a_run_on_those_that_failed_names_them_alone(hub: ApiServer) -> None:
    execute(["run", "pull", "--failed-of", "r1", "--no-wait"])
    assert asked_hosts(hub) == ["db1", "late"]


def test_a_run_of_which_nobody_failed_gives_nothing_to_do(hub: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    good = fleet_run(part("web1", "succeeded", 0, "c1"), state="succeeded")
    hub.on("GET", "/api/v1/runs/r1", (200, good))
    assert execute(["run", "pull", "--failed-of", "r1"]) == 1
    assert "no host failed in run r1: 1 succeeded" in capsys.readouterr().err
    assert not hub.asked_for("POST", "/api/v1/runs")


@pytest.mark.parametrize(
    ("words", "left", "note"),
    [
        (["switch", "web1", "web2"], ["web2"], "1 host left out, not offering switch: web1"),
        (["pull,switch", "--all", "--yes"], ["new", "web2"], "2 hosts left out, not offering pull, switch: db1, web1"),
        (["pull", "db1", "web1"], ["db1", "web1"], ""),
        (["switch", "unknown", "web1"], ["unknown"], "1 host left out, not offering switch: web1"),
    ],
)
def test_hosts_that_do_not_offer_an_operation_are_left_out_and_named(
    hub: ApiServer, capsys: pytest.CaptureFixture[str], words: list[str], *, left: list[str], note: str
) -> None:
    """A host that was never seen stays: it may offer it. An unknown one stays, for the hub to refuse."""
    execute(["run", *words, "--offering", "--no-wait"])
    assert asked_hosts(hub) == left
    assert "where" not in hub.asked_for("POST", "/api/v1/runs")[-1].body
    assert note in capsys.readouterr().err


def test_when_no_host_offers_it_nothing_is_begun(hub: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["run", "reboot", "web1", "db1", "--offering"]) == 1
    assert "none of 2 hosts offers reboot" in capsys.readouterr().err
    assert not hub.asked_for("POST", "/api/v1/runs")


@pytest.mark.parametrize(
    "words",
    [
        ["run", "pull", "web1", "--failed-of", "r1"],
        ["run", "pull", "--all", "--failed-of", "r1"],
        ["run", "pull", "--all", "--where", "name=web1", "--offering"],
        ["inventory"],
        ["inventory", "--ansible", "--list", "--host", "web1"],
    ],
)
def test_what_contradicts_itself_is_refused_before_anybody_is_asked(hub: ApiServer, words: list[str]) -> None:
    assert execute(words) == 2
    assert not hub.asked


def test_an_inventory_is_what_ansible_asks_a_program_for(hub: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["inventory", "--ansible", "--list"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["all"] == {"hosts": ["db1", "new", "web1", "web2"], "children": ["presence_online"]}
    hub.on("GET", "/api/v1/hosts/web1", (200, host("web1", labels={"role": "web"}, address="192.0.2.1:9")))
    assert execute(["inventory", "--ansible", "--host", "web1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ansible_host"], found["fleethub_labels"]) == ("192.0.2.1", {"role": "web"})
    assert execute(["inventory", "--ansible", "--host", "nobody"]) == 0
    assert json.loads(capsys.readouterr().out) == {}
