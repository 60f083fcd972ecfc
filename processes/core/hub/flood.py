"""An agent whose events keep being put aside, or that floods its gateway, is suspended until an operator lifts that.
Pure.

When an agent is suspended, its connection is closed and its token lets nobody in (401); its host and commands stay.
Its events that are still on their way are neither stepped nor acknowledged, so a good agent sends them again once the
suspension is lifted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from processes.core.budgets import CLOSED_MAX, CLOSED_S
from processes.core.hub.memory import Draft, Memory
from processes.core.records import dead_letter, poison
from processes.core.records.dead_letter import DeadLetter, Why
from processes.core.records.host import HostRecord
from processes.core.travels.messages import (
    AgentDisconnected,
    AgentEvent,
    CloseConnection,
    Death,
    HostFlooded,
    HostImpersonated,
    TokenChanged,
    Undelivered,
)
from processes.core.values import CANARY_HOST, CloseCode, Now

FLOOD_S: Final = 600.0  # source: THREATS 26, at most five restarts in ten minutes
FLOOD_MAX: Final = 5  # events of one agent put aside within FLOOD_S; an event whose step raises costs little
DEADLY: Final = 3  # the weight of an event that ended the hub twice: two of them suspend, after four restarts
# with so many other hosts whose events raised lately the fault is the hub's, and suspending hosts would not help
COMMON_MAX: Final = 3


def suspended(memory: Memory, event: object) -> bool:
    """Return whether the event is a suspended agent's and is to be ignored. The end of its connection still counts."""
    if not memory.hosts_suspended or not isinstance(event, AgentEvent):
        return False
    if isinstance(event, AgentDisconnected | Undelivered | HostFlooded | HostImpersonated):
        return False
    host = memory.hosts.get(event.host)
    return host is not None and bool(host.suspended)


def unheard(draft: Draft, event: AgentEvent) -> None:
    """Drop the event of a suspended agent, and end its connection if that still lives."""
    draft.deliver(
        event.gateway, CloseConnection(draft.memory.epoch, event.connection, CloseCode.SUSPENDED, "suspended")
    )


def to_blame(event: object) -> str:
    """Return the host whose agent is to blame if this event ends the hub; empty: none.

    The end of a connection and what a gateway says of its own are no agent's choice. The canary is never to blame: its
    events are so frequent that one of them is in hand at many deaths by chance, and without it the house seems unwell.
    """
    if isinstance(event, AgentDisconnected | HostFlooded | HostImpersonated):
        return ""
    host = dead_letter.host_of(event)
    return "" if host == CANARY_HOST else host


def blamed(memory: Memory, name: str, deaths: Mapping[str, list[Death]], now: Now) -> list[Death]:
    """Return the deaths for which the next event of this host must be put aside unstepped; empty: it may be stepped.

    `deaths`: by the marks of the hosts. The events of a suspended host are dropped anyhow.
    """
    if not deaths:
        return []
    host = memory.hosts.get(name)
    of_host = deaths.get(poison.mark_of_host(name))
    if of_host is None or host is None or host.suspended:
        return []
    since_wall_s = max(host.enrolled_wall_s, host.lifted_wall_s or 0.0)
    return poison.against_host(of_host, now.boot_s, since_wall_s)


def restored(memory: Memory, kept: DeadLetter) -> None:
    """Count an event that an earlier hub has put aside."""
    entries = (*memory.asides.get(kept.host, ()), (kept.at_wall_s, _weight(kept)))
    memory.asides.put_row(kept.host, entries[-FLOOD_MAX:])


def put_aside(draft: Draft, kept: DeadLetter) -> None:
    """Count one more event of a host that was put aside, and suspend the host if that is one too many."""
    name, weight, wall_s = kept.host, _weight(kept), draft.now.wall_s
    host = draft.host(name)
    if host is None or name == CANARY_HOST or host.suspended:
        return
    lately = [entry for entry in draft.memory.asides.get(name, ()) if abs(wall_s - entry[0]) < FLOOD_S]
    lately.append((wall_s, weight))
    draft.put(draft.memory.asides, name, tuple(lately[-FLOOD_MAX:]))
    if sum(each for _, each in lately) < FLOOD_MAX or (weight < DEADLY and _others(draft, name) >= COMMON_MAX):
        return
    what = f"{len(lately)} of its events were put aside"
    if weight == FLOOD_MAX:
        what = f"{len(kept.deaths)} different events of it ended the hub"
    _suspend(draft, host, f"{what} within {FLOOD_S / 60:.0f} minutes: see the dead letters")


def lifted(draft: Draft, host: HostRecord) -> HostRecord:
    """Return the host's record without a suspension; all that counted against the host is forgiven."""
    draft.drop(draft.memory.asides, host.name)
    return msgspec.structs.replace(host, suspended="", suspended_wall_s=None, lifted_wall_s=draft.now.wall_s)


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


def _weight(kept: DeadLetter) -> int:
    """Return the weight of an event that was put aside. One that was put aside for deaths at other events of its host
    suspends alone.
    """
    if kept.why != Why.POISON:
        return 1
    return FLOOD_MAX if any(death.name != kept.name for death in kept.deaths) else DEADLY


def _others(draft: Draft, name: str) -> int:
    return sum(
        1
        for other, entries in draft.memory.asides.items()
        if other != name and any(abs(draft.now.wall_s - at_wall_s) < FLOOD_S for at_wall_s, _ in entries)
    )
