"""A double of the operators' port: the API's paths and the WebSocket, on a real socket, scripted by a test.

Shape: `answers` maps (method, path) to a list of answers; each request takes the next one, the last one stays. An
answer of None closes the connection without a word. `stranger`: bytes that answer every request, as somebody else would
who has the port, or a proxy before it; the connection is closed then. `frames` are sent to each WebSocket that
connects, which then stays open or, with `hang_up`, is closed.
"""

from __future__ import annotations

import http
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import msgspec
from doubles.deadline import WAIT_S
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_websocket

STAMP = "2026-01-02T03:04:05.678Z"


def command(command_id: str, host: str, state: str = "running", **more: Any) -> dict[str, Any]:
    """A command as the API shows it."""
    times = dict.fromkeys(
        ("sent_at", "started_at", "finished_at", "expires_at", "cancel_requested_at", "lost_at", "unheard_since")
    )
    words = {"op": "pull", "reason": "", "message": "", "actor": "admin", "key": None, "run": None, "exit_code": None}
    counts = {"ttl_s": 1.0, "attempt": 1, "output_next": 0, "output_truncated": False}
    return {"id": command_id, "host": host, "state": state, "created_at": STAMP, **times, **words, **counts, **more}


def host(name: str, **more: Any) -> dict[str, Any]:
    """A host as the API shows it, that has not said anything yet."""
    unknown = dict.fromkeys(
        (
            "last_seen",
            "enrolled_at",
            "connected_since",
            "heartbeat_interval_s",
            "commands",
            "metrics",
            "pending_command",
        )
    )
    words = dict.fromkeys(("host_id", "address", "host_type", "agent_version", "os_version"), "")
    told: dict[str, Any] = {"command_options": {}, "facts": {}, "heartbeat_facts": {}}
    return {"name": name, "presence": "online", "revoked": False, "protocol": 1, **unknown, **words, **told, **more}


def part(host: str, state: str, step: int = 0, command_id: str | None = None, reason: str = "") -> dict[str, Any]:
    """One host's part in a run."""
    return {"host": host, "state": state, "step": step, "command_id": command_id, "reason": reason}


def active(host: str, command_id: str, step: int = 0) -> dict[str, Any]:
    """The part of a host that is at a step."""
    return part(host, "active", step, command_id)


def fleet_run(
    *hosts: dict[str, Any], state: str = "running", steps: tuple[str, ...] = ("pull", "switch")
) -> dict[str, Any]:
    """The run r1 as the API shows it, counted."""
    counts = {
        name: sum(each["state"] == name for each in hosts)
        for name in ("pending", "active", "succeeded", "failed", "not_attempted")
    }
    words = {"actor": "admin", "key": "k1", "created_at": STAMP, "finished_at": None, "cancel_requested_at": None}
    limits = {"parallel": len(hosts), "max_failures": None, "ttl_s": 1.0}
    shown = [{**each, "op": steps[each["step"]]} for each in hosts]
    return {
        "id": "r1",
        "state": state,
        "steps": list(steps),
        **limits,
        **words,
        "total": len(hosts),
        **counts,
        "hosts": shown,
    }


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    query: str
    token: str
    body: Any


@dataclass
class ApiServer:
    """The running double."""

    url: str = ""
    answers: dict[tuple[str, str], list[tuple[int, Any] | None]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    stranger: bytes | None = None

    def on(self, method: str, path: str, *answers: tuple[int, Any] | None) -> None:
        """The answers to requests of this path, in order; the last one stays."""
        self.answers[method, path] = list(answers)

    def asked_for(self, method: str, path: str) -> list[Asked]:
        """The requests of this path that came so far."""
        return [each for each in self.asked if (each.method, each.path) == (method, path)]


@contextmanager
def running() -> Iterator[ApiServer]:
    """The HTTP double on a port of its own; a WebSocket upgrade is refused with 404."""
    double = ApiServer()

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = msgspec.json.decode(self.rfile.read(length)) if length else None
            double.asked.append(
                Asked(self.command, parts.path, parts.query, self.headers.get("Authorization", ""), body)
            )
            if double.stranger is not None:
                self.close_connection = True
                self.wfile.write(double.stranger)
                return
            script = double.answers.get(
                (self.command, parts.path), [(404, {"error": "not_found", "message": f"no {parts.path}"})]
            )
            now = script.pop(0) if len(script) > 1 else script[0]
            if now is None:
                self.close_connection = True
                return
            status, value = now
            text = msgspec.json.encode(value)
            self.send_response(status, http.HTTPStatus(status).phrase)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    double.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield double
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class FeedServer:
    """A WebSocket that sends, at each connection, the next list of frames, and then hangs up; the last list's
    connection stays.
    """

    url: str = ""
    scripts: list[list[dict[str, Any]]] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0


@contextmanager
def feeding(scripts: list[list[dict[str, Any]]]) -> Iterator[FeedServer]:
    """The WebSocket double on a port of its own. Each script is sent after the connection's first message."""
    double = FeedServer(scripts=list(scripts))

    def serve(connection: ServerConnection) -> None:
        double.connections += 1
        script = double.scripts.pop(0) if double.scripts else None
        double.heard.append(msgspec.json.decode(connection.recv(timeout=WAIT_S)))
        for frame in script or []:
            connection.send(msgspec.json.encode(frame).decode())
        if not double.scripts:
            for message in connection:
                double.heard.append(msgspec.json.decode(message))

    with serve_websocket(serve, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        double.url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        try:
            yield double
        finally:
            server.shutdown()
            thread.join()
