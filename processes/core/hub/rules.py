"""The settings that decide something in the core, and one small part of the hub's memory. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from processes.core.travels.operator_requests import KEY_CHARS_MAX


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that decide something in the core. Units: seconds."""

    gateways: tuple[str, ...] = ("gateway",)
    fanouts: tuple[str, ...] = ("fanout",)
    ttl_s: float = 3600.0
    lost_after_s: float = 86400.0
    redeliver_s: float = 5.0  # until a `sent` command without ack is sent again on a live connection; contract
    settle_s: float = 5.0  # hosts restored from disk are stale until the censuses are in, or for so long
    stale_beats: float = 3.0  # missed heartbeats until a connected host is stale; guess: two may be late
    stale_s_min: float = 10.0
    heartbeats_per_s: float = 1000.0  # of the whole fleet; at about 50 µs a step a twentieth of the hub's time
    queued_per_host_max: int = 100
    open_max: int = 100_000
    run_parts_max: int = 100  # hosts of one run that one step looks at, begins and asks to end; guess: some 20 ms
    running_concurrent_max: int = 8  # per host; guess
    output_bytes_max: int = 16 * 1024 * 1024  # per command; guess: a long build log is 5 MiB
    key_chars_max: int = KEY_CHARS_MAX


@dataclass(frozen=True, slots=True)
class Census:
    """A gateway's census while its pieces come in. `named`: the connections that live, because a piece names them or
    they registered meanwhile.
    """

    number: int
    boot: str
    named: frozenset[str] = frozenset()
    done: bool = False
