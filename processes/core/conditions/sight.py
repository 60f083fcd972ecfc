"""What the judge sees of a host: the fields of its row that rules and queries are about. Pure."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

import msgspec

from processes.core.travels.agent_frames import Metrics
from processes.core.travels.messages import Json
from processes.core.values import Presence

_EMPTY = msgspec.Raw(b"{}")


class _Options(msgspec.Struct, frozen=True):
    back_s: float | None = None  # the operation reboots its host, which is back within so many seconds


class HostSight(msgspec.Struct, frozen=True):
    """One host, by the names of core/shown/views.HostView."""

    name: str = ""
    presence: Presence = Presence.STALE
    last_seen: str | None = None
    connected_since: str | None = None
    address: str = ""
    gateway: str = ""  # of its connection, or of its last one
    host_type: str = ""
    agent_version: str = ""
    os_version: str = ""
    kernel: str = ""
    machine: str = ""
    protocol: int = 0
    heartbeat_interval_s: float | None = None
    revoked: bool = False
    suspended: str = ""
    labels: dict[str, str] = {}
    agent_labels: dict[str, str] = {}
    commands: list[str] | None = None
    command_options: dict[str, _Options] = {}
    metrics: Metrics | None = None
    pending_command: str | None = None
    facts: msgspec.Raw = _EMPTY
    heartbeat_facts: msgspec.Raw = _EMPTY

    @property
    def network(self) -> str:
        """Return the network of its address: the first 24 bits of an IPv4 address, 64 of an IPv6 one; empty: unknown.

        Of this machine's own addresses none is said: that is where a proxy stands.
        """
        host = self.address.rpartition(":")[0] if self.address.count(":") == 1 else self.address
        try:
            found = ipaddress.ip_address(host.partition("]")[0].strip("[]"))
        except ValueError:
            return ""
        if found.is_loopback:
            return ""
        return str(ipaddress.ip_network(f"{found}/{24 if found.version == 4 else 64}", strict=False))


class SightBeat(msgspec.Struct, frozen=True):
    """What a heartbeat changes of a host."""

    last_seen: str | None = None
    metrics: Metrics | None = None


_sight = msgspec.json.Decoder(HostSight)
_beat = msgspec.json.Decoder(SightBeat)


def sight_of(row: Json) -> HostSight:
    """Return the host of a row. Raises: msgspec.DecodeError."""
    return _sight.decode(row)


def row_of(host: HostSight) -> dict[str, Any]:
    """Return the host as the query language looks at it (core/shown/query.py)."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(host))
    return found


def heard(before: HostSight, fields: Json) -> HostSight:
    """Return the host after a heartbeat. Raises: msgspec.DecodeError."""
    beat = _beat.decode(fields)
    return msgspec.structs.replace(before, last_seen=beat.last_seen, metrics=beat.metrics)


def wall_s(time: str | None) -> float | None:
    """Return a time of the API in seconds since 1970; None if there is none."""
    return None if time is None else datetime.datetime.fromisoformat(time).timestamp()
