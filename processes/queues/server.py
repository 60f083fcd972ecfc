"""The server: a thread for each connection, one lock around all queues, and an accepter whose failure is noticed.

The accepter takes connections and starts their threads. A connection's thread makes the handshake, then answers one
call after the other, and waits for items on its queue's condition. Every wait has a deadline, but for the wait for the
next call of an idle connection.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Final, NamedTuple, assert_never

from processes.adapters import own_user
from processes.adapters.logs import Log
from processes.adapters.queue_socket import FAILURES, FULL, Wire, key_path, limit_waits
from processes.adapters.state import durable
from processes.core.errors import Fenced
from processes.core.queues import gateways_calls
from processes.core.queues.bounded_queue import QueueSet
from processes.core.travels import queue_calls
from processes.core.travels.queue_calls import EPOCH_MAX, AnyCall, AnyReply, QueueRefused, check_append
from processes.core.values import Position

CONNECTIONS_MAX: Final = 256  # two for each gateway and fanout, and the watchdog's; a thread and two descriptors each
BACKLOG: Final = 128
HANDSHAKE_S_MAX: Final = 2.0
MESSAGE_S_MAX: Final = 5.0  # one read or write within a message; guess: far over what a busy machine needs
FAILING_S_MAX: Final = 5.0  # after failing to accept for so long the process gives up and is started anew
CLOSING_S_MAX: Final = 0.5  # for the lock of the queues; then the process ends without it
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


class _Peer:
    """One connection. `proven`: it has shown the key; `is_gateways`: its user is one that only gateways have."""

    def __init__(self, wire: Wire, pid: int, is_gateways: bool) -> None:
        self.wire, self.pid, self.is_gateways = wire, pid, is_gateways
        self.since_s = time.monotonic()
        self.proven = False
        self.reading = ""  # the queue of its last read


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
        self._lock = threading.Lock()  # around the queues
        # by queue: notified when the queue has new items, or when a newer hub has come
        self._grown: dict[str, threading.Condition] = {}
        self._peers: set[_Peer] = set()
        self._peers_lock = threading.Lock()
        self._key = b""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._closing = False

    def start(self) -> None:
        """Let clients connect. The caller holds the lock of the process name, so a socket found at the path is a dead
        process's.

        Raises: OSError.
        """
        folder = self._path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own_user.close(folder)  # the real fence: a user who cannot enter the folder cannot connect
        group = own_user.group_let_into(folder)
        self._key = _fresh_key(key_path(self._path), group)
        fresh = self._path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        self._listener.bind(os.fspath(fresh))
        if group is not None:
            os.chown(fresh, -1, group)
        fresh.chmod(0o600 if group is None else 0o660)
        self._listener.listen(BACKLOG)
        # in one step: the path always has either the old socket, which refuses, or one that answers
        fresh.rename(self._path)
        threading.Thread(target=self._accept, name="accepter", daemon=True).start()

    def close(self) -> None:
        """Let no client connect any more, and end all connections."""
        self._closing = True
        self._path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._peers_lock:
            for peer in self._peers:
                peer.wire.shut()
        if self._lock.acquire(timeout=CLOSING_S_MAX):
            for condition in self._grown.values():
                condition.notify_all()  # threads that wait for items have lost their clients
            self._lock.release()

    @property
    def hub_epoch(self) -> int:
        """Return the newest hub epoch of any call."""
        return self._queues.hub_epoch

    def counts(self) -> Counts:
        """Return the sums over all queues."""
        with self._lock:
            queues = self._queues.all()
            received, delivered = sum(queue.appended for queue in queues), sum(queue.acknowledged for queue in queues)
            dropped, backlog = sum(queue.dropped for queue in queues), sum(map(len, queues))
        with self._peers_lock:
            connections = sum(peer.pid != os.getpid() for peer in self._peers)
        return Counts(received, delivered, dropped, backlog, connections)

    def reap(self, now_mono_s: float) -> int:
        """End connections past the handshake's deadline (a peer may send it byte by byte). Return how many."""
        before_s = now_mono_s - self._handshake_s_max
        with self._peers_lock:
            overdue = [peer for peer in self._peers if not peer.proven and peer.since_s < before_s]
            for peer in overdue:
                peer.wire.shut()
        return len(overdue)

    # the accepter

    def _accept(self) -> None:
        failing_since_s = 0.0
        try:
            while not self._closing:
                try:
                    self._take(self._listener.accept()[0])
                    failing_since_s = 0.0
                except (OSError, RuntimeError) as error:  # no descriptor, no memory; "can't start new thread"
                    failing_since_s = failing_since_s or time.monotonic()
                    if time.monotonic() - failing_since_s > self.failing_s_max:
                        raise
                    if not self._closing:
                        self._log.warning("cannot accept", error=str(error))
                        time.sleep(FAILING_PAUSE_S)
        except Exception as error:
            self.broken = f"no connection can be accepted: {error!r}"

    def _take(self, sock: socket.socket) -> None:
        try:
            pid, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
            limit_waits(sock, self._handshake_s_max)
            wire = Wire(sock)
        except BaseException:
            sock.close()
            raise
        peer = _Peer(wire, pid, uid not in (os.getuid(), 0) and uid == own_user.group_let_into(self._path.parent))
        try:
            if uid not in (os.getuid(), 0) and not peer.is_gateways:
                raise PermissionError(f"a connection of user {uid}")
            with self._peers_lock:
                # the pings of this process always get in: a full server is not a frozen one
                full = len(self._peers) >= self._connections_max and pid != os.getpid()
                if not full:
                    self._peers.add(peer)
            if full:
                self._log.warning("refused a connection", connections=self._connections_max, pid=pid)
                with contextlib.suppress(*FAILURES):
                    wire.send(FULL)
                wire.close()
            else:
                threading.Thread(target=self._serve, args=(peer,), name=f"peer-{pid}", daemon=True).start()
        except BaseException:
            self._forget(peer)
            raise

    def _forget(self, peer: _Peer) -> None:
        with self._peers_lock:
            self._peers.discard(peer)
            # under the lock: `reap` must not shut a descriptor that belongs to another connection by now
            peer.wire.close()

    # a connection's thread

    def _serve(self, peer: _Peer) -> None:
        try:
            peer.wire.prove_as_server(self._key)
            peer.proven = True
            peer.wire.limit(self._message_s_max)
            while peer.wire.readable(None):
                peer.wire.send(queue_calls.encode(self._answer(peer, peer.wire.receive())))
        except EOFError:
            pass  # it has closed, or died
        except FAILURES as error:
            if not self._closing:
                self._log.info("a connection broke", pid=peer.pid, proven=peer.proven, error=str(error))
        except Exception:
            self._log.error("a connection's thread failed", pid=peer.pid, exc_info=True)
        finally:
            self._forget(peer)

    def _answer(self, peer: _Peer, message: bytes) -> AnyReply:
        try:
            call = queue_calls.decode_call(message)
            if peer.is_gateways:
                gateways_calls.check(call)
            return self._perform(peer, call)
        except Fenced as error:
            return queue_calls.FencedReply(error.own_epoch, error.newest_epoch)
        except QueueRefused as error:
            self._log.warning("refused a call", pid=peer.pid, code=error.code, error=str(error))
            return queue_calls.RefusedReply(error.code, str(error))

    def _perform(self, peer: _Peer, call: AnyCall) -> AnyReply:
        with self._lock:
            if not peer.is_gateways:  # what epoch it names ends no hub
                self._admit(call)
            match call:
                case queue_calls.AppendCall():
                    check_append(call.items)
                    queue = self._queues.named(call.queue)
                    self._queues.admit_append(call.client, call.number)
                    appended = queue.append(call.items, time.monotonic(), bulk=call.bulk, lossy=call.lossy)
                    self._condition(call.queue).notify_all()
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

    def _read(self, peer: _Peer, call: queue_calls.ReadCall) -> AnyReply:
        queue = self._queues.named(call.queue)
        peer.reading = call.queue
        after = Position(call.epoch, call.sequence)
        deadline_s = time.monotonic() + call.wait_s
        while True:
            batch = queue.read(after, call.items_max, call.bytes_max)
            left_s = deadline_s - time.monotonic()
            if batch.items or batch.gap or left_s <= 0 or self._closing:
                return queue_calls.BatchReply(batch)
            after = batch.position
            self._condition(call.queue).wait(left_s)
            if not peer.is_gateways:
                self._admit(call)  # a newer hub may have come meanwhile

    def _stats(self) -> AnyReply:
        with self._peers_lock:
            reading = [peer.reading for peer in self._peers]
        now_s = time.monotonic()
        return queue_calls.StatsReply([queue.stats(now_s, reading.count(queue.name)) for queue in self._queues.all()])

    def _admit(self, call: AnyCall) -> None:
        if self._queues.admit(call.role, call.hub_epoch):
            for condition in self._grown.values():
                condition.notify_all()  # a hub of an older epoch that waits here is told at once

    def _condition(self, name: str) -> threading.Condition:
        condition = self._grown.get(name)
        if condition is None:
            condition = self._grown[name] = threading.Condition(self._lock)
        return condition


def _fresh_key(path: Path, group: int | None) -> bytes:
    """Write a new random key in place of the one before, and return it. Only this user can read it, and the group."""
    key = secrets.token_bytes(32)
    durable.replace(path, key, mode=0o600 if group is None else 0o640, durable=False, group=group)
    return key
