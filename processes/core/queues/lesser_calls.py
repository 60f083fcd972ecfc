"""What a gateway or fanout that is a user of its own may ask of the queues: what its kind asks, and nothing else. Pure.

One that strangers have taken over has the key of the queues. By its user it is known all the same. A gateway gives no
command in an operator's name and reads no operator's answer. A fanout, which speaks for operators, says what no agent
has said, and nothing in another fanout's name. Neither makes a hub end by naming an epoch that never was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Union, assert_never, get_args

import msgspec

from processes.core.errors import LocalError
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
from processes.core.values import PROCESSES_MAX, process_name


class _Kind(NamedTuple):
    """`says`: decodes its events alone. `hears`: the queue that is its own, by its name. `names`: those that there can
    be: as many queues, and no more, can be made by reading them.
    """

    says: msgspec.msgpack.Decoder[Any]
    hears: Callable[[str], str]
    names: frozenset[str]


def _decoder(events: Any, *fields: tuple[str, type]) -> msgspec.msgpack.Decoder[Any]:
    """Return one of these events' kinds, with these fields of theirs; told apart by the same code that will tell the
    hub which of them it has.
    """
    kinds = tuple(
        msgspec.defstruct(each.__name__, fields, tag_field="t", tag=each.__struct_config__.tag)
        for each in get_args(events)
    )
    return msgspec.msgpack.Decoder[Any](Union[kinds])  # noqa: UP007  # a union of what is in a tuple


def _names(kind: str) -> frozenset[str]:
    return frozenset({kind, *(process_name(kind, number, PROCESSES_MAX) for number in range(PROCESSES_MAX))})


_KINDS: Final = {
    "gateway": _Kind(_decoder(messages.FromGateway), messages.deliveries_of, _names("gateway")),
    "fanout": _Kind(_decoder(messages.FromFanout, ("fanout", str)), messages.broadcasts_of, _names("fanout")),
}


def check(call: AnyCall, kind: str) -> None:
    """Check that a process of this kind, gateway or fanout, may make this call. Raises: QueueRefused."""
    if call.role not in _KINDS[kind].names:
        raise QueueRefused("not_yours", f"a {kind}'s user calls itself {call.role!r}")
    match call:
        case AppendCall():
            if call.queue != messages.EVENTS:
                raise QueueRefused("not_yours", f"a {kind} appends to {call.queue!r}")
            for item in call.items:
                _check_item(item, call.role, kind)
        case ReadCall() | AcknowledgeCall():
            if call.queue != _KINDS[kind].hears(call.role):
                raise QueueRefused("not_yours", f"{call.role} reads {call.queue!r}")
        case PingCall():
            pass
        case StatsCall():
            raise QueueRefused("not_yours", f"a {kind} asks for the figures of all queues")
        case _:
            assert_never(call)


def _check_item(item: bytes, role: str, kind: str) -> None:
    try:
        found = _KINDS[kind].says.decode(messages.body_of(item))
    except (LocalError, msgspec.DecodeError) as error:
        raise QueueRefused("not_yours", f"a {kind} appends what no {kind} says: {error}") from None
    if getattr(found, "fanout", role) != role:
        raise QueueRefused("not_yours", f"{role} appends what {found.fanout!r} says")
