"""The operators' WebSockets: every one sees the truth, none delays another, and whatever is lost heals."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from typing import Any

import msgspec
import psutil
import pytest
from doubles.deadline import WAIT_S, until
from doubles.operator_wire import TOKEN, FanoutHouse, HubPlay, operator
from websockets.asyncio.client import connect

from processes.core.records.command import Command, State
from processes.core.records.host import HostRecord
from processes.core.travels import messages
from processes.core.travels.messages import Change, Changed, Json, OutputGrew, SnapshotPiece
from processes.core.travels.queue_calls import LIMITS

PAD = "x" * 1000


def test_two_operators_get_the_same_deltas_and_a_burst_is_conflated() -> None:
    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub:
            await hub.host("web1", presence="offline", n=0)
            async with operator(house) as one, operator(house) as two:
                for op in (one, two):
                    await op.until(lambda o: o.hosts.get("web1", {}).get("n") == 0)
                before = one.deltas
                for n in range(1, 1001):
                    change = Change("host", "web1", Json(b'{"n":%d}' % n))
                    hub.rows.apply(change)
                    await hub.say(Changed(hub.epoch, [change]))
                for op in (one, two):
                    await op.until(lambda o: o.hosts["web1"]["n"] == 1000)
                    assert op.hosts["web1"]["presence"] == "offline"  # merged, not replaced
                    assert op.deltas - before < 500
                await hub.change("host_removed", "web1")
                for op in (one, two):
                    await op.until(lambda o: "web1" not in o.hosts)

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_an_operator_who_asks_gets_a_full_state_and_a_sync_tells_the_version() -> None:
    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, operator(house) as op:
            await hub.host("web1")
            await op.until(lambda o: "web1" in o.hosts)
            full_states = op.full_states
            await op.send(type="get_state")
            await op.until(lambda o: o.full_states > full_states)
            assert set(op.state) >= {"hosts", "commands", "processes", "incidents"}
            assert {process["name"] for process in op.state["processes"]} >= {"queues", "hub", "fanout"}
            await op.until(lambda o: any(frame["type"] == "sync" for frame in o.frames))

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_an_operator_who_stops_reading_delays_nobody_and_is_let_go_and_one_who_is_slow_catches_up() -> None:
    """One never reads again, one reads after some seconds; the third sees every change at once all the while."""

    async def run(house: FanoutHouse) -> None:
        fields = {f"f{n}": PAD for n in range(200)}  # 200 KB a change
        async with HubPlay(house) as hub:
            url, headers = f"ws://127.0.0.1:{house.port}/ws", {"Authorization": f"Bearer {TOKEN}"}
            await hub.host("big", n=0)
            async with (
                connect(url, additional_headers=headers, proxy=None, max_size=None, max_queue=1) as stuck,
                operator(house) as quick,
            ):
                stuck.transport.pause_reading()
                async with operator(house) as slow:
                    for op in (quick, slow):
                        await op.until(lambda o: o.hosts.get("big", {}).get("n") == 0)
                    slow.socket.transport.pause_reading()
                    for n in range(1, 81):
                        await hub.change("host", "big", **fields, n=n)
                        await quick.until(lambda o, n=n: o.hosts["big"].get("n") == n)
                    slow.socket.transport.resume_reading()
                    await slow.until(lambda o: o.hosts["big"].get("n") == 80)
                    assert slow.full_states > 1, "what it missed came as a whole"
                    assert slow.deltas < 80
                await quick.until(lambda o: "slow operator" in house.log("fanout"))
                await quick.until(lambda o: house.pulse("fanout").dropped > 0)  # what was skipped is in the metrics
                assert house.pulse("fanout").connections == 1
                stuck.transport.abort()

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_hundred_who_never_read_cost_bounded_memory() -> None:
    async def run(house: FanoutHouse) -> None:
        fields = {f"f{n}": PAD for n in range(100)}  # 100 KB a change

        def rss_mb() -> float:
            with open(f"/proc/{house.processes['fanout'].pid}/statm") as file:
                return int(file.read().split()[1]) * 4096 / 1e6

        async with HubPlay(house) as hub, operator(house) as quick:
            await hub.host("big", n=0)
            await quick.until(lambda o: "big" in o.hosts)
            before_mb = rss_mb()
            key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
            upgrade = "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            request = f"{upgrade}{key}Authorization: Bearer {TOKEN}\r\n\r\n"
            mute = []
            for _ in range(100):
                sock = socket.socket()
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.connect(("127.0.0.1", house.port))
                sock.sendall(request.encode())
                mute.append(sock)
            for n in range(1, 101):
                await hub.change("host", "big", **fields, n=n)
                await quick.until(lambda o, n=n: o.hosts["big"].get("n") == n)
            grown_mb = rss_mb() - before_mb
            for sock in mute:
                sock.close()
            assert grown_mb < 100 * 2.5 + 50, grown_mb  # unbounded it would be 1,000 MB

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_after_a_full_broadcasts_queue_every_operators_view_is_right_again() -> None:
    """The fanout is stopped while the hub says more than the queue holds: a gap, a snapshot, and nobody is wrong."""

    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, operator(house) as one, operator(house) as two:
            for n in range(20):
                await hub.host(f"h{n}", n=0)
            for op in (one, two):
                await op.until(lambda o: len(o.hosts) == 20)
            snapshots = hub.snapshots
            fanout = house.processes["fanout"]
            fanout.send_signal(signal.SIGSTOP)
            items_max = next(limits.items_max for prefix, limits in LIMITS if prefix == "broadcasts/")
            item = messages.encode(Changed(hub.epoch, [Change("host", "h0", Json(b'{"n":1}'))]))
            queue = messages.broadcasts_of("fanout")
            for _ in range(items_max // 1000 + 1):
                await hub.link.append(queue, [item] * 1000, lossy=True)  # type: ignore[call-arg]
            hub.rows.apply(Change("host", "h0", Json(b'{"n":1}')))
            for n in range(1, 20):
                await hub.change("host", f"h{n}", n=2)  # all of these are lost
            await hub.change("host_removed", "h19")
            fanout.send_signal(signal.SIGCONT)
            for op in (one, two):
                await op.until(
                    lambda o: (
                        {name: row["n"] for name, row in o.hosts.items()}
                        == {"h0": 1, **{f"h{n}": 2 for n in range(1, 19)}}
                    )
                )
            assert hub.snapshots > snapshots
            assert "broadcasts were lost" in house.log("fanout")

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_new_hub_is_told_by_a_full_state_and_the_old_one_is_not_heard_any_more() -> None:
    async def run(house: FanoutHouse) -> None:
        async with operator(house) as op:
            async with HubPlay(house, epoch=4) as old:
                await old.host("web1")
                await op.until(lambda o: "web1" in o.hosts and o.epoch == 4)
            async with HubPlay(house, epoch=5) as new:
                new.rows.apply(Change("host", "web2", Json(b'{"name":"web2","presence":"stale"}')))
                await op.until(lambda o: o.epoch == 5 and set(o.hosts) == {"web2"})
                await new.say(Changed(4, [Change("host_removed", "web2")]), SnapshotPiece(4, "s", 0, True, []))
                await new.host("web3")
                await op.until(lambda o: "web3" in o.hosts)
                assert set(op.hosts) == {"web2", "web3"}

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_queues_that_die_are_a_gap_that_heals() -> None:
    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, operator(house) as op:
            await hub.host("web1", n=0)
            await op.until(lambda o: "web1" in o.hosts)
            for n in range(1, 4):
                house.kill("queues")
                hub.rows.apply(Change("host", "web1", Json(b'{"n":%d}' % n)))  # said to nobody
                house.start("queues")
                await op.until(lambda o, n=n: o.hosts["web1"]["n"] == n)
            assert op.closed is None

    with FanoutHouse() as house:
        asyncio.run(run(house))


def store(house: FanoutHouse, *commands: Command, output: dict[str, list[str]] | None = None) -> None:
    """What the hub would have committed."""
    with house.database() as connection:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', '3')")
        host = HostRecord("web1", "id", None, 1.0, seen_wall_s=2.0)
        connection.execute("INSERT OR REPLACE INTO hosts VALUES ('web1', ?)", (msgspec.json.encode(host).decode(),))
        for one in commands:
            row = (one.number, one.id, one.host, one.state, int(one.open), 1.0, None, msgspec.json.encode(one).decode())
            connection.execute("INSERT OR REPLACE INTO commands VALUES (?,?,?,?,?,?,?,?)", row)
        for command_id, lines in (output or {}).items():
            connection.executemany(
                "INSERT OR REPLACE INTO output VALUES (?,?,'stdout',?)",
                [(command_id, n, line) for n, line in enumerate(lines)],
            )


def command(number: int, state: State = State.SUCCEEDED, **fields: Any) -> Command:
    return Command(f"c{number}", number, "web1", "id", "pull", "ann", 1.0, 1.0, 2.0, 2.0, "boot", state=state, **fields)


def test_without_a_hub_the_database_is_shown_and_says_how_old_it_is() -> None:
    async def run(house: FanoutHouse) -> None:
        store(house, *(command(n) for n in range(1, 6)), command(6, State.QUEUED), output={"c1": ["one", "two"]})
        async with operator(house) as op, house.client() as client:
            await op.until(lambda o: "web1" in o.hosts and len(o.commands) == 6)
            assert (op.epoch, op.hosts["web1"]["presence"]) == (3, "stale")
            assert op.state["source"]["from"] == "database"
            assert op.state["source"]["as_of"].startswith("20")
            hosts = (await client.get("/api/v1/hosts")).json()
            assert (hosts["source"], [host["name"] for host in hosts["hosts"]]) == ("database", ["web1"])
            assert (await client.get("/api/v1/hosts/web1")).json()["presence"] == "stale"
            page = (await client.get("/api/v1/commands?limit=4")).json()
            assert [one["id"] for one in page["commands"]] == ["c6", "c5", "c4", "c3"]
            page = (await client.get(f"/api/v1/commands?limit=4&before={page['next']}")).json()
            assert ([one["id"] for one in page["commands"]], page["next"]) == (["c2", "c1"], None)
            assert [one["id"] for one in (await client.get("/api/v1/commands?open=1")).json()["commands"]] == ["c6"]
            assert (await client.get("/api/v1/commands/c6")).json()["state"] == "queued"
            assert (await client.get("/api/v1/commands/none")).status_code == 404
            output = (await client.get("/api/v1/commands/c1/output?from=1")).json()
            assert [(record["offset"], record["data"]) for record in output["records"]] == [(1, "two")]
            status = (await client.get("/api/v1/status")).json()
            assert (status["verdict"], "hub" in [process["name"] for process in status["processes"]]) == ("down", True)
            async with HubPlay(house, epoch=4) as hub:
                await hub.host("web9")
                await op.until(lambda o: set(o.hosts) == {"web9"} and o.epoch == 4)
                assert op.state["source"]["from"] == "hub"

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_watched_output_comes_whole_in_order_and_once_and_its_end_is_said() -> None:
    async def run(house: FanoutHouse) -> None:
        lines = [f"line {n} \x1b[31m<script>{PAD}" for n in range(3000)]
        store(house, command(1, State.RUNNING, output_next=2), output={"c1": lines[:2]})
        async with HubPlay(house, epoch=3) as hub, operator(house) as op, operator(house) as late:
            await op.send(type="subscribe", command_id="c1", offset=0)
            await op.until(lambda o: len(o.output().splitlines()) == 2)
            store(house, command(1, output_next=3000), output={"c1": lines})
            await hub.say(OutputGrew(hub.epoch, "c1", 3000, True))
            await late.send(type="subscribe", command_id="c1", offset=2990)
            for watcher, first in ((op, 0), (late, 2990)):
                await watcher.until(
                    lambda o: o.frames[-1]["type"] == "output_end" or any(f["type"] == "output_end" for f in o.frames)
                )
                found = [frame for frame in watcher.frames if frame["type"] == "output"]
                assert [frame["offset"] for frame in found] == list(range(first, 3000))
                assert [frame["data"] for frame in found] == lines[first:]
                end = next(frame for frame in watcher.frames if frame["type"] == "output_end")
                assert end == {"type": "output_end", "command_id": "c1", "next_offset": 3000, "truncated": False}
            await op.send(type="subscribe", command_id="none")
            await op.until(
                lambda o: (
                    o.frames[-1].get("error") == "not_found" or any(f.get("error") == "not_found" for f in o.frames)
                )
            )

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_ten_malformed_frames_end_a_connection_and_a_huge_one_too() -> None:
    async def run(house: FanoutHouse) -> None:
        async with operator(house) as op, operator(house) as big, operator(house) as other:
            for frame in (
                "",
                "{",
                "[]",
                '{"type":1}',
                '{"type":"x"}',
                '{"type":"subscribe"}',
                b"\xff",
                '"\ud800"'.encode("utf-8", "surrogatepass"),
                "[" * 9999,
            ):
                await op.socket.send(frame)
            await op.until(lambda o: sum(f["type"] == "error" for f in o.frames) == 9)
            assert op.closed is None
            await op.socket.send('{"type":"subscribe","command_id":"c","offset":-1}')
            assert (await op.ended())[0] == 1008
            await big.socket.send(json.dumps({"type": "get_state", "pad": "x" * 70_000}))
            assert (await big.ended())[0] == 1009
            await other.send(type="get_state")
            await other.until(lambda o: o.full_states >= 2)
            await other.until(lambda o: house.pulse("fanout").errors == 10)  # and so it is in the metrics

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_a_broadcast_that_cannot_be_shown_is_counted_and_the_rest_goes_on() -> None:
    async def run(house: FanoutHouse) -> None:
        async with HubPlay(house) as hub, operator(house) as op:
            await hub.host("web1", n=0)
            await op.until(lambda o: "web1" in o.hosts)
            queue = messages.broadcasts_of("fanout")
            poison = [
                b"",
                b"\x09future",
                b"\x01garbage",
                messages.encode(Changed(1, [Change("host", "web1", Json(b"[]"))])),
            ]
            await hub.link.append(queue, poison)
            await hub.host("web1", n=1)
            await op.until(lambda o: o.hosts["web1"]["n"] == 1)
            await op.until(lambda _: house.pulse("fanout").errors == len(poison))  # the pulse follows the frames

    with FanoutHouse() as house:
        asyncio.run(run(house))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_says_so_to_every_operator_and_is_gone(number: int) -> None:
    async def run(house: FanoutHouse) -> None:
        url, headers = f"ws://127.0.0.1:{house.port}/ws", {"Authorization": f"Bearer {TOKEN}"}
        async with operator(house) as op, connect(url, additional_headers=headers, proxy=None) as mute:
            await op.until(lambda o: o.full_states)
            mute.transport.pause_reading()
            house.processes["fanout"].send_signal(number)
            assert (await op.ended())[0] == 1012
            assert await asyncio.to_thread(house.processes["fanout"].wait, WAIT_S) == 0
            mute.transport.abort()
        house.start("fanout")  # whoever connected meanwhile waited in the backlog
        async with operator(house) as op:
            await op.until(lambda o: o.full_states)

    with FanoutHouse() as house:
        asyncio.run(run(house))


def test_the_pulse_turns_while_nothing_happens_and_stops_when_the_loop_does() -> None:
    async def run(house: FanoutHouse) -> None:
        async with operator(house) as op:
            await op.until(lambda o: o.full_states)
            async with asyncio.timeout(WAIT_S):
                turn = house.pulse("fanout").turn
                while house.pulse("fanout").turn < turn + 8:
                    await asyncio.sleep(0.01)
            house.processes["fanout"].send_signal(signal.SIGSTOP)
            stopped = psutil.Process(house.processes["fanout"].pid)
            until(lambda: stopped.status() == psutil.STATUS_STOPPED)
            turn = house.pulse("fanout").turn
            await asyncio.sleep(0.6)  # silence has no event to wait for
            assert house.pulse("fanout").turn == turn
            house.processes["fanout"].send_signal(signal.SIGCONT)

    with FanoutHouse() as house:
        asyncio.run(run(house))
