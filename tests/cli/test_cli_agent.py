"""agent --hub: the agent's file from no more than a URL and a token; what stands in one that is there stays."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from processes.agent import config
from processes.cli.__main__ import execute


@pytest.fixture
def token(tmp_path: Path) -> Path:
    found = tmp_path / "web1.token"
    found.write_text("t" * 43)
    found.chmod(0o600)
    return found


def made(tmp_path: Path, token: Path, hub: str, *more: str, code: int = 0) -> dict[str, Any]:
    place = tmp_path / "place"
    words = ["agent", "--hub", hub, "--token-file", str(token), "--place", str(place), "--init", *more]
    assert execute(words) == code
    return tomllib.loads((place / "agent.toml").read_text()) if code == 0 else {}


def test_a_url_and_a_token_make_a_file_that_an_agent_can_run_with(tmp_path: Path, token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, token, "ws://127.0.0.1:7701", "--name", "web1")
    path = tmp_path / "place" / "agent.toml"
    assert capsys.readouterr().out.strip() == str(path)
    found = config.load(path)
    assert (found.hub, found.name, found.token_file) == ("ws://127.0.0.1:7701/ws", "web1", token)
    assert (tmp_path / "place").stat().st_mode & 0o777 == 0o700


def test_what_an_operator_wrote_into_the_file_stays(tmp_path: Path, token: Path) -> None:
    made(tmp_path, token, "ws://127.0.0.1:7701", "--name", "web1")
    with (tmp_path / "place" / "agent.toml").open("a") as file:
        file.write('[commands.pull]\nargv = ["true"]\n')
    found = made(tmp_path, token, "wss://fleet.example.org:7701/ws", "--name", "web1")
    assert (found["hub"], found["commands"]["pull"]["argv"]) == ("wss://fleet.example.org:7701/ws", ["true"])


def test_what_cannot_be_is_refused_with_what_to_do(tmp_path: Path, token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, token, "http://fleet.example.org", "--name", "web1", code=2)
    made(tmp_path, token, "ws://fleet.example.org", "--name", "no name", code=2)
    assert execute(["agent"]) == 2
    assert execute(["agent", "--hub", "ws://h"]) == 2
    text = capsys.readouterr().err
    assert "wss://fleet.example.org:7701/ws" in text
    assert "Give --name as it was enrolled." in text
    assert not (tmp_path / "place").exists()
