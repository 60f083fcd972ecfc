"""What somebody might use in our place, as this hub's equals under the same clients: built from peers/ by Go, started
on free ports, ended with the context.

plain is ours: what one would write in an afternoon (peers/plain/main.go). nats is nats-server, a message server that
knows no hosts: agents publish, the subscriber subscribes, over its WebSockets.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from doubles.house import free_port

from bench.installation import cost
from bench.load import cache
from bench.meter import Cost

SOURCES: Final = Path(__file__).with_name("peers")
PACKAGES: Final = {"plain": "./plain", "nats": "github.com/nats-io/nats-server/v2"}
GO: Final = ("go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go")  # where it is looked for


class NoPeer(Exception):
    """The peer cannot be built here; the text says why."""


class Peer:
    """One running peer."""

    def __init__(self, name: str, pid: int, ports: tuple[int, int], tokens: Path) -> None:
        self.name, self._pid = name, pid
        self.agents_port, self.operators_port = ports
        self.tokens = self.operator_token = tokens
        self.dialect = "nats" if name == "nats" else "fleethub"

    def costs(self) -> dict[str, Cost]:
        """Return what its one process has cost so far."""
        return {self.name: cost(self._pid)}

    def turned_s(self) -> dict[str, float]:
        """Return nothing: it has no pulse."""
        return {}

    def incidents(self) -> int:
        """Return 0: nobody watches it."""
        return 0

    def verdict(self) -> str:
        """Return nothing: it says nothing of itself."""
        return ""


def built(name: str) -> Path:
    """Return the peer's program, which Go builds if its sources have changed. Raises: NoPeer."""
    go = next(filter(None, map(shutil.which, GO)), None)
    if go is None:
        raise NoPeer("Go is not installed")
    program = cache() / name
    done = subprocess.run(
        [go, "build", "-o", str(program), PACKAGES[name]], cwd=SOURCES, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise NoPeer(f"go build {PACKAGES[name]} failed: {done.stderr.strip()[-500:]}")
    return program


@contextlib.contextmanager
def running(name: str, agents: int) -> Iterator[Peer]:
    """Start the peer for so many agents. Raises: NoPeer."""
    program = built(name)
    with tempfile.TemporaryDirectory(prefix="fhpeer") as text:
        folder = Path(text)
        tokens = folder / "tokens"
        tokens.write_text("none\n" * max(agents, 1))  # nobody asks for them
        ports = free_port(), free_port()
        words = [str(port) for port in ports]
        if name == "nats":
            ports = ports[0], ports[0]
            config = folder / "nats.conf"
            config.write_text(
                f'listen: "127.0.0.1:{free_port()}"\nmax_connections: 100000\n'
                f'websocket {{ listen: "127.0.0.1:{ports[0]}", no_tls: true }}\n'
            )
            words = ["-c", str(config), "-l", str(folder / "log")]
        process = subprocess.Popen([str(program), *words], stdin=subprocess.DEVNULL, env=_clean(), cwd=folder)
        try:
            yield Peer(name, process.pid, ports, tokens)
        finally:
            process.kill()
            process.wait()


def _clean() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}
