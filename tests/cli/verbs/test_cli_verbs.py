"""The verbs as a script meets them: exit codes, one JSON document, one or two lines of error and never a traceback."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from doubles.api_server import STAMP, ApiServer, active, command, fleet_run, host, part, running

from processes.adapters import proc
from processes.adapters.settings import Settings, load
from processes.adapters.state import pulse_file
from processes.cli.__main__ import cli, execute
from processes.cli.terminal import output
from processes.cli.verbs.status import _lines
from processes.client.patience import Patience
from processes.core.records.ledger import Ledger
from processes.core.shown.status import CanaryReport, CommandsReport, FleetReport, IncidentsReport, Overall, Report
from processes.core.shown.troubles import TroubleCode, trouble


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]

PATIENT = Patience(pause_s=0.01)
ONE_TRY = Patience(ask_again_s=30.0, pause_s=60.0)  # the pause would outlast the time: asked once, however slow this is


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    return load()


@pytest.fixture
def run(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str, patience: Patience = PATIENT) -> Done:
        code = execute(arguments, patience)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with running() as found:
        settings.operator_token.write_text("secret\n")
        monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", found.url.removeprefix("http://"))
        yield found


LISTINGS = [
    ("hosts",), ("host", "web1"), ("commands",), ("command", "c1"), ("logs", "c1"), ("incidents",), ("incident", "i1"),
    ("status",),
    ("runs",), ("runs", "r1"), ("remove", "web1"), ("enroll", "web1"), ("revoke", "web1"), ("cancel", "c1"),
    ("run", "pull", "web1"),
    ("token", "create", "--role", "viewer"),
]  # fmt: skip


@pytest.mark.parametrize("verb", LISTINGS, ids=" ".join)
def test_json_is_one_document_even_when_nothing_was_ever_started(run: Run, verb: tuple[str, ...]) -> None:
    done = run(*verb, "--json")
    document = json.loads(done.out)
    if verb == ("incidents",):
        assert (done.code, document) == (0, {"incidents": []})
    else:
        assert set(document) == {"error", "message", "advice"}
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
        ("run", "pull"), ("run", "pull", "web1", "--all"), ("run", "pull,", "web1"), ("run", "pull switch", "web1"),
        ("run", "pull", "web1", "--parallel", "0"), ("run", "pull", "web1", "--max-failures", "-1"),
        ("runs", "--follow"),
        ("run", "pull", "--all"), ("run", "pull", "--query", "web"), ("run", "pull", "--query", " ", "--yes"),
        ("run", "pull", "web1", "--query", "web"), ("run", "pull", "--all", "--query", "web", "--yes"),
        ("label",), ("label", "web1"), ("label", "a=b"), ("label", "web1", "A=b"), ("label", "web1", "a=b", "--query", "x"),
        ("label", "web1", "a=b", "a=c"), ("label", "web1", "A-"), ("enroll", "web1", "--label", "x"),
        ("enroll", "web1", "--rotate", "--label", "x=y"), ("queries", "save", "a"),
        ("run", "pull", "--all", "--yes", "--where", "a=b", "--where", "a=c"), ("run", "pull", "web1", "--where", "a=b"),
        ("run", "pull", "--all", "--yes", "--where", "ab"), ("logs", "c1", "--follow", "--json"),
        ("status", "--watch", "--json"),
        ("run", "pull", "a,b"), ("run", "pull", "a", "--ttl", "nan"), ("run", "pull", "a", "--ttl", "inf"),
        ("run", "pull", "a", "--ttl", "1e9"), ("run", "pull", "a", "--wait", "nan"),
        ("run", "pull", "a", "--wait", "inf"),
        ("run", "pull", "a", "--no-wait", "--wait", "1"),
        ("run", "pull", "a", "--key", ""), ("run", "pull", "a", "--key", "k" * 129),
        ("sessions", "end"), ("sessions", "end", "s1", "--all"),
        ("--hub", "http://127.0.0.1:1"), ("--hub",), ("--json",), ("--hub", "http://127.0.0.1:1", "nonsense"),
        ("sessions", "--hub", "http://127.0.0.1:1", "end", "--all"), ("token", "--role", "viewer", "create"),
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


def test_what_answers_whatever_is_down_answers_with_a_wrong_setting_too(run: Run, settings: Settings) -> None:
    settings.config.write_text("[operators]\nlissen = 1\n")
    settings.run.mkdir()
    for verb, code in ((("down",), 0), (("status",), 3), (("incidents",), 0), (("incident", "x"), 1)):
        done = run(*verb)
        assert (done.code, done.err.splitlines()[0]) == (
            code,
            f"fleethub: unknown setting operators.lissen in {settings.config}; did you mean operators.listen?; "
            "the defaults are used instead",
        )
    assert json.loads(run("incidents", "--json").out) == {"incidents": []}
    assert run("hosts").code == 78


def test_a_state_folder_that_is_anothers_says_whose_it_is(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", closed)
    for verb, code in (("hosts", 78), ("down", 78), ("status", 3)):
        done = run(verb)
        assert done.code == code
        assert "run this as that user: sudo -u" in done.err


def test_another_hub_is_asked_without_any_setting_of_this_machine(
    run: Run, server: ApiServer, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.config.write_text("nonsense")
    (tmp_path / "t").write_text("t0k")
    server.on("GET", "/api/v1/hosts", (200, {"hosts": []}))
    assert run("hosts", "--hub", server.url, "--token-file", str(tmp_path / "t")).code == 0


def test_status_of_another_hub_that_tells_nothing_is_unknown(run: Run, server: ApiServer, tmp_path: Path) -> None:
    """The bug it would catch: a monitoring check with a wrong token says warning."""
    for name, content in (("good", b"t0k"), ("empty", b""), ("binary", b"\xff")):
        (tmp_path / name).write_bytes(content)
    for status in (401, 403, 404):
        server.on("GET", "/api/v1/status", (status, {"error": "no", "message": "no"}))
        assert run("status", "--hub", server.url, "--token-file", str(tmp_path / "good")).code == 3
    for name in ("empty", "binary", "missing"):
        assert run("status", "--hub", server.url, "--token-file", str(tmp_path / name)).code == 3
    done = run("status", "--hub", "http://127.0.0.1:1", "--token-file", str(tmp_path / "good"), "--json")
    assert (done.code, json.loads(done.out)["error"]) == (3, "unknown")


def test_wrong_usage_is_told_on_one_line(run: Run) -> None:
    for verb in (("completion",), ("token", "create")):
        done = run(*verb)
        assert done.code == 2
        assert "\\x0a" not in done.err
        assert len(done.err.splitlines()) == 2


@pytest.mark.parametrize(
    ("verb", "path", "word"),
    [
        ("host", "hosts", "unknown_host"), ("command", "commands", "unknown_command"),
        ("runs", "runs", "unknown_run"), ("deadletter", "deadletters", "unknown_letter"),
    ],
)  # fmt: skip
def test_what_is_not_known_says_which_verb_lists_them(
    run: Run, server: ApiServer, verb: str, path: str, word: str
) -> None:
    server.on("GET", f"/api/v1/{path}/x", (404, {"error": word, "message": "there is none"}))
    done = run(verb, "x", "--json")
    assert (done.code, json.loads(done.out)["advice"]) == (1, f"fleethub {path} lists them.")
    assert f"fleethub {path} lists them." in done.err


def test_a_mistake_of_ours_is_one_line_and_its_traceback_is_in_the_log(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh\nno")

    settings.log.mkdir()
    monkeypatch.setattr("processes.adapters.state.incidents_db.incidents", broken)
    done = run("incidents", "--json")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert json.loads(done.out)["message"] == "this should not happen: ZeroDivisionError: oh"
    assert "Traceback" in (settings.log / "cli.log").read_text()


@pytest.mark.parametrize(
    ("verdict", "code"), [(Overall.OK, 0), (Overall.DEGRADED, 1), (Overall.STALLED, 2), (Overall.DOWN, 2)]
)
def test_status_exits_by_the_verdict_and_prints_the_report(
    run: Run, settings: Settings, verdict: Overall, code: int
) -> None:
    report = Report(
        verdict, 3, [], CanaryReport(), FleetReport(), CommandsReport(), IncidentsReport(), at_mono_s=time.monotonic()
    )
    own = proc.stat(os.getpid())
    assert own is not None
    report = msgspec.structs.replace(report, writer_pid=os.getpid(), writer_start_ticks=own.start_ticks)
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
    assert set(document["commands"].values()) == {None}  # nobody has read them yet


def test_status_says_of_each_figure_that_nobody_has_read_that_it_is_not_known_yet() -> None:
    def lines(**known: object) -> list[str]:
        unread = {"canary": CanaryReport(), "fleet": FleetReport(), "commands": CommandsReport(), "epoch": 0}
        return _lines(
            msgspec.convert(
                {"verdict": "ok", "processes": [], "incidents": {}} | unread | known, Report, from_attributes=True
            )
        )

    assert lines() == [
        "canary: last round not known yet, hub epoch not known yet",
        "hosts: not known yet",
        "commands: not known yet",
        "incidents: not known yet",
    ]
    known = lines(epoch=3, fleet=FleetReport(0, 0, 0, 0), commands=CommandsReport.of(Ledger()), incidents={"total": 0})
    assert known[0].endswith(", hub epoch 3")
    assert known[1:] == ["hosts: 0, 0 online, 0 stale, 0 offline", "commands: none", "incidents: 0"]


def test_status_says_under_its_table_what_is_wrong_and_what_to_do(run: Run, settings: Settings) -> None:
    wrong = [
        trouble(TroubleCode.STORAGE, "hub is blocked on storage: the disk of /x is full", "hub"),
        trouble(TroubleCode.SUSPENDED, "the token of web1 is suspended", "web1"),
    ]
    report = Report(
        Overall.DEGRADED, 1, [], CanaryReport(ok=True), FleetReport(), CommandsReport(), IncidentsReport(),
        [wrong[0].text], [msgspec.structs.replace(wrong[0], seconds=131.0), wrong[1]],
        writer_pid=os.getpid(), writer_start_ticks=pulse_file.start_ticks(os.getpid()) or 0,
    )  # fmt: skip

    def told(*arguments: str) -> Done:
        fresh = msgspec.structs.replace(report, at_mono_s=time.monotonic())
        settings.run.mkdir(parents=True, exist_ok=True)
        settings.report.write_bytes(msgspec.json.encode(fresh))
        return run("status", *arguments)

    done = told()
    assert (done.code, done.err) == (1, "")
    said = done.out.splitlines()
    assert said[0] == "degraded: hub is blocked on storage: the disk of /x is full"
    assert said[-5:-3] == ["what is wrong:", "critical: hub is blocked on storage: the disk of /x is full, for 2 min"]
    assert said[-3].startswith("    what to do: Make room on the disk (df)")
    assert said[-2] == "critical: the token of web1 is suspended"
    assert re.fullmatch(r"    what to do: Mend the agent on web1, then: (bin/)?fleethub lift web1", said[-1])
    shown = json.loads(told("--json").out)["troubles"]
    assert [(each["code"], each["of"], each["view"]) for each in shown] == [
        ("storage", "hub", "watchdog"), ("suspended", "web1", "host/web1"),
    ]  # fmt: skip


def test_down_without_anything_running_says_so_and_succeeds(run: Run) -> None:
    assert run("down") == (0, "nothing was running\n", "")


def test_status_tells_what_was_never_started_from_what_was_ended(run: Run, settings: Settings) -> None:
    """The bug it would catch: after a clean `down`, a list of dead processes; after `env` alone, "down"."""
    assert run("env").code == 0
    done = run("status")
    assert (done.code, done.err.splitlines()[0]) == (3, f"fleethub: nothing was ever started at {settings.state}")
    settings.epoch_file.write_text("3\n")
    done = run("status")
    assert (done.code, done.err) == (2, "")
    assert re.fullmatch(r"down: nothing runs here: (bin/)?fleethub up", done.out.splitlines()[0])
    assert "watchdog" not in done.out
    assert "canary: last round not known yet" in done.out
    assert "hosts: not known yet\n" in done.out
    document = json.loads(run("status", "--json").out)
    assert (document["verdict"], len(document["reasons"]), len(document["processes"])) == ("down", 1, 6)


def test_a_verb_of_this_machine_says_so_where_another_hub_is_set(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETHUB_HUB", "https://elsewhere:7700")
    assert (
        run("down").err
        == "fleethub: down concerns this machine's own installation, not FLEETHUB_HUB (https://elsewhere:7700)\n"
    )
    assert "concerns" not in run("hosts").err


def test_env_makes_what_supervisord_needs(run: Run, settings: Settings) -> None:
    done = run("env")
    assert done.code == 0
    assert f"export FLEETHUB_STATE='{settings.state}'\n" in done.out
    assert settings.log.is_dir()
    assert settings.run.is_dir()
    assert settings.operator_token.exists()


COMMANDS, RUNS, RUN = "/api/v1/commands", "/api/v1/runs", "/api/v1/runs/r1"
UNAVAILABLE = (503, {"error": "hub_unavailable", "message": "away"})
UNKNOWN_COMMAND = (404, {"error": "unknown_command", "message": "no command"})
BEGUN = fleet_run(active("a", "c1"), part("b", "pending"))


def test_run_that_the_hub_cannot_accept_exits_5_and_names_the_key(run: Run, server: ApiServer) -> None:
    server.on("POST", RUNS, UNAVAILABLE)
    done = run("run", "pull", "web1", patience=ONE_TRY)
    assert done.code == 5
    (key,) = {each.body["key"] for each in server.asked_for("POST", RUNS)}
    again, _, why = done.err.splitlines()[-1].strip().partition("; ")
    assert again == f"Ask again with: fleethub run --key {key} pull web1"
    assert why == "with that key it never runs twice. If it was accepted, fleethub runs lists it."
    server.on("POST", RUNS, UNAVAILABLE, (202, BEGUN))
    done = run("run", "--key", "my key", "pull", "web1", "--no-wait")
    assert (done.code, done.out) == (0, "r1\n")
    assert [each.body["key"] for each in server.asked_for("POST", RUNS)][-2:] == ["my key"] * 2
    server.on("POST", RUNS, UNAVAILABLE)
    done = run("run", "pull", "web1", "--key", "my key", patience=ONE_TRY)
    assert "with: fleethub run pull web1 --key 'my key'; with" in done.err


def test_limits_are_refused_in_plain_words_and_their_defaults_are_shown(run: Run) -> None:
    assert "at most 7 days" in run("run", "pull", "a", "--ttl", "1e9").err
    assert "hosts are separated by spaces" in run("run", "pull", "a,b").err
    shown = " ".join(run("run", "--help").out.split())
    assert "[default: the hub's setting commands.ttl_s, which is 3600 if not set]" in shown
    assert "[default: until all have ended, or the hub has not answered for 10 minutes]" in shown


def test_run_says_which_of_its_hosts_are_offline_and_how_to_go_on(run: Run, server: ApiServer) -> None:
    server.on("POST", RUNS, (202, fleet_run(active("a", "c1"), part("b", "pending"), part("done", "failed"))))
    server.on("GET", RUN, (200, fleet_run(active("a", "c1"), part("b", "pending"))))
    server.on("GET", f"{COMMANDS}/c1", (200, command("c1", "a")))
    server.on(
        "GET",
        f"{COMMANDS}/c1/output",
        (200, {"command_id": "c1", "records": [], "next_offset": 0, "complete": False, "truncated": False}),
    )
    server.on(
        "GET", "/api/v1/hosts", (200, {"hosts": [host(name, presence="offline") for name in ("a", "done", "other")]})
    )
    done = run("run", "pull,switch", "a", "b", "--wait", "0.1")
    assert done.code == 4
    assert [each.query for each in server.asked_for("GET", "/api/v1/hosts")] == ["presence=offline"]
    lines = done.err.splitlines()
    assert lines[0] == "fleethub: a is offline: its command waits for at most 1 s"
    assert lines[-1] == "fleethub: not all have answered: fleethub runs r1 --follow goes on, fleethub cancel r1 ends it"


def test_every_run_has_a_key_of_its_own_and_no_wait_returns_once_accepted(run: Run, server: ApiServer) -> None:
    server.on("POST", RUNS, (202, BEGUN))
    server.on("GET", COMMANDS, (200, {"commands": [command("c1", "a", "sent", run="r1")], "next": None}))
    assert run("run", "pull,switch", "a", "b", "--no-wait") == (0, "r1\n", "")
    limits = ("--ttl", "0", "--parallel", "1", "--max-failures", "0")
    done = run("run", "pull", "--all", "--yes", "--where", "x=1", "--where", "y=a=b", "--no-wait", "--json", *limits)
    document = json.loads(done.out)
    assert (done.code, document["run"]["id"], [each["state"] for each in document["commands"]]) == (0, "r1", ["sent"])
    first, second = (each.body for each in server.asked_for("POST", RUNS))
    assert first.pop("key") != second.pop("key")
    assert first == {"steps": ["pull", "switch"], "hosts": ["a", "b"], "parallel": 10}
    assert second == {"steps": ["pull"], "where": {"x": "1", "y": "a=b"}, "ttl_s": 0, "parallel": 1, "max_failures": 0}


def test_a_run_that_was_accepted_is_told_even_if_its_commands_cannot_be_seen(run: Run, server: ApiServer) -> None:
    server.on("POST", RUNS, (202, BEGUN))
    done = run("run", "pull", "a", "b", "--no-wait", "--json")
    assert (done.code, [each["id"] for each in json.loads(done.out)["commands"]]) == (0, ["c1"])


def test_all_chooses_every_host_on_the_server(run: Run, server: ApiServer) -> None:
    server.on("POST", RUNS, (202, BEGUN))
    assert run("run", "pull", "--all", "--yes", "--no-wait").code == 0
    assert [each.body["where"] for each in server.asked_for("POST", RUNS)] == [{}]


def test_run_refused_by_the_hub_exits_1_and_is_not_repeated(run: Run, server: ApiServer) -> None:
    server.on("POST", RUNS, (404, {"error": "unknown_host", "message": "there is no host 'x'"}))
    done = run("run", "pull", "x", "--json")
    assert (done.code, json.loads(done.out)["error"]) == (1, "unknown_host")
    assert len(server.asked) == 1


def test_run_names_each_host_that_did_not_succeed_and_counts_the_rest(run: Run, server: ApiServer) -> None:
    ended = fleet_run(
        part("a", "succeeded", 1, "c2"), part("b", "failed", 1, "c4", "exit"),
        part("c", "failed", 1, None, "host_removed"),
        part("d", "not_attempted"), state="failed",
    )  # fmt: skip
    server.on(
        "POST",
        RUNS,
        (202, fleet_run(active("a", "c1"), part("b", "pending"), part("c", "pending"), part("d", "pending"))),
    )
    server.on("GET", RUN, (200, ended))
    views = [
        command("c5", "c"),
        command("c4", "b", op="switch"),
        command("c3", "b"),
        command("c2", "a"),
        command("c1", "a"),
    ]
    server.on("GET", COMMANDS, (200, {"commands": [{**each, "run": "r1"} for each in views], "next": None}))
    for each in ("c1", "c2", "c3", "c5"):
        server.on("GET", f"{COMMANDS}/{each}", (200, command(each, "x", "succeeded")))
    server.on(
        "GET",
        f"{COMMANDS}/c4",
        (200, command("c4", "b", "failed", op="switch", exit_code=3, reason="exit", message="exec /no: No such file")),
    )
    for each in ("c1", "c2", "c3", "c4", "c5"):
        page = {"command_id": each, "records": [], "next_offset": 0, "complete": True, "truncated": False}
        server.on("GET", f"{COMMANDS}/{each}/output", (200, page))
    done = run("run", "pull,switch", "a", "b", "c", "d")
    assert done.code == 1
    failed = "b: failed at switch: exit code 3, exec /no: No such file  (fleethub command c4)"
    assert done.err.splitlines() == [
        f"fleethub: {failed}",
        failed,
        "c: failed at switch: its host was removed",
        "d: not attempted",
        "run r1 failed: 1 succeeded, 2 failed, 1 not attempted",
    ]
    document = json.loads(run("run", "pull,switch", "a", "b", "c", "d", "--json").out)
    assert document["run"]["not_attempted"] == 1
    assert {each["id"]: each["state"] for each in document["commands"]}["c4"] == "failed"
    assert {"actor", "attempt", "ttl_s"} < set(document["commands"][0])


def test_cancel_finds_out_which_it_is_before_it_asks_for_an_end(run: Run, server: ApiServer) -> None:
    """The bug it would catch: each cancel of a run leaves a refused attempt in the audit."""
    server.on("GET", f"{COMMANDS}/c1", (200, command("c1", "a")))
    server.on("POST", f"{COMMANDS}/c1/cancel", (202, command("c1", "a", "cancelled")))
    assert run("cancel", "c1") == (0, "c1: cancelled\n", "")
    server.on("GET", f"{COMMANDS}/r1", UNKNOWN_COMMAND)
    server.on("GET", RUN, (200, BEGUN))
    server.on(
        "POST",
        f"{RUN}/cancel",
        (202, BEGUN),
        (202, {**BEGUN, "state": "cancelled"}),
        (409, {"error": "final", "message": "over"}),
    )
    assert (
        run("cancel", "r1").out == "r1: no further host is begun, and the agents of 1 are asked to end what they run\n"
    )
    assert json.loads(run("cancel", "r1", "--json").out)["state"] == "cancelled"
    assert run("cancel", "r1") == (1, "", "fleethub: over\n")
    unknown = run("cancel", "x", "--json")
    assert (unknown.code, json.loads(unknown.out)["error"]) == (1, "unknown_id")
    assert {each.path for each in server.asked if each.method == "POST"} == {f"{COMMANDS}/c1/cancel", f"{RUN}/cancel"}


def test_what_a_short_id_names_is_changed_by_its_whole_id_and_never_one_of_two(run: Run, server: ApiServer) -> None:
    server.on("GET", f"{COMMANDS}/cccc", (200, command("cccc1", "a")))
    server.on("GET", "/api/v1/runs/cccc", (404, {"error": "unknown_run", "message": "there is no run"}))
    server.on("POST", f"{COMMANDS}/cccc1/cancel", (202, command("cccc1", "a", "cancelled")))
    assert run("cancel", "cccc") == (0, "cccc1: cancelled\n", "")
    server.on("GET", f"{COMMANDS}/r1", (200, command("r123", "a")))
    server.on("GET", RUN, (200, BEGUN))
    refused = run("cancel", "r1", "--json")
    assert (refused.code, json.loads(refused.out)["error"]) == (1, "ambiguous_id")
    named = (409, {"error": "ambiguous_id", "message": "several commands begin with 'dddd'", "candidates": ["dddd1"]})
    server.on("GET", f"{COMMANDS}/dddd", named)
    assert run("cancel", "dddd").err == (
        "fleethub: several commands begin with 'dddd'\n  Type more of the one that is meant.\n"
    )
    assert [each.path for each in server.asked if each.method == "POST"] == [f"{COMMANDS}/cccc1/cancel"]


def test_a_runs_id_in_the_place_of_a_commands_is_told(run: Run, server: ApiServer) -> None:
    server.on("GET", f"{COMMANDS}/r1", UNKNOWN_COMMAND)
    server.on("GET", RUN, (200, BEGUN))
    assert run("command", "r1") == (
        1,
        "",
        "fleethub: r1 is a run, not a command\n  fleethub runs r1 names its commands.\n",
    )


def test_a_command_tells_its_run_its_exit_code_and_how_long_it_took(run: Run, server: ApiServer) -> None:
    times = {"started_at": "2026-01-02T03:04:05.000Z", "finished_at": "2026-01-02T03:04:06.250Z"}
    history = [
        {"at": STAMP, "before": None, "after": "queued", "reason": "", "actor": "admin"},
        {"at": STAMP, "before": "running", "after": "succeeded", "reason": "reported", "actor": "agent"},
    ]
    view = command(
        "c1", "a", "succeeded", run="r1", exit_code=0, reason="succeeded", history=history, output_next=1, **times
    )
    server.on("GET", f"{COMMANDS}/c1", (200, view))
    lines = run("command", "c1").out.splitlines()
    shown = dict(line.split(None, 1) for line in lines if line.startswith(("run ", "state ", "took ")))
    assert shown == {"run": "r1", "state": "succeeded", "took": "1.2 s"}
    assert any(line.split() == ["exit", "code", "0"] for line in lines)
    assert ["output", "1", "record"] in [line.split() for line in lines]
    assert lines[-1].index("reported") == lines[-3].index("REASON")


def test_filters_that_match_nothing_are_named(run: Run, server: ApiServer) -> None:
    server.on("GET", COMMANDS, (200, {"commands": [], "next": None}))
    server.on("GET", "/api/v1/audit", (200, {"audit": [], "next": None}))
    assert run("commands").out == "no commands yet: fleethub run OP HOST\n"
    assert run("commands", "--host", "web1", "--state", "lost").out == "no command with host web1, state lost\n"
    assert run("audit", "--actor", "eve").out == "no line with actor eve\n"


def test_runs_lists_them_and_shows_one_host_by_host(run: Run, server: ApiServer) -> None:
    server.on(
        "GET", RUNS, (200, {"runs": [BEGUN], "next": "r1"}), (200, {"runs": [{**BEGUN, "id": "r0"}], "next": None})
    )
    assert [each["id"] for each in json.loads(run("runs", "--json").out)["runs"]] == ["r1", "r0"]
    assert [each.query for each in server.asked] == ["limit=20", "before=r1&limit=19"]
    row = run("runs").out.splitlines()[1]
    assert row.split()[0] == "r0"
    assert "pull,switch" in row
    assert row.endswith("1 waiting, 1 under way")
    server.on("GET", RUN, (200, BEGUN))
    assert json.loads(run("runs", "r1", "--json").out) == BEGUN
    lines = [line.split() for line in run("runs", "r1").out.splitlines()]
    assert ["key", "k1"] in lines
    assert ["a", "under", "way", "pull", "c1"] in lines
    assert ["b:", "waiting"] in lines


def test_enroll_prints_the_token_alone_on_stdout(run: Run, server: ApiServer) -> None:
    server.on("POST", "/api/v1/hosts", (201, {"name": "web1", "token": "t0k", "host_id": "1"}))
    done = run("enroll", "web1")
    assert (done.out, done.err) == ("t0k\n", "web1: enrolled. Its token is on stdout, and nowhere else.\n")
    document = json.loads(run("enroll", "web1", "--again", "--json").out)
    assert (document["name"], document["token"]) == ("web1", "t0k")
    assert [each.body["again"] for each in server.asked] == [False, True]
    assert "it was not known before" in run("enroll", "web1", "--again").err
    server.on("GET", "/api/v1/hosts/web1", (200, host("web1")))
    assert "its old token is void" in run("enroll", "web1", "--again").err


def test_advice_is_as_it_is_typed_here_and_on_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug it would catch: in a checkout, what is to be pasted under stress is not found."""
    assert set(output.VERBS) == set(cli.names) - {"agent"}
    monkeypatch.setenv("PATH", "/nowhere")
    there = "| ssh root@web1 fleethub agent, a fleethub statusbar"
    advice = f"fleethub: web1? `fleethub run x`, fleethub token list; fleethub enroll web1 {there}"
    typed = f"fleethub: web1? `bin/fleethub run x`, bin/fleethub token list; bin/fleethub enroll web1 {there}"
    assert output.as_typed(advice) == typed
    assert output.as_typed(typed) == typed


def test_hosts_says_when_no_hub_stands_behind_what_it_shows(run: Run, server: ApiServer) -> None:
    server.on("GET", "/api/v1/hosts", (200, {"hosts": [], "source": "hub", "next": None}))
    for verdict, said in (("advancing", ""), ("frozen", "the hub is frozen"), ("stopped", "the hub is stopped")):
        row = {
            "name": "hub",
            "state": "RUNNING",
            "pid": 1,
            "uptime_s": 1.0,
            "restarts": 0,
            "rss_bytes": 1,
            "verdict": verdict,
        }
        whole: dict[str, object] = {"canary": {}, "fleet": {}, "commands": {}, "incidents": {}}
        server.on("GET", "/api/v1/status", (200, {"verdict": "ok", "epoch": 1, "processes": [row], **whole}))
        assert run("hosts").err.startswith(said), verdict
        assert bool(said) == bool(run("hosts").err)


def test_errors_from_the_hub_are_shown_without_their_control_characters(run: Run, server: ApiServer) -> None:
    server.on("DELETE", "/api/v1/hosts/web1", (409, {"error": "no", "message": "\x1b]0;owned\x07\u202e"}))
    done = run("remove", "web1")
    assert done.code == 1
    assert done.err == "fleethub: \\x1b]0;owned\\x07\\u202e\n"


def test_a_verb_that_is_of_this_machine_only_says_so(run: Run) -> None:
    done = run("backup", "b.db", "--hub", "http://elsewhere:7700", "--json")
    assert (done.code, json.loads(done.out)["error"]) == (2, "local_only")
    assert "this machine's own installation only" in done.err
    assert json.loads(run("hosts", "--hubb", "x", "--json").out)["error"] == "usage"


def test_another_hub_and_json_may_be_named_before_the_verb(run: Run, server: ApiServer, tmp_path: Path) -> None:
    server.on("GET", "/api/v1/hosts", (200, {"hosts": [host("web1")], "next": None}))
    (tmp_path / "t").write_text("secret\n")
    behind = run("hosts", "--json", "--hub", server.url, "--token-file", str(tmp_path / "t"))
    before = run("--json", "--hub", server.url, f"--token-file={tmp_path / 't'}", "hosts")
    assert (before.code, before.out, before.err) == (0, behind.out, "")
    assert json.loads(before.out)["hosts"][0]["name"] == "web1"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--hub", "http://a:1", "up"), "this machine's own installation only"),
        (("--hub", "http://a:1", "nonsense"), "there is no verb 'nonsense'"),
        (("--hub", "http://a:1"), "there is no verb behind --hub http://a:1"),
        (("--limit", "3", "hosts"), "A verb's options stand behind it"),
    ],
)  # fmt: skip
def test_what_stands_wrongly_before_the_verb_is_told(run: Run, typed: tuple[str, ...], said: str) -> None:
    done = run(*typed)
    assert done.code == 2
    assert said in done.err


def test_every_verb_of_the_contract_is_there_and_has_a_help(run: Run) -> None:
    wanted = {
        "up", "down", "restart", "stop", "start", "env", "status", "hosts", "host", "remove", "enroll", "revoke",
        "run", "runs", "commands",
        "command", "cancel", "logs", "incidents", "incident", "agent", "token", "sessions", "audit", "backup",
        "restore", "doctor", "completion", "man",
    }  # fmt: skip
    assert wanted <= set(cli.names)
    manual = run("man").out.replace("\\-", "-")
    for verb in sorted(cli.names):
        done = run(verb, "--help")
        assert (done.code, done.err) == (0, "")
        assert f".SS fleethub {verb} " in manual
