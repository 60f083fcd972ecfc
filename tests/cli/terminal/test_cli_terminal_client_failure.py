"""The client's errors as a person is told of them: each with what to do about it."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from doubles.api_server import running

from processes.adapters.settings import load
from processes.cli.machine.own_hub import open_own
from processes.cli.terminal.client_failure import failure_of
from processes.cli.terminal.failure import Failure
from processes.cli.terminal.options import asking
from processes.client.api import open_remote
from processes.client.errors import HubAway, NoToken, Refused, Silence


def token_in(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("t0k\n")
    return path


def test_the_local_token_is_not_sent_to_another_hub() -> None:
    with pytest.raises(Failure, match="needs --token-file"), asking("https://elsewhere.example", None):
        pass


def test_a_url_without_its_scheme_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="it looks like https"), asking("elsewhere:7700", token_in(tmp_path)):
        pass


def test_what_is_unknown_is_listed_by_a_verb() -> None:
    assert failure_of(Refused(404, "unknown_host", "no host 'x'")).advice == "fleethub hosts lists them."
    assert failure_of(Refused(404, "unknown_host", "see `fleethub hosts`")).advice == ""


def test_a_token_that_may_not_is_named_by_its_file() -> None:
    path = Path("/ann.token")
    assert "fleethub token create on that hub" in failure_of(Refused(401, "x", "no", token_file=path)).advice
    assert "/ann.token has a role" in failure_of(Refused(403, "x", "no", token_file=path)).advice
    assert failure_of(Refused(403, "x", "no")).advice == ""


def test_the_agents_port_is_recognized() -> None:
    error = Refused(426, "http", "http://h is not an operators' port: it answers HTTP 426")
    assert "7700" in failure_of(error).advice


def test_tls_to_a_plain_port_names_the_url_that_is_meant() -> None:
    error = HubAway("https://h:1 does not speak TLS", url="https://h:1", why=Silence.NO_TLS)
    assert failure_of(error).advice == "Perhaps http://h:1 is meant."
    assert "SSL_CERT_FILE" in failure_of(HubAway("no", why=Silence.UNTRUSTED)).advice


def test_a_token_file_says_what_it_should_hold() -> None:
    assert "makes a token" in failure_of(NoToken(Path("t"), "no", missing=True)).advice
    assert "one line" in failure_of(NoToken(Path("t"), "no", empty=True)).advice


def test_who_does_not_answer_far_away_is_not_looked_for_here(tmp_path: Path) -> None:
    with running() as gone:
        api = open_remote(gone.url, token_in(tmp_path))
    with api, pytest.raises(HubAway) as caught:
        api.hosts()
    assert "fleethub status" not in failure_of(caught.value).advice


def test_a_port_of_our_own_that_nobody_has_says_that_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as gone:
        monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
        monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", gone.url.removeprefix("http://"))
    settings = load()
    settings.operator_token.write_text("secret\n")
    with open_own(settings) as api, pytest.raises(HubAway) as caught:
        api.hosts()
    failure = failure_of(caught.value)
    assert "nothing runs here" in failure.message
    assert "fleethub up" in failure.advice


def test_a_state_folder_without_a_token_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        open_own(load({"FLEETHUB_STATE": str(tmp_path)}))
    assert caught.value.code == "not_running"
    assert "fleethub up" in caught.value.advice
