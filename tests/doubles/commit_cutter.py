"""A proxy before PostgreSQL that cuts the connection at a COMMIT: before it is sent, in its middle, or before its answer."""

from __future__ import annotations

import contextlib
import select
import socket
import threading

COMMIT = b"COMMIT\0"


class CommitCutter:
    """Use as a context. `cut`: how the next COMMIT is cut; empty: it passes."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut = ""
        self.cuts = 0

    def __enter__(self) -> CommitCutter:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._server_port)) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [])
                for side in ready:
                    data = side.recv(1 << 16)
                    if not data:
                        return
                    if side is server:
                        client.sendall(data)
                    elif self.cut and COMMIT in data:
                        self._cut(server, data)
                        return
                    else:
                        server.sendall(data)

    def _cut(self, server: socket.socket, data: bytes) -> None:
        cut, self.cut = self.cut, ""
        self.cuts += 1
        if cut == "half":
            server.sendall(data[: data.index(COMMIT) + 3])
        elif cut == "after":
            server.sendall(data)
            server.recv(1 << 16)
