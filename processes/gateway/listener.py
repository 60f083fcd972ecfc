"""The listening socket, which supervisord holds and hands over as descriptor 0, and the limit of descriptors."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Callable
from typing import Final

BACKLOG: Final = 4096  # measured: 5,000 connects at once take 1.4 s with it, 3.1 s with asyncio's 100
TLS_S_MAX: Final = 10.0  # of the TLS handshake, before the request's own deadline
DESCRIPTORS_MAX: Final = 65_536  # wanted; the hard limit may be less
# for everything but agents: queues, log, pulse, evidence, and connections that are refused
DESCRIPTORS_KEPT: Final = 512


def sockets_max() -> int:
    """Raise the limit of descriptors as far as it goes, and return how many agents may connect."""
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
    """Begin to accept connections, and return the server."""
    loop = asyncio.get_running_loop()
    if tls is None:
        return await loop.create_server(make, sock=sock, backlog=BACKLOG)
    return await loop.create_server(make, sock=sock, backlog=BACKLOG, ssl=tls, ssl_handshake_timeout=TLS_S_MAX)
