"""Which fields of a shown host may be seen before they are on disk: each one is decided, here and by its record."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import pytest

from processes.core.hub.memory import OFFLINE, VOLATILE_FIELDS
from processes.core.records.host import EnrolmentCode, HostRecord, Link, Progress
from processes.core.records.ledger import Ledger
from processes.core.shown.views import HostView, host_view
from processes.core.travels.agent_frames import CommandOptions, Heartbeat, Metrics, Register
from processes.core.travels.messages import Json
from processes.core.values import Presence

KEPT: Final = {
    "name",
    "host_id",
    "enrolled_at",
    "revoked",
    "suspended",
    "suspended_at",
    "labels",
    "ledger",
    "code_until",
    "rotation_asked_at",
}
BY_THE_FANOUT: Final = {"put_aside"}  # the hub never sends it
BESIDE_THE_VIEW: Final = {"beat"}  # in the canary's changes alone
HOST: Final = HostRecord("web1", "e1", "hash", 1.0)
REGISTER: Final = Register(
    "web1",
    "linux",
    "1.2",
    "6.1",
    "6.1.0",
    "x86_64",
    9.0,
    2,
    commands=["pull"],
    command_options={"pull": CommandOptions()},
    labels={"site": "graz"},
)
# of each field of the record a value that shows; those in the first are written behind what is shown
BEHIND: Final[dict[str, Any]] = {
    "register": REGISTER,
    "facts": Json(b'{"a":1}'),
    "heartbeat": Heartbeat(Metrics(cpu=1.0), "pull"),
    "heartbeat_facts": Json(b'{"b":1}'),
    "seen_wall_s": 5.0,
    "address": "10.0.0.1",
}
BEFORE: Final[dict[str, Any]] = {
    "name": "web2",
    "enrolment": "e2",
    "token_hash": None,
    "enrolled_wall_s": 2.0,
    "ledger": Ledger(accepted=1, queued=1),
    "suspended": "too many",
    "suspended_wall_s": 3.0,
    "rotation_wall_s": 3.5,
    "code": EnrolmentCode("hash", 4.0),
    "labels": {"role": "web"},
}


UNSEEN: Final = {"lifted_wall_s"}  # of the record, and in no view


def shown(host: HostRecord, link: Link = OFFLINE) -> dict[str, Any]:
    """Return the fields of the host's view that differ from those of HOST, unconnected."""
    plain, view = (msgspec.structs.asdict(each) for each in (host_view(HOST, OFFLINE), host_view(host, link)))
    return {name: value for name, value in view.items() if value != plain[name]}


def test_each_field_of_a_host_is_either_on_disk_before_it_is_shown_or_volatile() -> None:
    """The bug it would catch: a new durable field that nobody thought of is shown, and then lost by a crash."""
    assert not KEPT & VOLATILE_FIELDS
    fields = {field.name for field in msgspec.structs.fields(HostView)}
    assert fields - BY_THE_FANOUT == (KEPT | VOLATILE_FIELDS) - BESIDE_THE_VIEW


@pytest.mark.parametrize("field", [field for field in HostRecord.__struct_fields__ if field not in UNSEEN])
def test_what_is_volatile_is_only_what_the_record_has_behind_time(field: str) -> None:
    """A new field of the record fails here until it is in one of the two tables."""
    changed = shown(msgspec.structs.replace(HOST, **{field: (BEHIND | BEFORE)[field]}))
    assert changed, "the test's value does not show"
    assert (changed.keys() <= VOLATILE_FIELDS) == (field in BEHIND)
    assert changed.keys() <= VOLATILE_FIELDS or changed.keys() <= KEPT


def test_all_that_a_connection_tells_is_volatile() -> None:
    link = Link(Presence.ONLINE, "c1", "gateway", 4.0, 4.0, True, {"pull": Progress(1, 2, "in_progress")})
    assert shown(HOST, link).keys() == {"presence", "connected_since", "progress", "gateway"}
    assert shown(HOST, link).keys() <= VOLATILE_FIELDS
