"""What a fanout's parts need of the link to the queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from processes.core.travels.queue_calls import Appended


class Queues(Protocol):
    """The part of adapters.queue_link.QueueLink with which a fanout tells the hub something."""

    async def append(
        self, queue: str, items: Sequence[bytes], *, bulk: bool = False, lossy: bool = False
    ) -> Appended: ...
