"""Numbers of this server, taken on a thread of their own: a sensor that hangs costs the numbers, never a heartbeat."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import psutil

from processes.core.travels.agent_frames import Metrics

SENSORS_MAX: Final = 64  # as many as agent_frames.Metrics allows
AGE_BEATS_MAX: Final = 3.0  # in intervals between heartbeats: older numbers are not sent as today's


class Gauge:
    """The newest numbers, taken anew each `every_s` by `poll`."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._taking: asyncio.Future[Metrics] | None = None
        self._newest: Metrics | None = None
        self._taken_mono_s = -math.inf
        self._asked_mono_s = -math.inf

    def poll(self) -> Metrics | None:
        """The newest numbers, None if there are none of today; asks for the next when it is time. Never blocks."""
        now_mono_s = time.monotonic()
        if self._taking is not None and self._taking.done():
            if self._taking.exception() is None:
                self._newest, self._taken_mono_s = self._taking.result(), now_mono_s
            self._taking = None
        if self._taking is None and now_mono_s - self._asked_mono_s >= self._every_s:
            self._asked_mono_s = now_mono_s
            self._taking = asyncio.get_running_loop().run_in_executor(self._thread, take)
        return self._newest if now_mono_s - self._taken_mono_s <= AGE_BEATS_MAX * self._every_s + 1 else None

    def close(self) -> None:
        """No more numbers are taken."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def take() -> Metrics:
    """The numbers of now, each None if it cannot be read. cpu is the mean since the call before on this process."""
    return Metrics(
        cpu=_number(lambda: psutil.cpu_percent(interval=None)),
        ram=_number(lambda: psutil.virtual_memory().percent),
        swap=_number(lambda: psutil.swap_memory().percent),
        load=_number(lambda: os.getloadavg()[0]),
        disk=_number(lambda: psutil.disk_usage("/").percent),
        uptime_s=time.clock_gettime(time.CLOCK_BOOTTIME),
        temperatures=_temperatures(),
        clock_s=_number(lambda: round(time.time(), 1)),
    )


def _number(read: Callable[[], float]) -> float | None:
    """The number, None if it cannot be read: whatever psutil makes of a file in /proc that is empty, hidden or holds
    something else must not cost the other numbers.
    """
    try:
        found = float(read())
    except Exception:  # KeyError, IndexError, ValueError, UnboundLocalError … by the file's content
        return None
    return found if math.isfinite(found) else None


def _temperatures() -> dict[str, float] | None:
    found: dict[str, float] = {}
    with contextlib.suppress(OSError, AttributeError, RuntimeError, ValueError):  # UnicodeDecodeError among them
        for chip, sensors in psutil.sensors_temperatures().items():
            for number, sensor in enumerate(sensors):
                label = f"{chip} {sensor.label or number}"[:128]
                if sensor.current is not None and math.isfinite(sensor.current) and len(found) < SENSORS_MAX:
                    found[label] = round(float(sensor.current), 1)
    return found or None
