"""The picture of a live screen: whole states and deltas, and a gap that is not papered over."""

from __future__ import annotations

import json

import pytest
from doubles.api_server import running

from processes.cli import live
from processes.cli.__main__ import execute
from processes.cli.verbs import fleet, status
from processes.client.api import Api
from processes.client.feed import Feed, Picture
from processes.core.shown.query import parse

HOST = {
    "name": "web1", "presence": "online", "last_seen": None, "host_id": "1", "enrolled_at": None, "revoked": False,
    "connected_since": None, "address": "", "host_type": "nixos", "agent_version": "1", "os_version": "", "protocol": 1,
    "heartbeat_interval_s": 5.0, "commands": ["pull"], "command_options": {}, "metrics": {"load": 0.5},
    "pending_command": None,
    "facts": {"a": [1]}, "heartbeat_facts": {},
}  # fmt: skip
WHOLE = {
    "type": "full_state", "epoch": 1, "version": 7,
    "state": {
        "hosts": [HOST], "commands": [], "processes": [], "incidents": [{"id": "i1"}],
        "overall": {
            "verdict": "degraded", "reasons": ["hub is \x1b[31m"], "epoch": 1,
            "canary": {"ok": True, "age_s": 0.5, "latency_ms": 3.0},
            "fleet": {"hosts": 1, "online": 1, "stale": 0, "offline": 0}, "queues": [], "watchdog_silent_s": None,
        },
    },
}  # fmt: skip


def delta(version: int, *changes: dict[str, object]) -> str:
    return json.dumps({"type": "delta", "epoch": 1, "version": version, "changes": changes})


def picture() -> Picture:
    found = Picture()
    assert found.take(json.dumps(WHOLE))
    return found


def test_deltas_are_merged_and_removals_taken_out() -> None:
    found = picture()
    assert found.take(
        delta(
            8, {"kind": "host", "id": "web1", "fields": {"presence": "offline"}}, {"kind": "host_removed", "id": "none"}
        )
    )
    assert found.rows["host"]["web1"]["presence"] == "offline"
    assert found.rows["host"]["web1"]["host_type"] == "nixos"
    assert found.take(delta(9, {"kind": "host_removed", "id": "web1"}))
    assert found.rows["host"] == {}


def test_a_gap_is_seen_and_nothing_is_merged_until_the_whole_comes() -> None:
    found = picture()
    assert not found.take(delta(9, {"kind": "host_removed", "id": "web1"}))
    assert "web1" in found.rows["host"]
    assert found.take(json.dumps({**WHOLE, "version": 20}))
    assert found.take(delta(21, {"kind": "host_removed", "id": "web1"}))


def test_what_is_drawn_is_escaped_and_says_how_fresh_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    found = picture()
    fleet._picture(found, "live", 0.0, {}, parse("web online"))
    fleet._picture(found, "live", 0.0, {"search": "db"}, parse(""))
    fleet._picture(found, "live", 0.0, {}, parse("!web"))
    status._picture(found, "not connected, this is 9 s old: gone")
    out = capsys.readouterr().out
    assert "1 host: 1 online, 0 stale, 0 offline (live)" in out
    assert out.count("web1  online") == 1
    assert "degraded: hub is \\x1b[31m" in out
    assert "9 s old" in out
    assert "\x1b" not in out


def test_without_a_connection_the_screen_says_so() -> None:
    said: list[str] = []

    def draw(_: Picture, line: str) -> None:
        said.append(line)
        if len(said) > 1:
            raise KeyboardInterrupt

    with running() as server:
        api = Api(server.url, "t")  # it answers 404 to the upgrade
        with pytest.raises(KeyboardInterrupt):
            live.watch(Feed(api, again_s=0.01), draw)
        api.close()
    assert all(line.startswith("not connected: ") for line in said)


def test_json_and_watch_exclude_each_other() -> None:
    for verb in ("hosts", "status"):
        assert execute([verb, "--watch", "--json"]) == 2
