"""Every verb against a port where somebody else answers: a failure that says so, never a success, never a traceback.

The answers are those of real proxies, sign-in pages and other programs. That a token is void, a host removed or a dead
letter discarded is believed only of the answer that the API promises for that very request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from doubles.api_server import ApiServer, active, command, fleet_run, host, running
from doubles.authority import Authority

from processes.cli.__main__ import execute
from processes.client.patience import Patience

HTML = b"<html><body>Please sign in</body></html>"


class Done(NamedTuple):
    code: int
    out: str
    err: str


Ask = Callable[..., Done]

ONE_TRY = Patience(0.0, 30.0, 60.0)  # the pause would outlast the time: asked once, however slow this is


def answer(head: str, body: bytes = b"", *, length: int | None = None) -> bytes:
    """One answer, with its connection's end."""
    counted = f"Content-Length: {len(body) if length is None else length}\r\n" if "204" not in head else ""
    return f"HTTP/1.1 {head}\r\n{counted}Connection: close\r\n\r\n".encode() + body


STRANGERS = {
    "301": answer("301 Moved Permanently\r\nLocation: https://fleet.example.org/"),
    "302 to a sign-in page": answer("302 Found\r\nLocation: https://sso.example.org/login?rd=1", HTML),
    "302 that cannot be parsed": answer("302 Found\r\nLocation: http://[::1/x"),
    "303 to nowhere": answer("303 See Other"),
    "307": answer("307 Temporary Redirect\r\nLocation: /elsewhere"),
    "304": answer("304 Not Modified"),
    "200 HTML": answer("200 OK\r\nContent-Type: text/html", HTML),
    "200 empty": answer("200 OK"),
    "200 null": answer("200 OK\r\nContent-Type: application/json", b"null"),
    "200 {}": answer("200 OK\r\nContent-Type: application/json", b"{}"),
    "200 {status: ok}": answer("200 OK\r\nContent-Type: application/json", b'{"status": "ok"}'),
    "200 not UTF-8": answer("200 OK\r\nContent-Type: application/json", b'{"name": "\xff"}'),
    "200 cut short": answer("200 OK", b'{"name": "web1"', length=500),
    "200 not gzip": answer("200 OK\r\nContent-Encoding: gzip", HTML),
    "201 HTML": answer("201 Created", HTML),
    "202 empty": answer("202 Accepted"),
    "204": answer("204 No Content"),
    "206": answer("206 Partial Content", b'{"name": "web1"}'),
    "403 HTML": answer("403 Forbidden", HTML),
    "404 HTML": answer("404 Not Found", HTML),
    "404 not UTF-8": answer("404 Not Found", b'{"error": "\xff"}'),
    "407": answer("407 Proxy Authentication Required", HTML),
    "502": answer("502 Bad Gateway", HTML),
    "520": answer("520 ", HTML),
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
}
VERBS = [
    ("hosts",), ("host", "web1"), ("remove", "web1"), ("enroll", "web1"), ("enroll", "web1", "--again"),
    ("revoke", "web1"), ("lift", "web1"), ("run", "pull", "web1"), ("run", "pull", "web1", "--no-wait"), ("runs",),
    ("runs", "r1"), ("runs", "r1", "--follow"), ("commands",), ("command", "c1"), ("cancel", "c1"), ("logs", "c1"),
    ("incidents",), ("incident", "i1"), ("deadletters",), ("deadletter", "d1"), ("deadletter", "d1", "--retry"),
    ("deadletter", "d1", "--discard"), ("token", "list"), ("token", "create", "--role", "viewer"),
    ("token", "revoke", "abc"), ("token", "rotate", "abc"), ("enroll", "web1", "--code"), ("enroll", "web1", "--rotate"),
    ("audit", "verify"), ("status", "--json"), ("hosts", "--json"), ("sessions",), ("sessions", "end", "abc"), ("audit",), ("status",),
]  # fmt: skip
CHANGES = [
    verb for verb in VERBS if verb[0] in ("remove", "revoke", "lift", "token", "deadletter", "run", "enroll", "cancel")
]
REFUSING = (answer("302 Found\r\nLocation: https://sso.example.org/login"), answer("200 OK", HTML))


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def few_authorities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One certificate to trust: the system's hundred take longer to read than all else here."""
    return Authority(tmp_path_factory.mktemp("authority")).ca


@pytest.fixture
def ask(
    server: ApiServer,
    few_authorities: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ask:
    monkeypatch.setenv("SSL_CERT_FILE", str(few_authorities))
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    (tmp_path / "log").mkdir()
    (tmp_path / "token").write_text("t0k\n")

    def ask(*arguments: str) -> Done:
        there = ("--hub", server.url, "--token-file", str(tmp_path / "token"))
        code = execute([*arguments, *there], ONE_TRY)
        said = capsys.readouterr()
        assert not (tmp_path / "log" / "cli.log").exists(), (tmp_path / "log" / "cli.log").read_text()
        return Done(code, said.out, said.err)

    return ask


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_what_the_hub_does_not_say_is_a_failure_of_every_verb(
    server: ApiServer, ask: Ask, verb: tuple[str, ...]
) -> None:
    """The bug it would catch: `revoke` says that a stolen token is void, and a proxy has answered."""
    for name, stranger in STRANGERS.items():
        server.stranger = stranger
        done = ask(*verb)
        assert done.code != 0, f"{name}: {done}"
        assert (done.out == "") is ("--json" not in verb), f"{name}: {done}"  # with --json the error is a document
        assert 1 <= len(done.err.splitlines()) <= 2, f"{name}: {done}"
        assert server.url in done.err, f"{name}: {done}"
        assert "should not happen" not in done.err, f"{name}: {done}"
        assert "there is no" not in done.err, f"{name}: {done}"


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != ("runs", "r1", "--follow")], ids=" ".join)
def test_with_json_it_is_one_document(server: ApiServer, ask: Ask, verb: tuple[str, ...]) -> None:
    for stranger in REFUSING:
        server.stranger = stranger
        done = ask(*verb, "--json")
        assert done.code != 0
        assert json.loads(done.out)["error"] in ("redirected", "bad_answer", "not_accepted")


def test_a_redirect_of_the_same_path_names_the_hub_that_is_meant(server: ApiServer, ask: Ask) -> None:
    moved = "https://fleet.example.org/api/v1/hosts/web1/revoke"
    server.stranger = answer(f"301 Moved Permanently\r\nLocation: {moved}")
    done = ask("revoke", "web1")
    assert f"answers HTTP 301, a redirect to {moved}" in done.err
    assert "Use --hub https://fleet.example.org\n" in done.err


def test_a_redirect_to_another_page_tells_of_the_proxy(server: ApiServer, ask: Ask) -> None:
    for target in ("https://sso.example.org/login", "/oauth2/sign_in", "", "http://[::1", "https://me:secret@h/x"):
        server.stranger = answer(f"302 Found\r\nLocation: {target}")
        done = ask("hosts")
        assert "Use --hub" not in done.err
    server.stranger = answer("302 Found\r\nLocation: https://sso.example.org/login")
    assert "must not want a sign-in of its own" in ask("hosts").err


def test_the_token_goes_to_nobody_else(server: ApiServer, ask: Ask) -> None:
    with running() as other:
        server.stranger = answer(f"307 Temporary Redirect\r\nLocation: {other.url}/api/v1/hosts/web1")
        assert ask("remove", "web1").code == 1
        assert other.asked == []


def test_a_run_that_somebody_else_answered_names_its_key_and_exits_5(server: ApiServer, ask: Ask) -> None:
    """Whether the hub has accepted it is not known, and with its key it can be asked again without harm."""
    for stranger in (*REFUSING, answer("502 Bad Gateway", HTML), answer("408 Request Timeout", HTML)):
        server.stranger = stranger
        done = ask("run", "pull", "web1")
        assert (done.code, "--key" in done.err) == (5, True), done


def test_what_a_proxy_says_of_a_moment_is_asked_again(server: ApiServer, ask: Ask, tmp_path: Path) -> None:
    """A gateway's 502 after the request was forwarded: the same key again, and the run is followed to its end."""
    ended = command("c1", "web1", "succeeded")
    over = {**active("web1", "c1"), "state": "succeeded"}
    for status in (500, 502, 520, 524, 408):
        server.answers.clear()
        server.on("POST", "/api/v1/runs", (status, "<html>"), (202, fleet_run(active("web1", "c1"), steps=("pull",))))
        server.on("GET", "/api/v1/hosts", (200, {"hosts": []}))
        server.on(
            "GET", "/api/v1/runs/r1", (status, "<html>"), (200, fleet_run(over, state="succeeded", steps=("pull",)))
        )
        server.on("GET", "/api/v1/commands/c1", (status, "<html>"), (200, ended))
        page = {"command_id": "c1", "records": [], "next_offset": 0, "complete": True, "truncated": False}
        server.on("GET", "/api/v1/commands/c1/output", (200, page))
        code = execute(
            ["run", "pull", "web1", "--hub", server.url, "--token-file", str(tmp_path / "token")],
            Patience(30.0, 30.0, 0.01),
        )
        assert code == 0
        keys = {each.body["key"] for each in server.asked_for("POST", "/api/v1/runs")}
        assert len(keys) == 1
        server.asked.clear()


@pytest.mark.parametrize("verb", CHANGES, ids=" ".join)
def test_the_answer_of_another_request_is_not_believed(server: ApiServer, ask: Ask, verb: tuple[str, ...]) -> None:
    """A proxy that mixes up its connections, or serves an old copy: right in form for something else."""
    body = json.dumps({"hosts": [host("web1")], "next": None}).encode()
    server.stranger = answer("200 OK\r\nContent-Type: application/json", body)
    assert ask(*verb).code != 0
