"""`python -m processes.queues`: the queues between the other processes."""

from __future__ import annotations

from typing import Final

from processes.adapters import bootstrap
from processes.adapters.queue_link import QueueLink
from processes.queues import loop
from processes.queues.server import Server

PING_S_MAX: Final = 1.0  # for a ping of its own server: two of them fit into the watchdog's 2 s


async def main(process: bootstrap.Process) -> None:
    """Serve until the process is asked to stop."""
    server = Server(process.settings.queues_socket, process.log)
    server.start()
    link = QueueLink(process.settings.queues_socket, process.name, timeout_s=PING_S_MAX)
    turn_s = min(loop.TURN_S, process.settings.file.watchdog.stall_s / 4)
    try:
        await loop.run(server, link, process.pulse, process.stop, process.log, turn_s=turn_s)
    finally:
        server.close()
        await link.close()


if __name__ == "__main__":
    bootstrap.run("queues", main)
