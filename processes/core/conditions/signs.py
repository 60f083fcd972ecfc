"""Whether a host is now as a rule says, from its row and from what was seen of it before. Pure.

A sign is True, False, or None: it cannot be known now (a host that is away sends no numbers), or the value is between
the limit and where the condition is over. What stands goes on to stand, and what does not does not begin.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from processes.core.conditions.causes import NO_TRAIT, WHOLE
from processes.core.conditions.rules import FLAPS_MAX, FLAPS_S, Rule, duration_text
from processes.core.conditions.sight import HostSight, wall_s
from processes.core.shown.versions import is_old_agent
from processes.core.travels.judged import PRESENCE, ConditionKind
from processes.core.values import Presence

HOST_KINDS: Final = (  # what is looked at for each change of a host
    ConditionKind.OFFLINE, ConditionKind.STALE, ConditionKind.FLAPPING, ConditionKind.CLOCK, ConditionKind.DISK,
    ConditionKind.MEMORY, ConditionKind.TEMPERATURE, ConditionKind.AGENT_OLD,
)  # fmt: skip
NUMBERS: Final = frozenset(HOST_KINDS) - PRESENCE - {ConditionKind.AGENT_OLD}  # known only of a host that is online
METRICS_AGE_BEATS: Final = 4.0  # a host's clock was read up to so many intervals before its heartbeat came
METRICS_AGE_S: Final = 5.0  # … and so many seconds for the way


@dataclass(slots=True)
class HostTrack:
    """What was seen of one host. Units: seconds of CLOCK_BOOTTIME."""

    lost_boot_s: float | None = None  # since when it is not online
    losses_boot_s: deque[float] = field(default_factory=lambda: deque(maxlen=FLAPS_MAX))

    def uncount(self, from_boot_s: float) -> None:
        """Take back the losses since then: they were not the host's."""
        while self.losses_boot_s and self.losses_boot_s[-1] >= from_boot_s:
            self.losses_boot_s.pop()


def sign(rule: Rule, host: HostSight, track: HostTrack, now_boot_s: float, version: str) -> bool | None:
    """Return whether the host is as the rule says. `version`: of this fleethub."""
    if rule.kind in PRESENCE:
        return _presence(rule, host, track, now_boot_s)
    if rule.kind is ConditionKind.AGENT_OLD:
        return is_old_agent(host.agent_version, host.protocol, version) if host.agent_version else None
    value = measured(rule.kind, host)
    if value is None:
        return None
    return True if value > rule.limit else False if value <= rule.until_below else None


def _presence(rule: Rule, host: HostSight, track: HostTrack, now_boot_s: float) -> bool | None:
    if host.revoked or host.suspended or host.last_seen is None:
        return False  # it is meant to be away, its suspension is an alarm of its own, or it was never here
    if rule.kind is ConditionKind.OFFLINE:
        return None if host.presence is Presence.STALE else host.presence is Presence.OFFLINE
    if rule.kind is ConditionKind.STALE:
        return host.presence is Presence.STALE
    lately = sum(1 for at_s in track.losses_boot_s if now_boot_s - at_s < FLAPS_S)
    return True if lately > rule.limit else False if not lately else None


def measured(kind: ConditionKind, host: HostSight) -> float | None:
    """Return the host's number of this kind; None: not known now."""
    metrics = host.metrics
    if metrics is None or host.presence is not Presence.ONLINE:
        return None
    match kind:
        case ConditionKind.DISK:
            return metrics.disk
        case ConditionKind.MEMORY:
            return metrics.ram
        case ConditionKind.TEMPERATURE:
            return max(metrics.temperatures.values(), default=None) if metrics.temperatures else None
        case ConditionKind.CLOCK:
            return apart_s(host)
    return None


def apart_s(host: HostSight) -> float | None:
    """Return by how many seconds at least the host's clock is apart from the hub's; None: not known."""
    said_s, heard_s = host.metrics.clock_s if host.metrics is not None else None, wall_s(host.last_seen)
    if said_s is None or heard_s is None:
        return None
    age_s_max = METRICS_AGE_BEATS * (host.heartbeat_interval_s or 0.0) + METRICS_AGE_S
    return max(0.0, said_s - heard_s, heard_s - said_s - age_s_max)


def title(kind: ConditionKind, host: str) -> str:
    """Return one line about one host."""
    return f"{host} {_WORDS[kind][0]}"


def title_of_many(kind: ConditionKind, hosts: int, trait: str, *, at_once: bool) -> str:
    """Return one line about many hosts with one cause."""
    who = {WHOLE: f"{hosts} hosts, the whole fleet,", NO_TRAIT: f"{hosts} hosts that share no label"}
    return f"{who.get(trait, f'{hosts} hosts of {trait}')} {_WORDS[kind][1]}{' at once' * at_once}"


def text(rule: Rule, host: HostSight) -> str:
    """Return what more there is to say."""
    value = measured(rule.kind, host)
    match rule.kind:
        case ConditionKind.OFFLINE | ConditionKind.STALE:
            return f"last heard at {(host.last_seen or '')[:19].replace('T', ' ')} UTC"
        case ConditionKind.FLAPPING:
            return f"it was lost more than {rule.limit:g} times within {duration_text(FLAPS_S)}"
        case ConditionKind.DISK | ConditionKind.MEMORY if value is not None:
            return f"{value:.0f} % are used"
        case ConditionKind.TEMPERATURE if value is not None:
            sensors = host.metrics.temperatures or {} if host.metrics else {}
            return f"{value:.0f} °C at {max(sensors, key=sensors.__getitem__)}"
        case ConditionKind.CLOCK if value is not None:
            return f"at least {duration_text(value)} from the hub's"
        case ConditionKind.AGENT_OLD:
            return f"it is {host.agent_version}"
    return ""


def over(kind: ConditionKind, lasted_s: float) -> str:
    """Return how a condition ended, with how long it was so."""
    return f"{_WORDS[kind][2]} after {duration_text(lasted_s)}"


_WORDS: Final = {  # of one host, of many, when it is over
    ConditionKind.OFFLINE: ("is offline", "went offline", "online again"),
    ConditionKind.STALE: ("sends no heartbeats", "sent no more heartbeats", "it sends heartbeats again"),
    ConditionKind.FLAPPING: ("comes and goes", "came and went", "steady again"),
    ConditionKind.CLOCK: ("has a clock that is apart", "have clocks that are apart", "its clock is right again"),
    ConditionKind.DISK: ("has a disk that is almost full", "have disks that are almost full", "there is room again"),
    ConditionKind.MEMORY: ("has hardly any memory left", "have hardly any memory left", "there is memory again"),
    ConditionKind.TEMPERATURE: ("is too hot", "became too hot", "cool again"),
    ConditionKind.AGENT_OLD: ("has an old agent", "have old agents", "its agent is new"),
    ConditionKind.COMMAND_FAILED: ("failed a command", "failed a command", "it succeeded"),
    ConditionKind.COMMAND_LOST: ("lost a command", "lost a command", "it succeeded"),
    ConditionKind.RUN_STOPPED: ("stopped", "stopped", "it succeeded"),
}
