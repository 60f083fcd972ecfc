"""The program that runs one command and outlives the agent: `shim.py FOLDER TIMEOUT_S OUTPUT_BYTES_MAX ARGV…`.

In its run folder, in this order:

    lock      held while the shim lives; nobody else starts this command meanwhile
    unstarted made by the agent before it starts the first shim, and never again: leave to begin the program, once
    started   what `unstarted` is renamed to, with the program's pid, durably, as the last act before exec
    spool     the output's records, each a head (stream, length) and its bytes
    exit      how it ended, fsynced; written once, before the lock goes. Its room is taken before the start: a disk that
              is full by then costs output, not the truth
    cancel    written by an agent: the name of a signal

All of it may be removed, cut or made unwritable at any time, by the command itself among others. Without `unstarted`
nothing is begun; a program that was begun runs on, and is ended at its time limit or when an agent asks. If its end
cannot be written, then it is not known, and the shim exits without a word.

A process that the program left running may hold its output open. The shim does not wait for it, and leaves it a reader
(cat, into /dev/null): without one its next line would end it.

The shim is the subreaper of what it runs: everything that the program started is its descendant, in whatever session,
until the shim ends. So a cancel and a time limit end all of it, or their message says what is left.

It takes its wake-ups by SIGUSR1 (look at `cancel`) and SIGUSR2 (cancel, for a folder that takes no file), and ignores
what a dying session sends. Its imports are few: they are the start time of
each command, and nothing may be imported later, when an upgrade may have replaced the files.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import sys
import time

RECORD = struct.Struct("<BI")  # stream (1 stdout, 2 stderr), length
PIECE_BYTES_MAX = 8 * 1024  # contract
DRAWN_S = 1.0  # how often a line that is drawn over and over, as a bar of progress, is shown on its way
READ_BYTES = 64 * 1024
KILL_AFTER_S = 10.0  # from SIGTERM to SIGKILL
DRAIN_S = 1.0  # after the program's end: a child that it left behind may hold its output open for ever
LOCK_WAIT_S = 2.0  # an agent may be probing the lock, or another shim be about to end
POLL_S = 0.5  # looks for `cancel` even if the signal went astray
EXIT_BYTES = 4096  # of `exit`, taken before the start
EXIT_WAIT_S_MAX = (
    60.0  # for a disk that takes `exit`; then nobody knows the end. The host takes no other command meanwhile
)
KILL_ROUNDS_MAX = 100  # of looking for what is left and killing it: a process may fork while it is looked at
KILL_ROUND_S = 0.02
NAMED_MAX = 5  # processes that a message names
MISSING_MARK = "[fleethub: {} bytes of output are missing here: {}]"
LOST_BYTES_MARK = "[fleethub: more than {} bytes of output; what follows is discarded]"
STDOUT, STDERR = 1, 2
STARTED_WORD = b"started\n"
EXIT_NOT_RUN = 75  # EX_TEMPFAIL of sysexits.h
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
FAILPOINTS = "FLEETHUB_FAILPOINTS"  # in the environment under drills, never in the command's: the file that arms them


def main(arguments: list[str]) -> int:
    """Runs the command to its end, unless it was started before. 0: `exit` is written; 75: this shim ran nothing."""
    folder, timeout_s, output_bytes_max, argv = arguments[0], float(arguments[1]), int(arguments[2]), arguments[3:]
    os.chdir(folder)
    os.umask(0o077)
    armed_by = os.environ.pop(FAILPOINTS, "")
    wake = _listen()
    if not _lock("lock") or not os.path.exists("unstarted") or os.path.exists("exit"):
        return EXIT_NOT_RUN
    if os.path.exists("cancel"):
        _write_exit("cancelled", None, "cancelled before it was started")
        return 0
    _fill_exit(b" " * EXIT_BYTES)  # or nothing is started, and the agent tries again
    _reach("shim.locked", armed_by)
    spool = Spool("spool", output_bytes_max)
    out_read, out_write = os.pipe2(os.O_CLOEXEC)
    err_read, err_write = os.pipe2(os.O_CLOEXEC)
    # the child says that `started` is written, then exec closes it; else it says what went wrong
    word_read, word_write = os.pipe2(os.O_CLOEXEC)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    pid = os.fork()
    if pid == 0:
        _become(argv, out_write, err_write, word_write, armed_by)
    for fd in (out_write, err_write, word_write):
        os.close(fd)
    # what the folder holds is no evidence here: the program may have removed it already
    _, is_started, word = _read_all(word_read).rpartition(STARTED_WORD)
    if not is_started:  # not written, or the child was killed before it: nothing ran
        os.waitpid(pid, 0)
        sys.stderr.write((word.decode(errors="replace") or "killed before it was started") + "\n")
        return EXIT_NOT_RUN
    if word:
        os.waitpid(pid, 0)
        _write_exit("error", 127, word.decode(errors="replace"))
        return 0
    watch = Watch(pid, timeout_s, spool, {out_read: STDOUT, err_read: STDERR}, wake)
    verdict = watch.run()
    _reach("shim.exited", armed_by)
    _write_exit(*verdict)
    _reach("shim.written", armed_by)
    for fd in watch.held():
        _leave_reader(fd)
    return 0


class Spool:
    """The output's file: whole records only, at most `bytes_max`; what comes after is counted and marked, not kept.

    Each record has its place, whatever others do to the file: where it was cut, a hole of zeros stands before the next
    record, and the reader goes on behind it.
    """

    def __init__(self, path: str, bytes_max: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._bytes_max = bytes_max
        self._written = 0
        self.discarded_bytes = 0
        self.was_cut = False  # others took from the file, or removed it
        self._over = False  # the limit was reached, and said
        self._missing = (0, "")  # bytes that the disk did not take, and why; said with the next that it takes
        self._rest = {STDOUT: b"", STDERR: b""}  # the beginning of a line, each shorter than a piece
        self._drawn_mono_s = {STDOUT: float("-inf"), STDERR: float("-inf")}

    def take(self, stream: int, chunk: bytes) -> None:
        """Writes the lines that `chunk` completes, and once a second what a carriage return completes: that record ends
        with it.
        """
        *lines, rest = (self._rest[stream] + chunk).split(b"\n")
        pieces = [piece for line in lines for piece in _pieces(line.removesuffix(b"\r"))]
        drawn = rest.rfind(b"\r", 0, -1) + 1  # not the last one: it may be the first half of CR LF
        if rest[:drawn].strip(b"\r") and (now_mono_s := time.monotonic()) >= self._drawn_mono_s[stream] + DRAWN_S:
            self._drawn_mono_s[stream] = now_mono_s
            pieces += _pieces(rest[:drawn])
            rest = rest[drawn:]
        if len(rest) >= PIECE_BYTES_MAX:
            *whole, rest = _pieces(rest)
            pieces += whole
        self._rest[stream] = rest
        self._write(stream, pieces)

    def finish(self) -> None:
        """Writes lines without an end, and makes all of it durable."""
        for stream, rest in self._rest.items():
            self._write(stream, _pieces(rest) if rest else [])
        with contextlib.suppress(OSError):
            found = os.fstat(self._fd)
            self.was_cut = self._written > 0 and (found.st_size < self._written or found.st_nlink == 0)
            if found.st_size < self._written:
                os.ftruncate(self._fd, self._written)
            os.fsync(self._fd)

    def _write(self, stream: int, pieces: list[bytes]) -> None:
        missing, why = self._missing
        records = _record(STDERR, MISSING_MARK.format(missing, why).encode()) if missing else b""
        lost = missing
        for piece in pieces:
            if self._over or self._written + len(records) + RECORD.size + len(piece) > self._bytes_max:
                if not self._over:
                    records += _record(STDERR, LOST_BYTES_MARK.format(self._bytes_max).encode())
                self._over = True
                self.discarded_bytes += len(piece) + 1
                continue
            records += _record(stream, piece)
            lost += len(piece) + 1
        if records:
            error = self._append(records)
            self._missing = (lost, error) if error else (0, "")
            self.discarded_bytes += lost - missing if error else 0

    def _append(self, records: bytes) -> str:
        """Appends all or nothing of it, and says why not: a full disk costs output, never the command, nor leaves half
        a record.
        """
        done = 0
        try:
            while done < len(records):
                done += os.pwrite(self._fd, records[done:], self._written + done)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._written)
            return error.strerror or repr(error)
        self._written += done
        return ""


class Watch:
    """A running program: its output, its time, its cancel, its end."""

    def __init__(self, pid: int, timeout_s: float, spool: Spool, streams: dict[int, int], wake: int) -> None:
        self._pid = pid
        self._spool = spool
        self._streams = streams
        self._wake = wake
        self._has_ended, self._code = False, 0  # of the program itself
        self._why = ""  # cancelled or timed_out, once we have begun to end it
        self._timeout_mono_s = time.monotonic() + timeout_s
        self._kill_mono_s = float("inf")
        self._cancel_seen = ""
        self._is_asked_to_end = False  # by a signal
        self._poll = select.poll()
        for fd in (*streams, wake):
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)

    def run(self) -> tuple[str, int, str]:
        """How it ended, when it has, for `exit`: status, exit code, message. The spool is durable."""
        while not self._ended():
            self._turn(POLL_S)
            self._watch_time()
        left = _end_all() if self._why else ""
        self._timeout_mono_s = self._kill_mono_s = float("inf")
        until_mono_s = time.monotonic() + DRAIN_S
        while self._streams and time.monotonic() < until_mono_s:
            self._turn(0.05)
            self._ended()
        self._spool.finish()
        return self._verdict(self._code, left)

    def held(self) -> list[int]:
        """The streams that a process which the program left running still holds open."""
        return list(self._streams)

    def _ended(self) -> bool:
        """True once the program itself has ended. Collects all that ended, orphans of the program too."""
        with contextlib.suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                if found[0] == self._pid:
                    self._code = os.waitstatus_to_exitcode(found[1])
                    self._has_ended = True
        return self._has_ended

    def _turn(self, wait_s: float) -> None:
        due_s = min(self._timeout_mono_s, self._kill_mono_s) - time.monotonic()
        for fd, _ in self._poll.poll(max(0.0, min(wait_s, due_s)) * 1000):
            try:
                chunk = os.read(fd, READ_BYTES)
            except BlockingIOError:
                continue
            if fd == self._wake:
                # plant: cancel-by-signal
                self._is_asked_to_end |= signal.SIGUSR2 in chunk
            elif chunk:
                self._spool.take(self._streams[fd], chunk)
            else:
                self._poll.unregister(fd)
                os.close(fd)
                del self._streams[fd]

    def _watch_time(self) -> None:
        now_mono_s = time.monotonic()
        wanted = _cancel_wanted() or ("SIGTERM" if self._is_asked_to_end else "")
        if wanted and wanted != self._cancel_seen:
            self._cancel_seen = wanted
            self._begin_to_end("cancelled", wanted)
        if now_mono_s >= self._timeout_mono_s:
            self._timeout_mono_s = float("inf")
            self._begin_to_end("timed_out", "SIGTERM")
        if now_mono_s >= self._kill_mono_s:
            self._kill_mono_s = now_mono_s + KILL_AFTER_S  # again, should a member have been about to fork
            self._signal(signal.SIGKILL)

    def _begin_to_end(self, why: str, name: str) -> None:
        self._why = self._why or why
        self._signal(getattr(signal, name, signal.SIGTERM))
        self._kill_mono_s = min(self._kill_mono_s, time.monotonic() + KILL_AFTER_S)

    def _signal(self, number: int) -> None:
        """Sends the signal to everything that the command started and that still runs, in whatever group or session."""
        # plant: all-sessions
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _verdict(self, code: int, left: str) -> tuple[str, int, str]:
        """Status, exit code (128 + the signal's number, as shells have it) and message. A completed exit wins over a
        cancel.
        """
        said = [f"ended by {_signal_name(-code)}"] if code < 0 else []
        status = "ok" if code == 0 else "error"
        if self._why == "timed_out":
            status = "timed_out"
            said.insert(0, "over its time limit")
        elif self._why and code != 0:
            status = self._why
        if left:
            said.append(left)
        if self._streams and not self._why:
            said.append("a process that it left running still held its output open: what that writes is cut off")
        if self._spool.was_cut:
            said.append("some of its output was lost: its spool was cut or removed")
        if self._spool.discarded_bytes:
            said.append(f"{self._spool.discarded_bytes} bytes of output were discarded")
        return status, 128 - code if code < 0 else code, "; ".join(said)


def _listen() -> int:
    """A descriptor that becomes readable with SIGCHLD and SIGUSR1. What a session's end sends is ignored from now
    on.
    """
    wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return wake_read


def _lock(path: str) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # never closed: it is the lock
    until_mono_s = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until_mono_s:
                return False
            time.sleep(0.01)
            continue
        holder = f"pid={os.getpid()}\nstart_ticks={_start_ticks()}\n".encode()
        os.ftruncate(fd, 0)
        _write_all(fd, holder)
        return True


def _become(argv: list[str], out: int, err: int, word: int, armed_by: str) -> None:
    """Turns the forked child into the program. Never returns."""
    said = b"start"
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGHUP,
                       signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ):  # fmt: skip
            signal.signal(number, signal.SIG_DFL)
        home = os.environ.get("HOME", "/")
        os.umask(0o022)
        _reach("shim.before_started", armed_by)
        _write_started()
        os.write(word, STARTED_WORD)
        _reach("shim.after_started", armed_by)
        os.chdir(home if os.path.isdir(home) else "/")
        said = b"exec"
        os.execvp(argv[0], argv)  # noqa: S606 - argv comes from the agent's file, and never meets a shell
    except BaseException as error:  # whatever it is, the shim is told and this copy of it ends
        text = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        os.write(word, said + b" " + f"{argv[0]}: {text}".encode(errors="replace")[:1000])
    finally:
        os._exit(127)


def _write_started() -> None:
    """Turns `unstarted` into `started`, durably. Raises: OSError, and then nothing may be begun: there is no
    `unstarted`, or the disk takes nothing.
    """
    boot_id = "unknown"  # the agent's word, where /proc does not tell it
    with contextlib.suppress(OSError, ValueError), open("/proc/sys/kernel/random/boot_id") as file:
        boot_id = file.read().strip()
    content = f"pid={os.getpid()}\nstart_ticks={_start_ticks()}\nboot_id={boot_id}\n".encode()
    fd = os.open("unstarted", os.O_WRONLY | os.O_CLOEXEC)
    try:
        _write_all(fd, content)
        os.ftruncate(fd, len(content))
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename("unstarted", "started")
    try:
        _sync_folder()
    except OSError:
        os.rename("started", "unstarted")  # nothing was run, and nothing says so
        raise


def _fill_exit(content: bytes) -> None:
    """Writes `exit.new`, whole. Blanks of EXIT_BYTES, before the start, take its room. Raises: OSError."""
    fd = os.open("exit.new", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _write_all(fd, content)
        os.ftruncate(fd, len(content))
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, content: bytes) -> None:
    """Writes all of it at the place where the descriptor stands: a disk that is nearly full takes a part, and says so
    only at the next write. Raises: OSError.

    (adapters/state/durable.py has it too. Here nothing of ours can be imported, see the module's text.)
    """
    done = 0
    while done < len(content):
        done += os.write(fd, content[done:])


def _write_exit(status: str, code: int | None, message: str, *, wait_s_max: float = EXIT_WAIT_S_MAX) -> None:
    """Tries until the end is written, for it is known nowhere else, and a full disk may become free again.

    Raises: OSError, if it does not in `wait_s_max`.
    """
    text = " ".join(message.split())
    content = f"status={status}\ncode={'' if code is None else code}\nmessage={text}\n".encode()[:EXIT_BYTES]
    until_mono_s = time.monotonic() + wait_s_max
    while True:
        try:
            _fill_exit(content)
            os.rename("exit.new", "exit")
            _sync_folder()
            return
        except OSError as error:
            passes = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EINTR)
            if not passes or time.monotonic() >= until_mono_s:
                raise
            time.sleep(1.0)


def _sync_folder() -> None:
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _reach(name: str, armed_by: str) -> None:
    """A failpoint, as in processes/adapters/failpoint.py, which cannot be imported here."""
    if not armed_by:
        return
    try:
        with open(armed_by) as file:
            armed, _, count = file.read(100).partition(" ")
    except FileNotFoundError:
        return
    if armed == name and int(count) == 1:
        os.unlink(armed_by)
        os.kill(os.getpid(), signal.SIGKILL)


def _cancel_wanted() -> str:
    try:
        with open("cancel", errors="replace") as file:
            return file.read(16).strip()
    except OSError:  # it is not there, the folder is gone, or nothing can be read
        return ""


def _end_all() -> str:
    """Kills what still runs of the command, and says what could not be ended; empty: nothing runs any more."""
    left: dict[int, str] = {}
    for _ in range(KILL_ROUNDS_MAX):
        has_children = True
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            has_children = False
        left = _descendants()
        if not left and not has_children:
            return ""
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(KILL_ROUND_S)
    if not left:  # /proc with hidepid, and another user's: sudo, for instance
        return "some of its processes are hidden from this agent and still run"
    named = ", ".join(f"{name} ({pid})" for pid, name in list(left.items())[:NAMED_MAX])
    return f"{len(left)} of its processes cannot be ended and still run: {named}"


def _leave_reader(fd: int) -> None:
    """Leaves a process that reads the stream to its end and keeps nothing. It has no part in the command: no lock, no
    session and no environment of it.
    """
    if os.fork():
        return
    try:
        os.setsid()
        os.chdir("/")
        os.set_blocking(fd, True)
        null = os.open(os.devnull, os.O_RDWR)
        for number, source in ((0, fd), (1, null), (2, null)):
            os.dup2(source, number)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe("cat", ["cat"], {"PATH": os.environ.get("PATH", os.defpath)})  # noqa: S606, S607
    except OSError:  # no cat here: it goes as it did before
        pass
    finally:
        os._exit(127)


def _descendants() -> dict[int, str]:
    """The living processes that descend from this one: their names by pid. Cost: some 20 µs a process there is."""
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{entry}/stat", "rb") as file:
                    stat = file.read()
                end = stat.rindex(b")")
                state, parent = stat[end + 2 :].split()[:2]
                children.setdefault(int(parent), []).append(int(entry))
                if state not in (b"Z", b"X"):
                    names[int(entry)] = stat[stat.index(b"(") + 1 : end].decode(errors="replace")
    found, look_at = {}, [os.getpid()]
    while look_at:
        for pid in children.get(look_at.pop(), []):
            look_at.append(pid)
            if pid in names:
                found[pid] = names[pid]
    return found


def _record(stream: int, text: bytes) -> bytes:
    return RECORD.pack(stream, len(text)) + text


def _pieces(line: bytes) -> list[bytes]:
    """The line in pieces of at most PIECE_BYTES_MAX, cut after a carriage return, or else where no UTF-8 character is
    cut in two.
    """
    pieces = []
    while len(line) > PIECE_BYTES_MAX:
        end = line.rfind(b"\r", 0, PIECE_BYTES_MAX) + 1 or PIECE_BYTES_MAX
        while end > PIECE_BYTES_MAX - 4 and line[end] & 0xC0 == 0x80:
            end -= 1
        if line[end] & 0xC0 == 0x80:
            end = PIECE_BYTES_MAX  # not UTF-8 at all
        pieces.append(line[:end])
        line = line[end:]
    return [*pieces, line]


def _read_all(fd: int) -> bytes:
    said = b""
    while chunk := os.read(fd, 4096):
        said += chunk
    os.close(fd)
    return said


def _start_ticks() -> str:
    with open("/proc/self/stat", "rb") as file:
        stat = file.read()
    return stat[stat.rindex(b")") + 2 :].split()[19].decode()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
