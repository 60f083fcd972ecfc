"""Real processes of ours that start in milliseconds: forked from one process, the stem, that has all of fleethub imported.

What runs is what `python -m processes.KIND` runs, in a process of its own, with the environment and descriptors that it
is given; only its imports were done before. So of such a process /proc tells the stem's command line: where that
matters a test starts Python itself.

The stem is a program of its own, one for each process that runs tests. It has one thread, so forking it is safe. It ends
when those who use it are gone.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from typing import IO, NoReturn

import msgspec

KINDS = ("agent", "fanout", "gateway", "hub", "queues")
MESSAGE_BYTES_MAX = 1 << 18  # an environment is a few kB


class Wanted(msgspec.Struct):
    """What the stem is to start; the three standard descriptors come beside it."""

    module: str
    words: list[str]
    environment: dict[str, str]


class Forked:
    """A process of the stem's, with what our tests use of subprocess.Popen."""

    def __init__(self, stem: Stem, pid: int, stderr: IO[bytes] | None) -> None:
        self.pid = pid
        self.stderr = stderr
        self.returncode: int | None = None
        self._stem = stem
        self._end = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None as long as it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code. Raises: subprocess.TimeoutExpired."""
        if self.returncode is None:
            ended = select.poll()  # not select.select: a test may have thousands of descriptors open
            ended.register(self._end, select.POLLIN)
            if not ended.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            self.returncode = self._stem.reap(self.pid)
            os.close(self._end)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens if the process has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._end, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


Started = Forked | subprocess.Popen[bytes]


class Stem:
    """The tests' end of the stem. Cost: about a second of CPU at its start, once."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._asking = threading.Lock()  # one question at a time: tests wait for ends on threads
        with theirs:
            command = [sys.executable, "-P", __file__, str(theirs.fileno())]
            subprocess.run(command, check=True, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        atexit.register(self.close)

    def start(self, wanted: Wanted, stdin: int, stdout: int, stderr: int) -> int:
        """Return the pid of a new process, the leader of a session of its own."""
        with self._asking:
            socket.send_fds(self._line, [msgspec.json.encode(wanted)], [stdin, stdout, stderr])
            return int(self._line.recv(20))

    def reap(self, pid: int) -> int:
        """Return the exit code of a process that has ended."""
        with self._asking:
            self._line.send(b"%d" % pid)
            return int(self._line.recv(20))

    def close(self) -> None:
        """End the stem, also where a fork of this process holds the line too."""
        self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()


@functools.cache
def stem_of(pid: int) -> Stem:
    """Return the stem of the process that runs these tests; a fork of it has its own."""
    return Stem()


def start(
    kind: str,
    words: Sequence[str] = (),
    *,
    environment: Mapping[str, str],
    stdin: int | None = None,
    log: IO[bytes] | None = None,
) -> Forked:
    """Start `python -m processes.KIND WORDS` in a session of its own. Its output goes to `log`; without one, stderr can
    be read from the process returned, and stdout is ours.
    """
    stem = stem_of(os.getpid())
    wanted = Wanted(f"processes.{kind}", list(words), dict(environment))
    with contextlib.ExitStack() as stack:
        nothing = stack.enter_context(open(os.devnull, "rb"))
        entry = nothing.fileno() if stdin is None else stdin
        if log is not None:
            return Forked(stem, stem.start(wanted, entry, log.fileno(), log.fileno()), None)
        read, write = os.pipe()
        stack.callback(os.close, write)
        return Forked(stem, stem.start(wanted, entry, 1, write), open(read, "rb"))


def serve(line: socket.socket) -> None:
    """The stem: forks for each message that names a module, tells the end of the process whose pid it is asked for, and
    lets no process that has ended stay a zombie; until nobody is there.
    """
    ends: dict[int, int] = {}
    child_ended, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    news = select.poll()
    for descriptor in (line.fileno(), child_ended):
        news.register(descriptor, select.POLLIN)
    while True:
        come = [descriptor for descriptor, _ in news.poll()]
        if child_ended in come:
            os.read(child_ended, 4096)
            collect(ends, os.WNOHANG)
        if line.fileno() not in come:
            continue
        message, descriptors, _, _ = socket.recv_fds(line, MESSAGE_BYTES_MAX, 3)
        if not message:
            return
        if descriptors:
            answer = fork(msgspec.json.decode(message, type=Wanted), descriptors, line)
        else:
            while int(message) not in ends:
                collect(ends, 0)
            answer = ends.pop(int(message))
        line.send(b"%d" % answer)


def collect(ends: dict[int, int], options: int) -> None:
    """Note the exit codes of the processes that have ended; without WNOHANG, of one at least."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, options))[0]:
            ends[found[0]] = os.waitstatus_to_exitcode(found[1])
            options = os.WNOHANG


def fork(wanted: Wanted, descriptors: list[int], line: socket.socket) -> int:
    """Return the pid of a new process that is what is wanted."""
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        line.close()
        become(wanted, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def become(wanted: Wanted, descriptors: list[int]) -> NoReturn:
    """Called in a new process: be what is wanted, and end with it."""
    code: object = 1
    try:
        os.setsid()
        for place, descriptor in enumerate(descriptors):
            os.dup2(descriptor, place)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(wanted.environment)
        sys.argv = [wanted.module, *wanted.words]
        runpy.run_module(wanted.module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        if isinstance(code, str):
            print(code, file=sys.stderr)
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else 1)


def main() -> None:
    """Import everything, then serve. The stem is nobody's child: some tests end all descendants of their process."""
    if os.fork():
        return
    os.setsid()
    for kind in KINDS:
        importlib.import_module(f"processes.{kind}.__main__")
        del sys.modules[f"processes.{kind}.__main__"]  # it is run anew, as the main module
    gc.freeze()  # what is here for good is looked at by no child's garbage collector, and so stays shared
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
