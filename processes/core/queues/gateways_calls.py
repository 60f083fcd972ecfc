"""What a gateway that is a user of its own may ask of the queues: what gateways ask, and nothing else. Pure.

A gateway that strangers have taken over has the key of the queues. By its user it is known all the same, and gives no
command in an operator's name, reads no operator's answer, and makes no hub end by naming an epoch that never was.
"""

from __future__ import annotations

from typing import Any, Final, Union, assert_never, get_args

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

# the kinds of events alone, told apart by the same code that will tell the hub which of them it has
_KINDS: Final = tuple(
    msgspec.defstruct(kind.__name__, [], tag_field="t", tag=kind.__struct_config__.tag)
    for kind in get_args(messages.FromGateway)
)
_kind: Final = msgspec.msgpack.Decoder[Any](Union[_KINDS])  # noqa: UP007  # a union of what is in a tuple
GATEWAY: Final = "gateway"


def check(call: AnyCall) -> None:
    """Check that a gateway may make this call. Raises: QueueRefused."""
    if call.role.partition(":")[0] != GATEWAY:
        raise QueueRefused("not_yours", f"a gateway's user calls itself {call.role!r}")
    match call:
        case AppendCall():
            if call.queue != messages.EVENTS:
                raise QueueRefused("not_yours", f"a gateway appends to {call.queue!r}")
            for item in call.items:
                _check_item(item)
        case ReadCall() | AcknowledgeCall():
            if call.queue != messages.deliveries_of(call.role):
                raise QueueRefused("not_yours", f"{call.role} reads {call.queue!r}")
        case PingCall():
            pass
        case StatsCall():
            raise QueueRefused("not_yours", "a gateway asks for the figures of all queues")
        case _:
            assert_never(call)


def _check_item(item: bytes) -> None:
    try:
        _kind.decode(messages.body_of(item))
    except (LocalError, msgspec.DecodeError) as error:
        raise QueueRefused("not_yours", f"a gateway appends what no gateway says: {error}") from None
