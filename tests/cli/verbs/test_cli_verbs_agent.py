"""agent --hub: the agent's file from no more than a URL and a token; what stands in one that is there stays."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from processes.adapters.machine.systemd_units import SystemdUnits
from processes.agent import config
from processes.agent.runner import absent
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


def test_a_url_and_a_token_make_a_file_that_an_agent_can_run_with(
    tmp_path: Path, token: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert sorted(config.load(tmp_path / "place" / "agent.toml").commands) == ["facts", "pull", "uptime"], (
        "what is added takes nothing away"
    )


def test_a_file_of_another_name_is_refused_with_what_stands_there(
    tmp_path: Path, token: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug it would catch: a server is enrolled as web2, and its agent goes on calling itself web1."""
    made(tmp_path, token, "ws://127.0.0.1:7701", "--name", "web1")
    before = (tmp_path / "place" / "agent.toml").read_bytes()
    made(tmp_path, token, "ws://127.0.0.1:7702", "--name", "web2", code=2)
    assert "agent.toml is the file of web1, not of web2" in capsys.readouterr().err
    assert (tmp_path / "place" / "agent.toml").read_bytes() == before
    monkeypatch.setattr("socket.gethostname", lambda: "third")
    assert made(tmp_path, token, "ws://127.0.0.1:7702")["name"] == "web1"


def test_what_cannot_be_is_refused_with_what_to_do(
    tmp_path: Path, token: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, token, "http://fleet.example.org", "--name", "web1", code=2)
    made(tmp_path, token, "wss://fleet.example.org", "--name", "no name", code=2)
    assert execute(["agent"]) == 2
    assert execute(["agent", "--hub", "ws://h"]) == 2
    text = capsys.readouterr().err
    assert "wss://fleet.example.org:7701/ws" in text
    assert "Give --name as it was enrolled." in text
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize(
    "hub", ["ws://[::1/ws", "ws://h:99999", "ws://h/ws#x", "ws://.h", "wss://me@h", "ws://h/ w", "h"]
)
def test_a_url_that_can_never_be_dialled_is_refused_before_anything_is_made(
    tmp_path: Path, token: Path, capsys: pytest.CaptureFixture[str], hub: str
) -> None:
    """The bug it would catch: a traceback, or an agent's file whose agent ends at once."""
    made(tmp_path, token, hub, "--name", "web1", code=2)
    assert execute(["agent", "--hub", hub, "--code", "web1:secret", "--place", str(tmp_path / "place"), "--init"]) == 2
    text = capsys.readouterr().err
    assert text.count("looks like wss://fleet.example.org:7701/ws") == 2
    assert "Traceback" not in text
    assert not (tmp_path / "place").exists()


def test_another_machine_without_tls_is_dialled_only_if_that_is_said(
    tmp_path: Path, token: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for near in ("ws://127.0.0.1:7701", "ws://localhost:7701", "ws://[::1]:7701", "wss://fleet.example.org:7701"):
        made(tmp_path, token, near, "--name", "web1")
    capsys.readouterr()
    for far in ("ws://fleet.example.org:7701/ws", "ws://10.0.0.1:7701", "ws://127.example.org/ws"):
        made(tmp_path, token, far, "--name", "web1", code=2)
        assert "whoever is on the way can read the token" in (said := capsys.readouterr().err)
        assert "--insecure" in said
    assert made(tmp_path, token, "ws://10.0.0.1:7701", "--name", "web1", "--insecure")["hub"] == "ws://10.0.0.1:7701/ws"


A, ANOTHER = "a" * 43, "b" * 43  # as long as enrolment makes them


def units_in(tmp_path: Path) -> SystemdUnits:
    """A server that systemd runs, and whose units are in a folder of the test."""
    return SystemdUnits(tmp_path / "units", booted=tmp_path)


def piped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, *more: str, units: SystemdUnits | None = None
) -> int:
    monkeypatch.setattr("sys.stdin", None if text is None else io.StringIO(text))
    words = [
        "agent",
        "--hub",
        "ws://127.0.0.1:7701/ws",
        "--name",
        "web1",
        "--token-file",
        "-",
        "--place",
        str(tmp_path / "place"),
    ]
    return execute([*words, *more], units=units or units_in(tmp_path))


def test_a_token_from_stdin_is_kept_where_the_agents_file_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert piped(tmp_path, monkeypatch, f"{A}\n", "--init") == 0
    path = tmp_path / "place" / "agent.toml"
    assert config.read_token(config.load(path).token_file) == A
    assert config.load(path).token_file.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text().replace(str(tmp_path / "place" / "agent.token"), "own.token"))
    assert piped(tmp_path, monkeypatch, f"{ANOTHER}\n", "--init") == 0
    assert config.read_token(config.load(path).token_file) == ANOTHER
    assert (tmp_path / "place" / "own.token").read_text() == f"{ANOTHER}\n"


@pytest.mark.parametrize("text", ["", "\n", "two words\n", "\x1b[31m\n", "error: no such host\n", "garbage\n", None])
def test_stdin_without_a_token_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    assert piped(tmp_path, monkeypatch, text, "--init") == 1
    assert not (tmp_path / "place").exists()


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server with systemd; what systemctl was asked is in the file."""
    (tmp_path / "units").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "systemctl").write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n[ "$1" != "$FAILS" ] || {{ echo no bus >&2; exit 1; }}\n'
    )
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "asked"


def test_install_lets_systemd_run_the_agent_now_and_at_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemctl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert piped(tmp_path, monkeypatch, f"{A}\n", "--install") == 0
    unit = (tmp_path / "units" / "fleethub-agent.service").read_text()
    assert f"--config {tmp_path}/place/agent.toml" in unit
    assert systemctl.read_text().splitlines() == [
        f"{verb}fleethub-agent.service" if verb != "daemon-reload" else verb
        for verb in ("daemon-reload", "enable ", "restart ")
    ]
    assert "is enabled and runs" in capsys.readouterr().out


def test_install_says_why_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, systemctl: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAILS", "enable")
    assert piped(tmp_path, monkeypatch, f"{A}\n", "--install") == 1
    assert "systemctl enable fleethub-agent.service: no bus" in capsys.readouterr().err
    elsewhere, none = ("--install", "--place", str(tmp_path / "other")), SystemdUnits(booted=tmp_path / "none")
    assert piped(tmp_path, monkeypatch, f"{A}\n", *elsewhere, units=none) == 1
    assert "not run by systemd" in capsys.readouterr().err
    assert (tmp_path / "other" / "agent.toml").exists(), "the token came through a pipe, and is kept"
    assert execute(["agent", "--config", str(tmp_path / "place" / "agent.toml"), "--install"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--code", "web1"), 2, "enroll NAME --code"),
        (("--code", "web1:"), 2, "enroll NAME --code"),
        (("--code", "../x:y"), 2, "enroll NAME --code"),
        (("--code", "web1:secret", "--name", "web2"), 2, "Leave out --name"),
        (("--code", "web1:secret", "--token-file", "-"), 2, "either --code"),
        ((), 2, "either --code"),
    ],
)
def test_a_code_that_cannot_be_meant_is_refused_before_anything_is_made_or_sent(
    arguments: tuple[str, ...], code: int, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    typed = ["agent", "--hub", "ws://127.0.0.1:1/ws", "--place", str(place), "--init", *arguments]
    assert execute(typed) == code
    assert says in capsys.readouterr().err
    assert not place.exists()


def test_a_code_is_for_the_host_of_the_file_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bug it would catch: a machine becomes another host, whose commands it has not got."""
    (tmp_path / "agent.toml").write_text('hub = "ws://127.0.0.1:1/ws"\nname = "web2"\n')
    typed = ["agent", "--hub", "ws://127.0.0.1:1/ws", "--place", str(tmp_path), "--init", "--code", "web1:secret"]
    assert execute(typed) == 2
    assert "is the file of web2" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["agent.toml"]


def test_a_user_without_a_home_folder_has_every_verb_and_is_asked_for_a_place(tmp_path: Path) -> None:
    """CASE: under a number without HOME and passwd entry every verb, `--help` too, ended in a traceback."""
    program = """if True:
        import os, pwd, sys
        def nobody(_): raise KeyError("no such user")
        pwd.getpwuid, os.geteuid = nobody, lambda: 12345
        from processes.cli.__main__ import execute
        said = [execute(words.split()) for words in sys.argv[1:]]
        print(said)
    """
    token = tmp_path / "token"
    token.write_text(f"{A}\n")
    typed = f"agent --hub ws://127.0.0.1:1/ws --token-file {token} --name web1 --init"
    words = ["agent --help", "--help", typed, f"{typed} --place {tmp_path}/place"]
    environ = {name: value for name, value in os.environ.items() if name != "HOME"}
    ran = subprocess.run([sys.executable, "-c", program, *words], env=environ, capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "[0, 0, 1, 0]", ran.stderr
    assert "user 12345 has no home folder" in ran.stderr
    assert "Give --place." in ran.stderr
    assert (tmp_path / "place" / "agent.toml").exists()


def test_a_token_from_a_pipe_is_kept_where_there_is_no_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bug it would catch: the one-liner fails, the token is gone with the pipe, and the host is enrolled again."""
    monkeypatch.setattr("sys.stdin", io.StringIO("t" * 43 + "\n"))
    place = tmp_path / "place"
    words = ["agent", "--hub", "ws://127.0.0.1:7701", "--name", "web1", "--token-file", "-", "--place", str(place)]
    assert execute([*words, "--install"], units=SystemdUnits(booted=tmp_path / "none")) == 1
    err = capsys.readouterr().err
    assert "not run by systemd" in err
    assert f"run fleethub agent --config {place / 'agent.toml'}" in err
    found = config.load(place / "agent.toml")
    assert found.token_file.read_text().strip() == "t" * 43
    assert [op for op, _ in absent(found)] == []


def test_programs_that_are_not_there_are_named(tmp_path: Path, token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, token, "ws://127.0.0.1:7701", "--name", "web1")
    (tmp_path / "place" / "own").write_text("#!/bin/sh\n")
    with (tmp_path / "place" / "agent.toml").open("a") as file:
        for op, program in (("a", "/no/such"), ("b", "sh"), ("c", "no-such-program"), ("d", "./own")):
            file.write(f'[commands.{op}]\nargv = ["{program}"]\n')
    found = config.load(tmp_path / "place" / "agent.toml")
    own = str(tmp_path / "place" / "own")
    assert list(absent(found)) == [("a", "/no/such"), ("c", "no-such-program"), ("d", own)]
    Path(own).chmod(0o700)
    assert list(absent(found)) == [("a", "/no/such"), ("c", "no-such-program")]
