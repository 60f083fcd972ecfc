"""The verb `sessions`: the browsers that are signed in, and their end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.api_server import ApiServer, running

from processes.cli.__main__ import execute

SESSIONS = "/api/v1/sessions"


def session(id: str) -> dict[str, Any]:
    return {
        "id": id, "actor": "ann", "role": "admin", "signed_in_at": "2026-01-02T03:04:05Z",
        "ends_at": "2026-01-02T15:04:05Z", "address": "10.0.0.7", "browser": "Firefox", "current": False,
    }  # fmt: skip


def ended(server: ApiServer, *ids: str) -> None:
    for id in ids:
        server.on("DELETE", f"{SESSIONS}/{id}", (200, {"id": id, "ended": True}))


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with running() as found:
        yield found


@pytest.fixture(autouse=True)
def hub(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "token").chmod(0o600)
    monkeypatch.setenv("FLEETHUB_HUB", server.url)
    monkeypatch.setenv("FLEETHUB_TOKEN_FILE", str(tmp_path / "token"))


def test_sessions_are_listed_and_one_is_ended(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("GET", SESSIONS, (200, {"sessions": [session("s1")]}))
    assert execute(["sessions"]) == 0
    shown = capsys.readouterr().out
    for word in ("s1", "ann", "admin", "2026-01-02T03:04:05Z", "10.0.0.7", "Firefox"):
        assert word in shown, word
    assert execute(["sessions", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sessions": [session("s1")]}
    ended(server, "s1")
    assert execute(["sessions", "end", "s1"]) == 0
    assert capsys.readouterr().out == "s1: ended\n"
    assert execute(["sessions", "end", "s1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ended": ["s1"]}


def test_all_are_ended_also_those_that_the_first_page_did_not_list_and_one_that_somebody_else_ends(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [["s1", "gone"], ["s2"], []]
    server.on("GET", SESSIONS, *[(200, {"sessions": [session(id) for id in page]}) for page in pages])
    ended(server, "s1", "s2")
    server.on("DELETE", f"{SESSIONS}/gone", (404, {"error": "unknown_session", "message": "there is no session"}))
    assert execute(["sessions", "end", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ended": ["s1", "gone", "s2"]}
    assert [each.path for each in server.asked if each.method == "DELETE"] == [
        f"{SESSIONS}/{id}" for id in ("s1", "gone", "s2")
    ]


def test_a_session_that_cannot_be_ended_fails_and_says_what_lists_them(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("DELETE", f"{SESSIONS}/no", (404, {"error": "unknown_session", "message": "there is no session 'no'"}))
    assert execute(["sessions", "end", "no"]) == 1
    assert "fleethub sessions lists them" in capsys.readouterr().err
    server.on("GET", SESSIONS, (200, {"sessions": [session("s1")]}))
    server.on("DELETE", f"{SESSIONS}/s1", (503, {"error": "broken", "message": "no room"}))
    assert execute(["sessions", "end", "--all"]) != 0, "it is not ended"
