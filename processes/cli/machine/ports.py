"""Whether the two ports can be listened on, and if not, who has them."""

from __future__ import annotations

import errno
import socket

import psutil

from processes.adapters import listening_socket
from processes.adapters.settings import File, address
from processes.cli.terminal.failure import Failure


def check(file: File) -> None:
    """Check that both ports are free, and not the same.

    Raises: Failure, which names the port, the setting and, if this user may see it, the process that has the port.
    """
    listens = (("operators.listen", file.operators.listen), ("agents.listen", file.agents.listen))
    if address(listens[0][1])[1] == address(listens[1][1])[1]:
        raise Failure(
            "port_taken",
            f"operators.listen and agents.listen both say port {address(listens[0][1])[1]}",
            "Give them two ports.",
        )
    for setting, listen in listens:
        _check_one(setting, listen)


def _check_one(setting: str, listen: str) -> None:
    host, port = address(listen)
    advice = f"Set {setting} in fleethub.toml or FLEETHUB_{setting.replace('.', '_').upper()} to another HOST:PORT."
    if port == 0:
        raise Failure(
            "bad_port", f"{setting} = {listen!r}: give a fixed port, else nobody could know where to connect", advice
        )
    try:
        # as supervisord does: closed connections that linger in TIME_WAIT do not keep the port
        with listening_socket.bound(host, port) as probe:
            probe.listen(1)
    except socket.gaierror as error:
        raise Failure("bad_address", f"{setting} = {listen!r}: {host} is not known: {error.strerror}", advice) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Failure("port_taken", f"port {port} ({setting} = {listen}) is taken{_holder(port)}", advice) from None
        said = f"{setting} = {listen!r} cannot be listened on: {error.strerror}"
        raise Failure("bad_address", said, advice) from None


def _holder(port: int) -> str:
    """Words that name the process which listens there, as far as this user may see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        pass
    return " by another process"
