"""The command line with bad words and bad states: an exit code, a line or two, one JSON document, never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from processes.cli.__main__ import cli, execute
from processes.client.patience import Patience

# what starts, ends or becomes another process is left out
VERBS = sorted(set(cli.names) - {"up", "down", "agent", "restart", "start", "stop", "drill"})
OPTIONS = [
    "--json", "--limit", "--watch", "--hub", "--token-file", "--role", "--all", "--where", "--ttl", "--again",
    "--follow", "--help", "--",
]  # fmt: skip
VALUES = [
    "", "0", "-1", "web1", "a=b", "\x1b]0;x\x07", "../../etc", "%s", "\u202e", "http://[::1", "http://127.0.0.1:1",
    "1e999", "/dev/null",
]  # fmt: skip
words = st.one_of(
    st.sampled_from(OPTIONS), st.sampled_from(VALUES), st.text(max_size=12).filter(lambda text: "\0" not in text)
)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path / "st"))
    monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", "127.0.0.1:9")  # nobody answers there
    monkeypatch.chdir(tmp_path)
    (tmp_path / "st").mkdir()
    return tmp_path / "st"


def tried(*arguments: str) -> tuple[int, str, str]:
    """The exit code and both streams; anything raised but an exit is a failure."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = execute(arguments, Patience(ask_again_s=0.05))
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return code, out.getvalue(), err.getvalue()


def check(*arguments: str) -> None:
    code, out, err = tried(*arguments)
    assert 0 <= code <= 130, arguments
    assert "Traceback" not in out + err, (arguments, err)
    assert "this should not happen" not in out + err, (arguments, err)
    assert not {"\x1b", "\u202e"} & set(out + err), arguments
    if code != 0:
        assert err.strip() or arguments[0] in ("status", "doctor"), arguments  # their verdict is their answer
    if "--json" in arguments and code != 0 and "--help" not in arguments:
        assert isinstance(json.loads(out), dict), (arguments, out)


@given(verb=st.sampled_from(VERBS), more=st.lists(words, max_size=5))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_words_make_it_raise(state: Path, verb: str, more: list[str]) -> None:
    if "--watch" in more and "--json" not in more:
        more.append("--json")  # a screen has no end
    check(verb, *more)


ARGUMENTS = {
    "host": ["web1"], "remove": ["web1"], "enroll": ["web1"], "revoke": ["web1"], "run": ["pull", "web1"],
    "command": ["c1"],
    "cancel": ["c1"], "logs": ["c1"], "incident": ["i1"], "backup": ["b.db"], "completion": ["bash"],
    "systemd-unit": ["--agent"],
    "deadletter": ["d1"], "token": ["list"],
}  # fmt: skip
FILES = [
    "operator.token",
    "fleet.db",
    "incidents.db",
    "run/watchdog.json",
    "run/wanted.json",
    "run/pulse/hub",
    "agent.toml",
]
PLAIN = {"env", "completion", "man", "systemd-unit"}  # what they print is meant for others than people, and is no JSON


@pytest.mark.parametrize("seed", range(6))
def test_no_state_of_the_folder_makes_it_raise(state: Path, seed: int) -> None:
    """Files that are rubbish, folders in the place of files, links to nowhere."""
    chance = random.Random(seed)
    for name in (*FILES, *(["fleethub.toml"] if seed == 0 else [])):
        spoil(state / name, chance)
    for verb in VERBS:
        check(verb, *ARGUMENTS.get(verb, []), *([] if verb in PLAIN else ["--json"]))
    assert state.is_dir()


def spoil(path: Path, chance: random.Random) -> None:
    with contextlib.suppress(FileExistsError, NotADirectoryError):
        path.parent.mkdir(parents=True, exist_ok=True)
        match chance.randrange(5):
            case 0:
                path.write_bytes(chance.randbytes(chance.randrange(9000)))
            case 1:
                path.mkdir()
            case 2:
                path.symlink_to(path.with_name("nowhere"))
            case 3:
                path.write_text("{}")
