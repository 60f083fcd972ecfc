"""Before what cannot be taken back, a person at a terminal is shown what happens, and asked; a script is not."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from doubles.api_server import ApiServer, command, fleet_run, host, part, running

from processes.cli.__main__ import execute
from processes.cli.terminal import interrupt
from processes.client.patience import Patience

LEDGER = {"accepted": 3, "queued": 1, "running": 1}
TOKENS = {
    "tokens": [
        {
            "id": "t1", "role": "operator", "label": "frank", "created_at": "2026-01-02T03:04:05.000Z",
            "last_used_at": None, "expires_at": None, "expired": False,
        }
    ]
}  # fmt: skip
LETTER: dict[str, Any] = {
    "id": "d1", "at": None, "process": "hub", "why": "poison", "kind": "K", "name": "", "host": "web1", "error": "",
    "deaths": [], "size_bytes": 1, "event": {}, "retries": 0, "retrying": False,
}  # fmt: skip


class Done(NamedTuple):
    code: int
    out: str
    err: str
    changed: list[tuple[str, str]]


Type = Callable[..., Done]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    (tmp_path / "operator.token").write_text("secret\n")
    with running() as found:
        monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", found.url.removeprefix("http://"))
        web1 = host("web1", ledger=LEDGER)
        found.on("GET", "/api/v1/hosts", (200, {"hosts": [web1, host("web2")], "next": None}))
        found.on("GET", "/api/v1/hosts/web1", (200, web1))
        found.on("GET", "/api/v1/hosts/gone", (200, host("gone", presence="offline")))
        for name in ("web1", "gone"):
            found.on("DELETE", f"/api/v1/hosts/{name}", (200, {"name": name, "commands_ended": 2}))
        found.on("POST", "/api/v1/hosts/web1/revoke", (200, web1))
        found.on("GET", "/api/v1/tokens", (200, TOKENS))
        found.on("DELETE", "/api/v1/tokens/t1", (200, {"id": "t1", "revoked": True}))
        found.on("GET", "/api/v1/deadletters/d1", (200, LETTER))
        found.on("POST", "/api/v1/deadletters/d1/discard", (200, {"id": "d1", "discarded": True}))
        found.on("GET", "/api/v1/runs/r0", (200, fleet_run(part("web1", "failed"), part("web2", "not_attempted"))))
        found.on("POST", "/api/v1/runs", (202, fleet_run(part("web1", "pending"), part("web2", "pending"))))
        found.on("GET", "/api/v1/commands", (200, {"commands": [command("c1", "web1")], "next": None}))
        yield found


@pytest.fixture
def types(server: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types a verb, and what is answered; answer None: nobody is there."""

    def typed(answer: str | None, *words: str) -> Done:
        server.asked.clear()
        monkeypatch.setattr(interrupt, "asks", lambda: answer is not None)
        monkeypatch.setattr("sys.stdin", io.StringIO(answer or ""))
        code = execute(words, Patience(pause_s=0.01))
        changed = [(each.method, each.path) for each in server.asked if each.method != "GET"]
        return Done(code, *capsys.readouterr(), changed)

    return typed


RUN = ("--no-wait", "--ttl", "10m")
ACTS = [
    (("remove", "web1"), "web1 is online; 1 queued command would be cancelled; 1 command under way would be lost"),
    (("revoke", "web1"), "web1 is online: it is kept out until it gets a new token, and 2 open commands"),
    (("token", "revoke", "t1"), "t1 is a token of frank with the role operator, never used"),
    (("deadletter", "d1", "--discard"), "d1 was put aside unread"),
    (("run", "reboot", "web1", "web2", *RUN), "reboot on 2 hosts, all at once: web1, web2."),
    (("run", "reboot", "web1", "web2", "--parallel", "1", *RUN), "reboot on 2 hosts, 1 at a time: web1, web2."),
    (("run", "reboot", "--all", *RUN), "reboot on 2 hosts"),
    (("run", "reboot", "--query", "web", *RUN), "reboot on 2 hosts"),
    (("run", "reboot", "--failed-of", "r0", *RUN), "reboot on 2 hosts"),
]


@pytest.mark.parametrize(("words", "said"), ACTS, ids=[" ".join(words[:3]) for words, _ in ACTS])
def test_a_person_is_shown_what_happens_and_only_yes_means_yes(types: Type, words: tuple[str, ...], said: str) -> None:
    """The bug it would catch: one line reboots 38 hosts, or removes a host whose command goes on unseen."""
    for answer in ("n\n", "\n", "", "yess\n"):
        done = types(answer, *words)
        assert (done.code, done.changed) == (1, []), answer
        assert said in done.err
        assert "[y/N]" in done.err
        assert done.err.endswith("fleethub: nothing was done\n")
    for answer in ("y\n", " YES \n"):
        done = types(answer, *words)
        assert (done.code, len(done.changed)) == (0, 1), done.err
    sure = types("", *words, "--yes")
    assert (sure.code, len(sure.changed)) == (0, 1), sure.err
    assert "[y/N]" not in sure.err


@pytest.mark.parametrize(("words", "said"), ACTS, ids=[" ".join(words[:3]) for words, _ in ACTS])
def test_a_script_is_not_asked_but_must_mean_all(types: Type, words: tuple[str, ...], said: str) -> None:
    done = types(None, *words)
    assert said not in done.err
    names_none = "--all" in words or "--query" in words
    assert (done.code, len(done.changed)) == ((2, 0) if names_none else (0, 1)), done.err
    if names_none:
        assert "need --yes" in done.err


@pytest.mark.parametrize(
    "words", [("remove", "gone"), ("run", "reboot", "web1", *RUN), ("run", "reboot", "web1", "web2", "--dry-run")]
)
def test_where_nothing_is_at_stake_nobody_is_asked(types: Type, words: tuple[str, ...]) -> None:
    done = types("n\n", *words)
    assert done.code == 0, done.err
    assert "[y/N]" not in done.err


def test_a_removal_says_what_ended_with_the_host(types: Type) -> None:
    assert types(None, "remove", "web1").out == "web1: removed, with 2 open commands\n"
