"""Fan-out: what one change costs that is shown to many, beside a loop of write() in C to as many sockets."""

from __future__ import annotations

import asyncio
from typing import Any

from bench import heartbeats, load
from bench.heartbeats import SETTLE_S, Hub


def measured(
    hub: Hub, agents: int, rate: float, seconds: float, *, subscribers: int, settle_s: float = SETTLE_S
) -> dict[str, Any]:
    """Show heartbeats to so many subscribers, and then write frames of the same size in a loop.

    Shape: updates and frames in a second, of all subscribers; updates for each second of the CPU of all processes;
    frames for each second of the fanout's CPU, and of the loop's; `of_a_loop`: the share of the loop's that the fanout
    reaches. A peer's process does the rest in the same CPU.
    """
    beats = asyncio.run(heartbeats.measured(hub, agents, rate, seconds, subscribers=subscribers, settle_s=settle_s))
    size = max(1, beats["bytes"] // max(1, beats["frames"]))
    looped = load.loop(subscribers, size, seconds)
    cores = beats["cores"].get("fanout", beats["cores"]["all"])
    per_cpu_s = beats["frames"] / max(1e-9, cores * beats["seconds"])
    loop_per_cpu_s = looped["frames"] / max(1e-9, looped["cpu_s"])
    return {
        "subscribers": subscribers,
        "frame_bytes": size,
        "updates_per_s": beats["shown"] * subscribers / beats["seconds"],
        "updates_per_cpu_s": beats["shown"] * subscribers / max(1e-9, beats["cores"]["all"] * beats["seconds"]),
        "frames_per_s": beats["frames"] / beats["seconds"],
        "frames_per_cpu_s": per_cpu_s,
        "loop_frames_per_cpu_s": loop_per_cpu_s,
        "of_a_loop": per_cpu_s / loop_per_cpu_s,
        "heartbeats": beats,
    }
