"""`up`, `env` and `doctor` do not accept a state folder or a secret that others can get at, and say what to type."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from processes.adapters import own_user
from processes.adapters.settings import load
from processes.adapters.state import fleet_db, revocations
from processes.cli.__main__ import execute
from processes.cli.verbs import installation
from processes.core.values import Role
from processes.fanout.state_folder import credentials, look


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "st"
    found.mkdir(mode=0o700)
    monkeypatch.setenv("FLEETHUB_STATE", str(found))
    assert execute(["env"]) == 0
    return found


def put(path: Path, mode: int) -> None:
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text("x")
    path.chmod(mode)


@pytest.mark.parametrize(
    "case",
    [
        (".", 0o777, "go-w"), (".", 0o770, "g-w"), (".", 0o702, "go-w"),
        ("operator.token", 0o644, "go-rwx"), ("agent.token", 0o604, "go-rwx"), ("run/cookie.key", 0o640, "g-rwx"),
        ("run/queues.key", 0o644, "go-rwx"), ("fleet.db", 0o622, "go-w"), ("revoked", 0o666, "go-w"),
        ("key.pem", 0o644, "go-rwx"),
    ],
)  # fmt: skip
def test_what_others_can_get_at_keeps_it_from_starting_and_is_told_with_what_to_type(
    state: Path, case: tuple[str, int, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, mode, mend = case
    if name == "key.pem":
        state.chmod(0o755)
        put(state / "certificate.pem", 0o644)
        put(state / name, 0o600)
        monkeypatch.setenv("FLEETHUB_TLS_CERTIFICATE", str(state / "certificate.pem"))
        monkeypatch.setenv("FLEETHUB_TLS_KEY", str(state / name))
    put(state / name, mode)
    capsys.readouterr()
    for verb in ("env", "up"):
        assert execute([verb]) == 1
        said = capsys.readouterr()
        assert f"chmod {mend} {state / name}" in said.err
        assert said.out == ""
    execute(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [each["advice"] for each in checks if each["level"] == "bad" and "chmod" in each["advice"]] == [
        f"chmod {mend} {state / name}"
    ]


def test_an_open_folder_above_is_a_warning_only(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state.parent.chmod(0o777)
    assert execute(["env"]) == 0
    capsys.readouterr()
    execute(["doctor", "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert [each["level"] for each in checks if "above the state folder" in each["found"]] == ["warning"]


def test_an_operator_token_that_another_put_there_lets_nobody_in(state: Path) -> None:
    settings = load()
    (admin,) = look(settings, None).credentials.values()
    assert admin.role is Role.ADMIN
    settings.operator_token.chmod(0o666)
    assert look(settings, None).credentials == {}


def test_a_token_that_was_ever_made_void_is_not_good_whatever_the_database_says(state: Path) -> None:
    """The bug it would catch: a restored database makes it good again with each line of the audit trail."""
    settings = load()
    with contextlib.closing(fleet_db.open_for_writing(settings.database)) as sqlite:
        sqlite.executemany(
            "INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES (?, 'admin', '', 0)",
            [("good",), ("void",)],
        )
    first = look(settings, None)
    assert {"good", "void"} <= set(first.credentials)
    revocations.add(revocations.beside(settings.database), ["void"])
    second = look(settings, first)
    assert {"good", "void"} & set(second.credentials) == {"good"}
    assert look(settings, second).revoked is second.revoked, "a list that is the same is not read again"
    revocations.beside(settings.database).unlink()
    assert {"good", "void"} & set(look(settings, second).credentials) == {"good"}
    unread = credentials(settings, None, revocations.Look(), "")
    assert {"good", "void"} & set(unread) == set(), "nobody could read what is void"


def test_what_keeps_gateways_and_fanouts_roots_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load({"FLEETHUB_STATE": str(tmp_path)})
    why = {"gateway": ["no CAP_KILL"], "fanout": ["no CAP_KILL", "a closed folder"]}
    monkeypatch.setattr(own_user, "is_wanted", lambda settings, kind: True)
    monkeypatch.setattr(own_user, "hindrances", lambda settings, kind: why[kind])
    assert installation._who_stay_root(found) == {
        "no CAP_KILL": ["gateways", "fanouts"], "a closed folder": ["fanouts"],
    }  # fmt: skip
    monkeypatch.setattr(own_user, "is_wanted", lambda settings, kind: kind == "gateway")
    assert installation._who_stay_root(found) == {"no CAP_KILL": ["gateways"]}
