"""Sessions over hours: a real state folder, and a clock that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S

from processes.adapters.settings import Settings, load
from processes.adapters.state import fleet_db, revocations, session_files, signin_codes
from processes.core.fanout.signin import ATTEMPTS_ALL_MAX, ATTEMPTS_MAX, IDLE_S_MAX, SESSION_S_MAX, Principal
from processes.core.values import Role, digest
from processes.fanout import state_folder
from processes.fanout.auth import Auth, TooManyAttempts
from processes.fanout.state_folder import FolderSeen, FolderWatch, KeptReadings

KEY = b"k" * 32
START_S = 4e9  # far ahead of the files' times, which are the real clock's: only what the process knows itself counts


class Hours:
    """A fanout's sign-in, and its wall clock."""

    def __init__(self, settings: Settings) -> None:
        self.now_s = START_S
        self.watch = FolderWatch(settings, state_folder.look(settings, None))
        self.auth = Auth(settings, self.watch, KEY, lambda: self.now_s)

    async def sign_in(self) -> tuple[list[str], Principal]:
        """A session for the installation's own token: its cookies and whose it is."""
        made = await self.auth.sign_in(None, "own")
        assert made is not None
        return [f"{self.auth.cookie_name}={made[0]}"], made[1]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    found = load()
    found.operator_token.write_text("own\n")
    found.operator_token.chmod(0o600)
    return found


def test_no_guess_keeps_a_good_token_or_code_out_and_guesses_by_any_way_are_limited(settings: Settings) -> None:
    """The bug it would catch: a hundred wrong tries a minute from ten addresses, and no operator signs in."""

    async def run() -> None:
        hours = Hours(settings)
        auth = hours.auth
        settings.run.mkdir(exist_ok=True)
        for number in range(300):
            address = f"10.0.{number // 3}.1"
            with contextlib.suppress(TooManyAttempts):
                assert await auth.sign_in(None, f"x{number}", address) is None
            with contextlib.suppress(TooManyAttempts):
                assert await auth.sign_in(f"x{number}", None, address) is None
            assert await auth.find(f"Bearer x{number}", [], address) is None
        for number in range(30):
            address = f"10.0.{number}.1"
            signin_codes.put(settings.run, f"good{number}", Role.VIEWER, 5e9)
            assert await auth.sign_in(f"good{number}", None, address) is not None
            assert await auth.sign_in(None, "own", address) is not None
            assert await auth.find("Bearer own", [], address) is not None
        for code, token in ((None, "x"), ("x", None)):
            with contextlib.suppress(TooManyAttempts):
                for _ in range(20):
                    assert await auth.sign_in(code, token, "10.9.9.9") is None
                pytest.fail("nobody counts them")

    asyncio.run(run())


def test_who_guesses_bearer_tokens_makes_the_fanout_look_no_more_than_stated(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug it would catch: each guess costs a look into the state folder, 625 a second."""

    async def run() -> None:
        hours = Hours(settings)
        looks: list[str] = []

        def look(before: state_folder.FolderSeen) -> tuple[str, dict[str, Principal]]:
            looks.append(before.own_hash)
            return before.own_hash, before.credentials

        monkeypatch.setattr(hours.watch, "_newest", look)
        for number in range(1000):
            assert await hours.auth.find(f"Bearer x{number}", [], f"2001:db8::{number:x}") is None
        assert len(looks) == ATTEMPTS_MAX, "a /64 is one client"
        for number in range(1000):
            assert await hours.auth.find(f"Bearer x{number}", [], f"10.1.{number % 250}.{number // 250}") is None
        assert len(looks) == ATTEMPTS_ALL_MAX

    asyncio.run(run())


@pytest.mark.parametrize("place", ["signed_out/until", "signed_out_until"])  # the second is of a version before
def test_sessions_that_had_begun_before_all_were_ended_stay_ended_and_later_ones_are_good(
    settings: Settings, place: str
) -> None:
    async def run() -> None:
        hours = Hours(settings)
        before, _ = await hours.sign_in()
        assert hours.auth.known("", before) is not None
        (settings.run / place).parent.mkdir(exist_ok=True)
        (settings.run / place).write_text(f"{hours.now_s!r}\n")
        hours.watch.seen = state_folder.look(settings, hours.watch.seen)
        assert hours.auth.known("", before) is None
        hours.now_s += 1
        after, _ = await hours.sign_in()
        assert hours.auth.known("", after) is not None

    asyncio.run(run())


def test_of_too_many_sessions_of_one_token_the_one_that_was_not_used_for_longest_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that signs in for each request fills no disk, and nobody else's session ends for it."""
    monkeypatch.setattr("processes.fanout.auth.TOKEN_SESSIONS_MAX", 4)

    async def run() -> None:
        hours = Hours(settings)
        auth = hours.auth
        settings.run.mkdir(exist_ok=True)

        async def by_link(number: int, role: Role = Role.VIEWER) -> list[str]:
            hours.now_s = time.time()
            signin_codes.put(settings.run, f"code{number}", role, time.time() + 600)
            made = await auth.sign_in(f"code{number}", None)
            assert made is not None
            return [f"{auth.cookie_name}={made[0]}"]

        kept, others = await by_link(0), [(await hours.sign_in())[0] for _ in range(4)]
        sessions = [kept]
        for number in range(1, 13):
            sessions.append(await by_link(number))
            assert await auth.find("", sessions[-1]) is not None, "who has just signed in is in"
            await asyncio.sleep(0)
            hours.now_s += 61.0  # each note of a use is good for so long
            assert auth.known("", kept) is not None
        good = [auth.known("", session) is not None for session in sessions]
        assert good == [True] + [False] * 9 + [True] * 3
        assert len([each for each in session_files.listed(settings.run) if each[1].role is Role.VIEWER]) == 4
        assert all(auth.known("", other) for other in others), "the other role's are counted apart"
        for _ in range(2):  # the marks of those that ended end them at every other fanout too
            hours.watch.seen = await asyncio.to_thread(state_folder.look, settings, hours.watch.seen)
        assert len(hours.watch.seen.signed_out or ()) == 9

    asyncio.run(run())


def test_on_a_full_disk_nobody_is_kept_out_for_too_many_sessions(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processes.fanout.auth.TOKEN_SESSIONS_MAX", 1)

    async def run() -> None:
        hours = Hours(settings)
        hours.now_s = time.time()
        settings.run.mkdir(exist_ok=True)
        (settings.run / "signed_out").touch()  # no folder can be made there
        for _ in range(3):
            cookies, _ = await hours.sign_in()
            assert hours.auth.known("", cookies) is not None

    asyncio.run(run())


def test_a_session_in_use_ends_after_twelve_hours_and_one_without_use_after_two(settings: Settings) -> None:
    async def run() -> None:
        hours = Hours(settings)
        used, _ = await hours.sign_in()
        left, _ = await hours.sign_in()
        while hours.now_s + IDLE_S_MAX < START_S + SESSION_S_MAX:
            hours.now_s += IDLE_S_MAX - 1
            assert hours.auth.known("", used) == await hours.auth.find("", used) is not None
            if hours.now_s > START_S + IDLE_S_MAX:
                assert hours.auth.known("", left) is None
                assert await hours.auth.find("", left) is None
        hours.now_s = START_S + SESSION_S_MAX
        assert hours.auth.known("", used) is not None
        hours.now_s += 1
        assert hours.auth.known("", used) is None

    asyncio.run(run())


def test_an_open_websocket_is_a_use_of_its_session_until_twelve_hours_are_over(settings: Settings) -> None:
    async def run() -> None:
        hours = Hours(settings)
        cookies, session = await hours.sign_in()
        for _ in range(5):
            hours.now_s += IDLE_S_MAX - 1  # as if the clock had jumped: that cuts nobody's page off
            assert hours.auth.still_good(session)
        hours.now_s += IDLE_S_MAX - 1
        assert hours.auth.known("", cookies) is not None, "the page's requests go on"
        hours.now_s = START_S + SESSION_S_MAX + 1
        assert not hours.auth.still_good(session)

    asyncio.run(run())


def test_a_new_fanout_that_finds_no_file_of_a_session_counts_from_the_sign_in(settings: Settings) -> None:
    async def run() -> None:
        cookies, session = await Hours(settings).sign_in()
        (settings.run / "sessions" / session.credential).unlink(missing_ok=True)
        successor = Hours(settings)
        successor.now_s = START_S + IDLE_S_MAX
        assert successor.auth.known("", cookies) is not None
        another = Hours(settings)
        another.now_s = START_S + IDLE_S_MAX + 1
        assert another.auth.known("", cookies) is None

    asyncio.run(run())


def test_a_code_makes_no_session_where_the_installation_has_no_token_to_which_it_could_belong(
    settings: Settings,
) -> None:
    async def run() -> None:
        settings.operator_token.unlink()
        assert await Hours(settings).auth.sign_in("code", None) is None

    settings.run.mkdir(exist_ok=True)
    signin_codes.put(settings.run, "code", Role.ADMIN, 5e9)
    asyncio.run(run())


def test_a_look_that_began_before_a_token_was_made_takes_it_away_from_nobody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug it would catch: a token made a moment ago is good in one request and unknown in the next."""
    seen, go_on, real = threading.Event(), threading.Event(), state_folder.look

    def slow_look(settings: Settings, before: FolderSeen | None, kept: KeptReadings) -> FolderSeen:
        found = real(settings, before)
        seen.set()
        assert go_on.wait(WAIT_S)
        return found

    async def run() -> None:
        with contextlib.closing(fleet_db.open_for_writing(settings.database)) as database:
            hours = Hours(settings)
            monkeypatch.setattr(state_folder, "look", slow_look)
            hours.watch.turn(0.0)
            assert await asyncio.to_thread(seen.wait, WAIT_S)
            database.execute(
                "INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES (?, 'viewer', 'ann', 1.0)",
                (digest("anns"),),
            )
            found = await hours.auth.find("Bearer anns", [])
            assert found is not None
            go_on.set()
            async with asyncio.timeout(WAIT_S):
                while hours.watch.turn(0.0) is None:
                    await asyncio.sleep(0.01)
            assert hours.auth.known("Bearer anns", []) == found
            revocations.add(revocations.beside(settings.database), [digest("anns")])
            async with asyncio.timeout(WAIT_S):
                while hours.auth.known("Bearer anns", []) is not None:
                    hours.watch.turn(1e9)
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_token_is_good_until_its_time_is_over_and_its_session_and_connections_with_it(settings: Settings) -> None:
    """By the clock alone: also while the disk gives no new look. The bug it would catch: an expired token's page goes
    on.
    """
    told: list[tuple[str, float]] = []

    async def run() -> None:
        with contextlib.closing(fleet_db.open_for_writing(settings.database)) as database:
            database.execute(
                "INSERT INTO tokens (token_hash, role, label, created_wall_s, expires_wall_s) VALUES (?, ?, ?, ?, ?)",
                (digest("anns"), "viewer", "ann", 1.0, START_S + 100),
            )
        hours = Hours(settings)
        hours.auth = Auth(settings, hours.watch, KEY, lambda: hours.now_s, on_token_use=lambda *use: told.append(use))
        made = await hours.auth.sign_in(None, "anns")
        assert made is not None
        cookies, connection = [f"{hours.auth.cookie_name}={made[0]}"], hours.auth.known("Bearer anns", [])
        assert connection is not None
        hours.now_s += 99
        assert await hours.auth.find("Bearer anns", []) == hours.auth.known("Bearer anns", []) == connection
        assert hours.auth.known("", cookies) is not None
        assert hours.auth.still_good(connection)
        assert hours.auth.still_good(made[1])
        hours.now_s += 1
        assert await hours.auth.find("Bearer anns", []) is hours.auth.known("Bearer anns", []) is None
        assert await hours.auth.find("", cookies) is hours.auth.known("", cookies) is None
        assert not hours.auth.still_good(connection)
        assert not hours.auth.still_good(made[1])
        assert await hours.auth.sign_in(None, "anns") is None
        assert hours.auth.known("Bearer own", []) is not None, "the installation's own has no end"

    asyncio.run(run())
    assert told == [(digest("anns"), START_S)], "told once in some minutes, and never of the installation's own"


def test_a_token_in_use_is_told_once_in_five_minutes(settings: Settings) -> None:
    told: list[float] = []

    async def run() -> None:
        with contextlib.closing(fleet_db.open_for_writing(settings.database)) as database:
            database.execute(
                "INSERT INTO tokens (token_hash, role, label, created_wall_s) VALUES (?, 'viewer', '', 1)",
                (digest("anns"),),
            )
        hours = Hours(settings)
        auth = Auth(settings, hours.watch, KEY, lambda: hours.now_s, on_token_use=lambda _, at_s: told.append(at_s))
        for _ in range(601):
            assert auth.known("Bearer anns", []) is not None
            hours.now_s += 1

    asyncio.run(run())
    assert told == [START_S, START_S + 300, START_S + 600]
