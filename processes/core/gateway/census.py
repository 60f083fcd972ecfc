"""A gateway's census, cut into pieces. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from processes.core.gateway.agent_connection import AgentConnection
from processes.core.travels import messages
from processes.core.travels.messages import CENSUS_PIECE, CensusTaken

# of registers in one piece, without the last one, which may exceed it; guess: well below one append's bound
PIECE_BYTES_MAX: Final = 256 * 1024


def pieces(gateway: str, boot: str, census: int, connections: Iterable[AgentConnection]) -> Iterator[bytes]:
    """Yield the queue items of one census, at least one, each made when it is asked for. A connection that
    ended meanwhile is left out.

    A piece names the commands written up to the moment when it is made, which is later than the census: never too few.
    """
    number, size, held = 0, 0, []
    for connection in connections:
        info = connection.census()
        if info is None:
            continue
        held.append(info)
        size += len(messages.encode(messages.AgentRegistered(connection.id, gateway, connection.host, info)))
        if len(held) == CENSUS_PIECE or size > PIECE_BYTES_MAX:
            yield messages.encode(CensusTaken(gateway, census, boot, number, False, held))
            number, size, held = number + 1, 0, []
    yield messages.encode(CensusTaken(gateway, census, boot, number, True, held))
