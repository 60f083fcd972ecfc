"""Sends one alarm to one target, from a short-lived process of its own: `deliver` starts it, `python -m
processes.adapters.alarm_sender` is it.

The sender may hang, crash or need 35 MB for apprise: whoever asks for it only waits, with a deadline, and then it is
killed with all that it started. The target's URL goes over a pipe: it holds passwords, and a command line or an
environment can be read by others.
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
from processes.core.alarms.alarm import Severity
from processes.core.alarms.outbox import ERROR_CHARS_MAX, AlarmMessage
from processes.core.alarms.target import masked, scrubbed
from processes.core.alarms.target import names as names_of

ORDER_BYTES_MAX: Final = 1 << 20
TAIL_BYTES: Final = 4096  # of what a sender complains
PIPE_BYTES: Final = 1 << 16  # pipe(7)
KEPT: Final = {  # of our environment; nothing of systemd's, supervisord's or our own settings
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
}  # fmt: skip


class Order(msgspec.Struct, frozen=True):
    """What the sender is to do: a URL, or a program that gets the message on its stdin."""

    message: AlarmMessage
    deadline_s: float
    url: str = ""
    argv: list[str] = []


class Target(msgspec.Struct, frozen=True):
    """One target; `name` and `shown` may be shown."""

    name: str
    url: str = ""
    argv: list[str] = []

    @property
    def shown(self) -> str:
        """The target without its secrets. A program's arguments may be some."""
        return masked(self.url) if self.url else self.argv[0]


def targets(urls: list[str], argv: list[str]) -> list[Target]:
    """The targets of the settings."""
    names = names_of(urls, bool(argv))
    found = [Target(name, url=url) for name, url in zip(names, urls, strict=False)]
    return [*found, Target(names[-1], argv=argv)] if argv else found


async def deliver(target: Target, message: AlarmMessage, deadline_s: float) -> str:
    """Sends it, and returns why that failed, in a line without secrets; empty: it was sent. Never raises, never takes
    much longer.
    """
    order = msgspec.json.encode(Order(message, deadline_s, target.url, target.argv))
    words = _Words()
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "processes.adapters.alarm_sender", env={k: v for k, v in os.environ.items() if k in KEPT},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=words.writing, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        words.close()
        return f"no process for it: {error.strerror}"
    try:
        async with asyncio.timeout(deadline_s):
            await _give(child, order)
            code = await child.wait()
    except TimeoutError:
        return f"no answer within {deadline_s:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # also what it has left behind
        said = words.close()
        await child.wait()
    if code == 0:
        return ""
    said = scrubbed(said, target.url, target.argv[1:])
    how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return f"{how}: {said}"[:ERROR_CHARS_MAX] if said else how


async def _give(child: asyncio.subprocess.Process, order: bytes) -> None:
    assert child.stdin is not None
    with contextlib.suppress(ConnectionError):  # it died: its exit code says so
        child.stdin.write(order)
        await child.stdin.drain()
    child.stdin.close()


class _Words:
    """The last TAIL_BYTES that a sender complains. A pipe of our own: asyncio's would wait for whatever else keeps it
    open.
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
        """What has come so far."""
        asyncio.get_running_loop().remove_reader(self._reading)
        for _ in range(PIPE_BYTES // TAIL_BYTES):  # no more fits into a pipe; something may go on filling it
            if not self._read():
                break
        os.close(self._reading)
        os.close(self.writing)
        return self._said.decode(errors="replace")


def main() -> int:
    """The sender. The order is on stdin; exit code 0: sent; else stderr says why."""
    die_with_parent()
    signal.pthread_sigmask(signal.SIG_SETMASK, set())  # the watchdog's blocked signals are not for others
    order = msgspec.json.decode(sys.stdin.buffer.read(ORDER_BYTES_MAX), type=Order)
    signal.alarm(math.ceil(order.deadline_s) + 1)  # lasts over an exec: whatever becomes of the watchdog, this ends
    if order.argv:
        return _become(order)
    return _send(order)


def _become(order: Order) -> int:
    """This process is the program from here on."""
    content = os.memfd_create("alarm")
    os.write(content, msgspec.json.encode(order.message))
    os.lseek(content, 0, os.SEEK_SET)
    os.dup2(content, 0)
    try:
        os.execvp(order.argv[0], order.argv)  # noqa: S606  # the operator's own words, and no shell
    except OSError as error:
        print(f"{order.argv[0]} cannot be run: {error.strerror}", file=sys.stderr)
        return 1


def _send(order: Order) -> int:
    import apprise  # noqa: PLC0415  # 35 MB and 0.2 s, for this process alone

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
    """The last thing that apprise said."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


if __name__ == "__main__":
    sys.exit(main())
