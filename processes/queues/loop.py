"""The loop: prove that the server works, count, write the pulse.

Connections that are open may be served while no new client gets in, or while no call is answered. So one of
TURNS_A_PING turns goes the way that every caller goes: over a fresh connection, through the accepting, a thread for
the handshake, and the event loop that has the queues; after a ping without an answer every turn does. A turn is
written as a pulse only while the last ping was answered; the watchdog judges by the pulse and kills.
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

TURN_S: Final = 0.25  # eight turns within the watchdog's 2 s; with a pulse older than 0.4 s it looks more closely
# a ping costs some 2 ms of CPU at both ends (measured). With one in three turns the pulse of a server that lets nobody
# in stands still 0.5 s after its fault at the latest, so that it is found within 3 s
TURNS_A_PING: Final = 3


async def run(
    server: Server, link: QueueLink, pulse: PulseFile, stop: asyncio.Event, log: Log, *, turn_s: float = TURN_S
) -> None:
    """Turn until `stop` is set. Raises: LocalError, if no connection can be accepted, or no descriptor is free."""
    starving_since_s = 0.0
    ping_in = 0  # turns
    while not stop.is_set():
        server.reap(time.monotonic())
        try:
            if not ping_in:
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
            ping_in = (ping_in or TURNS_A_PING) - 1
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
