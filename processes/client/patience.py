"""For how long a client asks again while the hub is away. A module of its own: whoever only says it loads no client."""

from __future__ import annotations

from typing import Final, NamedTuple


class Patience(NamedTuple):
    """For how long a request is repeated while the hub is away. Units: seconds."""

    read_again_s: float = 5.0  # a request that only reads
    ask_again_s: float = 15.0  # a run, with the same key; and any other request that does no harm twice
    pause_s: float = 0.3  # between two attempts: nothing tells when the hub is back


PATIENCE: Final = Patience()
