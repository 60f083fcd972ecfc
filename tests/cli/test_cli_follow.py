"""Following commands: whatever happens to the connection, each line is shown once, and the end is the API's."""

from __future__ import annotations

from typing import Any

import pytest
from doubles.api_server import ApiServer, FeedServer, feeding, running

from processes.cli import follow
from processes.cli.client import Api
from processes.cli.follow import Following
from processes.cli.watch import Watched
from processes.core.command import State

BASE = {
    "id": "c1", "host": "web1", "op": "pull", "reason": "", "message": "", "exit_code": None, "created_at": None, "sent_at": None,
    "started_at": None, "finished_at": None, "expires_at": None, "cancel_requested_at": None, "lost_at": None, "unheard_since": None,
    "ttl_s": 1.0, "attempt": 1, "actor": "admin", "key": None, "run": None, "output_next": 0, "output_truncated": False,
}  # fmt: skip
COMMAND, OUTPUT = "/api/v1/commands/c1", "/api/v1/commands/c1/output"


def view(state: str, **more: Any) -> tuple[int, dict[str, Any]]:
    return 200, {**BASE, "state": state, **more}


def page(first: int, *lines: str, complete: bool = False) -> tuple[int, dict[str, Any]]:
    records = [{"offset": first + number, "stream": "stdout", "data": line} for number, line in enumerate(lines)]
    return 200, {"command_id": "c1", "records": records, "next_offset": first + len(lines), "complete": complete, "truncated": False}


def frame(offset: int, line: str, stream: str = "stdout") -> dict[str, Any]:
    return {"type": "output", "command_id": "c1", "offset": offset, "stream": stream, "data": line}


def ended(state: str) -> dict[str, Any]:
    return {"type": "delta", "epoch": 1, "version": 2, "changes": [{"kind": "command", "id": "c1", "fields": {"state": state}}]}


class Split(Api):
    """The HTTP double for questions, the WebSocket double for the feed: one port in life, two here."""

    def __init__(self, http: ApiServer, feed: str) -> None:
        super().__init__(http.url, "secret")
        self.url = feed


def followed(http: ApiServer, feed: str, wait_s: float | None = 10.0) -> tuple[bool, Watched]:
    api = Split(http, feed)
    try:
        following = Following(api, [Watched("c1", "web1", "pull", State.SENT)])
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
        _, over, each = with_feed(http, [frame(0, "hello"), frame(1, "oh \x1b[31m", "stderr"), ended("succeeded")])
    out, err = capsys.readouterr()
    assert (over, each.state, out) == (True, State.SUCCEEDED, "web1 | hello\n")
    assert err == "web1 | oh \\x1b[31m\n"


def test_a_gap_in_the_feed_is_filled_by_the_api_before_going_on(capsys: pytest.CaptureFixture[str]) -> None:
    """The bug it would catch: lines that were skipped by a slow connection are missing from the screen."""
    with running() as http:
        http.on("GET", COMMAND, view("running"), view("running"), view("running"), view("succeeded"))
        http.on("GET", OUTPUT, page(0), page(0), page(0, "a", "b"), page(3, complete=True))
        with_feed(http, [frame(2, "c"), frame(1, "b"), ended("succeeded")])
    assert capsys.readouterr().out == "web1 | a\nweb1 | b\nweb1 | c\n"


def test_a_lost_connection_is_taken_up_at_the_next_offset(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.01)
    with running() as http:
        http.on("GET", COMMAND, *[view("running")] * 4, view("failed", exit_code=3))
        http.on("GET", OUTPUT, *[page(0)] * 2, *[page(1)] * 2, page(2, complete=True))
        feed, _, each = with_feed(http, [frame(0, "a")], [frame(0, "a"), frame(1, "b"), ended("failed")])
    assert capsys.readouterr().out == "web1 | a\nweb1 | b\n"
    assert [heard["offset"] for heard in feed.heard if heard["type"] == "subscribe"] == [0, 1]
    assert (each.state, each.exit_code) == (State.FAILED, 3)


def test_without_a_websocket_it_asks_until_the_end(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.01)
    with running() as http:
        http.on("GET", COMMAND, view("running"), (503, {"error": "hub_unavailable", "message": "wait"}), view("running"), view("succeeded"))
        http.on("GET", OUTPUT, page(0, "a"), page(1, "b"), page(2, "c", complete=True))
        over, _ = followed(http, http.url)
    assert over
    assert capsys.readouterr().out == "web1 | a\nweb1 | b\nweb1 | c\n"


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
        full = {"type": "full_state", "epoch": 1, "version": 20, "state": {"commands": [{"id": "c1", "state": "succeeded"}]}}
        feed, over, _ = with_feed(http, [{"type": "sync", "version": 7}, late, full])
    assert over
    assert {"type": "get_state"} in feed.heard
