"""processes.core.travels.operator_frames: the contract's JSON, and what one side writes the other side reads."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec import Raw

from processes.core.travels import operator_frames
from processes.core.travels.messages import Change, Json
from processes.core.travels.operator_frames import (
    Delta,
    ErrorFrame,
    FleetState,
    FromOperator,
    FullState,
    GetState,
    OutputEnd,
    OutputFrame,
    Subscribe,
    Sync,
    ToOperator,
    Unsubscribe,
)
from processes.core.values import Stream

STATE = FleetState([Raw(b'{"name":"a"}'), Raw(b'{"name":"b"}')], ledger=Raw(b'{"accepted":1}'))
CHANGES = [Change("host", "web1", Json(b'{"x":"\\"<"}')), Change("host_removed", "web2")]


def test_frames_are_the_contracts_json() -> None:
    """The bug it would catch: an empty list is left out, or a removed row has fields."""
    rows = [{"name": "a"}, {"name": "b"}]
    state = {
        "hosts": rows, "commands": [], "processes": [], "incidents": [], "conditions": [], "silences": [],
        "ledger": {"accepted": 1},
    }  # fmt: skip
    changes = [{"kind": "host", "id": "web1", "fields": {"x": '"<'}}, {"kind": "host_removed", "id": "web2"}]
    written: list[tuple[ToOperator, dict[str, object]]] = [
        (
            FullState(3, 100, operator_frames.encode_state(STATE)),
            {"type": "full_state", "epoch": 3, "version": 100, "state": state},
        ),
        (
            Delta(3, 101, operator_frames.encode_changes(CHANGES)),
            {"type": "delta", "epoch": 3, "version": 101, "changes": changes},
        ),
        (Sync(3, 101), {"type": "sync", "epoch": 3, "version": 101}),
        (
            OutputFrame("c1", 0, Stream.STDERR, "oh"),
            {"type": "output", "command_id": "c1", "offset": 0, "stream": "stderr", "data": "oh"},
        ),
        (OutputEnd("c1", 4), {"type": "output_end", "command_id": "c1", "next_offset": 4, "truncated": False}),
        (ErrorFrame("malformed", "no"), {"type": "error", "error": "malformed", "message": "no"}),
        (
            ErrorFrame("too_many", "no", "c1"),
            {"type": "error", "error": "too_many", "message": "no", "command_id": "c1"},
        ),
    ]
    for frame, expected in written:
        assert json.loads(operator_frames.encode(frame)) == expected
        assert type(operator_frames.decode(operator_frames.encode(frame))) is type(frame)


def test_rows_come_out_as_they_went_in() -> None:
    full = operator_frames.decode(operator_frames.encode(FullState(1, 1, operator_frames.encode_state(STATE))))
    assert isinstance(full, FullState)
    state = operator_frames.decode_state(full)
    assert [bytes(row) for row in state.hosts] == [b'{"name":"a"}', b'{"name":"b"}']
    assert state.overall is msgspec.UNSET
    delta = operator_frames.decode(operator_frames.encode(Delta(1, 2, operator_frames.encode_changes(CHANGES))))
    assert isinstance(delta, Delta)
    changed, removed = operator_frames.decode_changes(delta)
    assert (changed.is_removal, changed.row_kind, bytes(changed.fields)) == (False, "host", b'{"x":"\\"<"}')
    assert (removed.is_removal, removed.row_kind) == (True, "host")


@pytest.mark.parametrize(
    "text", ['{"type":"of_tomorrow","x":1}', "{", '["delta"]', b'{"type":"output","command_id":"\xff","offset":0}']
)
def test_a_reader_passes_over_what_it_does_not_know(text: str | bytes) -> None:
    assert operator_frames.decode(text) is None


def test_what_an_operator_asks_is_read_by_the_fanout() -> None:
    asked: list[FromOperator] = [GetState(), Subscribe("c1", 7), Unsubscribe("c1")]
    assert [operator_frames.decode_request(operator_frames.encode_text(frame)) for frame in asked] == asked


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"of_tomorrow"}',
        '{"type":"subscribe"}',
        '{"type":"subscribe","command_id":""}',
        '{"type":"subscribe","command_id":"c1","offset":-1}',
        json.dumps({"type": "unsubscribe", "command_id": "x" * 129}),
    ],
)
def test_what_is_not_of_the_protocol_is_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        operator_frames.decode_request(text)
