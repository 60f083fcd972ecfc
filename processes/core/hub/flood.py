"""An agent whose events keep being put aside, or that floods its gateway, is suspended until an operator lifts that.
Pure.

When an agent is suspended, its connection is closed and its token lets nobody in (401); its host and commands stay.
Its events that are still on their way are neither stepped nor acknowledged, so a good agent sends them again once the
suspension is lifted.
"""

from __future__ import annotations

from typing import Final

import msgspec

from processes.core.budgets import CLOSED_MAX, CLOSED_S
from processes.core.hub.memory import Draft, Memory
from processes.core.records.host import HostRecord
from processes.core.travels.messages import (
    AgentDisconnected,
    AgentEvent,
    CloseConnection,
    HostFlooded,
    TokenChanged,
    Undelivered,
)
from processes.core.values import CANARY_HOST, CloseCode

FLOOD_S: Final = 600.0  # source: THREATS 26, at most five restarts in ten minutes
FLOOD_MAX: Final = 5  # events of one agent put aside within FLOOD_S; an event whose step raises costs little
DEADLY: Final = 3  # the weight of an event that ended the hub twice: two of them suspend, after four restarts
# with so many other hosts whose events raised lately the fault is the hub's, and suspending hosts would not help
COMMON_MAX: Final = 3


def suspended(memory: Memory, event: object) -> bool:
    """Return whether the event is a suspended agent's and is to be ignored. The end of its connection still counts."""
    if not memory.hosts_suspended or not isinstance(event, AgentEvent):
        return False
    if isinstance(event, AgentDisconnected | Undelivered | HostFlooded):
        return False
    host = memory.hosts.get(event.host)
    return host is not None and bool(host.suspended)


def unheard(draft: Draft, event: AgentEvent) -> None:
    """Drop the event of a suspended agent, and end its connection if that still lives."""
    draft.deliver(
        event.gateway, CloseConnection(draft.memory.epoch, event.connection, CloseCode.SUSPENDED, "suspended")
    )


def restored(memory: Memory, name: str, at_wall_s: float, *, deadly: bool) -> None:
    """Count an event that an earlier hub has put aside."""
    entries = (*memory.asides.get(name, ()), (at_wall_s, DEADLY if deadly else 1))
    memory.asides.put_row(name, entries[-FLOOD_MAX:])


def put_aside(draft: Draft, name: str, *, deadly: bool) -> None:
    """Count one more event of this host that was put aside, and suspend the host if that is one too many."""
    host = draft.host(name)
    if host is None or name == CANARY_HOST or host.suspended:
        return
    wall_s = draft.now.wall_s
    lately = [entry for entry in draft.memory.asides.get(name, ()) if abs(wall_s - entry[0]) < FLOOD_S]
    lately.append((wall_s, DEADLY if deadly else 1))
    draft.put(draft.memory.asides, name, tuple(lately[-FLOOD_MAX:]))
    if sum(weight for _, weight in lately) < FLOOD_MAX or (not deadly and _others(draft, name) >= COMMON_MAX):
        return
    reason = f"{len(lately)} of its events were put aside within {FLOOD_S / 60:.0f} minutes: see the dead letters"
    _suspend(draft, host, reason)


def closed(draft: Draft, event: HostFlooded) -> None:
    """Suspends the host: a gateway has closed its connections for a flood too often."""
    host = draft.host(event.host)
    if host is None or event.host == CANARY_HOST or host.suspended or host.token_hash is None:
        return
    _suspend(draft, host, f"{CLOSED_MAX} connections were closed for a flood within {CLOSED_S / 60:.0f} minutes")


def _suspend(draft: Draft, host: HostRecord, reason: str) -> None:
    suspended_host = msgspec.structs.replace(host, suspended=reason, suspended_wall_s=draft.now.wall_s)
    draft.put(draft.memory.hosts, host.name, suspended_host)
    told = f"suspended: {reason}"[:120]
    draft.deliver_all(TokenChanged(draft.memory.epoch, host.name, None, CloseCode.SUSPENDED, told))


def _others(draft: Draft, name: str) -> int:
    return sum(
        1
        for other, entries in draft.memory.asides.items()
        if other != name and any(abs(draft.now.wall_s - at_wall_s) < FLOOD_S for at_wall_s, _ in entries)
    )
