"""Tells for an incident's folder what the kernel knows of a port: what waits there, and what it dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from processes.adapters import proc

TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
DROPS: Final = ("ListenOverflows", "ListenDrops")  # of the machine since its boot, all ports together
# Source: Linux, include/net/tcp_states.h
STATES: Final = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK",
    "LISTEN", "CLOSING", "NEW_SYN_RECV",
)  # fmt: skip


def of(pid: int, port: int) -> str:
    """Return the text. Raises: OSError. Cost: 30 ms with 10,000 connections."""
    rows = [line for table in TABLES if table.exists() for line in table.read_text().splitlines()[1:]]
    lines = [f"# port {port}, as /proc/net/tcp and tcp6 have it", *at_port(rows, port)]
    lines.append(f"dropped by the kernel since boot, at all ports: {drops(Path('/proc/net/netstat').read_text())}")
    limit = next((line for line in proc.text(pid, "limits").splitlines() if line.startswith("Max open files")), "")
    lines.append(f"descriptors of process {pid}: {proc.descriptors(pid)}; {' '.join(limit.split())}")
    return "\n".join(lines) + "\n"


def at_port(rows: Iterable[str], port: int) -> list[str]:
    """Return what the rows of /proc/net/tcp say of a port: who listens with how many waiting, connections by state.

    Of a listening socket `rx_queue` is the number of connections that wait to be accepted. Source: Linux,
    net/ipv4/tcp_ipv4.c, get_tcp4_sock.
    """
    waiting, states = [], Counter[str]()
    for row in rows:
        _, local, _, state, queues, *_ = row.split()
        if int(local.rpartition(":")[2], 16) != port:
            continue
        name = STATES[int(state, 16)]
        if name == "LISTEN":
            waiting.append(f"listening socket: {int(queues.partition(':')[2], 16)} connections wait to be accepted")
        else:
            states[name] += 1
    counts = ", ".join(f"{name} {count}" for name, count in sorted(states.items()))
    return [*(waiting or ["nobody listens there"]), f"connections: {counts or 'none'}"]


def drops(netstat: str) -> str:
    """Return the counters of DROPS of /proc/net/netstat, whose lines come in pairs: names, values."""
    found: dict[str, str] = {}
    lines = netstat.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        found |= dict(zip(names.split(), values.split(), strict=False))
    return ", ".join(f"{name} {found.get(name, 'unknown')}" for name in DROPS)
