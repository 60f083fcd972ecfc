"""The real hub on real queues and a real database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Coroutine

import msgspec
import pytest
from doubles.deadline import WAIT_S
from doubles.small_house import Peer, SmallHouse

from processes.adapters.state import fleet_db
from processes.core.records.command import State
from processes.core.travels import messages
from processes.core.travels.agent_frames import Heartbeat, Register
from processes.core.travels.messages import GiveCommand


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


async def give(peer: Peer, key: str | None = None) -> str:
    reply = await peer.ask(GiveCommand("pull", ["a"], key))
    assert reply.status in (200, 202), reply.body
    (view,) = msgspec.json.decode(reply.body)["commands"]
    return str(view["id"])


@contextlib.asynccontextmanager
async def blocked(
    house: SmallHouse, peer: Peer
) -> AsyncIterator[tuple[sqlite3.Connection, asyncio.Task[messages.Replied]]]:
    """Another program holds the database, and the commit of the request "first" waits for it: whatever is asked now is
    refused.
    """
    with contextlib.closing(sqlite3.connect(house.state / "fleet.db", isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        first = asyncio.create_task(peer.ask(GiveCommand("pull", ["a"]), request_id="first"))
        await peer.until(lambda: house.pulse().blocked_on == "storage")
        yield lock, first


def stored_state(house: SmallHouse, command_id: str) -> State | None:
    command = fleet_db.reading(house.state / "fleet.db", lambda sqlite: fleet_db.command(sqlite, command_id))
    return command.state if command else None


def test_an_accepted_command_is_on_disk_before_the_answer_and_is_delivered() -> None:
    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                command_id = await give(peer)
                assert stored_state(house, command_id) is State.SENT
                await peer.until(lambda: command_id in peer.sent())
                await peer.send(messages.AckReceived("c1", "gateway", "a", command_id, "accepted"))
                await peer.send(messages.StatusReceived("c1", "gateway", "a", "ok", 0, "", command_id))
                await peer.until(
                    lambda: (
                        [m.command_id for m in peer.deliveries if isinstance(m, messages.DeliverAck)] == [command_id]
                    )
                )
                assert stored_state(house, command_id) is State.SUCCEEDED

    run(work())


def test_a_killed_hub_loses_no_accepted_command_and_its_successor_has_a_newer_epoch() -> None:
    """Twenty kills among requests: each id is answered once, is on disk, and the epochs grow."""

    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                for number in range(20):
                    asking = asyncio.create_task(
                        peer.ask(messages.EnrollHost(f"h{number}", "hash"), request_id=f"r{number}")
                    )
                    await asyncio.sleep(0.002 * (number % 5))
                    house.kill("hub")
                    house.start("hub")
                    assert (await asking).status == 201
                hosts = fleet_db.reading(house.state / "fleet.db", fleet_db.hosts)
                assert {host.name for host in hosts} == {"a", *(f"h{number}" for number in range(20))}
                assert peer.epochs() == sorted(set(peer.epochs()))
                assert len([m for m in peer.broadcasts if isinstance(m, messages.Replied)]) >= 21

    run(work())


def test_killed_queues_lose_nothing_that_was_acknowledged_and_the_hub_lives_on() -> None:
    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                epoch = house.pulse().epoch
                for number in range(5):
                    await peer.ask(messages.EnrollHost(f"h{number}", "hash"))
                    house.kill("queues")
                    house.start("queues")
                await peer.ask(messages.EnrollHost("last", "hash"))
                assert house.pulse().epoch == epoch
                assert house.processes["hub"].poll() is None

    run(work())


def test_an_exception_in_a_handler_is_logged_and_the_loop_goes_on_without_a_restart() -> None:
    """An injected exception: traceback in the log, a dead letter, 500 to the asker, and the next message is stepped."""

    async def work() -> None:
        with SmallHouse(FLEETHUB_DRILLS_ENABLED="true") as house:
            async with Peer(house) as peer:
                pid, epoch = house.pulse().pid, peer.epochs()[-1]
                assert (await peer.ask(messages.RehearseFault("exception", epoch))).status == 500
                assert (await peer.ask(messages.EnrollHost("a", "hash"))).status == 201
                await peer.until(lambda: "raise_an_error" in house.log())
                assert "Traceback" in house.log()
                assert (house.pulse().pid, house.pulse().epoch) == (pid, epoch)
                with contextlib.closing(sqlite3.connect(house.state / "fleet.db")) as sqlite:
                    assert sqlite.execute("SELECT json_extract(record, '$.kind') FROM deadletters").fetchall() == [
                        ("RequestReceived",)
                    ]

    run(work())


def test_what_cannot_be_decoded_is_kept_as_a_dead_letter_as_it_came_and_stops_nobody() -> None:
    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                garbage = b"\x63of a version to come"
                assert (await peer.link.append(messages.EVENTS, [garbage])).accepted
                assert (await peer.ask(messages.EnrollHost("a", "hash"))).status == 201
                await peer.until(lambda: house.pulse().dead_letters == 1)
                found = fleet_db.reading(
                    house.state / "fleet.db", lambda connection: fleet_db.dead_letters(connection, limit=10)
                )
                assert [(each.why, each.event) for each in found] == [("undecodable", garbage)]

    run(work())


def test_simultaneous_heartbeats_broadcasts_and_disconnects_never_stop_the_loop() -> None:
    """The founding incident's own storm, a hundred rounds: after each disconnect the loop turns within a second."""

    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                for name in ("a", "b", "c"):
                    await peer.connect(name, f"{name}0")
                enrolments = {h.name: h.enrolment for h in fleet_db.reading(house.state / "fleet.db", fleet_db.hosts)}
                for number in range(1, 101):
                    events: list[messages.Event] = []
                    for name in ("a", "b", "c"):
                        old, new = f"{name}{number - 1}", f"{name}{number}"
                        register = msgspec.convert({"hostname": name, "protocol": 1, "commands": ["pull"]}, Register)
                        info = messages.Connection(
                            new, "gateway", name, enrolments[name], register, since_boot_s=float(number)
                        )
                        events += [
                            peer.beat(name, old, number),
                            messages.AgentDisconnected(old, "gateway", name, 1006),
                            messages.AgentRegistered(new, "gateway", name, info),
                            peer.beat(name, new, number),
                        ]
                    wanted = house.pulse().stepped + len(events) + 1
                    await peer.send(*events, messages.SnapshotWanted("fanout", f"s{number}"))
                    await peer.until(lambda: house.pulse().stepped >= wanted)  # noqa: B023
                assert house.pulse().online == 3

    run(work())


def test_a_locked_database_refuses_aloud_and_never_stops_the_turning() -> None:
    """A stalled disk is shown as blocked and refused with 503, heartbeats go on, and all heals by itself when it is
    free.
    """

    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                await give(peer)
                lock = sqlite3.connect(house.state / "fleet.db", isolation_level=None)
                lock.execute("BEGIN EXCLUSIVE")
                first = asyncio.create_task(peer.ask(GiveCommand("pull", ["a"])))
                await peer.until(lambda: house.pulse().blocked_on == "storage")
                refused = await peer.ask(GiveCommand("pull", ["a"]), deadline_s=10)
                assert (refused.status, msgspec.json.decode(refused.body)["error"]) == (503, "storage_blocked")
                turn, stepped = house.pulse().turn, house.pulse().stepped
                await peer.send(*(peer.beat("a", "c1", number) for number in range(50)))
                await peer.until(lambda: house.pulse().stepped >= stepped + 50)
                assert house.pulse().turn > turn
                lock.execute("ROLLBACK")
                lock.close()
                assert (await first).status == 202
                await peer.until(lambda: house.pulse().blocked_on == "")
                assert (await peer.ask(GiveCommand("pull", ["a"]))).status == 202
                ledger = fleet_db.reading(house.state / "fleet.db", fleet_db.ledger)
                assert (ledger.accepted, ledger.balanced) == (3, True)

    run(work())


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_what_was_refused_for_the_storage_is_not_done_by_the_hubs_after_it(end: signal.Signals) -> None:
    """The refused request still stands in the queue behind the position on disk: the next hub reads it, and the one
    after that too.
    """

    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                async with blocked(house, peer) as (lock, first):
                    refused = await peer.ask(messages.EnrollHost("ghost", "hash"), request_id="refused", deadline_s=60)
                    assert (refused.status, msgspec.json.decode(refused.body)["error"]) == (503, "storage_blocked")
                    house.processes["hub"].send_signal(end)
                    await asyncio.to_thread(house.processes["hub"].wait, 20)
                    house.start("hub")  # it cannot open the database, and dies before it has read anything
                    await peer.until(
                        lambda: (
                            house.pulse().pid == house.processes["hub"].pid and house.pulse().blocked_on == "storage"
                        )
                    )
                    house.kill("hub")
                    house.start("hub")
                    lock.execute("ROLLBACK")
                assert (
                    await first
                ).status == 503  # it was in the commit that never came, and stands before the refused one
                assert fleet_db.reading(house.state / "fleet.db", fleet_db.ledger).accepted == 0
                assert (await peer.ask(messages.EnrollHost("after", "hash"))).status == 201
                hosts = fleet_db.reading(house.state / "fleet.db", fleet_db.hosts)
                assert {host.name for host in hosts} == {"a", "after"}

    run(work())


def test_a_copy_of_what_was_refused_for_the_storage_is_refused_by_the_next_hub() -> None:
    """The bug it would catch: the refusal is known to the hub that said it alone, once the position on disk has gone
    past the request.
    """

    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                async with blocked(house, peer) as (lock, first):
                    refused = await peer.ask(messages.EnrollHost("ghost", "hash"), request_id="refused", deadline_s=60)
                    assert refused.status == 503
                    lock.execute("ROLLBACK")
                assert (await first).status == 202
                assert (
                    await peer.ask(messages.EnrollHost("after", "hash"))
                ).status == 201  # the position goes past what was refused
                house.kill("hub")
                copy = asyncio.create_task(
                    peer.ask(messages.EnrollHost("ghost", "hash"), request_id="refused", deadline_s=60)
                )
                house.start("hub")
                assert (await copy).status == 503
                assert (await peer.ask(messages.EnrollHost("last", "hash"))).status == 201
                hosts = fleet_db.reading(house.state / "fleet.db", fleet_db.hosts)
                assert {host.name for host in hosts} == {"a", "after", "last"}

    run(work())


def test_a_request_asked_twice_while_its_first_copy_is_being_committed_is_not_refused() -> None:
    """As after a death of `queues`: the copy waits for the commit under way, and both have the one answer."""

    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                async with blocked(house, peer) as (lock, first):
                    asking = [first, asyncio.create_task(peer.ask(GiveCommand("pull", ["a"]), request_id="first"))]
                    refused = await peer.ask(GiveCommand("pull", ["a"]), deadline_s=10)  # it came after the copy
                    assert refused.status == 503
                    assert peer.reply("first") is None
                    lock.execute("ROLLBACK")
                assert [(await each).status for each in asking] == [202, 202]
                assert fleet_db.reading(house.state / "fleet.db", fleet_db.ledger).accepted == 1

    run(work())


def test_stopped_queues_never_stop_the_turning() -> None:
    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                house.processes["queues"].send_signal(signal.SIGSTOP)
                turn = house.pulse().turn
                await peer.until(lambda: house.pulse().turn >= turn + 30)
                house.processes["queues"].send_signal(signal.SIGCONT)
                assert (await peer.ask(messages.EnrollHost("b", "hash"))).status == 201

    run(work())


def test_a_full_broadcast_queue_drops_with_a_count_and_the_reader_meets_a_gap_and_heals() -> None:
    """Nothing blocks: the hub goes on, counts what it dropped, and a snapshot makes the view whole again within 2 s."""

    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                peer._tasks[0].cancel()  # a fanout that does not read
                number, stepped = 0, house.pulse().stepped
                while house.pulse().dropped == 0:
                    assert number < 20_000, "the queue never got full"
                    facts = [messages.Json(b'{"x":"%s"}' % (b"%d" % n * 2000)) for n in range(number, number + 100)]
                    beats = [messages.HeartbeatReceived("c1", "gateway", "a", Heartbeat(), fact) for fact in facts]
                    await peer.send(*beats)
                    number += len(beats)
                    await peer.until(lambda: house.pulse().stepped >= stepped + number)  # noqa: B023
                assert "a queue is full, dropped" in house.log()
                gaps = peer.gaps
                peer.hear_broadcasts()
                await peer.until(lambda: peer.gaps > gaps)
                await peer.send(messages.SnapshotWanted("fanout", "fresh"))
                await peer.until(lambda: bool(peer.snapshot("fresh")) and peer.snapshot("fresh")[-1].last)
                rows = b"".join(change.fields for piece in peer.snapshot("fresh") for change in piece.changes)
                assert b"%d" % (number - 1) in rows

    run(work())


def test_sigterm_flushes_the_state_and_exits_0() -> None:
    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                asking = asyncio.create_task(peer.ask(GiveCommand("pull", ["a"]), request_id="last"))
                await asyncio.sleep(0)
                assert await asyncio.to_thread(house.kill, "hub", signal.SIGTERM) == 0
                house.start("hub")
                assert (await asking).status == 202
                record = fleet_db.reading(house.state / "fleet.db", lambda sqlite: fleet_db.host(sqlite, "a"))
                assert record is not None
                assert record.register is not None

    run(work())


def test_a_second_hub_on_the_same_state_gives_up_with_a_clear_word() -> None:
    with SmallHouse() as house:

        async def work() -> None:
            async with Peer(house):
                house.processes["first"] = house.processes["hub"]
                house.start("hub")
                assert await asyncio.to_thread(house.processes["hub"].wait, 15) == 70
                stderr = house.processes["hub"].stderr
                assert stderr is not None
                assert "is held by process" in stderr.read().decode()

        run(work())


def test_a_frozen_hub_that_thaws_after_its_successor_began_does_no_harm() -> None:
    """Fencing: the queues refuse the older epoch, and the old hub ends."""

    async def work() -> None:
        with SmallHouse() as house:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")
                old = house.processes["hub"]
                old.send_signal(signal.SIGSTOP)
                lock = house.state / "run" / "lock" / "hub"
                lock.rename(
                    lock.with_suffix(".old")
                )  # as on a machine whose lock service failed: only the epoch is left
                house.processes["old"] = old
                house.start("hub")
                await peer.until(lambda: len(peer.epochs()) == 2)
                assert (await peer.ask(GiveCommand("pull", ["a"]))).status == 202
                os.kill(old.pid, signal.SIGCONT)
                assert await asyncio.to_thread(old.wait, 10) == 70
                command_id = await give(peer)
                assert stored_state(house, command_id) is not None

    run(work())


def test_a_damaged_database_is_refused_and_not_replaced() -> None:
    with SmallHouse() as house:

        async def work() -> None:
            async with Peer(house) as peer:
                await peer.connect("a", "c1")

        run(work())
        house.kill("hub", signal.SIGTERM)
        path = house.state / "fleet.db"
        content = bytearray(path.read_bytes())
        content[4096 : 4096 * 6] = os.urandom(4096 * 5)
        path.write_bytes(content)
        house.start("hub")
        assert house.processes["hub"].wait(WAIT_S) == 70
        assert path.read_bytes() == content
        assert "damaged" in house.log() or "malformed" in house.log()
