"""This machine as first host: its name, its file, its token."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.api_server import ApiServer, running
from hypothesis import given
from hypothesis import strategies as st

from processes.adapters.settings import Settings, load
from processes.cli.machine import enrolment
from processes.client.api import Api
from processes.core.values import HOST_NAME

HUB = "ws://127.0.0.1:7701/ws"
VIEW: dict[str, object] = {
    "name": "here", "presence": "online", "last_seen": None, "host_id": "1", "enrolled_at": None, "revoked": False,
    "connected_since": None,
    "address": "", "host_type": "", "agent_version": "", "os_version": "", "protocol": 1, "heartbeat_interval_s": 5.0,
    "commands": None,
    "command_options": {}, "metrics": None, "pending_command": None, "facts": {}, "heartbeat_facts": {},
}  # fmt: skip
NOT_FOUND = (404, {"error": "unknown_host", "message": "no"})


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with running() as found:
        yield found


@pytest.fixture
def api(server: ApiServer) -> Iterator[Api]:
    found = Api(server.url, "secret")
    yield found
    found.close()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("socket.gethostname", lambda: "here")
    return load({"FLEETHUB_STATE": str(tmp_path)})


@given(st.text())
def test_any_machine_name_becomes_a_host_name(raw: str) -> None:
    assert HOST_NAME.fullmatch(enrolment.host_name(raw))


@pytest.mark.parametrize(
    ("raw", "name"),
    [("web1.example.org", "web1.example.org"), ("my_laptop", "my-laptop"), ("-a-.", "a"), ("", "localhost")],
)
def test_a_name_keeps_what_it_can(raw: str, name: str) -> None:
    assert enrolment.host_name(raw) == name


def test_a_new_machine_is_enrolled_and_its_file_is_the_agents(server: ApiServer, api: Api, settings: Settings) -> None:
    server.on("GET", "/api/v1/hosts/here", NOT_FOUND)
    server.on("POST", "/api/v1/hosts", (201, {"name": "here", "token": "t0k", "host_id": "1"}))
    assert enrolment.prepare_agent(settings, api, HUB) == ("here", True)
    assert server.asked_for("POST", "/api/v1/hosts")[0].body == {"name": "here", "again": False}
    file = tomllib.loads((settings.state / "agent.toml").read_text())
    assert file == {
        "hub": HUB,
        "name": "here",
        "token_file": "agent.token",
        "heartbeat_s": 5,
        "state": "agent-state",
        "builtins": True,
    }
    token = settings.state / "agent.token"
    assert token.read_text() == "t0k\n"
    assert token.stat().st_mode & 0o777 == 0o600


def test_an_enrolled_machine_is_left_alone(server: ApiServer, api: Api, settings: Settings) -> None:
    server.on("GET", "/api/v1/hosts/here", NOT_FOUND, (200, VIEW))
    server.on("POST", "/api/v1/hosts", (201, {"name": "here", "token": "t0k"}))
    enrolment.prepare_agent(settings, api, HUB)
    assert enrolment.prepare_agent(settings, api, HUB) == ("here", False)
    assert len(server.asked_for("POST", "/api/v1/hosts")) == 1


def test_a_lost_token_is_replaced_by_enrolling_again(server: ApiServer, api: Api, settings: Settings) -> None:
    server.on("GET", "/api/v1/hosts/here", (200, VIEW))
    server.on("POST", "/api/v1/hosts", (201, {"name": "here", "token": "new"}))
    assert enrolment.prepare_agent(settings, api, HUB) == ("here", True)
    assert server.asked_for("POST", "/api/v1/hosts")[0].body == {"name": "here", "again": True}


def test_what_the_operator_wrote_into_the_file_stays_when_the_port_changes(
    server: ApiServer, api: Api, settings: Settings
) -> None:
    server.on("GET", "/api/v1/hosts/mine", (200, VIEW))
    (settings.state / "agent.token").write_text("t\n")
    (settings.state / "agent.toml").write_text(
        '# mine\nhub = "ws://old/ws"\nname = "mine"\n[commands.pull]\nargv = ["true"]\n'
    )
    assert enrolment.prepare_agent(settings, api, HUB) == ("mine", True)
    text = (settings.state / "agent.toml").read_text()
    assert text == f'# mine\nhub = "{HUB}"\nname = "mine"\n[commands.pull]\nargv = ["true"]\n'


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_an_agents_file_is_utf_8_in_any_locale_with_or_without_a_byte_order_mark(tmp_path: Path, mark: bytes) -> None:
    """The bug it would catch: under LC_ALL=ja_JP.EUC-JP `up` refuses an agent.toml with an umlaut in a comment."""
    path = tmp_path / "agent.toml"
    path.write_bytes(mark + f'# für „Halle 3“\nhub = "{HUB}"\nname = "here"\n'.encode())
    program = (
        "import sys, pathlib; from processes.adapters.state import agent_file; path = pathlib.Path(sys.argv[1]);"
        "print(agent_file.read(path).name); agent_file.write(path, 'wss://other/ws', 'here')"
    )
    environ = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    said = subprocess.run([sys.executable, "-c", program, str(path)], env=environ, capture_output=True, text=True)
    assert said.stdout == "here\n", said.stderr
    assert path.read_bytes().decode() == '# für „Halle 3“\nhub = "wss://other/ws"\nname = "here"\n'
