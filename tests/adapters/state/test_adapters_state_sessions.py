"""processes.adapters.state.session_files: who has signed out is never forgotten, and never read as nobody."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes.adapters import clock
from processes.adapters.settings import load
from processes.adapters.state import fleet_db, session_files
from processes.core.fanout.signin import SESSION_S_MAX
from processes.core.values import digest
from processes.fanout import state_folder


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_too_many_ended_sessions_become_one_time_and_none_of_them_is_good_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug it would catch: of 100,001 ended sessions one is good again, and its thief can bring that about."""
    monkeypatch.setattr(session_files, "SIGNED_OUT_MAX", 10)
    now_s = time.time()
    began = {f"s{number}": now_s - 1000 + number for number in range(60)}
    found, until_s = frozenset[str](), 0.0
    for id, since_s in began.items():
        session_files.end(tmp_path, id, since_s)
        os.utime(tmp_path / "signed_out" / id, (since_s, since_s))
        found = session_files.ended(tmp_path, SESSION_S_MAX, found) or frozenset()
        until_s = session_files.ended_until(tmp_path, until_s)
        assert all(each in found or began[each] <= until_s for each in began if began[each] <= since_s)
        assert len(list((tmp_path / "signed_out").iterdir())) <= 11, "ten, and the time"
    assert until_s < began["s59"], "who signed in lately and did not sign out is still signed in"
    session_files.end(tmp_path, "ahead", now_s + 5000)
    for number in range(20):
        session_files.end(tmp_path, f"t{number}", now_s - 10)
    for path in (tmp_path / "signed_out").iterdir():
        os.utime(path, (1.0, 1.0) if path.name == "ahead" else None)
    found = session_files.ended(tmp_path, SESSION_S_MAX, found) or frozenset()
    assert "ahead" in (session_files.ended(tmp_path, SESSION_S_MAX, found) or ())
    assert session_files.ended_until(tmp_path, 0.0) <= now_s, "a clock that was wrong ends nobody who signs in now"
    (tmp_path / "signed_out" / "until").write_text("nonsense")
    assert session_files.ended_until(tmp_path, 7.0) == 7.0


def test_who_signed_out_is_kept_while_the_folder_cannot_be_read(tmp_path: Path) -> None:
    with no_descriptors():
        assert session_files.ended(tmp_path, 60.0, None) is None, "it was never read: nobody knows"
    assert session_files.ended(tmp_path, 60.0, None) == frozenset()
    session_files.end(tmp_path, "ann", 1.0)
    found = session_files.ended(tmp_path, 60.0, frozenset())
    assert found == frozenset({"ann"})
    with no_descriptors():
        assert session_files.ended(tmp_path, 60.0, found) == frozenset({"ann"})
    (tmp_path / "signed_out").rename(tmp_path / "aside")
    assert session_files.ended(tmp_path, 60.0, found) == frozenset({"ann"}), (
        "a folder that is gone makes no session good"
    )


def test_a_look_without_descriptors_lets_nobody_in_again_and_nobody_else_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug it would catch: a stranger's silent connections make the cookie of an ended session good again."""
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    settings = load()
    settings.operator_token.write_text("own\n")
    settings.operator_token.chmod(0o600)
    with contextlib.closing(fleet_db.open_for_writing(settings.database)) as sqlite:
        sqlite.execute("INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES ('anns', 'viewer', '', 0)")
    session_files.end(settings.run, "ended", 1.0)
    first = state_folder.look(settings, None)
    assert set(first.credentials) == {"anns", digest("own")}
    with no_descriptors():
        second = state_folder.look(settings, first)
    assert (second.credentials, second.own_hash) == (first.credentials, first.own_hash)
    assert second.signed_out == frozenset({"ended"})
    with no_descriptors():
        never = state_folder.look(settings, None)
    assert (never.credentials, never.signed_out) == ({}, None)


def test_no_clock_that_jumps_ahead_makes_a_sign_out_forgotten(tmp_path: Path) -> None:
    session_files.end(tmp_path, "ann", 1.0)
    path = tmp_path / "signed_out" / "ann"
    os.utime(path, (0, 0))  # as long ago as a clock that jumped ahead says
    assert session_files.ended(tmp_path, SESSION_S_MAX, None) == frozenset({"ann"})
    assert path.exists()


@pytest.mark.parametrize(
    ("boot", "ago_s", "kept"), [("this", 50.0, True), ("this", 70.0, False), ("another", 0.0, False), ("", 0.0, False)]
)
def test_a_sign_out_is_removed_once_both_clocks_say_that_its_session_is_over(
    boot: str, ago_s: float, kept: bool, tmp_path: Path
) -> None:
    assert clock.now().boot_s > 60.0, "this machine has just started: try again in a minute"
    session_files.end(tmp_path, "ann", 1.0)
    path = tmp_path / "signed_out" / "ann"
    mark = f"{clock.boot_id() if boot == 'this' else boot} {max(0.0, clock.now().boot_s - ago_s):.0f}\n"
    path.write_text(mark if boot else "")
    assert session_files.ended(tmp_path, 60.0, None) == frozenset({"ann"}), "by the wall clock it is new"
    os.utime(path, (time.time() - 61, time.time() - 61))
    assert session_files.ended(tmp_path, 60.0, None) == (frozenset({"ann"}) if kept else frozenset())
    assert path.exists() == kept


def test_a_use_is_seen_by_every_fanout_and_kept_while_it_cannot_be_read(tmp_path: Path) -> None:
    session_files.use(tmp_path, "nobody")
    assert session_files.used(tmp_path, {}) == {}
    path = tmp_path / "sessions" / "ann"
    path.parent.mkdir()
    path.touch()
    os.utime(path, (5.0, 5.0))
    assert session_files.used(tmp_path, {}) == {"ann": 5.0}
    session_files.use(tmp_path, "ann")
    found = session_files.used(tmp_path, {})
    assert abs(found["ann"] - time.time()) < 60.0
    with no_descriptors():
        assert session_files.used(tmp_path, found) == found
