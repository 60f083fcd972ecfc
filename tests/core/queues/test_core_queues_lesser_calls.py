"""A gateway's or fanout's own user asks for what its kind asks, under whatever name and with whatever bytes it tries
more.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from processes.core.queues import lesser_calls
from processes.core.travels import messages
from processes.core.travels.queue_calls import (
    AcknowledgeCall,
    AnyCall,
    AppendCall,
    PingCall,
    QueueRefused,
    ReadCall,
    StatsCall,
)

HEARTBEAT = {"t": "HeartbeatReceived", "connection": "gateway:1/1"}
REQUEST = {"t": "RequestReceived", "id": "1", "fanout": "fanout"}


def item(*pairs: tuple[str, Any]) -> bytes:
    """A message with these fields in this order, a name twice if it is given twice."""
    packed = b"".join(msgspec.msgpack.encode(each) for pair in pairs for each in pair)
    return bytes([messages.FORMAT, 0x80 + len(pairs)]) + packed


def append(*items: bytes, role: str = "gateway", queue: str = messages.EVENTS) -> AppendCall:
    return AppendCall(role, 1, queue, list(items))


def refused(call: AnyCall, kind: str = "gateway") -> str:
    """The code with which the call is refused; empty if it is not."""
    try:
        lesser_calls.check(call, kind)
    except QueueRefused as error:
        return error.code
    return ""


@pytest.mark.parametrize("kind", get_args(messages.Event), ids=lambda kind: kind.__name__)
def test_gateway_appends_what_gateways_say_and_no_other_event(kind: type[msgspec.Struct]) -> None:
    says = item(("t", kind.__struct_config__.tag), ("host", "web1"), ("more", {"deep": [1]}))
    assert refused(append(says)) == ("" if kind in get_args(messages.FromGateway) else "not_yours")
    assert (kind in get_args(messages.FromGateway)) is (
        kind.__name__
        not in ("RequestReceived", "SnapshotWanted", "AuditNoted", "PutAside", "TokenUsed", "ConditionsJudged")
    )


@pytest.mark.parametrize(
    "hidden",
    [
        item(("t", "RequestReceived"), ("t", "HeartbeatReceived")),
        item(("t", "HeartbeatReceived"), ("t", "RequestReceived")),
        item(("x", 1), ("t", "RequestReceived"), ("t", "HeartbeatReceived")),
        item(("x", {"t": "HeartbeatReceived"}), ("t", "RequestReceived")),
        item(("t", "RequestReceived"), ("x", {"t": "HeartbeatReceived"})),
        item(("t", 1)),
        item(("x", 1)),
        b"",
        bytes([messages.FORMAT]),
        bytes([messages.FORMAT + 1]) + item(("t", "HeartbeatReceived"))[1:],
        bytes([messages.FORMAT]) + msgspec.msgpack.encode([HEARTBEAT]),
    ],
)
def test_no_request_is_hidden_behind_what_gateways_say(hidden: bytes) -> None:
    """What passes is never what the hub then takes for something else."""
    beside = item(("t", "HeartbeatReceived"))
    if refused(append(beside, hidden, beside)):
        return
    with pytest.raises(msgspec.ValidationError) as taken:  # a heartbeat that lacks what a heartbeat has
        messages.decode_event(hidden)
    with pytest.raises(msgspec.ValidationError) as plain:
        messages.decode_event(item(("t", "HeartbeatReceived")))
    assert str(taken.value) == str(plain.value)


@pytest.mark.parametrize("role", ["gateway", "gateway:3"])
def test_gateway_reads_and_acknowledges_its_own_deliveries_and_pings(role: str) -> None:
    own = messages.deliveries_of(role)
    assert refused(ReadCall(role, 1, own, 1, 1, 10, 1000, 1.0)) == ""
    assert refused(AcknowledgeCall(role, 1, own, 1, 1)) == ""
    assert refused(PingCall(role, 1)) == ""
    for other in (messages.EVENTS, messages.broadcasts_of("fanout"), messages.deliveries_of("gateway:9")):
        assert refused(ReadCall(role, 1, other, 1, 1, 10, 1000, 1.0)) == "not_yours"
        assert refused(AcknowledgeCall(role, 1, other, 1, 1)) == "not_yours"
        if other != messages.EVENTS:
            assert refused(append(item(("t", "HeartbeatReceived")), role=role, queue=other)) == "not_yours"
    assert refused(StatsCall(role, 1)) == "not_yours"


@pytest.mark.parametrize("role", ["hub", "fanout", "watchdog", "queues", "", "gateways", ":gateway"])
def test_gateway_is_nobody_else(role: str) -> None:
    assert refused(append(item(("t", "HeartbeatReceived")), role=role)) == "not_yours"
    assert refused(PingCall(role, 1)) == "not_yours"


@pytest.mark.parametrize("kind", get_args(messages.Event), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("role", ["fanout", "fanout:2"])
def test_fanout_appends_what_fanouts_say_in_its_own_name_and_no_other_event(
    role: str, kind: type[msgspec.Struct]
) -> None:
    tag = ("t", kind.__struct_config__.tag)
    is_theirs = kind in get_args(messages.FromFanout)
    assert is_theirs is (kind not in get_args(messages.FromGateway))
    assert refused(append(item(tag, ("fanout", role), ("more", [1])), role=role), "fanout") == (
        "" if is_theirs else "not_yours"
    )
    for fields in ((), (("fanout", "fanout:9"),), (("fanout", role), ("fanout", "hub")), (("fanout", None),)):
        assert refused(append(item(tag, *fields), role=role), "fanout") == "not_yours"


@pytest.mark.parametrize("role", ["fanout", "fanout:2"])
def test_fanout_reads_and_acknowledges_its_own_broadcasts_and_pings(role: str) -> None:
    own = messages.broadcasts_of(role)
    assert refused(ReadCall(role, 1, own, 1, 1, 10, 1000, 1.0), "fanout") == ""
    assert refused(AcknowledgeCall(role, 1, own, 1, 1), "fanout") == ""
    assert refused(PingCall(role, 1), "fanout") == ""
    for other in (messages.EVENTS, messages.broadcasts_of("fanout:9"), messages.deliveries_of("gateway"), ""):
        assert refused(ReadCall(role, 1, other, 1, 1, 10, 1000, 1.0), "fanout") == "not_yours"
        assert refused(AcknowledgeCall(role, 1, other, 1, 1), "fanout") == "not_yours"
        says = item(("t", "SnapshotWanted"), ("fanout", role))
        if other != messages.EVENTS:
            assert refused(append(says, role=role, queue=other), "fanout") == "not_yours"
    assert refused(StatsCall(role, 1), "fanout") == "not_yours"
    for name in (
        "hub",
        "gateway",
        "gateway:1",
        "watchdog",
        "queues",
        "",
        "fanouts",
        "fanout:",
        "fanout:64",
        "fanout:01",
        "fanout:x",
    ):
        assert refused(PingCall(name, 1), "fanout") == "not_yours"
