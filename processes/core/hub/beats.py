"""A batch of heartbeats, stepped as a whole. Pure.

Nearly every heartbeat changes three things: when its host was heard, its metrics, and that its record on disk is
behind. Those are taken here, without a draft. A heartbeat that may change anything else is stepped alone, as one event
(presence.heartbeat), so nothing is decided twice:

    its host is online on this very connection, and a timer looks at its silence ─┐
    its agent runs what it ran before, and its further fields are as before      ─┤
    nothing is to be said to it: no suspension, no token to be made anew         ─┴▶ common: taken here
    its connection is not the host's current one, or there is no such host       ──▶ ignored, as alone
    anything else                                                                ──▶ alone

Invariant: all common heartbeats of a batch are taken, or, if one of them raises, none.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final, NamedTuple

import msgspec

from processes.core.hub.memory import OFFLINE, Memory
from processes.core.records.host import HostRecord, Link
from processes.core.travels.agent_frames import Heartbeat, Metrics
from processes.core.travels.messages import Beat, HeartbeatReceived, HeartbeatsReceived, Json
from processes.core.values import CANARY_HOST, Now, Presence, rfc3339

_metrics: Final[msgspec.json.Decoder[Metrics | None]] = msgspec.json.Decoder(Metrics | None)
_encode = msgspec.json.Encoder().encode
_replace = msgspec.structs.replace


class Heard(NamedTuple):
    """`shown`: hosts and the fields of their rows that are others now. `alone`: what is to be stepped alone."""

    shown: list[tuple[str, Json]]
    alone: list[Beat]


def single(gateway: str, beat: Beat) -> HeartbeatReceived:
    """Return the heartbeat as an event of its own. Raises: msgspec.DecodeError, for metrics that are none."""
    heartbeat = Heartbeat(_metrics.decode(beat.metrics), beat.pending_command, beat.command_pid)
    return HeartbeatReceived(beat.connection, gateway, beat.host, heartbeat, beat.facts)


def take(memory: Memory, event: HeartbeatsReceived, now: Now, suspects: Set[str] = frozenset()) -> Heard:
    """Take the common heartbeats of the batch into the memory. `suspects`: hosts whose heartbeats are stepped alone.

    Cost: linear. Raises: msgspec.DecodeError, and then nothing has changed.
    """
    found: list[tuple[str, HostRecord, Link]] = []
    shown: list[tuple[str, Json]] = []
    alone: list[Beat] = []
    opening = b'{"last_seen":"%s","metrics":' % (rfc3339(now.wall_s) or "").encode()
    for beat in event.beats:
        name = beat.host
        host, link = memory.hosts.get(name), memory.links.get(name, OFFLINE)
        if host is None or (link.connection != beat.connection and not host.suspended):
            continue
        if name in suspects or not _is_common(memory, beat, host, link):
            alone.append(beat)
            continue
        heartbeat = Heartbeat(_metrics.decode(beat.metrics), beat.pending_command, beat.command_pid)
        found.append(
            (
                name,
                _replace(host, heartbeat=heartbeat, seen_wall_s=now.wall_s),
                _replace(link, heard_boot_s=now.boot_s),
            )
        )
        closing = b"}" if name != CANARY_HOST else b',"beat":%d}' % (beat.command_pid or 0)
        shown.append((name, Json(opening + _encode(heartbeat.metrics) + closing)))
    for name, host, link in found:
        memory.hosts.renew_row(name, host)
        memory.links.renew_row(name, link)
        if name != CANARY_HOST:
            memory.dirty.put_row(name, True)
    return Heard(shown, alone)


def _is_common(memory: Memory, beat: Beat, host: HostRecord, link: Link) -> bool:
    """Return whether this heartbeat changes nothing but when its host was heard, and its metrics."""
    before = host.heartbeat
    return (
        link.presence is Presence.ONLINE
        and before is not None
        and beat.pending_command == before.pending_command
        and beat.facts == host.heartbeat_facts
        and host.rotation_wall_s is None
        and not host.suspended
        and beat.host in memory.armed
        and not (host.foreign and (not link.idle or beat.host in memory.queues))
    )
