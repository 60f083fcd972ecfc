"""The agent's file: defaults, and every mistake named."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.uri import parse_uri

from processes.agent.config import ConfigError, Offer, builtins, load, read_token, reboot, trust
from processes.core.agent.step import Identity
from processes.core.travels import agent_frames

HUB = 'hub = "ws://127.0.0.1:7701/ws"\n'
UNDIALLED = [
    ("ws://127.0.0.1:7701/ws#agents", "hub = 'ws://127.0.0.1:7701/ws#agents' must be ws://"),
    (f"ws://{'h' * 64}.example.org/ws", "names no host"),
    ("ws://.hub.invalid:7701/ws", "names no host"),
    ("ws://hub..invalid/ws", "names no host"),
    (f"ws://{'f' * 62}ö.example.org/ws", "names no host"),
    ("ws://@hub.invalid/ws", "must be ws://"),
    ("ws://:secret@hub.invalid/ws", "must be ws://"),
    ("ws://hub.invalid:0/ws", "must be ws://"),
    ("ws://hub.invalid:+9/ws", "is not a URL"),
    ("ws://[::1/ws", "is not a URL"),
    ("ws:hub.invalid/ws", "must be ws://"),
    ("ws://hub.invalid/w s", "a blank or a control character"),
    ("ws://hub.invalid/ws\\r\\nX: y", "a blank or a control character"),
    ("ws://a\\u0000b/ws", "a blank or a control character"),
    ("ws://hub.invalid/\\u00a0ws", "a blank or a control character"),
]
DIALLED = [
    "WSS://fleet.example.org/ws",
    "ws://127.0.0.1:7701",
    "ws://127.0.0.1:/ws",
    "wss://[::1]:7701/ws",
    "wss://[fe80::1%eth0]:7701/ws",
    "wss://flöte.example.org/ws",
    "wss://fleet_1.example.org./ws",
    "wss://fleet.example.org/hub/ws?zone=a%20b",
    " wss://fleet.example.org/ws\\t",
]


def write(home: Path, text: str, token: str | None = "a-token\n") -> Path:
    if token is not None:
        (home / "agent.token").write_text(token)
    path = home / "agent.toml"
    path.write_text(text)
    return path


def test_defaults_are_the_machines_name_and_paths_beside_the_file(tmp_path: Path) -> None:
    config = load(write(tmp_path, HUB))
    assert config.name == socket.gethostname()
    assert (config.token_file, config.state) == (tmp_path / "agent.token", tmp_path / "agent-state")
    assert sorted(config.commands) == ["facts", "uptime"]
    assert config.heartbeat_s == 5.0


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_file_is_utf_8_in_any_locale_with_or_without_a_byte_order_mark(tmp_path: Path, begin: bytes) -> None:
    path = write(tmp_path, "")
    path.write_bytes(begin + f"# für „Halle 3“\n{HUB}".encode())
    program = (
        "import sys, pathlib; from processes.agent import config; print(config.load(pathlib.Path(sys.argv[1])).hub)"
    )
    environ = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    said = subprocess.run([sys.executable, "-c", program, str(path)], env=environ, capture_output=True, text=True)
    assert said.stdout == "ws://127.0.0.1:7701/ws\n", said.stderr


@pytest.mark.parametrize(
    ("more", "ops"),
    [
        ("", ["a"]),  # the contract: of an agent that lists commands, only these can ever be run
        ("builtins = true\n", ["a", "facts", "uptime"]),
        ("builtins = false\n", ["a"]),
    ],
)
def test_looks_are_offered_beside_commands_only_if_that_is_said(tmp_path: Path, more: str, ops: list[str]) -> None:
    assert sorted(load(write(tmp_path, f'{HUB}{more}[commands.a]\nargv = ["true"]\n')).commands) == ops


def test_an_op_of_ones_own_goes_before_the_one_of_that_name(tmp_path: Path) -> None:
    text = HUB + 'builtins = true\n[commands.uptime]\nargv = ["mine"]\n'
    assert load(write(tmp_path, text)).commands["uptime"].argv == ["mine"]


def test_a_reboot_is_offered_only_where_the_file_says_so(tmp_path: Path) -> None:
    for text in ("", "builtins = true\n", '[commands.reboot]\nargv = ["reboot"]\n'):
        commands = load(write(tmp_path, HUB + text)).commands
        assert [op for op, offer in commands.items() if offer.back_s is not None] == []
    offer = load(write(tmp_path, HUB + "[commands.reboot]\nbuiltin = true\n")).commands["reboot"]
    assert offer == reboot()
    assert (offer.timeout_s, offer.back_s, offer.concurrent) == (60.0, 900.0, False)


@pytest.mark.parametrize("programs", [["systemctl", "shutdown"], ["shutdown"], []])
def test_a_reboot_is_asked_of_the_init_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: list[str]
) -> None:
    for name in programs:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    wanted = {
        2: [f"{tmp_path}/systemctl", "reboot"],
        1: [f"{tmp_path}/shutdown", "-r", "now"],
        0: ["shutdown", "-r", "now"],
    }
    assert reboot().argv == wanted[len(programs)]


def test_what_a_builtin_does_can_be_said_otherwise(tmp_path: Path) -> None:
    text = HUB + '[commands.reboot]\nbuiltin = true\nargv = ["./down", "now"]\ntimeout_s = 7\nback_s = 90\n'
    assert load(write(tmp_path, text)).commands["reboot"] == Offer([f"{tmp_path}/down", "now"], 7.0, False, 90.0)
    text = HUB + "[commands.uptime]\nbuiltin = true\ntimeout_s = 7\n"
    assert load(write(tmp_path, text)).commands == {"uptime": Offer(builtins()["uptime"].argv, 7.0, True)}


def test_relative_program_is_found_beside_the_file(tmp_path: Path) -> None:
    text = (
        HUB
        + '[commands.a]\nargv = ["./run.sh", "./x"]\n[commands.b]\nargv = ["git"]\n[commands.c]\nargv = ["/bin/true"]\n'
    )
    commands = load(write(tmp_path, text)).commands
    assert commands["a"].argv == [f"{tmp_path}/run.sh", "./x"]
    assert (commands["b"].argv, commands["c"].argv) == (["git"], ["/bin/true"])
    assert (commands["b"].timeout_s, commands["b"].concurrent) == (3600.0, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "hub"),
        ("hub = 7", "for hub"),
        ('hub = "http://x/ws"', "must be ws://"),
        ('hub = "ws://u:p@x/ws"', "must be ws://"),
        ('hub = "ws://x:99999/ws"', "not a URL"),
        *((f'hub = "{url}"', words) for url, words in UNDIALLED),
        (HUB + "heartbeats = 5", "unknown key heartbeats; did you mean heartbeat_s?"),
        (HUB + "heartbeat_s = 0", "for heartbeat_s"),
        (HUB + 'name = "a b"', "not a host name"),
        (HUB + '[commands.pull]\nargv = "git pull"', "not a line for a shell"),
        (HUB + "[commands.pull]\nargv = []", "argv"),
        (HUB + '[commands.pull]\nargv = ["", "a"]', "commands.pull.argv begins with the program's name"),
        (HUB + '[commands.pull]\nargv = ["a\\u0000b"]', "NUL"),
        (HUB + "[commands.pull]\n", "commands.pull needs an argv: the program"),
        (HUB + "[commands.reboot]\n", "commands.reboot needs an argv or builtin = true: the program"),
        (
            HUB + "[commands.pull]\nbuiltin = true",
            "builtin = true is for uptime, facts, reboot: give it an argv instead",
        ),
        (HUB + "[commands.reboot]\nbuiltin = true\nback_s = 0", "for commands[...].back_s"),
        (HUB + "[commands.reboot]\nbuiltin = true\nconcurrent = true", "a reboot would end what runs beside it"),
        (HUB + '[commands.reboot]\nargv = ["reboot"]\nback_s = 9', "back_s is for [commands.reboot] with builtin"),
        (HUB + "[commands.uptime]\nbuiltin = true\nback_s = 9", "back_s is for [commands.reboot] with builtin"),
        (
            HUB + '[commands.pull]\nargv = ["true"]\ntimeout = 3',
            "unknown key commands.pull.timeout; did you mean commands.pull.timeout_s?",
        ),
        (HUB + '[commands."a b"]\nargv = ["true"]', "commands.'a b'"),
        (HUB + '[labels]\nRole = "web"', "labels: 'Role' is no key of a label"),
        (HUB + '[labels]\nrole = "a b"', "labels: 'a b' is no value of the label role"),
        (HUB + "[labels]\nrole = 7", "labels"),
        (HUB + "[labels]\n" + "".join(f'k{n} = ""\n' for n in range(65)), "labels"),
        (HUB + 'ca_file = "none.pem"', "ca_file is for wss://"),
        ('hub = "wss://x/ws"\nca_file = "none.pem"', "none.pem holds no certificate"),
        ('hub = "wss://x/ws"\nca_file = "agent.toml"', "agent.toml holds no certificate"),
        ("hub = ", "cannot be read"),
    ],
)
def test_mistake_is_named_with_the_file(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert words in str(caught.value)
    assert "agent.toml" in str(caught.value)


def test_labels_of_the_file_are_what_register_says(tmp_path: Path) -> None:
    labels = {"role": "web", "example.com/site": "Graz"}
    config = load(write(tmp_path, HUB + '[labels]\nrole = "web"\n"example.com/site" = "Graz"\n'))
    assert config.labels == labels
    assert load(write(tmp_path, HUB)).labels == {}
    told = Identity("web1", "boot", "journal", 5.0, {}, labels=config.labels).register([])
    assert told.labels == labels
    frame = agent_frames.encode(told)
    assert b'"labels"' in frame if isinstance(frame, bytes) else '"labels"' in frame
    assert Identity("web1", "boot", "journal", 5.0, {}).register([]).labels is None, "a hub of before makes it no fact"


@pytest.mark.parametrize("hub", DIALLED)
def test_every_spelling_of_a_url_that_can_be_dialled_is_taken(tmp_path: Path, hub: str) -> None:
    path = write(tmp_path, "")
    path.write_text(f'hub = "{hub}"\n', encoding="utf-8")
    assert parse_uri(load(path).hub).secure == ("ss" in hub.lower()[:5])


def test_a_machines_own_name_that_no_host_can_have_is_said_to_be_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "b\udcf6x_y")
    with pytest.raises(ConfigError, match="it is this machine's own; set `name`") as caught:
        load(write(tmp_path, HUB))
    assert "b\\udcf6x_y" in str(caught.value)
    assert load(write(tmp_path, HUB + 'name = "web1"')).name == "web1"


def test_a_variable_that_keeps_tls_from_being_set_up_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ca_file in the agent's file its name would mislead."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "none" / "keys"))
    with pytest.raises(ConfigError, match="SSLKEYLOGFILE") as caught:
        trust(None)
    assert "ca_file" not in str(caught.value)


def test_an_argument_may_be_empty(tmp_path: Path) -> None:
    """CASE: `git commit -m ""` was refused."""
    text = HUB + '[commands.a]\nargv = ["git", "commit", "-m", ""]\n'
    assert load(write(tmp_path, text)).commands["a"].argv[-1] == ""


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa-token\r\n", b"  a-token", b"a-token\n\n"])
def test_token_is_read_whatever_an_editor_put_around_it(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, HUB)
    (tmp_path / "agent.token").write_bytes(content)
    assert read_token(load(path).token_file) == "a-token"


@pytest.mark.parametrize("token", [None, "", "two words\n", "ключ\n"])
def test_token_file_that_holds_no_token_is_named_and_its_content_is_not_shown(
    tmp_path: Path, token: str | None
) -> None:
    with pytest.raises(ConfigError, match=r"agent\.token") as caught:
        load(write(tmp_path, HUB, token))
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "folder", "refused"),
    [
        (0o600, 0o755, ""),
        (0o640, 0o750, ""),  # a group may read it, as a TLS key
        (0o644, 0o700, ""),  # behind a closed folder
        (0o644, 0o755, "can be read by others (mode 0644)"),
        (0o604, 0o701, "can be read by others (mode 0604)"),
        (0o620, 0o750, "can be changed by its group (mode 0620)"),
        (0o602, 0o755, "can be changed by others (mode 0602)"),
    ],
)
def test_token_that_any_user_can_read_or_replace_is_refused_with_what_to_type(
    tmp_path: Path, mode: int, folder: int, refused: str
) -> None:
    home = tmp_path / "agent"
    home.mkdir()
    path = write(home, HUB)
    (home / "agent.token").chmod(mode)
    home.chmod(folder)
    if not refused:
        assert load(path).name
        return
    with pytest.raises(ConfigError) as error:
        load(path)
    assert refused in str(error.value)
    assert f"{home}/agent.token;" in str(error.value)
    command = str(error.value).partition("host: ")[2].partition(";")[0]
    subprocess.run(command, shell=True, check=True)
    assert load(path).name


def test_wrong_file_ends_the_program_with_78_and_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, HUB + "nam = 1")
    ended = subprocess.run(
        [sys.executable, "-m", "processes.agent", "--config", str(path)], capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 78
    assert ended.stderr.count("\n") == 1
    assert "did you mean name?" in ended.stderr
