"""Sends one alarm to one target, in a short-lived process of its own.

`deliver` starts the process; it is `python -m processes.adapters.alarm_sender`. It may hang, crash or need 35 MB for
apprise. The caller of `deliver` only waits; at a deadline the process is killed with everything that it started. The
target's URL goes over a pipe, because it may hold passwords, and others can read a command line or an environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import sys
from typing import Final

import msgspec

from processes.adapters.bootstrap import die_with_parent
from processes.core.alarms.outbox import ERROR_CHARS_MAX, AlarmMessage
from processes.core.alarms.target import masked, scrubbed
from processes.core.alarms.target import names as names_of
from processes.core.values import Severity

ORDER_BYTES_MAX: Final = 1 << 20
TAIL_BYTES: Final = 4096  # of the end of a sender's stderr
PIPE_BYTES: Final = 1 << 16  # pipe(7)
KEPT: Final = {  # variables that a sender gets; none of systemd's, supervisord's or our own settings
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
}  # fmt: skip


class Order(msgspec.Struct, frozen=True):
    """What the sender must do: notify a URL, or run a program that gets the message on its stdin."""

    message: AlarmMessage
    deadline_s: float
    url: str = ""
    argv: list[str] = []


class Target(msgspec.Struct, frozen=True):
    """One target. `name` and `shown` hold no secrets; `url` and `argv` may."""

    name: str
    url: str = ""
    argv: list[str] = []

    @property
    def shown(self) -> str:
        """Return the target without its secrets. A program's arguments may be secrets."""
        return masked(self.url) if self.url else self.argv[0]


def targets(urls: list[str], argv: list[str]) -> list[Target]:
    """Return the targets of the settings `alarms.urls` and `alarms.exec`."""
    names = names_of(urls, bool(argv))
    found = [Target(name, url=url) for name, url in zip(names, urls, strict=False)]
    return [*found, Target(names[-1], argv=argv)] if argv else found


async def deliver(target: Target, message: AlarmMessage, deadline_s: float) -> str:
    """Send the message and return why that failed, in a line without secrets; empty: it was sent.

    Never raises, and never takes much longer than `deadline_s`.
    """
    order = msgspec.json.encode(Order(message, deadline_s, target.url, target.argv))
    words = _Words()
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "processes.adapters.alarm_sender", start_new_session=True,
            env={name: value for name, value in os.environ.items() if name in KEPT},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=words.writing,
        )  # fmt: skip
    except OSError as error:
        words.close()
        return f"no process could be started: {error.strerror}"
    try:
        async with asyncio.timeout(deadline_s):
            await _give(child, order)
            code = await child.wait()
    except TimeoutError:
        return f"no answer within {deadline_s:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # and everything that it started
        said = words.close()
        await child.wait()
    if code == 0:
        return ""
    said = scrubbed(said, target.url, target.argv[1:])
    how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{how}: {said}"[:ERROR_CHARS_MAX] if said else how


async def _give(child: asyncio.subprocess.Process, order: bytes) -> None:
    assert child.stdin is not None
    with contextlib.suppress(ConnectionError):  # the sender died: its exit code tells
        child.stdin.write(order)
        await child.stdin.drain()
    child.stdin.close()


class _Words:
    """The last TAIL_BYTES of a sender's stderr.

    We make the pipe ourselves: asyncio's would wait for every process that still has it open.
    """

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        self._said = b""
        os.set_blocking(self._reading, False)
        asyncio.get_running_loop().add_reader(self._reading, self._read)

    def _read(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self._reading, TAIL_BYTES)
            self._said = (self._said + chunk)[-TAIL_BYTES:]
            return bool(chunk)
        return False

    def close(self) -> str:
        """Close the pipe and return what was written so far."""
        asyncio.get_running_loop().remove_reader(self._reading)
        for _ in range(PIPE_BYTES // TAIL_BYTES):  # a pipe holds no more; some process may go on filling it
            if not self._read():
                break
        os.close(self._reading)
        os.close(self.writing)
        return self._said.decode(errors="replace")


def main() -> int:
    """Run the sender and return its exit code. The order comes on stdin. 0: sent; otherwise stderr says why not."""
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, set())  # the watchdog blocks some signals; its children must not
    order = msgspec.json.decode(sys.stdin.buffer.read(ORDER_BYTES_MAX), type=Order)
    # an alarm survives exec: this process ends in time, even if the watchdog dies
    signal.alarm(math.ceil(order.deadline_s) + 1)
    if order.argv:
        return _become(order)
    return _send(order)


def _become(order: Order) -> int:
    """Turn this process into the target's program. Return 1 if that fails."""
    content = os.memfd_create("alarm")
    os.write(content, msgspec.json.encode(order.message))
    os.lseek(content, 0, os.SEEK_SET)
    os.dup2(content, 0)
    try:
        os.execvp(order.argv[0], order.argv)  # noqa: S606  # the words of the operator's setting, and no shell
    except OSError as error:
        print(f"{order.argv[0]} cannot be run: {error.strerror}", file=sys.stderr)
        return 1


def _send(order: Order) -> int:
    import apprise  # noqa: PLC0415  # it needs 35 MB and 0.2 s, so only this process imports it

    complaints = _Complaints(logging.WARNING)
    logging.getLogger("apprise").addHandler(complaints)
    kinds = {
        Severity.INFO: apprise.NotifyType.INFO,
        Severity.WARNING: apprise.NotifyType.WARNING,
        Severity.CRITICAL: apprise.NotifyType.FAILURE,
    }
    kind = apprise.NotifyType.SUCCESS if order.message.over else kinds[order.message.severity]
    sender = apprise.Apprise(
        asset=apprise.AppriseAsset(app_id="fleethub", app_desc="fleethub alarms", async_mode=False)
    )
    if not sender.add(order.url):
        print("apprise knows no such target, or a part of its URL is missing", file=sys.stderr)
        return 2
    sent = sender.notify(
        title=order.message.title, body=order.message.body, notify_type=kind, body_format=apprise.NotifyFormat.TEXT
    )
    if not sent:
        print(complaints.last or "the target refused it", file=sys.stderr)
    return 0 if sent else 1


class _Complaints(logging.Handler):
    """Keeps the last message that apprise logged."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


if __name__ == "__main__":
    sys.exit(main())
