"""`python -m processes.gateway MEMBER`: the agents' WebSockets. MEMBER counts from 1; supervisord's member 0 holds the
listening socket.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from processes.adapters import bootstrap, listener, tls
from processes.adapters.accepts import Accepts
from processes.adapters.bootstrap import Process
from processes.adapters.listener import Listener
from processes.adapters.queue_engine import open_queues
from processes.adapters.state import contested, deaf_file, sightings
from processes.core.budgets import HOST_CONNECTIONS_MAX
from processes.core.connections import agents_limits
from processes.gateway.gate import Gate
from processes.gateway.loop import Loop
from processes.gateway.tokens import Tokens

QUEUES_S_MAX: Final = 2.0  # for one call


async def main(process: Process) -> None:
    """Open the resources, turn until the process is asked to stop, close them in reverse order."""
    settings = process.settings
    sock = bootstrap.listening_socket()
    accepts = Accepts(sock)
    context = tls.context_of(settings.file.tls)
    link = open_queues(settings, process.name, timeout_s=QUEUES_S_MAX)
    threads = asyncio.get_running_loop()  # a disk that hangs holds up a thread, and not the loop
    gate = Gate(
        process.name, process.boot, Tokens(settings.canary), process.log,
        on_contested=lambda host: threads.run_in_executor(None, contested.say, settings.run, host),
        on_impersonated=lambda host, how: threads.run_in_executor(
            None, sightings.say, settings.run, sightings.IMPERSONATED, host, how
        ),
    )  # fmt: skip

    def turned_away() -> None:
        process.pulse.pulse.turned_away += 1

    limits = agents_limits(listener.room(context), HOST_CONNECTIONS_MAX)
    process.log.info("agents are let in", at_most=limits.known_max, silent_at_most=limits.silent_max)
    accepting = Listener(
        sock, context, limits, gate.socket, process.log, on_accepted=accepts.count, on_turned_away=turned_away
    )
    accepting.failed.add_done_callback(lambda _: process.stop.set())
    accepts.is_short = lambda: accepting.is_short
    accepting.start()
    renewing = asyncio.create_task(tls.follow(context, settings.file.tls, process.log))
    rehearsing = asyncio.create_task(deaf_file.follow(settings, process.name, accepting.close))
    loop = Loop(gate, link, process.pulse, process.stop, accepts)
    try:
        await loop.run()
        accepts.end()
        accepting.close()  # supervisord holds the socket: new connections wait there for the successor
        await loop.drain()
    finally:
        renewing.cancel()
        rehearsing.cancel()
        await link.close()


if __name__ == "__main__":
    member = sys.argv[1] if len(sys.argv) == 2 else ""
    if not member.isascii() or not member.isdigit() or int(member) < 1:
        print("usage: python -m processes.gateway MEMBER (from 1)", file=sys.stderr)
        sys.exit(64)  # EX_USAGE of sysexits.h
    bootstrap.run("gateway", main, int(member) - 1)
