"""Which engine has the queues: the process `queues`, or PostgreSQL, whose driver only who asks for it needs."""

from __future__ import annotations

import asyncio
from typing import Final

from processes.adapters.queue_link import QueueLink
from processes.adapters.queues import Queues, QueuesAway
from processes.adapters.settings import Settings
from processes.core.errors import Failure, LocalError

CHECK_S_MAX: Final = 5.0  # for the first answer


def open_queues(settings: Settings, role: str, *, timeout_s: float = 2.0) -> Queues:
    """Return a link to the queues. Nothing is connected yet. Raises: LocalError, if the driver is not installed."""
    if not settings.file.queues.url:
        return QueueLink(settings.queues_socket, role, timeout_s=timeout_s)
    try:
        from processes.adapters.postgres.queues import PostgresQueues  # noqa: PLC0415  # 0.2 s, and only installed then
    except ImportError as error:
        raise LocalError(
            f"queues.url needs the driver of PostgreSQL ({error}): pip install 'fleethub[postgres]'"
        ) from None
    return PostgresQueues(settings.file.queues.url, role, timeout_s=timeout_s)


def check(settings: Settings) -> None:
    """Check that the engine answers, if it is PostgreSQL. Raises: Failure, which says what to do."""
    if not settings.file.queues.url:
        return

    async def ask() -> None:
        link = open_queues(settings, "up", timeout_s=CHECK_S_MAX)
        try:
            await link.stats()
        finally:
            await link.close()

    try:
        asyncio.run(ask())
    except LocalError as error:
        raise Failure("no_driver", str(error)) from None
    except QueuesAway as error:
        raise Failure("queues_away", f"queues.url: {error}", "Start PostgreSQL, or mend queues.url.") from None
