"""The certificate that a listening process shows. One that is renewed on disk is shown without a restart."""

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
    """Return a server's TLS context; None: no TLS. Raises: ResourceError, if the certificate cannot be used."""
    if not tls.certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ResourceError(f"tls: {tls.certificate} and {tls.key} cannot be used: {error}") from None
    return context


async def follow(context: ssl.SSLContext | None, tls: Tls, log: Log, look_s: float = LOOK_S) -> None:
    """Look at the files every `look_s`, and load them again whenever they have changed, for ever.

    Files that cannot be used, or not yet, leave the certificate as it was.
    """
    if context is None:
        return
    # the first look loads the files again: they may have changed since the context was made
    seen: Marks | None = None
    told: Marks | None = None
    while True:
        await asyncio.sleep(look_s)
        marks = await asyncio.to_thread(_marks, tls)
        if marks == seen:
            continue
        try:
            fresh = await asyncio.to_thread(context_of, tls)
        except ResourceError as error:
            if told != marks:  # logged once for each content: the other file may follow a moment later
                log.error("the new certificate cannot be used: the old one is shown", error=str(error))
            told = marks
            continue
        context.sni_callback = _showing(fresh)
        before, seen, told = seen, marks, marks
        if before is not None:
            log.info("a new certificate is shown from now on", certificate=tls.certificate)


def _showing(fresh: ssl.SSLContext | None) -> Callable[[ssl.SSLObject, str | None, ssl.SSLContext], None]:
    """Return a callback that makes a new connection use the context `fresh`.

    It is also called for clients that name no server. The listening context itself is not changed: a certificate
    without its key would spoil it, and it keeps a pair for each kind of key, so an old EC pair would stay beside a new
    RSA pair.
    """

    def choose(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        assert fresh is not None
        connection.context = fresh

    return choose


def _marks(tls: Tls) -> Marks:
    """Return marks that differ if the files' contents differ; fewer while a file is missing."""
    found = []
    for name in (tls.certificate, tls.key):
        with contextlib.suppress(OSError):
            status = os.stat(name)
            found.append((status.st_ino, status.st_mtime_ns))
    return tuple(found)
