"""The listening socket, which supervisord holds and hands over as descriptor 0; how many descriptors there are."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Callable
from typing import Final

BACKLOG: Final = 4096  # measured: 5,000 connects at once take 1.4 s with it, 3.1 s with asyncio's 100
TLS_S_MAX: Final = 10.0  # of its handshake, before the request's own deadline
DESCRIPTORS_MAX: Final = 65_536  # wanted; the hard limit may be less
# for everything but agents: queues, log, pulse, evidence, and refusing whoever is too many
DESCRIPTORS_KEPT: Final = 512


def sockets_max() -> int:
    """How many agents may connect, with as many descriptors as this process can get."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    found = DESCRIPTORS_MAX if soft == resource.RLIM_INFINITY else soft
    return max(found - DESCRIPTORS_KEPT, found // 2)


async def serve(
    sock: socket.socket, tls: ssl.SSLContext | None, make: Callable[[], asyncio.Protocol]
) -> asyncio.Server:
    """Accepts from now on."""
    loop = asyncio.get_running_loop()
    if tls is None:
        return await loop.create_server(make, sock=sock, backlog=BACKLOG)
    return await loop.create_server(make, sock=sock, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=TLS_S_MAX)
