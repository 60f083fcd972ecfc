"""The certificate that a listening process shows: one that is renewed on disk is shown to whoever connects next,
without a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from typing import Final

from processes.adapters.logs import Log
from processes.adapters.settings import Tls
from processes.core.errors import ResourceError

LOOK_S: Final = 2.0  # between two looks at the files

Marks = tuple[tuple[int, int], ...]


def context_of(tls: Tls) -> ssl.SSLContext | None:
    """What a server shows its certificate with; None: plain. Raises: ResourceError, if it cannot be used."""
    if not tls.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ResourceError(f"tls: {tls.certificate} and {tls.key} cannot be used: {error}") from None
    return context


async def follow(context: ssl.SSLContext | None, tls: Tls, log: Log) -> None:
    """Takes the files anew whenever they are others, for ever. What cannot be used, or not yet, leaves the certificate
    as it was.
    """
    if context is None:
        return
    # the first look takes them anew: they may be others already than when the context was made
    seen: Marks | None = None
    told: Marks | None = None
    while True:
        await asyncio.sleep(LOOK_S)
        marks = await asyncio.to_thread(_marks, tls)
        if marks == seen:
            continue
        try:
            fresh = await asyncio.to_thread(context_of, tls)
        except ResourceError as error:
            if told != marks:  # once for each new content: the other file may be written a moment later
                log.error("the new certificate cannot be used: the old one is shown", error=str(error))
            told = marks
            continue
        context.sni_callback = _showing(fresh)
        before, seen, told = seen, marks, marks
        if before is not None:
            log.info("a new certificate is shown from now on", certificate=tls.certificate)


def _showing(fresh: ssl.SSLContext | None) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    """What lets each connection that begins go on with this context; it is called for clients that name no server too.

    The context that listens is left alone: half of a pair would spoil it, and of each kind of key it keeps a pair, an
    old EC one beside a new RSA one.
    """

    def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        assert fresh is not None
        connection.context = fresh

    return choose


def _marks(tls: Tls) -> Marks:
    """Names the files' contents; fewer while one is missing."""
    found = []
    for name in (tls.certificate, tls.key):
        with contextlib.suppress(OSError):
            status = os.stat(name)
            found.append((status.st_ino, status.st_mtime_ns))
    return tuple(found)
