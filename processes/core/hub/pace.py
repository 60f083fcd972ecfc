"""How often agents send their heartbeats: the hub tells each (`registered`), and all of them together stay within what
the hub takes with ease. Pure.

The floor is the shortest interval that an agent is told; one that wants a longer one keeps that. It is a power of two
times 5 s, or there is none:

    more hosts are connected ─────▶ up at once, until the fleet's heartbeats are within the rate again
    the hub is busy without end ──▶ up by one step, and once more as long as that lasts
    fewer hosts, the hub is calm ─▶ down by one step after CALM_S, if there is room to spare

Whoever is told another interval on a connection that is open is told at a pace of TOLD_MAX a tick, so never all at
once. How long a host may be silent follows what its agent was told (presence.py). Foreign agents keep their own
interval: they would not obey, and may not expect a second `registered`.
"""

from __future__ import annotations

import itertools
from typing import Final

import msgspec

from processes.core.hub.memory import Draft, HeartbeatPace
from processes.core.records.host import HostRecord, Link
from processes.core.travels.messages import DeliverRegistered
from processes.core.values import CANARY_HOST, Presence

FLOORS_S: Final = (0.0, 1.25, 2.5, 5.0, 10.0, 20.0, 40.0)  # with 1,000 heartbeats a second 40 s is for 40,000 hosts
USUAL_STEP: Final = FLOORS_S.index(5.0)  # an agent's own interval, if its file says nothing
FAST_S: Final = 1.0  # a fleet may beat as often as this without being told anything
BUSY_S: Final = 5.0  # without a moment in which no event waits; guess: a fleet that comes back is stepped sooner
CALM_S: Final = 60.0  # guess: longer than a restart of anything
SPARE: Final = 0.8  # of the rate: so much may be used after a step down, else the next host brings it up again
TOLD_MAX: Final = 50  # agents told in one tick: 500 a second


def governed(pace: HeartbeatPace, connected: int, per_s: float, busy_s: float, boot_s: float) -> HeartbeatPace:
    """Return the pace from now on.

    Units: `per_s` heartbeats in a second, `busy_s` for how long events have waited without a pause.
    """
    step = FLOORS_S.index(pace.floor_s)
    needed = _step_for(connected / per_s)
    if busy_s >= BUSY_S and boot_s - pace.changed_boot_s >= BUSY_S:
        needed = max(needed, min(max(step, USUAL_STEP) + 1, len(FLOORS_S) - 1))
    calm_s = boot_s - max(pace.changed_boot_s, pace.busy_boot_s)
    if needed < step and (calm_s < CALM_S or _step_for(connected / per_s / SPARE) >= step):
        needed = step
    elif needed < step:
        needed = step - 1
    busy_boot_s = boot_s if busy_s >= BUSY_S else pace.busy_boot_s
    if needed == step:
        return msgspec.structs.replace(pace, busy_boot_s=busy_boot_s)
    return HeartbeatPace(FLOORS_S[needed], boot_s, busy_boot_s)


def govern(draft: Draft, busy_s: float) -> None:
    """Called at each tick: set the pace, and tell some of the agents whose interval is another one now."""
    memory, before = draft.memory, draft.pace
    if not draft.settled:
        return  # who is connected is not known yet
    counts = memory.counts()
    connected = counts[Presence.ONLINE] + counts[Presence.STALE]
    draft.pace = governed(before, connected, draft.rules.heartbeats_per_s, busy_s, draft.now.boot_s)
    if draft.pace.floor_s != before.floor_s:
        for name, link in memory.links.items():
            if link.connection:
                draft.mark(memory.untold, name)
        return
    for name in list(itertools.islice(memory.untold, TOLD_MAX)):
        draft.drop(memory.untold, name)
        _tell(draft, name)


def interval_s(draft: Draft, host: HostRecord) -> float:
    """Return the interval that the host's agent is to be told; 0.0: its own."""
    if host.register is None or host.foreign or host.name == CANARY_HOST:
        return 0.0
    return max(host.register.heartbeat_interval, draft.pace.floor_s)


def patience_s(draft: Draft, host: HostRecord, link: Link) -> float:
    """Return for how long the host may be silent until it is stale."""
    own_s = host.register.heartbeat_interval if host.register else 0.0
    return max(draft.rules.stale_s_min, draft.rules.stale_beats * max(own_s, link.told_s))


def _tell(draft: Draft, name: str) -> None:
    host, link = draft.host(name), draft.link(name)
    if host is None or not link.connection:
        return
    wanted_s = interval_s(draft, host)
    if not wanted_s or wanted_s == link.told_s:
        return
    told = msgspec.structs.replace(link, told_s=wanted_s)
    draft.put_link(name, told)
    draft.deliver(link.gateway, DeliverRegistered(draft.memory.epoch, link.connection, name, host.enrolment, wanted_s))
    draft.arm(name, link.heard_boot_s + patience_s(draft, host, told))  # sooner, if its patience is shorter now


def _step_for(interval_s: float) -> int:
    """Return the first step whose floor is not below the interval; the last one, if none is. A second needs none: no
    host's heartbeats come more often from a gateway (FAST_S).
    """
    if interval_s <= FAST_S:
        return 0
    return next((step for step, floor_s in enumerate(FLOORS_S) if floor_s >= interval_s), len(FLOORS_S) - 1)
