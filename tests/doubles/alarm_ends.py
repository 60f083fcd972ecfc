"""The far ends of alarms: a webhook and a mail server on loopback, which take, refuse or hang."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from typing import Any


class Webhook:
    """What it got, and how it answers: a status, or "hang": not until the end. `deflated`: the body of its answer."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.raw: list[tuple[bytes, dict[str, str]]] = []  # bodies as they came, with their headers
        self.answer: int | str = 200
        self.deflated = b""
        self.elsewhere = ""  # where it sends whoever asks
        self.released = threading.Event()
        self.asked = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """Its apprise URL, with secrets."""
        return f"json://user1:s3cret-pw@127.0.0.1:{self.port}/T0KEN-path"

    @property
    def titles(self) -> list[str]:
        """Of what it took, in order."""
        return [str(message["title"]) for message in self.got]


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    """A real HTTP server, from its start to its end."""
    hook = Webhook()

    class Post(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            hook.raw.append((raw, {name.lower(): value for name, value in self.headers.items()}))
            body = json.loads(raw)
            hook.asked.set()
            if hook.answer == "hang":
                hook.released.wait(60)
                return
            self.send_response(int(hook.answer))
            if hook.deflated:
                self.send_header("Content-Encoding", "deflate")
                self.send_header("Content-Length", str(len(hook.deflated)))
            if hook.elsewhere:
                self.send_header("Location", hook.elsewhere)
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # it does not want the body
                self.wfile.write(hook.deflated)
            if hook.answer == 200:
                hook.got.append(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Post) as server:
        server.daemon_threads = True
        hook.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hook
        finally:
            hook.released.set()
            server.shutdown()
            thread.join()


class _Mail(socketserver.StreamRequestHandler):
    """As much of SMTP (RFC 5321) as a client needs to be rid of a mail."""

    def handle(self) -> None:
        self._say("220 double")
        while line := self.rfile.readline().decode().strip():
            word = line.split(" ")[0].upper()
            if word == "DATA":
                self._say("354 go on")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.got.append(b"".join(lines).decode())  # type: ignore[attr-defined]
            self._say("221 bye" if word == "QUIT" else "250 ok")
            if word == "QUIT":
                return

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextlib.contextmanager
def mail_server() -> Iterator[tuple[int, list[str]]]:
    """A real SMTP server: its port, and the mails that it got."""
    got: list[str] = []
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Mail) as server:
        server.daemon_threads = True
        server.got = got  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1], got
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listening:
        yield listening.getsockname()[1]
