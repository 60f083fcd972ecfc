"""One agent's connection as a pure machine: every stage meets every frame."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import msgspec
import pytest

from processes.core.gateway.agent_connection import (
    MALFORMED_MAX,
    MERGED_CHARS_MAX,
    WRITTEN_MAX,
    AgentConnection,
    ConnectionStage,
    FramesRead,
)
from processes.core.hub import beats
from processes.core.travels import agent_frames, messages
from processes.core.travels.messages import (
    AgentRegistered,
    HeartbeatReceived,
    HeartbeatsReceived,
    OutputReceived,
    ProgressReceived,
    StatusReceived,
    Token,
)
from processes.core.values import CloseCode

TOKEN = Token("hash", "web1", "id-1")
SAMPLES: dict[str, dict[str, Any]] = {
    "heartbeat": {},
    "command_ack": {"command_id": "c"},
    "command_rejected": {"reason": "busy"},
    "output": {"line": "l"},
    "status": {"status": "ok"},
    "operation_progress": {"progress": {"a": 1}},
    "command_complete": {},
    "test_progress": {},
    "new_token": {"token_hash": "ab" * 32},
}
SILENT = {"command_complete", "test_progress"}  # proofs of life and nothing more


def frame(kind: str, **payload: Any) -> tuple[bytes, bool]:
    return json.dumps({"type": kind, "payload": payload}).encode(), True


def say(connection: AgentConnection, *frames: tuple[bytes, bool], boot_s: float = 0.0) -> FramesRead:
    return connection.read(frames, boot_s)


def awaiting() -> AgentConnection:
    return AgentConnection("boot.1", "gateway", TOKEN, "127.0.0.1:9", 7.0)


def registered(protocol: int = 1) -> AgentConnection:
    connection = awaiting()
    assert len(say(connection, frame("register", hostname="web1", protocol=protocol)).events) == 1
    return connection


def told() -> AgentConnection:
    connection = registered()
    assert connection.tell() is not None
    return connection


def ended() -> AgentConnection:
    connection = told()
    connection.end(1000, "")
    return connection


def test_the_samples_are_the_whole_vocabulary() -> None:
    assert {*SAMPLES, "register"} == set(agent_frames.FRAME_TYPES)


@pytest.mark.parametrize("kind", SAMPLES)
def test_before_register_every_other_frame_is_malformed(kind: str) -> None:
    connection = awaiting()
    reading = say(connection, frame(kind, **SAMPLES[kind]))
    assert (reading.events, len(reading.malformed), reading.close) == ([], 1, None)
    assert connection.stage is ConnectionStage.AWAITING


def decoded(event: object, item: bytes) -> object:
    """The event in an item, or in a row of a batch of heartbeats."""
    if not isinstance(event, HeartbeatReceived):
        return messages.decode_event(item)
    (batch,) = messages.pack_beats(event.gateway, [item], batches=True)
    found = messages.decode_event(batch)
    assert isinstance(found, HeartbeatsReceived)
    (alone,) = messages.pack_beats(event.gateway, [item], batches=False)
    assert messages.decode_event(alone) == beats.single(found.gateway, found.beats[0]), "for a hub of before"
    return beats.single(found.gateway, found.beats[0])


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("make", [registered, told])
def test_after_register_every_frame_is_an_event_of_the_tokens_host(kind: str, make: Any) -> None:
    reading = say(make(), frame(kind, hostname="victim", host="victim", **SAMPLES[kind]))
    assert reading.malformed == []
    assert len(reading.events) == (0 if kind in SILENT else 1)
    for event, item in reading.events:
        assert (event.host, event.connection, event.gateway) == ("web1", "boot.1", "gateway")
        assert decoded(event, item) == event


@pytest.mark.parametrize("kind", [*SAMPLES, "register"])
def test_after_the_end_nothing_is_read(kind: str) -> None:
    assert say(ended(), frame(kind, **SAMPLES.get(kind, {"hostname": "web1"}))) == FramesRead([], [], None)


def test_register_makes_the_connection_live_and_a_second_one_is_malformed() -> None:
    connection = awaiting()
    assert not connection.is_live
    assert connection.census() is None
    reading = say(
        connection, frame("register", hostname="Web1", extra=1), frame("register", hostname="web1"), boot_s=9.0
    )
    ((event, _),) = reading.events
    assert isinstance(event, AgentRegistered)
    assert (event.info.enrolment, event.info.facts, event.info.address) == ("id-1", b'{"extra":1}', "127.0.0.1:9")
    assert event.info.since_boot_s == 7.0, "of two of one host the hub takes that for current which was accepted later"
    assert len(reading.malformed) == 1
    assert connection.is_live
    assert connection.census() == event.info


@pytest.mark.parametrize("name", ["web2", "web1.example.org", "", "web1 "])
def test_another_name_than_the_tokens_ends_the_connection_and_nothing_behind_it_is_read(name: str) -> None:
    connection = awaiting()
    reading = say(connection, frame("register", hostname=name), frame("register", hostname="web1"))
    assert reading.events == []
    assert reading.close is not None
    assert reading.close[0] is CloseCode.RENAMED
    assert reading.claimed == name
    assert not connection.is_live


def test_registered_is_told_once_and_only_in_time() -> None:
    connection = awaiting()
    assert connection.tell() is None
    assert registered().tell() == agent_frames.Registered("id-1", 1, 5.0)
    assert told().tell() is None
    assert ended().tell() is None


def test_another_interval_is_told_again_and_a_census_repeats_what_was_told() -> None:
    connection = registered()
    assert connection.tell(20.0) == agent_frames.Registered("id-1", 1, 20.0)
    assert connection.tell(20.0) is None
    assert connection.tell() is None, "an older hub says nothing of it"
    assert connection.tell(10.0) == agent_frames.Registered("id-1", 1, 10.0)
    info = connection.census()
    assert info is not None
    assert info.told_s == 10.0


def test_a_foreign_agent_is_told_once_whatever_the_interval() -> None:
    connection = registered(protocol=0)
    assert connection.tell() == agent_frames.Registered("id-1", 1, 5.0)
    assert connection.tell(20.0) is None


def test_the_tenth_malformed_frame_within_a_minute_ends_the_connection() -> None:
    connection = told()
    for number in range(MALFORMED_MAX - 1):
        assert say(connection, (b"{", True), boot_s=number * 6.0).close is None
    reading = say(connection, (b"{", True), frame("heartbeat"), boot_s=60.0)
    assert reading.close == (CloseCode.POLICY, "too many malformed frames")
    assert reading.events == []


def test_ten_malformed_frames_in_more_than_a_minute_do_not() -> None:
    connection = told()
    for number in range(30):
        assert say(connection, (b"{", True), boot_s=number * 6.7).close is None


def test_consecutive_output_of_one_command_is_one_event_and_anything_else_ends_it() -> None:
    def output(command: str, offset: int) -> tuple[bytes, bool]:
        return frame("output", command_id=command, line=f"{command}{offset}", offset=offset)

    reading = say(
        told(),
        output("a", 0),
        output("a", 1),
        output("b", 0),
        output("a", 2),
        frame("heartbeat"),
        output("a", 3),
        (b"{", True),
    )
    shape = [
        [record.data for record in event.records] if isinstance(event, OutputReceived) else type(event)
        for event, _ in reading.events
    ]
    assert shape == [["a0", "a1"], ["b0"], ["a2"], HeartbeatReceived, ["a3"]]
    assert all(decoded(event, item) == event for event, item in reading.events)
    assert len(reading.malformed) == 1


def test_merged_output_is_bounded() -> None:
    reading = say(told(), *(frame("output", line="x" * 8000) for _ in range(20)))
    sizes = [
        sum(len(record.data) for record in event.records)
        for event, _ in reading.events
        if isinstance(event, OutputReceived)
    ]
    assert sum(sizes) == 160_000
    assert max(sizes) <= MERGED_CHARS_MAX
    assert len(sizes) == 3


@pytest.mark.parametrize(
    "text", [b'{"type": "heartbeat", "payload": {"command_pid": 99999999999999999999999}}', b"\xff", b"[]"]
)
def test_what_cannot_be_carried_is_malformed_and_what_came_before_it_is_kept(text: bytes) -> None:
    reading = say(told(), frame("status", status="ok"), (text, True), frame("status", status="error"))
    assert [event.status for event, _ in reading.events if isinstance(event, StatusReceived)] == ["ok", "error"]
    assert len(reading.malformed) == 1


def test_binary_frames_are_malformed() -> None:
    assert len(say(told(), (frame("heartbeat")[0], False)).malformed) == 1


def test_progress_is_handed_on_as_it_came_up_to_a_bound() -> None:
    ((event, _),) = say(told(), frame("operation_progress", progress={"pull": {"current": 1}})).events
    assert isinstance(event, ProgressReceived)
    assert msgspec.json.decode(event.progress) == {"pull": {"current": 1}}
    assert len(say(told(), frame("operation_progress", progress={"a": "x" * 17_000})).malformed) == 1


def test_a_foreign_agent_is_never_written_the_same_command_twice_and_its_census_says_which() -> None:
    connection = registered(protocol=0)
    assert connection.is_foreign
    for number in range(WRITTEN_MAX + 1):
        assert connection.may_write(f"c{number}")
        connection.wrote(f"c{number}", "pull")
        assert not connection.may_write(f"c{number}")
    info = connection.census()
    assert info is not None
    assert info.written == [f"c{number}" for number in range(1, WRITTEN_MAX + 1)]


def test_a_fleethub_agent_may_be_written_a_command_again() -> None:
    connection = registered()
    connection.wrote("c", "pull")
    assert connection.may_write("c")
    info = connection.census()
    assert info is not None
    assert info.written == []


def test_the_end_is_told_once_and_only_of_a_connection_that_the_hub_knows() -> None:
    assert awaiting().end(1006, "") is None
    connection = registered()
    event = connection.end(4409, "r" * 1000)
    assert event is not None
    assert (event.connection, event.host, event.code, len(event.reason)) == ("boot.1", "web1", 4409, 200)
    assert connection.end(1006, "") is None
    assert connection.census() is None
    assert not connection.is_live


@pytest.mark.parametrize("text", ["x" * 20_000, "€" * 9000, "x" * 8191 + "€", "😀" * 130_000])
def test_a_foreign_agents_long_line_becomes_pieces_and_nothing_of_it_is_lost(text: str) -> None:
    reading = say(
        registered(0), (json.dumps({"type": "output", "payload": {"line": text}}, ensure_ascii=False).encode(), True)
    )
    events = [emitted.event for emitted in reading.events]
    records = [record for event in events if isinstance(event, OutputReceived) for record in event.records]
    assert "".join(record.data for record in records) == text
    assert all(0 < len(record.data.encode()) <= 8192 for record in records)
    assert len(records) == math.ceil(len(text.encode()) / 8192) or "€" in text
    assert all(
        sum(len(r.data) for r in event.records) <= MERGED_CHARS_MAX
        for event in events
        if isinstance(event, OutputReceived)
    )


def test_a_numbered_record_stays_one_and_one_that_is_too_long_is_cut_with_a_mark() -> None:
    """Its agent counts records: two of one would shift all that follow."""
    (emitted,) = say(registered(), frame("output", command_id="c", line="x" * 20_000, offset=3)).events
    assert isinstance(emitted.event, OutputReceived)
    (record,) = emitted.event.records
    assert (record.offset, len(record.data)) == (3, 8192)
    assert record.data.endswith("was cut here]")


ODD = [
    frame("heartbeat", metrics={"cpu": 101.5}, extra=1),
    frame("heartbeat", metrics={"cpu": -1}),
    frame("heartbeat", metrics={"temperatures": {"a": float("nan")}}),
    frame("heartbeat", metrics=3),
    frame("heartbeat", command_pid=2**40),
    frame("heartbeat", pending_command="x" * 2000),
    (b'{"type":"heartbeat","payload":{"command_pid":' + b"1" * 40 + b"}}", True),
    (b'{"type":"heartbeat","payload":{"metrics":{"load":1e999}}}', True),
    (b'{"type":"heartbeat","payload":{"pending_command":"\xff"}}', True),
    (b'{"type":"heartbeat","payload":{}}x', True),
    (b'{"type":"heartbeat","payload":{}', True),
    frame("register", hostname="web1"),
    frame("status", status="ok"),
]


@pytest.mark.parametrize("seed", range(200))
def test_a_usual_heartbeat_means_what_it_means_when_it_is_read_as_all_others(seed: int) -> None:
    """The oracle of the way that nearly every frame takes: where it says something, `read` says the same."""
    dice = random.Random(seed)
    protocol = dice.choice((0, 1))
    usual, oracle = registered(protocol), registered(protocol)
    for _ in range(20):
        payload = {
            "metrics": dice.choice((None, {}, {"cpu": dice.random() * 100, "temperatures": {"a": 1e300}})),
            "pending_command": dice.choice((None, "pull", "\u20ac", "\x00")),
            "command_pid": dice.choice((None, -1, 2**31)),
        }
        kept = {name: payload[name] for name in payload if dice.random() < 0.7}
        text = json.dumps({"type": "heartbeat", "payload": kept}, separators=(",", ":")).encode()
        data, is_text = (text, True) if dice.random() < 0.8 else dice.choice(ODD)
        row = usual.usual_heartbeat(data)
        if row is None:
            assert data is not text
            assert usual.read([(data, is_text)], 1.0) == oracle.read([(data, is_text)], 1.0)
        else:
            read = oracle.read([(data, is_text)], 1.0)
            assert ([each.item for each in read.events], read.malformed, read.heartbeats) == ([row], [], 1)
        assert usual.census() == oracle.census()


def test_no_usual_heartbeat_is_one_before_register_or_after_the_end() -> None:
    heartbeat = b'{"type":"heartbeat","payload":{}}'
    connection = awaiting()
    assert connection.usual_heartbeat(heartbeat) is None
    connection = registered()
    assert connection.usual_heartbeat(heartbeat) is not None
    connection.end(1006, "gone")
    assert connection.usual_heartbeat(heartbeat) is None
