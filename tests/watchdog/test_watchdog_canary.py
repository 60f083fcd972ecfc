"""The canary against a small house of its own: green when all goes round, red when anything does not, never an
exception.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from doubles.canary_house import CanaryHouse
from doubles.deadline import WAIT_S

from processes.adapters.settings import Agents, File, Operators, Settings, Tls
from processes.core.shown.status import PortReport
from processes.watchdog.canary import GREEN_S, Canary


async def until(what: Callable[[], Any], timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.01)


def settings_for(tmp_path: Path, house: CanaryHouse, tls: Tls = Tls()) -> Settings:  # noqa: B008  # frozen
    operators, agents = (f"127.0.0.1:{port}" for port in (house.operators_port, house.agents_port))
    return Settings(tmp_path, tmp_path / "x", File(operators=Operators(operators), agents=Agents(agents), tls=tls))


PLAIN = Tls()


@contextlib.asynccontextmanager
async def flying(
    tmp_path: Path, context: ssl.SSLContext | None = None, tls: Tls = PLAIN, **times: float
) -> AsyncIterator[tuple[Canary, CanaryHouse]]:
    house = CanaryHouse(tmp_path / "run" / "canary.json", context)
    await house.start()
    canary = Canary(settings_for(tmp_path, house, tls), **times)
    canary.write_tokens()
    works = (canary.run_agent(), canary.run_subscriber(), canary.run_rounds(), canary.run_knocks())
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield canary, house
        for task in tasks:
            assert not task.done(), task  # nothing that happens ends the canary
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await house.stop()


def fly(tmp_path: Path, test: Callable[[Canary, CanaryHouse], Coroutine[None, None, None]], **arguments: Any) -> None:
    async def run() -> None:
        async with flying(tmp_path, **arguments) as (canary, house):
            await test(canary, house)

    asyncio.run(run())


def green(canary: Canary, house: CanaryHouse) -> bool:
    return canary.report(house.epoch, time.monotonic()).ok


def test_it_is_red_until_a_round_is_complete_then_green(tmp_path: Path) -> None:
    async def test(canary: Canary, house: CanaryHouse) -> None:
        assert not green(canary, house)
        await until(lambda: green(canary, house))
        report = canary.report(house.epoch, time.monotonic())
        assert report.epoch == 1
        assert report.latency_ms is not None
        assert report.latency_ms > 0
        assert canary.round_began_s is not None

    fly(tmp_path, test)


def test_its_tokens_are_for_this_user_alone_and_new_each_time(tmp_path: Path) -> None:
    async def test(canary: Canary, house: CanaryHouse) -> None:
        assert house.canary_file.stat().st_mode & 0o777 == 0o600
        before = house.canary_file.read_bytes()
        canary.__class__(canary._settings).write_tokens()
        assert house.canary_file.read_bytes() != before

    fly(tmp_path, test)


def test_its_heartbeats_are_numbered_and_their_age_is_known(tmp_path: Path) -> None:
    async def test(canary: Canary, house: CanaryHouse) -> None:
        await until(lambda: house.beats == [1, 2, 3])
        await until(lambda: (canary.report(1, time.monotonic()).heartbeat_age_s or 9) < 1.5)

    fly(tmp_path, test)


@pytest.mark.parametrize("mute", ["command", "answer", "delta"])
def test_a_part_that_swallows_is_seen_unless_the_way_is_whole(tmp_path: Path, mute: str) -> None:
    """Without deltas the API's word on the command will do; without an agent or an API nothing does."""

    async def test(canary: Canary, house: CanaryHouse) -> None:
        await until(lambda: green(canary, house))
        house.mute.add(mute)
        if mute == "delta":
            began = canary.round_began_s
            await until(lambda: canary.round_began_s != began)
            return
        house.say_state = "queued"
        await until(lambda: canary.problem.startswith("round"))
        last = canary.report(house.epoch, time.monotonic())
        assert last.round_mono_s is not None
        assert not canary.report(house.epoch, last.round_mono_s + GREEN_S + 0.1).ok
        house.mute.clear()
        await until(lambda: canary.report(house.epoch, time.monotonic()).round_mono_s != last.round_mono_s)

    fly(tmp_path, test, step_s_max=0.3)


def test_a_report_that_the_hub_let_go_is_said_again_until_it_is_acknowledged(tmp_path: Path) -> None:
    """A hub whose storage is blocked lets reports go unacknowledged; one that is never said again would block the
    canary for ever.
    """

    async def test(canary: Canary, house: CanaryHouse) -> None:
        await until(lambda: green(canary, house))
        house.mute.add("report")
        given = len(house.reports)
        await until(lambda: len(house.reports) > given)
        let_go = house.reports[given]
        house.mute.clear()
        await until(lambda: house.reports.count(let_go) > 1)
        beats = len(house.beats)
        await until(lambda: len(house.beats) >= beats + 3)
        assert all(
            house.reports.count(command_id) <= 3 for command_id in house.reports
        )  # acknowledged, it is said no more

    fly(tmp_path, test)


def test_a_round_of_an_older_hub_is_not_green(tmp_path: Path) -> None:
    async def test(canary: Canary, house: CanaryHouse) -> None:
        await until(lambda: green(canary, house))
        house.epoch = 2
        assert not green(canary, house)
        house.say({"type": "sync", "version": 1})
        await until(lambda: green(canary, house))  # at once: the next round is due in an hour

    fly(tmp_path, test, round_s=3600.0)


def test_it_comes_back_by_itself_after_both_sides_were_cut(tmp_path: Path) -> None:
    async def test(canary: Canary, house: CanaryHouse) -> None:
        await until(lambda: green(canary, house))
        cut_s = time.monotonic()
        for socket in (*house.agents, *house.subscribers):
            socket.abort()
        await until(lambda: (canary.round_began_s or 0) > cut_s)

    fly(tmp_path, test)


def test_nonsense_from_the_house_is_a_result_and_no_exception(tmp_path: Path) -> None:
    async def test(canary: Canary, house: CanaryHouse) -> None:
        await until(lambda: green(canary, house))
        for socket in (*house.agents, *house.subscribers):
            socket.send(b"{nonsense")
        at_s = time.monotonic()
        await until(lambda: (canary.round_began_s or 0) > at_s)

    fly(tmp_path, test)


def test_a_house_that_is_not_there_leaves_it_red(tmp_path: Path) -> None:
    async def run() -> None:
        async with flying(tmp_path) as (canary, house):
            await until(lambda: green(canary, house))
            await house.stop()
            await until(lambda: not canary.registered and not canary.subscribed)

    asyncio.run(run())


@pytest.mark.parametrize(("deaf", "other"), [("agents", "operators"), ("operators", "agents")])
def test_a_port_that_accepts_nobody_is_found_though_all_connections_stand(
    tmp_path: Path, deaf: str, other: str
) -> None:
    """The bug it would catch: the canary lives on connections of yesterday, and nobody new gets in."""

    async def test(canary: Canary, house: CanaryHouse) -> None:
        def ports() -> dict[str, PortReport]:
            return {port.name: port for port in canary.report(house.epoch, time.monotonic()).ports}

        await until(lambda: green(canary, house))
        assert [(port.ok, port.problem) for port in ports().values()] == [(True, ""), (True, "")]
        house.deafen(deaf)
        deaf_s = time.monotonic()
        await until(lambda: ports()[deaf].problem == "no answer within 0.3 s")
        began_s = canary.round_began_s
        assert began_s is not None
        assert began_s < deaf_s, "a round without a knock at each port ends no incident"
        later = canary.report(house.epoch, deaf_s + GREEN_S + 0.1)
        assert not later.ok
        assert not next(port for port in later.ports if port.name == deaf).ok
        assert canary.registered
        assert canary.subscribed
        assert ports()[other].problem == ""
        await house.hear(deaf)
        await until(lambda: (canary.round_began_s or 0) > deaf_s)
        assert green(canary, house)

    fly(tmp_path, test, step_s_max=0.3, round_s=0.2)


def test_an_answer_that_says_no_is_no_answer_to_a_knock(tmp_path: Path) -> None:
    async def test(canary: Canary, house: CanaryHouse) -> None:
        await until(lambda: canary._ports[1].problem == "it was answered 404")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CanaryHouse, "_answer", lambda *_: (404, b""))
        fly(tmp_path, test)


def test_under_tls_exactly_the_configured_certificate_is_trusted(tmp_path: Path) -> None:
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=fleet.example", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def test(canary: Canary, house: CanaryHouse) -> None:
        await until(lambda: green(canary, house))

    fly(tmp_path, test, context=context, tls=Tls(str(certificate), str(key)))
    other, other_key = tmp_path / "o.pem", tmp_path / "ok.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=fleet.example", "-keyout", other_key, "-out", other],
        check=True, capture_output=True,
    )  # fmt: skip

    async def refused(canary: Canary, house: CanaryHouse) -> None:
        await until(lambda: "CERTIFICATE_VERIFY_FAILED" in canary.problem)
        assert not green(canary, house)

    fly(tmp_path, refused, context=context, tls=Tls(str(other), str(other_key)))


def test_a_canary_that_is_ended_while_its_connection_ends_is_ended(tmp_path: Path) -> None:
    """The bug it would catch: its end is taken for that of its heartbeats, and it goes on for ever."""
    ending = asyncio.Event()
    send_beats = Canary._send_beats

    async def slow_to_end(self: Canary, *arguments: Any) -> None:
        try:
            await send_beats(self, *arguments)
        finally:
            ending.set()
            await asyncio.Event().wait()

    async def test(canary: Canary, house: CanaryHouse) -> None:
        await until(lambda: green(canary, house))
        for agent in list(house.agents):
            agent.abort()
        await ending.wait()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Canary, "_send_beats", slow_to_end)
        fly(tmp_path, test)
