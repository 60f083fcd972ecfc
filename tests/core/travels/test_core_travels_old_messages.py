"""Items of the queues, and events of dead letters, as the version before wrote them: read and said alike today.

old_messages.json was recorded from the code of commit 803da06: each message class of `events`, `broadcasts` and
`deliveries` (and each request inside RequestReceived) with all its fields filled, as an item of a queue (base64) and,
if it is an event, as a dead letter keeps it (JSON).
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from processes.core.travels import messages
from processes.core.travels.messages import Event, RehearseFault, RequestReceived

RECORDED = json.loads(Path(__file__).with_name("old_messages.json").read_text())
DECODE: dict[str, Any] = {
    "event": messages.decode_event,
    "broadcast": messages.decode_broadcast,
    "delivery": messages.decode_delivery,
}
# name on the wire: its class today
RENAMED = {
    "Drill": RehearseFault, "RetryLetter": messages.RetryDeadLetter, "DiscardLetter": messages.DiscardDeadLetter,
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_an_item_of_the_version_before_is_read_and_written_alike(name: str) -> None:
    group, kind, *request = name.split()
    item = base64.b64decode(RECORDED[name]["item"])
    message = DECODE[group](item)
    assert type(message).__name__ == kind
    if request:
        assert type(message.request) is RENAMED.get(request[0], getattr(messages, request[0], None))
    assert messages.encode(message) == item


@pytest.mark.parametrize("name", [name for name in RECORDED if name.startswith("event ")])
def test_a_dead_letters_event_of_the_version_before_is_read_alike(name: str) -> None:
    written = RECORDED[name]["json"].encode()
    event = msgspec.json.decode(written, type=Event)
    assert event == messages.decode_event(base64.b64decode(RECORDED[name]["item"]))
    assert msgspec.json.encode(event) == written


def test_the_recording_has_the_renamed_request_and_many_others() -> None:
    requests = {name.split()[2] for name in RECORDED if RequestReceived.__name__ in name}
    assert {"Drill", "GiveCommand", "StartRun", "RetryLetter"} <= requests
    assert len(RECORDED) == 40
    events = {kind.__name__ for kind in get_args(Event)} - {
        "CodeOffered",
        "ConditionsJudged",
        "HeartbeatsReceived",
        "HostFlooded",
        "HostImpersonated",
        "TokenOffered",
        "TokenUsed",
    }  # the version before did not say them yet
    assert {name.split()[1] for name in RECORDED if name.startswith("event ")} == events
