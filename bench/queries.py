"""Queries: how long a fanout takes to find hosts among many, for usual queries and for the worst that may be asked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any, Final, cast

import msgspec

from processes.core.fanout.mirror import Mirror
from processes.core.records.host import HostRecord, Link
from processes.core.shown.query import STARS_MAX, TERMS_MAX
from processes.core.shown.replica import Replica
from processes.core.shown.views import host_view
from processes.core.travels.agent_frames import Heartbeat, Metrics, Register
from processes.core.travels.messages import Change, Json
from processes.core.values import Presence
from processes.fanout.database_reader import DatabaseReader
from processes.fanout.host_finder import HostFinder

TIMES: Final = 7  # each query; the least and the median are told
QUERIES: Final = {
    "a label": "role=web",
    "usual": "role=web !os:debian cpu>80 offline since>10m name:web*",
    "words": "web debian rack b4",
    "facts": "generation:917 location:b4",
    "worst words": " ".join(f"!none{number}" for number in range(TERMS_MAX)),
    "worst names": " ".join(f"!*w*{number}x*" for number in range(STARS_MAX // 3)),
    "worst fields": " ".join(f"!none{number}.of.them:x" for number in range(TERMS_MAX)),
    "worst times": " ".join(f"!{name}<1 !{name}<2" for name in ("since", "seen", "enrolled", "connected")),
    "worst patterns": " ".join(f"!serial:*a*{number}b" for number in range(STARS_MAX // 2)),
}


class _Rows:
    """A mirror's rows, and no hub."""

    def __init__(self, count: int) -> None:
        self.shown = Replica()
        for number in range(count):
            facts = {"generation": "917d168", "location": f"rack b{number % 40}", "model": "R640", "serial": "a" * 40}
            host = HostRecord(
                f"web{number}", "e" * 32, "h" * 64, 1.7e9 + 77.7 * number, seen_wall_s=1.76e9 + number % 6e4 / 1000, address="10.0.0.1",
                register=Register(
                    f"web{number}", "linux", "0.1.0", "Debian 12", "6.1.0", "x86_64", protocol=1,
                    commands=["pull", "switch", "reboot"], labels={"site": "graz"},
                ),
                facts=Json(msgspec.json.encode(facts)), heartbeat=Heartbeat(Metrics(81.5, 40.0, 0.0, 1.2, 30.0)),
                labels={"role": "web" if number % 3 else "db", "env": "prod", "rack": f"b{number % 40}"},
            )  # fmt: skip
            link = Link(Presence.ONLINE if number % 10 else Presence.OFFLINE, "c", "g", 1.75e9 + 7.7 * number)
            row = msgspec.json.decode(msgspec.json.encode(host_view(host, link)))
            self.shown.apply(Change("host", host.name, Json(msgspec.json.encode(row))))
            beat = {key: row[key] for key in ("last_seen", "metrics", "heartbeat_facts", "progress")}
            self.shown.hear(host.name, Json(msgspec.json.encode(beat)))  # as in a fleet that lives


async def _measured(hosts: int) -> dict[str, Any]:
    finder = HostFinder(cast(Mirror, _Rows(hosts)), cast(DatabaseReader, None))
    told: dict[str, Any] = {}
    for name, text in QUERIES.items():
        took, longest = [], []
        for _ in range(TIMES):
            gaps: list[float] = []
            ticking = asyncio.create_task(_tick(gaps))
            await asyncio.sleep(0)
            begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
            found = await finder.find(text)
            took.append((time.process_time() - begun_cpu_s, time.perf_counter() - begun_s))
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking
            longest.append(max(gaps, default=0.0))
        took.sort()
        told[name] = {
            "query": text, "found": len(found), "cpu_ms": 1000 * took[0][0], "median_ms": 1000 * took[TIMES // 2][1],
            "loop_held_ms": 1000 * min(longest),
        }  # fmt: skip
    return told


async def _tick(gaps: list[float]) -> None:
    last_s = time.perf_counter()
    while True:
        await asyncio.sleep(0)
        now_s = time.perf_counter()
        gaps.append(now_s - last_s)
        last_s = now_s


def measured(hosts: int) -> dict[str, Any]:
    """Find hosts among so many. Shape: query → how many it finds; CPU of the best of TIMES and the median time; for how
    long the event loop was held at a stretch, at best. Units: ms.
    """
    return asyncio.run(_measured(hosts))
