"""A listening socket for IPv4 or IPv6, as supervisord makes it (supervisord_plugin.py) and as `up` tries it."""

from __future__ import annotations

import errno
import socket
from typing import Final

ANY_IPV6: Final = "::"
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # the kernel has no IPv6, or it is switched off


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound there. `::` takes IPv4 too, and is all of IPv4 where there is no IPv6.

    Connections that linger in TIME_WAIT do not keep the port. Raises: OSError.
    """
    if host != ANY_IPV6:
        return _bound(socket.AF_INET6 if ":" in host else socket.AF_INET, host, port)
    try:
        return _bound(socket.AF_INET6, host, port)
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
        return _bound(socket.AF_INET, "0.0.0.0", port)  # noqa: S104  # who says [::] means every address


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != ANY_IPV6)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock
