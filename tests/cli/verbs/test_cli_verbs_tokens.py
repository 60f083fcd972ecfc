"""The verb `token`: made for a time, listed with ends and uses, rotated by id or label, and the installation's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.api_server import ApiServer, running

from processes.cli.__main__ import execute

TOKENS = "/api/v1/tokens"


def view(id: str, label: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "role": "viewer", "label": label, "created_at": "2026-01-02T03:04:05Z", **more}


MADE = {"id": "t9", "role": "viewer", "label": "screen", "token": "s3cret"}


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


def test_a_token_is_made_for_a_time_that_is_typed_with_its_unit(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("POST", TOKENS, (201, {**MADE, "expires_at": "2026-04-02T03:04:05Z"}))
    assert execute(["token", "create", "--role", "viewer", "--expires", "90d"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "s3cret\n"
    assert "good until 2026-04-02T03:04:05Z" in shown.err
    assert server.asked[-1].body == {"role": "viewer", "label": "", "expires_s": 90 * 86400.0}
    for typed, said in (
        ("90", "90s, 15m, 12h, 7d"),
        ("1x", "90s"),
        ("-5m", "90s"),
        ("5s", "too short"),
        ("999w", "too long"),
    ):
        assert execute(["token", "create", "--role", "viewer", "--expires", typed]) == 2, typed
        assert said in capsys.readouterr().err
    assert len(server.asked) == 1


def test_a_listing_tells_ends_and_uses(server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    at, used = "2026-02-02T03:04:05Z", "2026-01-03T03:04:05Z"
    rows = [
        view("t1", "ends", expires_at=at, last_used_at=used), view("t2", "ended", expires_at=at, expired=True),
        view("t3", "old", expires_at=at, replaced_by="t1"), view("t4", "endless"),
    ]  # fmt: skip
    server.on("GET", TOKENS, (200, {"tokens": rows}))
    assert execute(["token", "list"]) == 0
    lines = [re.split(r" {2,}", line)[3:5] for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [[at, used], [f"expired {at}", "never"], ["replaced by t1", "never"], ["never", "never"]]


def test_a_token_is_rotated_by_its_id_or_by_a_label_that_only_one_has(
    server: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        view("t1", "screen", replaced_by="t2"), view("t2", "screen"), view("t3", "twice"), view("t4", "twice"),
        view("t5", "gone", expired=True),
    ]  # fmt: skip
    server.on("GET", TOKENS, (200, {"tokens": rows}))
    server.on("POST", f"{TOKENS}/t2/rotate", (201, {**MADE, "old_until": "2026-01-02T03:14:05Z"}))
    for named in ("t2", "screen"):
        assert execute(["token", "rotate", named]) == 0
        shown = capsys.readouterr()
        assert shown.out == "s3cret\n"
        assert "the old one is good until 2026-01-02T03:14:05Z" in shown.err
        assert server.asked[-1].body == {"overlap_s": 600.0}
    assert execute(["token", "rotate", "t2", "--overlap", "0s"]) == 0
    assert "the old one is void" in capsys.readouterr().err
    assert server.asked[-1].body == {"overlap_s": 0.0}
    asked = len([each for each in server.asked if each.method == "POST"])
    for named in ("twice", "gone", "nobody"):
        assert execute(["token", "rotate", named]) == 1, named
        assert "fleethub token list" in capsys.readouterr().err
    assert len([each for each in server.asked if each.method == "POST"]) == asked


def test_the_installations_own_token_is_rotated_in_its_file_alone(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    own = tmp_path / "operator.token"
    own.write_text("old\n")
    own.chmod(0o600)
    assert execute(["token", "rotate", "operator.token"]) == 2, "FLEETHUB_HUB is another machine's"
    assert own.read_text() == "old\n"
    monkeypatch.delenv("FLEETHUB_HUB")
    capsys.readouterr()
    assert execute(["token", "rotate", "operator.token"]) == 0
    shown = capsys.readouterr()
    secret = own.read_text().strip()
    assert len(secret) >= 43
    assert secret not in shown.out + shown.err
    assert own.stat().st_mode & 0o777 == 0o600
    own.unlink()
    assert execute(["token", "rotate", "operator.token"]) == 1
    assert not own.exists(), "nothing is made where nothing was"
    assert server.asked == []
