"""Following commands: whatever happens to the connection, each line is shown once, and the end is the API's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from doubles.api_server import ApiServer, FeedServer, active, command, feeding, fleet_run, part, running

from processes.cli.following import Shown
from processes.client.api import Api
from processes.client.follow import Following, Listener, Pace
from processes.client.patience import PATIENCE, Patience
from processes.client.watched import Watched, WatchedRun
from processes.core.records.command import State
from processes.core.records.run import RunState, RunView
from processes.core.shown.views import CommandView
from processes.core.values import rfc3339

PACE = Pace(poll_s=0.01)
COMMAND, OUTPUT = "/api/v1/commands/c1", "/api/v1/commands/c1/output"


def view(state: str, **more: Any) -> tuple[int, dict[str, Any]]:
    return 200, command("c1", "web1", state, **more)


def page(first: int, *lines: str, complete: bool = False) -> tuple[int, dict[str, Any]]:
    records = [{"offset": first + number, "stream": "stdout", "data": line} for number, line in enumerate(lines)]
    return 200, {
        "command_id": "c1",
        "records": records,
        "next_offset": first + len(lines),
        "complete": complete,
        "truncated": False,
    }


def frame(offset: int, line: str, stream: str = "stdout") -> dict[str, Any]:
    return {"type": "output", "command_id": "c1", "offset": offset, "stream": stream, "data": line}


def ended(state: str) -> dict[str, Any]:
    return {
        "type": "delta",
        "epoch": 1,
        "version": 2,
        "changes": [{"kind": "command", "id": "c1", "fields": {"state": state}}],
    }


class Split(Api):
    """The HTTP double for questions, the WebSocket double for the feed: one port in life, two here."""

    def __init__(self, http: ApiServer, feed: str, patience: Patience = PATIENCE) -> None:
        super().__init__(http.url, "secret", patience=patience)
        self.url = feed


def followed(http: ApiServer, feed: str, wait_s: float | None = 10.0, pace: Pace = PACE) -> tuple[bool, Watched]:
    api = Split(http, feed)
    try:
        following = Following(api, [Watched("c1", "web1", "pull", State.SENT)], listener=Shown(["web1"]), pace=pace)
        return following.run(wait_s), following.commands["c1"]
    finally:
        api.close()


def with_feed(http: ApiServer, *scripts: list[dict[str, Any]]) -> tuple[FeedServer, bool, Watched]:
    with feeding(list(scripts)) as feed:
        return feed, *followed(http, feed.url)


def test_output_streams_with_the_hosts_name_and_keeps_its_streams_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as http:
        http.on("GET", COMMAND, view("running"), view("running"), view("succeeded", exit_code=0))
        http.on("GET", OUTPUT, page(0), page(0), page(2, complete=True))
        _, over, each = with_feed(
            http, [frame(0, "hello"), frame(1, "oh \x1b[31mred\x1b[0m\x1b[2J", "stderr"), ended("succeeded")]
        )
    out, err = capsys.readouterr()
    assert (over, each.state, out) == (True, State.SUCCEEDED, "web1 | hello\n")
    assert err == "web1 | oh red\\x1b[2J\n"


def test_a_gap_in_the_feed_is_filled_by_the_api_before_going_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The bug it would catch: lines that were skipped by a slow connection are missing from the screen."""
    with running() as http:
        http.on("GET", COMMAND, view("running"), view("running"), view("running"), view("succeeded"))
        http.on("GET", OUTPUT, page(0), page(0), page(0, "a", "b"), page(3, complete=True))
        with_feed(http, [frame(2, "c"), frame(1, "b"), ended("succeeded")])
    assert capsys.readouterr().out == "web1 | a\nweb1 | b\nweb1 | c\n"


def test_a_lost_connection_is_taken_up_at_the_next_offset(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as http:
        http.on("GET", COMMAND, *[view("running")] * 4, view("failed", exit_code=3))
        http.on("GET", OUTPUT, *[page(0)] * 2, *[page(1)] * 2, page(2, complete=True))
        feed, _, each = with_feed(http, [frame(0, "a")], [frame(0, "a"), frame(1, "b"), ended("failed")])
    assert capsys.readouterr().out == "web1 | a\nweb1 | b\n"
    assert [heard["offset"] for heard in feed.heard if heard["type"] == "subscribe"] == [0, 1]
    assert (each.state, each.exit_code) == (State.FAILED, 3)


def test_without_a_websocket_it_asks_until_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as http:
        http.on(
            "GET",
            COMMAND,
            view("running"),
            (503, {"error": "hub_unavailable", "message": "wait"}),
            view("running"),
            view("succeeded"),
        )
        http.on("GET", OUTPUT, page(0, "a"), page(1, "b"), page(2, "c", complete=True))
        over, _ = followed(http, http.url)
    assert over
    assert capsys.readouterr().out == "web1 | a\nweb1 | b\nweb1 | c\n"


def test_a_host_that_is_gone_for_longer_than_a_moment_is_named_and_so_is_its_return(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bug it would catch: the output stops, and nobody says why. A new hub's first moment is no absence."""
    now = rfc3339(time.time())
    with running() as http:
        gone = view("running", unheard_since="2026-01-02T03:04:05.678Z")
        http.on(
            "GET",
            COMMAND,
            view("running"),
            view("running", unheard_since=now),
            gone,
            gone,
            view("running"),
            view("succeeded"),
        )
        http.on("GET", OUTPUT, *[page(0)] * 5, page(0, complete=True))
        followed(http, http.url)
    told = (
        "fleethub: web1 is not connected: its command goes on there, and is reported when the host is back\n"
        "fleethub: web1 is back\n"
    )
    assert capsys.readouterr().err == told


def test_a_host_that_did_not_come_back_is_not_said_to_be_back(capsys: pytest.CaptureFixture[str]) -> None:
    with running() as http:
        http.on(
            "GET", COMMAND, view("running", unheard_since="2026-01-02T03:04:05.678Z"), view("lost", reason="silence")
        )
        http.on("GET", OUTPUT, page(0), page(0, complete=True))
        followed(http, http.url)
    assert "web1 is back" not in capsys.readouterr().err


def test_a_command_that_does_not_end_is_given_up_at_the_deadline() -> None:
    with running() as http, feeding([[]]) as feed:
        http.on("GET", COMMAND, view("running"))
        http.on("GET", OUTPUT, page(0))
        over, each = followed(http, feed.url, wait_s=0.3)
    assert (over, each.state) == (False, State.RUNNING)


def test_a_skipped_version_asks_for_the_whole_state() -> None:
    with running() as http:
        http.on("GET", COMMAND, view("running"), view("running"), view("succeeded"))
        http.on("GET", OUTPUT, page(0), page(0), page(0, complete=True))
        late = {"type": "delta", "epoch": 1, "version": 9, "changes": []}
        full = {
            "type": "full_state",
            "epoch": 1,
            "version": 20,
            "state": {"commands": [{"id": "c1", "state": "succeeded"}]},
        }
        feed, over, _ = with_feed(http, [{"type": "sync", "version": 7}, late, full])
    assert over
    assert {"type": "get_state"} in feed.heard


RUN, COMMANDS = "/api/v1/runs/r1", "/api/v1/commands"


def run_followed(
    http: ApiServer,
    feed: str,
    begun: dict[str, Any],
    wait_s: float | None = 10.0,
    *,
    pace: Pace = PACE,
    patience: Patience = PATIENCE,
    on_run: Callable[[RunView], None] = lambda _: None,
) -> tuple[bool, Following]:
    api = Split(http, feed, patience)
    view = msgspec.convert(begun, RunView)
    listener = Shown([part.host for part in view.hosts], on_run=on_run)
    try:
        following = Following(api, fleet_run=WatchedRun(view), listener=listener, pace=pace)
        return following.run(wait_s), following
    finally:
        api.close()


def made(http: ApiServer, command_id: str, host: str, *lines: str, op: str = "pull") -> dict[str, Any]:
    """A command of the run that has succeeded, with its output."""
    view = command(command_id, host, "succeeded", run="r1", op=op)
    records = [{"offset": number, "stream": "stdout", "data": line} for number, line in enumerate(lines)]
    page = {
        "command_id": command_id,
        "records": records,
        "next_offset": len(lines),
        "complete": True,
        "truncated": False,
    }
    http.on("GET", f"{COMMANDS}/{command_id}", (200, view))
    http.on("GET", f"{COMMANDS}/{command_id}/output", (200, page))
    return view


def test_steps_that_nobody_saw_come_and_go_are_shown_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    """The bug it would catch: only a host's current command is shown, and a quick step before it is lost."""
    with running() as http:
        views = [made(http, "c3", "db", "z", op="switch"), made(http, "c2", "db", "y")]
        made(http, "c1", "web", "x")
        http.on("GET", COMMANDS, (200, {"commands": views, "next": None}))
        ended = fleet_run(part("web", "succeeded", 0, "c1"), part("db", "succeeded", 1, "c3"), state="succeeded")
        http.on("GET", RUN, (200, ended))
        over, following = run_followed(http, http.url, fleet_run(active("web", "c1"), part("db", "pending")))
    assert over
    assert capsys.readouterr().out == "web | x\ndb  | y\ndb  | z\n"
    assert [each.op for each in following.commands.values()] == ["pull", "pull", "switch"]
    assert http.asked_for("GET", COMMANDS)[0].query == "run=r1&host=db&limit=2"


def test_a_command_of_the_run_in_the_feed_makes_it_ask_for_the_run_and_subscribe(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing else would ask while it listens: the regular looks are put off."""
    pace = Pace(run_poll_s=60.0, look_s=60.0, news_s=0.0, rest_factor=0.0)
    new = command("c2", "db", "queued", run="r1")
    news = [("c2", new), ("c2", {"state": "succeeded"}), ("c1", {"state": "succeeded"})]
    deltas = [
        {
            "type": "delta",
            "epoch": 1,
            "version": number,
            "changes": [{"kind": "command", "id": command_id, "fields": fields}],
        }
        for number, (command_id, fields) in enumerate(news, 1)
    ]
    first, then = (
        fleet_run(active("web1", "c1"), part("db", "pending")),
        fleet_run(active("web1", "c1"), active("db", "c2")),
    )
    ended = fleet_run(part("web1", "succeeded", 0, "c1"), part("db", "succeeded", 0, "c2"), state="succeeded")
    with running() as http, feeding([deltas]) as feed:
        made(http, "c2", "db", "b")
        http.on("GET", COMMAND, view("running"), view("running"), view("succeeded"))
        http.on("GET", OUTPUT, page(0), page(0), page(0, "a", complete=True))
        http.on("GET", RUN, (200, first), (200, first), (200, then), (200, then), (200, ended))
        over, _ = run_followed(http, feed.url, first, wait_s=20.0, pace=pace)
    assert over
    assert [heard["command_id"] for heard in feed.heard if heard["type"] == "subscribe"] == ["c1", "c2"]
    queries = [each.query for each in http.asked_for("GET", RUN)]
    assert (queries[:2], queries[-2:]) == (["hosts=1", "hosts=1"], ["hosts=0", "hosts=1"])
    assert queries.count("hosts=1") == 3  # of all its hosts only at the beginning and at the end
    assert capsys.readouterr().out == "db   | b\nweb1 | a\n"


def test_a_run_that_cannot_be_asked_for_is_asked_again_and_no_command_of_its_end_is_missed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bug it would catch: the run is over, its last commands could not be listed just then, and nobody asks
    again.
    """
    away = (503, {"error": "hub_unavailable", "message": "wait"})
    with running() as http:
        views = [made(http, "c2", "db", "y", op="switch"), made(http, "c1", "db", "x")]
        http.on("GET", RUN, away, (200, fleet_run(part("db", "succeeded", 1, "c2"), state="succeeded")))
        http.on("GET", COMMANDS, away, (200, {"commands": views, "next": None}))
        over, _ = run_followed(http, http.url, fleet_run(part("db", "pending")), patience=Patience(read_again_s=0.0))
    out, err = capsys.readouterr()
    assert (over, out) == (True, "db | x\ndb | y\n")
    assert "asking again" in err


def test_a_run_that_was_over_before_anybody_saw_it_is_shown_with_its_output(capsys: pytest.CaptureFixture[str]) -> None:
    """The bug it would catch: the first answer was cut off, the second says that all has ended, and no line is shown."""
    over = {**active("web1", "c1"), "state": "succeeded"}
    with running() as http:
        made(http, "c1", "web1", "hello")
        http.on("GET", "/api/v1/runs/r1", None, (200, fleet_run(over, state="succeeded", steps=("pull",))))
        ended_run = msgspec.convert(fleet_run(over, state="succeeded", steps=("pull",)), RunView)
        with Api(http.url, "secret", patience=Patience(read_again_s=0.0)) as api:
            following = Following(api, fleet_run=WatchedRun(ended_run), listener=Shown(["web1"]), pace=PACE)
            assert following.run(10.0)
    assert capsys.readouterr().out == "web1 | hello\n"


def test_the_same_key_again_after_the_end_of_its_run_gives_all_its_commands_and_their_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bug it would catch: a script that starts its run once more under one key hears that all is well, and is told
    of no command and no line.
    """
    parts = part("web", "failed", 0, "c1", "exit"), part("db", "succeeded", 1, "c3"), part("mail", "not_attempted")
    whole = fleet_run(*parts, state="failed")
    with running() as http:
        made(http, "c1", "web", "x")
        http.on("GET", COMMAND, (200, command("c1", "web", "failed", run="r1", exit_code=3)))
        views = [made(http, "c3", "db", "z", op="switch"), made(http, "c2", "db", "y")]
        http.on("GET", COMMANDS, (200, {"commands": views, "next": None}))
        http.on("POST", "/api/v1/runs", (200, whole))
        http.on("GET", RUN, (200, whole))
        with Api(http.url, "secret") as api:
            begun = api.start_run({"steps": ["pull", "switch"], "hosts": ["web", "db", "mail"], "key": "k1"})
            following = Following(api, fleet_run=WatchedRun(begun), listener=Shown(["web", "db", "mail"]), pace=PACE)
            assert following.run(10.0)
    found = {each.id: (each.host, each.op, each.state, each.exit_code) for each in following.commands.values()}
    assert found == {
        "c1": ("web", "pull", State.FAILED, 3),
        "c2": ("db", "pull", State.SUCCEEDED, None),
        "c3": ("db", "switch", State.SUCCEEDED, None),
    }
    assert sorted(capsys.readouterr().out.splitlines()) == ["db   | y", "db   | z", "web  | x"]


def test_a_run_that_does_not_end_is_given_up_at_the_deadline() -> None:
    with running() as http:
        http.on("GET", COMMAND, view("running"))
        http.on("GET", OUTPUT, page(0))
        http.on("GET", RUN, (200, fleet_run(active("web1", "c1"), part("db", "pending"))))
        shown: list[RunView] = []
        over, following = run_followed(
            http, http.url, fleet_run(active("web1", "c1"), part("db", "pending")), 0.2, on_run=shown.append
        )
    assert (over, following.commands["c1"].state) == (False, State.RUNNING)
    assert {each.state for each in shown} == {RunState.RUNNING}


def test_no_more_outputs_are_subscribed_than_a_connection_may_have_and_ended_ones_make_room() -> None:
    """The bug it would catch: after twenty commands nothing streams any more."""
    end = {
        "type": "delta",
        "epoch": 1,
        "version": 1,
        "changes": [{"kind": "command", "id": "c1", "fields": {"state": "succeeded"}}],
    }
    with running() as http, feeding([[end]]) as feed:
        http.on("GET", COMMAND, view("running"), view("running"), view("succeeded"))
        http.on("GET", OUTPUT, page(0), page(0), page(0, complete=True))
        http.on("GET", f"{COMMANDS}/c2", (200, command("c2", "db")))
        http.on("GET", f"{COMMANDS}/c2/output", page(0))
        http.on("GET", RUN, (200, fleet_run(active("web1", "c1"), active("db", "c2"))))
        run_followed(http, feed.url, fleet_run(active("web1", "c1"), active("db", "c2")), 1.0, pace=Pace(outputs_max=1))
    assert [(heard["type"], heard["command_id"]) for heard in feed.heard] == [
        ("subscribe", "c1"),
        ("unsubscribe", "c1"),
        ("subscribe", "c2"),
    ]


class Heard(Listener):
    """Writes down what it is told of ends and waits."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def on_end(self, command: Watched) -> None:
        self.told.append(f"{command.id} {command.state}")

    def on_waiting(self, command: CommandView) -> None:
        self.told.append(f"{command.id} waits")


def test_an_end_is_told_once_and_a_wait_only_if_it_lasts() -> None:
    """The bugs it would catch: a failure is only seen at the end of the run; whoever waits for a moment is explained."""
    with running() as http:
        http.on("GET", COMMAND, view("queued"), view("queued"), view("queued"), view("failed", exit_code=3))
        http.on("GET", OUTPUT, page(0), page(0), page(0), page(0, complete=True))
        heard = Heard()
        with Split(http, "http://127.0.0.1:9") as api:
            Following(api, [Watched("c1", "web1", "pull", State.SENT)], listener=heard, pace=PACE).run(10.0)
        assert heard.told == ["c1 waits", "c1 failed"]
        http.on("GET", COMMAND, view("queued"), view("failed", exit_code=3))
        http.on("GET", OUTPUT, page(0), page(0, complete=True))
        heard = Heard()
        with Split(http, "http://127.0.0.1:9") as api:
            Following(api, [Watched("c1", "web1", "pull", State.SENT)], listener=heard, pace=PACE).run(10.0)
        assert heard.told == ["c1 failed"]
