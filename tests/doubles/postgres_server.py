"""A PostgreSQL of the tests' own: a cluster in a temporary folder, on loopback, that can be killed, frozen and restarted."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from doubles.deadline import WAIT_S

OWNER = "postgres"  # it refuses to run as root
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "log_min_messages": "log",
}


def binary(name: str) -> str | None:
    """Return the path of one of PostgreSQL's programs; None if it is not on this machine."""
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(debian[-1]) if debian else None)


class PostgresServer:
    """One server. Use as a context."""

    def __init__(self, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fhpg"))
        self.data = self.folder / "data"
        self._as: dict[str, str] = {}
        if os.getuid() == 0:
            self._as = {"user": OWNER, "group": OWNER}
            shutil.chown(self.folder, OWNER, OWNER)
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", OWNER, "-E", "UTF8", "--no-locale", "-N")
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        said = {**SETTINGS, "port": str(self.port), "unix_socket_directories": str(self.folder), **settings}
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = '{value}'\n" for key, value in said.items())

    def __enter__(self) -> PostgresServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def pid(self) -> int:
        """The postmaster's."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def url(self, database: str = OWNER, port: int | None = None) -> str:
        """Return where it listens, or, with a port, where something in front of it does."""
        return f"postgresql://{OWNER}@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """It answers afterwards."""
        log = self.folder / "log"
        self._run("pg_ctl", "-D", str(self.data), "-l", str(log), "-w", "-t", str(int(WAIT_S)), "start")

    def stop(self, mode: str = "immediate") -> None:
        """It is gone afterwards. `immediate`: as a kill, but its shared memory is tidied up."""
        self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The postmaster and all that it started stand still."""
        pids = [self.pid, *self._children()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _children(self) -> list[int]:
        return [int(each) for each in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def _run(self, name: str, *arguments: str) -> None:
        path = binary(name)
        assert path is not None, f"{name} is not on this machine"
        # pg_ctl's server inherits what it writes to: a pipe would be waited for until the server's end
        with (self.folder.parent / f"{self.folder.name}.out").open("w+") as out:
            Path(out.name).unlink()
            done = subprocess.run(
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                check=False,
                **self._as,  # type: ignore[call-overload]
            )
            out.seek(0)
            assert done.returncode == 0, out.read()
