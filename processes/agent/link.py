"""The agent's connection to the hub: dials, comes back, carries frames. What they mean is decided in core/agent."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from processes.adapters import failpoint
from processes.adapters.logs import Log
from processes.adapters.ownership import NotPrivate
from processes.adapters.state import agent_token
from processes.agent import advice
from processes.agent.config import Config, ConfigError, read_token, trust
from processes.core.agent import reconnect
from processes.core.agent.effects import Connected, Disconnected, Input, Received
from processes.core.budgets import AGENT_OWN, Allowance
from processes.core.errors import BadFrame
from processes.core.travels import agent_frames
from processes.core.values import CloseCode

PING_S: Final = 10.0
SILENT_S_MAX: Final = 45.0  # without any inbound byte; what foreign agents allow too
OPEN_S_MAX: Final = 10.0
CLOSE_S_MAX: Final = 2.0
NEXT_S: Final = 0.1  # between a refusal of the token and the try with the next one, if there is one
OUTBOX_BYTES_MAX: Final = 8 << 20  # unsent; then the hub does not read, and the connection is given up
OUTBOX_BYTES_HIGH: Final = 1 << 20  # above it no more output is read from disk …
OUTBOX_FRAMES_HIGH: Final = 1000  # … nor above so many frames, or a heartbeat would wait behind them for seconds


class _Connection(ClientConnection):
    """Knows when anything came in: pongs need not match, some gateways answer with their own."""

    heard_mono_s = 0.0

    def data_received(self, data: bytes) -> None:
        self.heard_mono_s = time.monotonic()
        super().data_received(data)


class _Dial(connect):
    """Follows no redirect: an answer with one is a refusal, and the token goes to the URL of our file alone."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Part of connect."""
        return exc


class Link:
    """At most one connection at a time."""

    def __init__(self, config: Config, version: str, log: Log) -> None:
        self._config = config
        self._version = version
        self._log = log
        self._tell: Callable[[Input], Awaitable[None]]
        self._number = 0
        self._connection: _Connection | None = None
        self._outbox: deque[tuple[bytes, str]] = deque()  # the text, and the failpoint behind it
        self._filled = asyncio.Event()
        self._allowance = Allowance(AGENT_OWN, time.monotonic())
        self._with_next = False  # the token to dial with is the one that takes the place of that in the file
        self._failures = 0  # tries since the hub last registered us
        self.unsent_bytes = 0
        self.malformed = 0

    @property
    def is_full(self) -> bool:
        """Return whether so much is unsent that no more output is to be read from disk."""
        return self.unsent_bytes > OUTBOX_BYTES_HIGH or len(self._outbox) > OUTBOX_FRAMES_HIGH

    async def run(self, tell: Callable[[Input], Awaitable[None]]) -> None:
        """Connect again and again, until cancelled. `tell` gets Connected, Received… and Disconnected, in order; while
        it waits, nothing more is read.
        """
        self._tell = tell
        while True:
            wait_s = await self._once()
            self._failures += 1
            await asyncio.sleep(wait_s)

    def send(self, number: int, text: bytes, mark: str = "") -> None:
        """Writes a text frame to connection `number`; nothing, if that is no longer the one. Never waits."""
        if self._connection is None or number != self._number:
            return
        self._outbox.append((text, mark))
        self.unsent_bytes += len(text)
        self._filled.set()
        if self.unsent_bytes > OUTBOX_BYTES_MAX:
            self._log.warning("hub does not read: connection given up", unsent_bytes=self.unsent_bytes)
            self._drop(self._connection)

    async def close(self) -> None:
        """Says goodbye, within CLOSE_S_MAX."""
        if self._connection is not None:
            with contextlib.suppress(ConnectionClosed, OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._connection.close(CloseCode.GOING_AWAY, "the agent stops"), CLOSE_S_MAX)

    async def _once(self) -> float:
        """One connection from dialling to its end; returns how long to wait then."""
        config, chance = self._config, random.random()  # noqa: S311 - jitter
        try:
            token, is_next, trust = await asyncio.to_thread(self._credentials)  # files: a disk may be slow
            connection = await _Dial(
                config.hub,
                additional_headers={"Authorization": f"Bearer {token}"},
                user_agent_header=f"fleethub-agent/{self._version}",
                create_connection=_Connection,
                ssl=trust,
                compression=None,
                proxy=None,
                open_timeout=OPEN_S_MAX,
                ping_interval=PING_S,
                ping_timeout=None,  # any inbound byte is proof of life: _watch
                close_timeout=CLOSE_S_MAX,
                max_size=agent_frames.FRAME_BYTES_MAX,
            )
        except InvalidStatus as refusal:
            status, headers = refusal.response.status_code, refusal.response.headers
            if status == 401 and self._tries_other(after_next=is_next):
                return NEXT_S
            wait_s = reconnect.after_refusal_s(status, _seconds(_first(headers, "Retry-After")), self._failures, chance)
            hint = advice.refused(status, _first(headers, "Location"), config.hub)
            self._log.warning("refused", hub=config.hub, status=status, hint=hint, retry_s=round(wait_s, 1))
            return wait_s
        except ConfigError as error:
            self._log.error("hub not dialled", error=str(error), retry_s=reconnect.REFUSED_S)
            return reconnect.REFUSED_S
        except (OSError, WebSocketException, EOFError, ValueError) as error:  # ValueError: no such host can be named
            wait_s = reconnect.backoff_s(self._failures, chance)
            if isinstance(error, ssl.SSLCertVerificationError):
                wait_s = reconnect.REFUSED_S  # somebody has to change something first
            self._log.warning(
                "hub not reached", hub=config.hub, error=str(error) or type(error).__name__,
                hint=advice.unreached(error, config.hub),
                retry_s=round(wait_s, 1),
            )  # fmt: skip
            return wait_s
        assert isinstance(connection, _Connection), "connect made something else"
        if is_next:
            await self._promote()
        code = await self._serve(connection)
        wait_s = reconnect.after_close_s(code, self._failures, chance)
        reason = connection.close_reason or ""
        hint = advice.CLOSED.get(code, "")
        (self._log.warning if hint else self._log.info)(
            "disconnected", code=code, reason=reason, hint=hint, retry_s=round(wait_s, 1)
        )
        return wait_s

    async def _serve(self, connection: _Connection) -> int | None:
        self._number += 1
        self._connection = connection
        self._log.info("connected", hub=self._config.hub)
        around = [asyncio.create_task(self._write(connection)), asyncio.create_task(self._watch(connection))]
        try:
            await self._tell(Connected(self._number))
            await self._read(connection)
        finally:
            self._connection = None
            self._outbox.clear()
            self.unsent_bytes = 0
            for task in around:
                task.cancel()
            connection.transport.abort()
        await self._tell(Disconnected())
        return connection.close_code

    async def _read(self, connection: _Connection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                text = await connection.recv(decode=False)
                try:
                    frame = agent_frames.decode_hub(text)
                except BadFrame as error:
                    self.malformed += 1
                    self._log.warning("malformed frame of the hub", error=str(error))
                    continue
                if isinstance(frame, agent_frames.Registered):
                    self._failures = 0
                if frame is not None:
                    await self._tell(Received(frame))

    async def _write(self, connection: _Connection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._filled.clear()
                while self._outbox:
                    text, mark = self._outbox[0]
                    await connection.send(text, text=True)
                    if mark:  # the event loop writes at the end of its turn: in the next one the frame is on the wire
                        asyncio.get_running_loop().call_soon(failpoint.reach, mark)
                    self._outbox.popleft()
                    self.unsent_bytes -= len(text)
                    rest_s = self._allowance.spend(1, len(text), 0, time.monotonic()).rest_s
                    if rest_s:  # a hub closes whoever sends more than it may
                        await asyncio.sleep(rest_s)
                await self._filled.wait()

    async def _watch(self, connection: _Connection) -> None:
        """Ends a connection on which nothing comes in. Two looks in a row, for after a pause of our own the first one
        errs.
        """
        connection.heard_mono_s = time.monotonic()
        overdue = 0
        while overdue < 2:
            await asyncio.sleep(1.0)
            overdue = overdue + 1 if time.monotonic() - connection.heard_mono_s > SILENT_S_MAX else 0
        self._log.warning("hub is mute: connection given up", silent_s=SILENT_S_MAX)
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        connection.transport.abort()

    async def make_token(self) -> str:
        """Make the next token, on disk beside the one in use, and return its hash. Raises: OSError, NotPrivate."""
        token_hash = await asyncio.to_thread(agent_token.make, self._config.token_file)
        self._with_next = True
        return token_hash

    def _tries_other(self, *, after_next: bool) -> bool:
        """Called after a 401. Return whether the next token is to be tried at once: the hub may have it already."""
        self._with_next = not after_next and agent_token.pending(self._config.token_file).exists()
        return self._with_next

    async def _promote(self) -> None:
        """The next token has let us in: it takes the place of the one before."""
        self._with_next = False
        try:
            await asyncio.to_thread(agent_token.promote, self._config.token_file)
            self._log.info("the new token is in use", path=str(self._config.token_file))
        except (OSError, NotPrivate) as error:  # it is found again at each dial
            self._log.error("the new token is not in its file", error=str(error))

    def _credentials(self) -> tuple[str, bool, ssl.SSLContext | None]:
        """The token, whether it is the next one, and whom to trust under wss. Read anew each time: all are renewed
        while agents run. Raises: ConfigError.
        """
        try:
            found = agent_token.read_pending(self._config.token_file) if self._with_next else None
        except (OSError, NotPrivate) as error:
            raise ConfigError(f"the next token cannot be read: {error}") from None
        token = found or read_token(self._config.token_file)
        if urlsplit(self._config.hub).scheme != "wss":
            return token, bool(found), None
        return token, bool(found), trust(self._config.ca_file)


def _first(headers: Headers, name: str) -> str:
    """The header's first value; empty: there is none. Two proxies may have added one each, which `get` raises for."""
    return next(iter(headers.get_all(name)), "")


def _seconds(header: str) -> float | None:
    try:
        return float(header)
    except ValueError:
        return None
