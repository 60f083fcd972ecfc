"""The accept loop of a port: counts and bounds connections before anything else is done for them, TLS included.

supervisord holds the listening socket and hands it over as descriptor 0. core/connections.py decides which connection
goes when there are too many; here they are accepted, so many in one pass of the loop, made into transports, and ended.

When nothing can be accepted for want of a descriptor or of kernel memory, the oldest silent connection is ended and
accepting pauses for PAUSE_S; after FAILING_S_MAX of that, and at once after any other failure or a MemoryError, the
listener has failed: its process must end, so that another takes over. So a port is never deaf for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from processes.adapters.logs import Log
from processes.core import connections
from processes.core.connections import Connections, PortLimits

BACKLOG: Final = 4096  # measured: 5,000 connects at once take 1.4 s with it, 3.1 s with asyncio's 100
# of the TLS handshake, before the request's own deadline; two round trips and some milliseconds of work
HANDSHAKE_S_MAX: Final = 5.0
# in one pass of the loop, this part of the room for those told to end: they are gone after three passes. So 64 at most;
# a handshake takes about 1 ms
ACCEPTED_SHARE: Final = 4
PAUSE_S: Final = 0.05  # without a descriptor, between two tries
FAILING_S_MAX: Final = 10.0  # without a descriptor for so long: failed. As long as silent strangers may stay
TOLD_S: Final = 10.0  # between two lines of the log about connections that were ended or refused
DESCRIPTORS_MAX: Final = 65_536  # wanted; the hard limit may be less
# for everything but a port's connections: queues, log, pulse, database, evidence
DESCRIPTORS_KEPT: Final = 512
# of a connection with TLS: uvloop reserves a buffer of 256 KiB for each, and OpenSSL needs some 40. Measured: 14,000 to
# 18,000 such connections take 4.6 GB
TLS_BYTES: Final = 320 << 10
TLS_SHARE: Final = 0.75  # of a process's memory, for connections with TLS

_SCARCE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# of a connection that ended before it was accepted, or of the network. Source: accept(2), "Error handling"
_ITS_OWN: Final = frozenset(
    {
        errno.ECONNABORTED, errno.EPERM, errno.EPROTO, errno.ENETDOWN, errno.ENOPROTOOPT, errno.EHOSTDOWN,
        errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.ETIMEDOUT,
    }
)  # fmt: skip


def room(tls: ssl.SSLContext | None) -> int:
    """Raise the limit of descriptors as far as it goes. Return how many connections this process may have at most: by
    descriptors, and with TLS also by the memory that it may use.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    descriptors = DESCRIPTORS_MAX if soft == resource.RLIM_INFINITY else soft
    most = max(descriptors - DESCRIPTORS_KEPT, descriptors // 2)
    memory, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if tls is not None and memory != resource.RLIM_INFINITY:
        most = min(most, int(memory * TLS_SHARE) // TLS_BYTES)
    return max(most, 1)


class Arrival:
    """One connection, from its accept until it is gone. Its protocol tells what becomes of it."""

    def __init__(self, listener: Listener, sock: socket.socket, address: str) -> None:
        self.address = address  # of the peer, which may be a proxy
        self.transport: asyncio.Transport | None = None
        self.is_gone = False  # the transport is lost
        self._listener, self._sock = listener, sock
        self._spoke = False

    def opened(self, transport: asyncio.Transport) -> None:
        """Called when the transport is there, and with TLS the handshake is done."""
        self.transport = transport

    def spoke(self, address: str) -> None:
        """Called when a request's head was read, before it is known whose it is. `address`: of the client, which may
        be behind a proxy; only a proxy's connection may be another client's with each request.
        """
        if address != self.address or not self._spoke:
            self._spoke = True
            self._listener.end(self._listener.connections.spoke(self, connections.site_of(address)))

    def claim(self, client: str, *, is_kept_for: bool = False, client_max: int | None = None) -> bool:
        """Count the connection as this client's. Return False if there is no room for that: refuse it."""
        claimed = self._listener.connections.claimed
        if claimed(self, client, is_kept_for=is_kept_for, client_max=client_max):
            return True
        self._listener.turned_away()
        return False

    def abort(self) -> None:
        """End the connection now, whatever is unsent.

        A transport that is only being made cannot be ended by a cancellation: uvloop would forget its protocol, or its
        descriptor. It reads the end of its socket instead, and ends itself.
        """
        if self.transport is not None:
            self.transport.abort()
        else:
            with contextlib.suppress(OSError):  # the peer was first
                self._sock.shutdown(socket.SHUT_RDWR)

    def gone(self) -> None:
        """Called when the transport is lost."""
        self.is_gone = True
        self._listener.connections.gone(self)


class Listener:
    """Accepts connections on `sock` from `start` to `close`, and makes each a protocol by `make`.

    `failed` is done when nothing can be accepted any more: end the process. `on_accepted` and `on_turned_away` are
    called once for each connection that was accepted, and that was refused or ended because there were too many.
    """

    def __init__(
        self, sock: socket.socket, tls: ssl.SSLContext | None, limits: PortLimits,
        make: Callable[[Arrival], asyncio.Protocol], log: Log, *,
        handshake_s_max: float = HANDSHAKE_S_MAX, failing_s_max: float = FAILING_S_MAX,
        on_accepted: Callable[[], None] = lambda: None, on_turned_away: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.connections: Connections[Arrival] = Connections(limits)
        self._sock, self._tls, self._make, self._log = sock, tls, make, log
        self._handshake_s_max, self._failing_s_max = handshake_s_max, failing_s_max
        self._on_accepted, self._on_turned_away = on_accepted, on_turned_away
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._failing_since_s: float | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[Any]] = set()
        self._accepted_max = max(1, connections.spare_of(limits.all_max) // ACCEPTED_SHARE)
        self._untold, self._told_s = 0, -TOLD_S
        self._closed = False

    @property
    def is_short(self) -> bool:
        """Return whether accepting pauses for want of descriptors or of memory."""
        return self._failing_since_s is not None and not self.failed.done()

    def start(self) -> None:
        """Begin to accept. Raises: OSError."""
        self._sock.setblocking(False)
        self._sock.listen(BACKLOG)
        self._loop.add_reader(self._sock.fileno(), self._accept)

    def close(self) -> None:
        """Accept nothing more; the connections stay. A second call does nothing.

        Raises: what the listener failed of.
        """
        if not self._closed:
            self._closed = True
            self._stop()
        if self.failed.done():
            self.failed.result()

    async def wait_closed(self) -> None:
        """Return at once: the connections are their protocols' to close. Part of asyncio's servers."""

    def end(self, arrivals: list[Arrival]) -> None:
        """End connections, because there are too many."""
        for arrival in arrivals:
            arrival.abort()
            self.turned_away()

    def turned_away(self) -> None:
        """Count a connection that was refused or ended because there are too many, and say so now and then."""
        self._on_turned_away()
        self._untold += 1
        now_s = self._loop.time()
        if now_s - self._told_s >= TOLD_S:
            self._log.warning(
                "too many connections: some were ended or refused", ended=self._untold, open=len(self.connections),
                silent=len(self.connections.silent), known=self.connections.known,
            )  # fmt: skip
            self._untold, self._told_s = 0, now_s

    # Inside

    def _accept(self) -> None:
        """Called when connections wait: accepts some, and the rest in the next passes of the loop."""
        try:
            for _ in range(self._accepted_max):
                sock, peer = self._sock.accept()
                self._failing_since_s = None
                self._take(sock, peer)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            if error.errno in _SCARCE:
                self._lack(error)
            elif error.errno not in _ITS_OWN:
                self._fail(error)
        except Exception as error:
            self._fail(error)

    def _take(self, sock: socket.socket, peer: Any) -> None:
        arrival = Arrival(self, sock, connections.plain(str(peer[0])) if isinstance(peer, tuple) else "")
        self._on_accepted()
        ending = self.connections.accepted(arrival, connections.site_of(arrival.address))
        if arrival in ending:
            self.turned_away()
            sock.close()
            return
        self.end(ending)
        sock.setblocking(False)
        task = self._loop.create_task(self._open(arrival, sock))
        self._opening.add(task)
        task.add_done_callback(lambda task: self._opened(task, arrival, sock))

    async def _open(self, arrival: Arrival, sock: socket.socket) -> None:
        protocol = self._make(arrival)
        handshake_s = None if self._tls is None else self._handshake_s_max
        await self._loop.connect_accepted_socket(
            lambda: protocol, sock, ssl=self._tls, ssl_handshake_timeout=handshake_s
        )

    def _opened(self, task: asyncio.Task[Any], arrival: Arrival, sock: socket.socket) -> None:
        """Called when the connection has a transport, or never will."""
        self._opening.discard(task)
        if arrival.transport is None:
            sock.close()
            arrival.gone()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, MemoryError):
            self._fail(error)
        elif error is not None and not isinstance(error, OSError):  # OSError: the peer's, or its network's
            self._log.error("a connection could not be begun", why=repr(error))

    def _lack(self, error: OSError) -> None:
        """Called when there is no descriptor or memory for a connection: makes room, and pauses."""
        now_s = self._loop.time()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
            self._log.warning("no connection can be accepted: trying again", why=str(error))
        if now_s - self._failing_since_s > self._failing_s_max:
            self._fail(error)
            return
        oldest = self.connections.silent.oldest()
        if oldest is not None:
            self.connections.silent.remove(oldest)
            self.end([oldest])
        self._loop.remove_reader(self._sock.fileno())
        self._pause = self._loop.call_later(PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock.fileno(), self._accept)
        self._accept()

    def _fail(self, error: BaseException) -> None:
        self._log.error("no connection can be accepted any more", why=repr(error))
        self._stop()
        if not self.failed.done():
            self.failed.set_exception(error)

    def _stop(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
