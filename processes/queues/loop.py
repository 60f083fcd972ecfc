"""The loop: prove that the server works, count, write the pulse.

Connections that are open may be served while no new client gets in, or while no call is answered. So a turn goes the
way that every caller goes: over a fresh connection, through the accepting, a thread for the handshake, and the event
loop that has the queues. Only a turn whose ping was answered is written as a pulse; the watchdog judges by the pulse
and kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from typing import Final

from processes.adapters.logs import Log
from processes.adapters.queue_link import QueueLink
from processes.adapters.queues import QueuesAway
from processes.adapters.state.pulse_file import PulseFile
from processes.core.errors import LocalError
from processes.queues.server import Server

TURN_S: Final = 0.25  # measured: 1 ms a ping; eight turns within the watchdog's 2 s


async def run(
    server: Server, link: QueueLink, pulse: PulseFile, stop: asyncio.Event, log: Log, *, turn_s: float = TURN_S
) -> None:
    """Turn until `stop` is set. Raises: LocalError, if no connection can be accepted, or no descriptor is free."""
    starving_since_s = 0.0
    while not stop.is_set():
        server.reap(time.monotonic())
        try:
            await link.ping()
        except QueuesAway as error:
            log.warning("the server does not answer its own ping", error=str(error))
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in {errno.EMFILE, errno.ENFILE}:
                # no connection comes in then, so that the server's accepting alone would never notice
                starving_since_s = starving_since_s or time.monotonic()
                if time.monotonic() - starving_since_s > server.failing_s_max:
                    raise LocalError(f"no connection can be made: {error}") from error
        else:
            starving_since_s = 0.0
            counts = server.counts()
            pulse.pulse.received, pulse.pulse.delivered = counts.received, counts.delivered
            pulse.pulse.backlog, pulse.pulse.dropped = counts.backlog, counts.dropped
            pulse.pulse.connections = counts.connections
            pulse.pulse.epoch = server.hub_epoch
            pulse.beat()
        if server.broken:
            raise LocalError(server.broken)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), turn_s)
