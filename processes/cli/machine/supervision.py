"""Starts, watches and ends the supervisord of one state folder. `up`, `down` and the tests all go this way."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from processes.adapters.settings import KINDS, Settings, as_user, user_name
from processes.adapters.state import desired_state, pulse_file, status_file
from processes.adapters.supervisor import (
    ALREADY_STARTED,
    NOT_RUNNING,
    Supervisor,
    SupervisorAway,
    SupervisorFault,
    peer_of,
)
from processes.cli.machine import environment
from processes.cli.machine.own_processes import OwnProcess, members_of, send, supervisord_of, wait_gone
from processes.cli.terminal.failure import Failure
from processes.core.errors import ResourceError
from processes.core.shown.status import ProcessReport, Verdict, is_wanted
from processes.core.travels.pulse import Unreadable

LAUNCH_S_MAX: Final = 30.0  # supervisord reads its file, binds and forks in 0.3 s on an idle machine
DOWN_S_MAX: Final = 15.0  # supervisord ends one group after the other; a frozen member takes its stopwaitsecs
POLL_S: Final = 0.1  # each call also wakes supervisord, so that it starts children now and not at its next second
STOP_S_MAX: Final = 12.0  # stopwaitsecs and a margin
TURN_S_MAX: Final = 30.0  # from a start to the first complete turn
TOLD_S_MAX: Final = 5.0  # the watchdog looks every second; if it is slower, `status` shows why
SUPERVISORD: Final = (sys.executable, "-P", "-m", "supervisor.supervisord")
# a daemon is started without these variables: it does not belong to the systemd unit of its caller
SYSTEMD: Final = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
# of whoever starts us, for his own Python programs: a warning of a library must not keep supervisord from starting
OF_THE_SHELL: Final = {"PYTHONWARNINGS", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONIOENCODING", "PYTHONUTF8"}
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


def launch(settings: Settings, supervisord: Sequence[str] = SUPERVISORD) -> None:
    """Start supervisord for this state folder as a daemon. Raises: Failure, with supervisord's own words."""
    _remove_stale(settings)
    try:
        environ = {name: value for name, value in _environ(settings).items() if name not in SYSTEMD}
        done = subprocess.run(  # noqa: S603
            _command(supervisord), env=environ, capture_output=True, timeout=LAUNCH_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        raise Failure(
            "not_started", f"supervisord did not start within {LAUNCH_S_MAX:.0f} s", _see_log(settings)
        ) from None
    if done.returncode != 0:
        words = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        words = words or [f"exit code {done.returncode}"]
        told = words[-1] if words[0].startswith("Traceback") else words[0]  # its own advice follows its own errors
        raise Failure(
            "not_started",
            f"supervisord did not start: {told}",
            _see_log(settings),
        )


def launch_in_foreground(settings: Settings, supervisord: Sequence[str] = SUPERVISORD) -> subprocess.Popen[bytes]:
    """Start supervisord for this state folder as our child, with its log also on stderr.

    If we are killed, the kernel sends it SIGTERM, and it ends its processes in order.
    """
    _remove_stale(settings)
    prctl = ctypes.CDLL(None).prctl

    def stop_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    return subprocess.Popen(  # noqa: S603
        [*_command(supervisord), "-n"], env=_environ(settings), stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(),
        start_new_session=True,
        preexec_fn=stop_with_parent,  # noqa: PLW1509  # this process has no other thread
    )  # fmt: skip


def wait_end(child: subprocess.Popen[bytes]) -> int:
    """Wait until our child has ended, and return its exit code.

    As a container's process 1 we get every orphan of it, and reap each that ends: nobody else can.
    """
    while os.getpid() == 1:
        pid, status = os.wait()
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            break
    return child.wait()


def supervisor_of(settings: Settings, timeout_s: float = 2.0) -> Supervisor:
    """The XML-RPC calls of the installation's supervisord.

    Raises: Failure("not_running"), if there is none; Failure("not_ours"), if it is another user's.
    """
    check_ours(settings)
    if supervisord_of(settings) is None:
        raise Failure("not_running", f"nothing runs for {settings.state}", "Start it: fleethub up")
    return Supervisor(settings.supervisor_socket, timeout_s)


def check_ours(settings: Settings) -> None:
    """Check that the state folder is this user's: what another user started is only that user's to end or to change.

    Raises: Failure, which says whose it is and whether it runs.
    """
    try:
        owner = settings.state.stat().st_uid
    except OSError:
        return
    if owner != os.geteuid():
        runs = " and runs" if somebody_answers(settings) else ""
        raise Failure(
            "not_ours",
            f"the installation of {settings.state} belongs to {user_name(owner)}{runs},"
            f" and this is {user_name(os.geteuid())}",
            f"Run this as that user: {as_user(owner)} {environment.program()} …",
        )


def somebody_answers(settings: Settings) -> bool:
    """Return whether a supervisord has the installation's socket, whoever's it is, as far as this user may look."""
    try:
        return peer_of(settings.supervisor_socket) is not None
    except OSError:
        return False


def end_all(settings: Settings) -> bool:
    """End every process of this installation. Returns False if none lived.

    supervisord is asked to end its processes in order. Whatever is left after DOWN_S_MAX, and whatever has no
    supervisord any more, is ended by SIGKILL; each process is verified to be ours first. Raises: Failure.
    """
    check_ours(settings)
    supervisord, members = supervisord_of(settings), members_of(settings)
    if supervisord is None and not members:
        _remove_stale(settings)
        return False
    if supervisord is not None:
        for found in (supervisord, *members):
            send(found, signal.SIGCONT)  # a stopped process could not act on SIGTERM
        try:
            Supervisor(settings.supervisor_socket).call("shutdown")
        except ResourceError:
            send(supervisord, signal.SIGTERM)
        _end_in_order(settings, supervisord)
    kill_leftovers(settings)
    _remove_stale(settings)
    settings.report.unlink(missing_ok=True)  # what the watchdog reported last is not true any more
    return True


def kill_leftovers(settings: Settings) -> None:
    """Kill the members that have no supervisord any more.

    Raises: Failure, which names the processes that survive even SIGKILL (they wait inside the kernel).
    """
    left = members_of(settings)
    for found in left:
        send(found, signal.SIGKILL)
    if still := wait_gone(left, 3.0):
        pids = ", ".join(str(found.pid) for found in still)
        raise Failure(
            "unkillable",
            f"process {pids} does not end, even by SIGKILL",
            "It waits inside the kernel: look at its disk or network mount.",
        )


def stop(settings: Settings, name: str) -> None:
    """Stop the process, and return when it has ended. Raises: Failure, SupervisorAway."""
    try:
        supervisor_of(settings, STOP_S_MAX).stop(name, wait=True)
    except SupervisorFault as fault:
        if fault.code != NOT_RUNNING:  # then it is as it should be
            raise Failure("refused", f"supervisord would not stop {name}: {fault}") from None


def start(settings: Settings, name: str) -> None:
    """Start the process, and return once its loop has made a complete turn. Raises: Failure, SupervisorAway."""
    supervisor = supervisor_of(settings)
    try:
        supervisor.start(name)
    except SupervisorFault as fault:
        if fault.code != ALREADY_STARTED:  # then it is as it should be
            raise Failure("refused", f"supervisord would not start {name}: {fault}", _see_log(settings, name)) from None
    deadline_mono_s = time.monotonic() + TURN_S_MAX
    while not turns(settings, supervisor, name):
        if time.monotonic() > deadline_mono_s:
            raise Failure(
                "not_turning",
                f"{name} was started, and its loop has not turned within {TURN_S_MAX:.0f} s",
                _see_log(settings, name),
            )
        time.sleep(POLL_S)


def turns(settings: Settings, supervisor: Supervisor, name: str) -> bool:
    """True once the process that runs under this name has written a pulse after a complete turn."""
    try:
        row = supervisor.processes().get(name)
        pulse = pulse_file.read(settings.pulses, name)
    except (Unreadable, ResourceError):
        return False
    return (
        row is not None
        and pulse is not None
        and row.pid == pulse.pid
        and row.state in ("STARTING", "RUNNING")
        and pulse.turn > 0
    )


def wait_told(settings: Settings, names: Sequence[str], wait_s: float = TOLD_S_MAX) -> None:
    """Wait until the watchdog's status shows these processes as the operator wants them, so that `status` shows it too.

    Gives up silently after `wait_s`.
    """
    deadline_mono_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_mono_s:
        rows = {row.name: row for row in status_file.current_report(settings).processes}
        desired = desired_state.read(settings)
        if all(_is_told(settings, rows.get(name), is_wanted(name, desired)) for name in names):
            return
        time.sleep(POLL_S)


def _is_told(settings: Settings, row: ProcessReport | None, wanted: bool) -> bool:
    if row is None or row.wanted != wanted:
        return False
    if not wanted:
        return row.verdict is Verdict.STOPPED
    try:
        pulse = pulse_file.read(settings.pulses, row.name)
    except (Unreadable, OSError):
        return False
    return row.verdict in (Verdict.ADVANCING, Verdict.STANDBY) and pulse is not None and row.pid == pulse.pid


def unwell(settings: Settings) -> list[str]:
    """A line for each process that is not well, and the last lines of its log."""
    lines = []
    for process in status_file.current_report(settings).processes:
        if process.wanted and process.verdict not in (Verdict.ADVANCING, Verdict.STANDBY, Verdict.EXCUSED):
            lines.append(f"{process.name} {process.verdict.phrase} ({process.state}) {process.reason}".rstrip())
            for file in _logs(settings, process.name):
                lines += [f"  {file.name}: {line}" for line in _tail(file)]
    return lines


def _end_in_order(settings: Settings, supervisord: OwnProcess) -> None:
    deadline_mono_s = time.monotonic() + DOWN_S_MAX
    supervisor = Supervisor(settings.supervisor_socket)
    while time.monotonic() < deadline_mono_s:
        if not wait_gone([supervisord], POLL_S):
            return
        with contextlib.suppress(SupervisorAway, SupervisorFault):
            supervisor.poke()  # it only notices at its next poll that children have ended
    send(supervisord, signal.SIGKILL)
    wait_gone([supervisord], 3.0)


def _command(supervisord: Sequence[str]) -> list[str]:
    return [*supervisord, "-c", str(environment.configuration())]


def _environ(settings: Settings) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OF_THE_SHELL}
    return {**kept, "PYTHONUTF8": "1", **environment.variables(settings)}  # files are UTF-8 in every locale


def _remove_stale(settings: Settings) -> None:
    """Remove what a killed supervisord left behind. The caller sees none that lives.

    Raises: Failure, if one lives all the same: it may belong to another user, or run where this user cannot look.
    """
    if peer := peer_of(settings.supervisor_socket):
        who = f"process {peer.pid} of {user_name(peer.uid)}" if peer.pid else "a process that cannot be seen from here"
        raise Failure(
            "running_elsewhere",
            f"{settings.state} is in use: {who} answers at {settings.supervisor_socket}",
            "Run this as the user, or in the container, that started it.",
        )
    settings.supervisor_socket.unlink(missing_ok=True)
    (settings.run / "supervisord.pid").unlink(missing_ok=True)


def _logs(settings: Settings, name: str) -> list[Path]:
    kind, _, number = name.partition(":")
    captured = f"{kind}-{int(number or 0) + 1}.out" if kind in KINDS[2:4] else f"{name}.out"
    return [settings.log / captured, settings.log / f"{name.replace(':', '-')}.log"]


def _tail(path: Path, lines: int = 5) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def _see_log(settings: Settings, name: str = "supervisord") -> str:
    return f"Its log: {settings.log / f'{name}.log'}"
