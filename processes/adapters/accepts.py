"""What a process takes from its listening socket, and what waits there, for its pulse.

The kernel puts a connection whose handshake is done into the queue of the listening socket; a process that accepts
takes it out. How many are in the queue is what TCP_INFO says of a listening socket: `tcpi_unacked`, and
`tcpi_sacked` is how many may be. Source: Linux, net/ipv4/tcp.c, tcp_get_info (since 2.6.24); `ss -ltn` shows the same
two figures as Recv-Q and Send-Q.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from processes.core.travels.pulse import Pulse, enter_accepts

_TCP_LISTEN: Final = 10  # include/net/tcp_states.h
_INFO: Final = struct.Struct("=B23xII")  # tcpi_state, tcpi_unacked, tcpi_sacked of struct tcp_info in linux/tcp.h


class Accepts:
    """Counts the connections that were accepted from one listening socket.

    It holds a descriptor of its own: what waits can be told even when whoever accepts has lost theirs.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.accepted = 0
        # whether the listener tries and lacks descriptors or memory: it ends its process itself if that lasts, and to
        # kill the process before would only cut its clients
        self.is_short: Callable[[], bool] = lambda: False
        self._ended = False
        self._sock = socket.socket(fileno=os.dup(sock.fileno()))

    def count(self) -> None:
        """Called with each connection that was accepted, even if it is closed at once for want of room."""
        self.accepted += 1

    def enter(self, pulse: Pulse, now_ns: int) -> None:
        """Enter in the pulse, at the end of a turn, what was accepted and what waits.

        Cost: 5 µs. Units: now_ns in ns of CLOCK_MONOTONIC.
        """
        waits, room = (0, 0) if self._ended else waiting(self._sock)
        enter_accepts(pulse, self.accepted, waits, room, now_ns)
        if self.is_short():
            pulse.unaccepted_ns = pulse.unaccepted_turns = 0

    def end(self) -> None:
        """Called when the process ends and accepts no more: what waits from now on is its successor's."""
        self._ended = True

    def close(self) -> None:
        """Close the descriptor."""
        self._sock.close()


def waiting(sock: socket.socket) -> tuple[int, int]:
    """Return how many connections wait to be accepted, and how many may; zeros if this is no listening TCP socket."""
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    except OSError:  # another family: what it cannot say is no reason to judge anybody
        return 0, 0
    if len(info) < _INFO.size:
        return 0, 0
    state, waits, room = _INFO.unpack(info)
    return (waits, room) if state == _TCP_LISTEN else (0, 0)
