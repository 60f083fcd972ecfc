"""The server: all queues and all connections on one event loop, so nothing needs a lock; handshakes on threads.

A turn of the event loop takes connections, answers calls, and hands what was appended to those who wait for it. Nothing
here waits: a read that finds nothing is kept until something is appended, or until its time is over. A handshake waits
for a peer that may be slow or hostile, so it has a thread and a deadline; it never touches the queues.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, assert_never

from processes.adapters import own_user, ownership
from processes.adapters.logs import Log
from processes.adapters.queue_socket import FAILURES, key_path, limit_waits, on_thread, prove_as_server, refuse, shut
from processes.adapters.state import durable
from processes.core.errors import Fenced
from processes.core.queues import lesser_calls
from processes.core.queues.bounded_queue import QueueSet
from processes.core.travels import queue_calls
from processes.core.travels.queue_calls import EPOCH_MAX, AnyCall, AnyReply, QueueRefused, ReadCall, check_append
from processes.core.values import Position
from processes.queues.peer import Peer

CONNECTIONS_MAX: Final = 256  # two for each gateway and fanout, and the watchdog's; a descriptor each
BACKLOG: Final = 128
ACCEPTS_MAX: Final = 16  # connections taken in one turn of the event loop
HANDSHAKE_S_MAX: Final = 2.0
MESSAGE_S_MAX: Final = 5.0  # for the rest of a message, or of a reply; guess: far over what a busy machine needs
FAILING_S_MAX: Final = 5.0  # after failing to accept for so long the process gives up and is started anew
FAILING_PAUSE_S: Final = 0.05  # between two tries while there is no descriptor or thread
_PEER: Final = struct.Struct("3i")  # struct ucred of unix(7): pid, uid, gid


class Counts(NamedTuple):
    """The numbers of the pulse: items received, acknowledged and dropped since the start; items kept;
    connections of other processes.
    """

    received: int
    delivered: int
    dropped: int
    backlog: int
    connections: int


class Server:
    """All queues, served at `path`. `broken`: why no connection can be accepted any more; its process must then end."""

    def __init__(
        self,
        path: Path,
        log: Log,
        *,
        connections_max: int = CONNECTIONS_MAX,
        failing_s_max: float = FAILING_S_MAX,
        handshake_s_max: float = HANDSHAKE_S_MAX,
        message_s_max: float = MESSAGE_S_MAX,
    ) -> None:
        self.broken = ""
        self._path, self._log = path, log
        self._connections_max, self.failing_s_max = connections_max, failing_s_max
        self._handshake_s_max, self._message_s_max = handshake_s_max, message_s_max
        self._queues = QueueSet(secrets.randbelow(EPOCH_MAX - 1) + 1)
        self._peers: set[Peer] = set()
        self._waiting: dict[str, dict[Peer, None]] = {}  # by queue, in the order of their reads
        self._grown: set[str] = set()  # queues whose readers are told at the end of this turn of the event loop
        self._openings: set[asyncio.Task[None]] = set()
        self._key = b""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._failing_since_s = 0.0
        self._closing = False

    def start(self) -> None:
        """Let clients connect, as long as the running event loop turns. The caller holds the lock of the process name,
        so a socket found at the path is a dead process's.

        Raises: OSError.
        """
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own_user.close(folder)  # the real fence: a user who cannot enter the folder cannot connect
        group = ownership.group_let_into(folder)
        self._key = _fresh_key(key_path(self._path), group)
        fresh = self._path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        self._listener.bind(os.fspath(fresh))
        if group is not None:
            os.chown(fresh, -1, group)
        fresh.chmod(0o600 if group is None else 0o660)
        self._listener.listen(BACKLOG)
        self._listener.setblocking(False)
        # in one step: the path always has either the old socket, which refuses, or one that answers
        fresh.rename(self._path)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Let no client connect any more, and end all connections."""
        self._closing = True
        self._path.unlink(missing_ok=True)
        self._loop.remove_reader(self._listener)
        shut(self._listener)
        self._listener.close()
        for peer in list(self._peers):
            peer.end()

    @property
    def hub_epoch(self) -> int:
        """Return the newest hub epoch of any call."""
        return self._queues.hub_epoch

    def counts(self) -> Counts:
        """Return the sums over all queues."""
        queues = self._queues.all()
        received, delivered = sum(queue.appended for queue in queues), sum(queue.acknowledged for queue in queues)
        dropped, backlog = sum(queue.dropped for queue in queues), sum(map(len, queues))
        connections = sum(peer.pid != os.getpid() for peer in self._peers)
        return Counts(received, delivered, dropped, backlog, connections)

    def reap(self, now_mono_s: float) -> int:
        """End connections past their deadline: in the handshake (a peer may send it byte by byte), within a message, or
        with a reply that is not read. Return how many.
        """
        overdue = [
            peer
            for peer in self._peers
            if peer.busy_since_s is not None
            and now_mono_s - peer.busy_since_s > (self._message_s_max if peer.proven else self._handshake_s_max)
        ]
        for peer in overdue:
            peer.end(TimeoutError("it took too long"))
        return len(overdue)

    # connections

    def _accept(self) -> None:
        """Called when connections wait."""
        try:
            for _ in range(ACCEPTS_MAX):
                self._take(self._listener.accept()[0])
                self._failing_since_s = 0.0
        except BlockingIOError:
            pass  # all are taken
        except OSError as error:  # no descriptor, no memory, no thread
            self._fail_to_accept(error)
        except Exception as error:
            self._break(error)

    def _fail_to_accept(self, error: OSError) -> None:
        now_s = time.monotonic()
        self._failing_since_s = self._failing_since_s or now_s
        if now_s - self._failing_since_s > self.failing_s_max:
            self._break(error)
            return
        self._log.warning("cannot accept", error=str(error))
        self._loop.remove_reader(self._listener)  # or it would be called again at once
        self._loop.call_later(FAILING_PAUSE_S, self._accept_again)

    def _accept_again(self) -> None:
        if not self._closing:
            self._loop.add_reader(self._listener, self._accept)

    def _break(self, error: Exception) -> None:
        self._loop.remove_reader(self._listener)
        self.broken = f"no connection can be accepted: {error!r}"

    def _take(self, sock: socket.socket) -> None:
        try:
            pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            lesser = "" if uid in (os.getuid(), 0) else own_user.kind_of(uid, self._path.parent)
            if lesser is None:
                raise PermissionError(f"a connection of user {uid}")
            # the pings of this process always get in: a full server is not a frozen one
            if len(self._peers) >= self._connections_max and pid != os.getpid():
                self._log.warning("refused a connection", connections=self._connections_max, pid=pid)
                refuse(sock)
                sock.close()
                return
            limit_waits(sock, self._handshake_s_max)
            proving = on_thread(f"handshake-{pid}", lambda: prove_as_server(sock, self._key), lambda _: None)
        except BaseException:
            sock.close()
            raise
        peer = Peer(sock, pid, self._answer, self._forget, lesser=lesser)
        self._peers.add(peer)
        opening = self._loop.create_task(peer.open(proving))
        self._openings.add(opening)
        opening.add_done_callback(self._openings.discard)

    def _forget(self, peer: Peer, error: Exception | None) -> None:
        """Called when a connection has ended."""
        self._peers.discard(peer)
        self._stop_waiting(peer)
        if error is None or isinstance(error, EOFError) or self._closing:
            return  # it has closed, or died
        if isinstance(error, FAILURES):
            self._log.info("a connection broke", pid=peer.pid, proven=peer.proven, error=str(error))
        else:
            self._log.error("a call could not be answered", pid=peer.pid, exc_info=error)

    # calls

    def _answer(self, peer: Peer, message: bytes) -> AnyReply | None:
        """Return the reply to a call; None if it waits, and is told to the peer later."""
        try:
            call = queue_calls.decode_call(message)
            if peer.lesser:
                lesser_calls.check(call, peer.lesser)
            return self._perform(peer, call)
        except Fenced as error:
            return queue_calls.FencedReply(error.own_epoch, error.newest_epoch)
        except QueueRefused as error:
            self._log.warning("refused a call", pid=peer.pid, code=error.code, error=str(error))
            return queue_calls.RefusedReply(error.code, str(error))

    def _perform(self, peer: Peer, call: AnyCall) -> AnyReply | None:
        # what epoch a lesser user names ends no hub
        if not peer.lesser and self._queues.admit(call.role, call.hub_epoch):
            # a hub of an older epoch that waits is told at once
            self._look_again([waiting for waitings in self._waiting.values() for waiting in waitings])
        match call:
            case queue_calls.AppendCall():
                check_append(call.items)
                queue = self._queues.named(call.queue)
                self._queues.admit_append(call.client, call.number)
                appended = queue.append(call.items, time.monotonic(), bulk=call.bulk, lossy=call.lossy)
                if not self._grown:
                    self._loop.call_soon(self._tell_grown)
                self._grown.add(call.queue)
                return queue_calls.AppendedReply(appended)
            case queue_calls.ReadCall():
                return self._read(peer, call)
            case queue_calls.AcknowledgeCall():
                self._queues.named(call.queue).acknowledge(Position(call.epoch, call.sequence))
                return queue_calls.DoneReply()
            case queue_calls.StatsCall():
                return self._stats()
            case queue_calls.PingCall():
                return queue_calls.DoneReply()
            case _:
                assert_never(call)

    def _read(self, peer: Peer, call: ReadCall) -> AnyReply | None:
        """Return what there is to read; None if the peer waits for it from now on."""
        queue = self._queues.named(call.queue)
        peer.reading = call.queue
        batch = queue.read(Position(call.epoch, call.sequence), call.items_max, call.bytes_max)
        if batch.items or batch.gap or call.wait_s <= 0:
            return queue_calls.BatchReply(batch)
        peer.wait(call, batch.position, self._over)
        self._waiting.setdefault(call.queue, {})[peer] = None
        return None

    def _tell_grown(self) -> None:
        """Answer those who wait for what was appended in this turn of the event loop: one batch with all of it."""
        grown, self._grown = self._grown, set()
        for queue in grown:
            self._look_again(list(self._waiting.get(queue, ())))

    def _look_again(self, peers: Iterable[Peer]) -> None:
        """Answer those of the peers whose read finds something now, or may not go on."""
        for peer in peers:
            call = peer.waits_with
            reply = None if call is None else self._look(peer, call, peer.waits_after)
            if reply is not None:
                self._stop_waiting(peer)
                peer.reply(reply)

    def _look(self, peer: Peer, call: ReadCall, after: Position) -> AnyReply | None:
        try:
            if not peer.lesser:
                self._queues.admit(call.role, call.hub_epoch)  # a newer hub may have come meanwhile
        except Fenced as error:
            return queue_calls.FencedReply(error.own_epoch, error.newest_epoch)
        batch = self._queues.named(call.queue).read(after, call.items_max, call.bytes_max)
        return queue_calls.BatchReply(batch) if batch.items or batch.gap else None

    def _over(self, peer: Peer) -> None:
        """Called when a peer has waited for as long as it wanted."""
        call = peer.waits_with
        assert call is not None
        self._stop_waiting(peer)
        peer.reply(queue_calls.BatchReply(self._queues.named(call.queue).read(peer.waits_after, 1, 1)))

    def _stop_waiting(self, peer: Peer) -> None:
        if peer.waits_with is not None:
            del self._waiting[peer.waits_with.queue][peer]
            peer.waits_with = None

    def _stats(self) -> AnyReply:
        reading = [peer.reading for peer in self._peers]
        now_s = time.monotonic()
        return queue_calls.StatsReply([queue.stats(now_s, reading.count(queue.name)) for queue in self._queues.all()])


def _fresh_key(path: Path, group: int | None) -> bytes:
    """Write a new random key in place of the one before, and return it. Only this user can read it, and the group."""
    key = secrets.token_bytes(32)
    durable.replace(path, key, mode=0o600 if group is None else 0o640, durable=False, group=group)
    return key
