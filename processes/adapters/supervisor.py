"""supervisord's XML-RPC over its Unix socket, with deadlines; and supervisord's names of our processes."""

from __future__ import annotations

import http.client
import socket
import struct
import xmlrpc.client
from pathlib import Path
from typing import Any, Final, NamedTuple

from processes.core.errors import ResourceError

TIMEOUT_S: Final = 2.0  # supervisord answers within one poll; if it is stopped, it never does
ALREADY_STARTED: Final = 60  # Faults of supervisor/xmlrpc.py, which is slow to import
NOT_RUNNING: Final = 70
HELD: Final = ("gateway", "fanout")  # kinds with sockets that supervisord holds: member 0 of the group is the holder


class SupervisorAway(ResourceError):
    """supervisord does not answer: it is not running, stopped or busy."""


class SupervisorFault(ResourceError):
    """supervisord refused a call. `code`: one of Faults in supervisor/xmlrpc.py."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Supervised(NamedTuple):
    """A process as supervisord knows it. pid 0: it is not running.

    state: STOPPED STARTING RUNNING BACKOFF STOPPING EXITED FATAL UNKNOWN.
    """

    name: str
    state: str
    pid: int
    started_wall_s: float
    exit_status: int
    message: str


class Peer(NamedTuple):
    """Who listens on a socket. pid 0: a process of another PID namespace."""

    pid: int
    uid: int


def peer_of(path: Path) -> Peer | None:
    """Return who listens on the Unix socket, be it stopped or of another user; None: nobody.

    Raises: OSError, if this user may not look.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError, NotADirectoryError):
            return None
        except BlockingIOError:  # its backlog is full
            return Peer(0, path.stat().st_uid)
        pid, uid, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Peer(pid, uid)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__()
        self._path, self._timeout_s = path, timeout_s

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        # a fresh connection for each call: an old one may hang for ever
        connection = _UnixConnection(self._path, self._timeout_s)
        self._connection = host, connection  # so that close() closes it
        return connection


class Supervisor:
    """Calls to one supervisord. They block, `timeout_s` at most: from an event loop call them on a thread."""

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._path, self._timeout_s = str(path), timeout_s

    def call(self, method: str, *arguments: Any) -> Any:
        """Return the result of `supervisor.METHOD`. Raises: SupervisorAway, SupervisorFault."""
        transport = _UnixTransport(self._path, self._timeout_s)
        try:
            with xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise SupervisorFault(fault.faultCode, fault.faultString) from None
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise SupervisorAway(f"supervisord at {self._path} does not answer: {error}") from None

    def processes(self) -> dict[str, Supervised]:
        """Return all processes by our name, without the socket holders."""
        rows = self.call("getAllProcessInfo")
        found: dict[str, Supervised] = {}
        for row in rows:
            name = contract_name(row["group"], row["name"], len([r for r in rows if r["group"] == row["group"]]))
            if name is not None:
                found[name] = Supervised(
                    name, row["statename"], row["pid"], row["start"], row["exitstatus"], row["spawnerr"]
                )
        return found

    def kill(self, name: str) -> None:
        """Send SIGKILL. supervisord starts the successor as soon as it sees the death."""
        self.call("signalProcess", supervisor_name(name), "KILL")

    def start(self, name: str) -> None:
        """Start a stopped or FATAL process, without waiting for it."""
        self.call("startProcess", supervisor_name(name), False)

    def stop(self, name: str, wait: bool = False) -> None:
        """Send SIGTERM, and SIGKILL if the process does not end. It then stays stopped.

        Only for an operator who wants the process stopped, never as a remedy.
        """
        self.call("stopProcess", supervisor_name(name), wait)

    def poke(self) -> None:
        """Wake supervisord's poll, so that it sees a death now and not in a second or two."""
        self.call("getState")


def supervisor_name(name: str) -> str:
    """Return supervisord's GROUP:NAME for our name of a process.

    `gateway:1` is member 2 of its group, because member 0 holds the socket.
    """
    kind, _, number = name.partition(":")
    return f"{kind}:{kind}_{int(number or 0) + 1}" if kind in HELD else f"{kind}:{kind}"


def contract_name(group: str, name: str, members: int) -> str | None:
    """Return our name of the process that is supervisord's GROUP:NAME; None for a socket holder."""
    if group not in HELD:
        return name
    member = int(name.rpartition("_")[2])
    if member == 0:
        return None
    return group if members == 2 else f"{group}:{member - 1}"
