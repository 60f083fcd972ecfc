"""supervisord's listening sockets for IPv6, of which it knows nothing. Only supervisord imports this module.

supervisord.conf names `make_main_rpcinterface` of this module instead of supervisord's own. So supervisord imports it
before it reads which sockets to make, and by then can make those of IPv6 too. Like all others they are made once, and
stay while the processes behind them are replaced.
"""

from __future__ import annotations

import re
import socket
from typing import Any, Final

from supervisor import datatypes, options
from supervisor.rpcinterface import make_main_rpcinterface

from processes.adapters import listening_socket

__all__ = ["make_main_rpcinterface"]  # which supervisord asks for by this name

LITERAL: Final = re.compile(r"tcp://\[([0-9A-Fa-f:.]+)\]:(\d+)")
_parse_others: Final = options.ServerOptions.parse_fcgi_socket


class Ipv6Socket(datatypes.InetStreamSocketConfig):  # type: ignore[misc]  # supervisor has no types
    """A socket of supervisord's for an IPv6 address."""

    def create_and_bind(self) -> socket.socket:
        """Called by supervisord when the first process of the group starts. Raises: OSError."""
        return listening_socket.bound(self.host, self.port)


def parse(self: Any, text: str, *more: Any) -> Any:
    """Called by supervisord with the value of a `socket=`; the backlog is the last of `more`. Raises: ValueError."""
    found = LITERAL.fullmatch(text)
    if found is None:
        return _parse_others(self, text, *more)
    return Ipv6Socket(found[1], found[2], backlog=more[-1])


options.ServerOptions.parse_fcgi_socket = parse  # an effect at import, on purpose: nothing else is called early enough
