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
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from processes.adapters.bootstrap import die_with_parent, limit_data
from processes.core.alarms import webhook
from processes.core.alarms.outbox import ERROR_CHARS_MAX, AlarmMessage
from processes.core.alarms.target import EXEC, WEBHOOK, masked, scrubbed
from processes.core.alarms.target import names as names_of
from processes.core.values import Severity

ORDER_BYTES_MAX: Final = 1 << 20
TAIL_BYTES: Final = 4096  # of the end of a sender's stderr
PIPE_BYTES: Final = 1 << 16  # pipe(7)
DATA_BYTES_MAX: Final = 256 << 20  # of a sender of ours; apprise needs 35 MB (measured), and reads all of an answer
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
    webhook: str = ""
    secret: str = ""


class Heartbeat(msgspec.Struct, frozen=True):
    """A call of the dead man's switch: a URL, or a program that gets the verdict as JSON on its stdin. A URL in which
    {verdict} stands is asked by GET with the verdict in its place; any other is sent the verdict by POST.
    """

    url: str = ""
    argv: list[str] = []
    body: str = ""  # JSON
    verdict: str = ""
    deadline_s: float = 20.0


class Orders(msgspec.Struct, frozen=True):
    """One of them."""

    order: Order | None = None
    heartbeat: Heartbeat | None = None


class Target(msgspec.Struct, frozen=True):
    """One target. `name` and `shown` hold no secrets; `url` and `argv` may."""

    name: str
    url: str = ""
    argv: list[str] = []
    webhook: str = ""
    secret: str = ""  # of the webhook
    severity: Severity | None = None  # None: as alarms.severity says
    query: str = ""  # of the hosts that it is told of; empty: of everything

    @property
    def shown(self) -> str:
        """Return the target without its secrets. A program's arguments may be secrets."""
        return masked(self.url or self.webhook) if self.url or self.webhook else self.argv[0]


def targets(urls: list[str], argv: list[str], further: Sequence[Target] = ()) -> list[Target]:
    """Return the targets of the settings `alarms.urls`, `alarms.exec` and `alarms.targets` (`further`, named here)."""
    words = [each.url or (WEBHOOK if each.webhook else EXEC) for each in further]
    names = names_of(urls, bool(argv), words)
    found = [Target("", url=url) for url in urls] + ([Target("", argv=argv)] if argv else []) + list(further)
    return [msgspec.structs.replace(each, name=name) for name, each in zip(names, found, strict=True)]


async def deliver(target: Target, message: AlarmMessage, deadline_s: float) -> str:
    """Send the message and return why that failed, in a line without secrets; empty: it was sent.

    Never raises, and never takes much longer than `deadline_s`.
    """
    order = Order(message, deadline_s, target.url, target.argv, target.webhook, target.secret)
    secrets = [*target.argv[1:], *filter(None, [target.secret])]
    return await _carried_out(Orders(order), target.url or target.webhook, secrets, deadline_s)


async def call(heartbeat: Heartbeat, installation: str, verdict: str, epoch: int, deadline_s: float) -> str:
    """Call the dead man's switch, and return why that failed; empty: it answered. Never raises."""
    body = msgspec.json.encode({"installation": installation, "verdict": verdict, "epoch": epoch}).decode()
    asked = msgspec.structs.replace(heartbeat, body=body, verdict=verdict, deadline_s=deadline_s)
    return await _carried_out(Orders(heartbeat=asked), heartbeat.url, heartbeat.argv[1:], deadline_s)


async def _carried_out(orders: Orders, url: str, secrets: list[str], deadline_s: float) -> str:
    """Have a process of its own do it."""
    order, words = msgspec.json.encode(orders), _Words()
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
    said = scrubbed(said, url, secrets)
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
    orders = msgspec.json.decode(sys.stdin.buffer.read(ORDER_BYTES_MAX), type=Orders)
    asked = orders.order or orders.heartbeat
    assert asked is not None
    # an alarm survives exec: this process ends in time, even if the watchdog dies
    signal.alarm(math.ceil(asked.deadline_s) + 1)
    if asked.argv:
        message = asked.body.encode() if isinstance(asked, Heartbeat) else msgspec.json.encode(asked.message)
        return _become(asked.argv, message)
    limit_data(DATA_BYTES_MAX)
    try:
        if isinstance(asked, Heartbeat):
            return _beat(asked)
        return _post(asked) if asked.webhook else _send(asked)
    except MemoryError:
        print("the answer is too large", file=sys.stderr)
        return 1


def _beat(asked: Heartbeat) -> int:
    if "{verdict}" in asked.url:
        return _ask("GET", asked.url.replace("{verdict}", asked.verdict), {}, b"", asked.deadline_s)
    return _ask("POST", asked.url, {"content-type": "application/json"}, asked.body.encode(), asked.deadline_s)


def _post(order: Order) -> int:
    """Send the message as JSON, signed."""
    body = msgspec.json.encode(order.message)
    headers = webhook.headers(order.secret, order.message.id, time.time(), body)
    return _ask("POST", order.webhook, headers, body, order.deadline_s)


def _ask(method: str, url: str, headers: dict[str, str], body: bytes, deadline_s: float) -> int:
    import httpx  # noqa: PLC0415  # slow to import, and only some targets need it

    try:
        # its head is all that we want to know: three megabytes of a body may unpack to gigabytes
        with httpx.stream(method, url, headers=headers, content=body or None, timeout=deadline_s) as answer:
            pass
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if not answer.is_success:
        print(f"HTTP {answer.status_code} {answer.reason_phrase}", file=sys.stderr)
        return 1
    return 0


def _become(argv: list[str], message: bytes) -> int:
    """Turn this process into the target's program. Return 1 if that fails."""
    content = os.memfd_create("alarm")
    os.write(content, message)
    os.lseek(content, 0, os.SEEK_SET)
    os.dup2(content, 0)
    try:
        os.execvp(argv[0], argv)  # noqa: S606  # the words of the operator's setting, and no shell
    except OSError as error:
        print(f"{argv[0]} cannot be run: {error.strerror}", file=sys.stderr)
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
    # a redirect would take the alarm, or the credentials with it, to whoever the target names; after a 302 it would be
    # a GET without the alarm, which counts as sent. A target whose URL says ?redirect=yes is trusted with that
    asset = apprise.AppriseAsset(app_id="fleethub", app_desc="fleethub alarms", async_mode=False, http_redirects=False)
    sender = apprise.Apprise(asset=asset)
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
