"""The state as operators' WebSocket tells it, for a screen that lives: rows by kind, and since when they are not
fresh.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
from rich.console import Console, RenderableType
from rich.live import Live
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from processes.cli.client import Api, Refused

FRAME_BYTES_MAX: Final = 64 << 20  # a full_state of a large fleet
OPEN_S_MAX: Final = 5.0
AGAIN_S: Final = 0.5  # between two tries to connect
DRAW_S: Final = 0.25  # between two pictures
SILENT_S: Final = 8.0  # a sync comes every 5 s: without one the connection is a dead one
ROWS: Final = {
    "hosts": ("host", "name"),
    "commands": ("command", "id"),
    "processes": ("process", "name"),
    "incidents": ("incident", "id"),
}


class _Change(msgspec.Struct, frozen=True):
    kind: str
    id: str
    fields: dict[str, Any] = {}


class _Frame(msgspec.Struct, frozen=True):
    type: str
    version: int = 0
    epoch: int = 0
    state: dict[str, Any] = {}
    changes: list[_Change] = []


_frame = msgspec.json.Decoder(_Frame)


class Picture:
    """What is known. `rows[kind][id]`: host, command, process, incident; and overall, ledger, source under their own
    name.

    Invariant: deltas are merged only on top of the full state of the same connection, without a gap.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.heard_mono_s: float | None = None  # None: never
        self._version = 0

    def take(self, text: str | bytes) -> bool:
        """The message is in the picture. False: one is missing, ask for the state."""
        try:
            frame = _frame.decode(text)
        except msgspec.DecodeError:
            return True  # a newer hub may say more than this version knows
        self.heard_mono_s = time.monotonic()
        if frame.type == "full_state":
            self._whole(frame)
        elif frame.type == "delta":
            if frame.version != self._version + 1:
                return False
            self._version = frame.version
            for change in frame.changes:
                self._merge(change)
        return True

    def _whole(self, frame: _Frame) -> None:
        self._version = frame.version
        self.rows = {kind: {row[key]: row for row in frame.state.get(name, [])} for name, (kind, key) in ROWS.items()}
        self.rows |= {
            kind: {kind: frame.state[kind]} for kind in ("overall", "ledger", "source") if kind in frame.state
        }

    def _merge(self, change: _Change) -> None:
        if change.kind.endswith("_removed"):
            self.rows.get(change.kind.removesuffix("_removed"), {}).pop(change.id, None)
        else:
            self.rows.setdefault(change.kind, {}).setdefault(change.id, {}).update(change.fields)


@contextlib.contextmanager
def socket_of(api: Api) -> Iterator[ClientConnection]:
    """A WebSocket to the operators' port. Raises: OSError, WebSocketException; Refused, if the token is not good."""
    try:
        with connect(
            "ws" + api.url.removeprefix("http") + "/ws",
            additional_headers={"Authorization": f"Bearer {api.token}"},
            ssl=api.trust,
            compression=None,
            open_timeout=OPEN_S_MAX,
            close_timeout=1,
            max_size=FRAME_BYTES_MAX,
            proxy=None,
            logger=logging.Logger("unheard", logging.CRITICAL + 1),  # else its threads write tracebacks over the screen
        ) as socket:
            yield socket
    except InvalidStatus as error:
        if error.response.status_code in (401, 403):
            raise Refused(error.response.status_code, "not_signed_in", "this token may not look") from None
        raise OSError(str(error)) from None
    except (InvalidHandshake, InvalidURI, TimeoutError) as error:
        raise OSError(str(error)) from None


def watch(api: Api, draw: Callable[[Picture, str], RenderableType | None]) -> None:
    """Shows the picture, again whenever it changes, until Ctrl-C. `draw` gets what is to be said of its freshness.

    Without a terminal nothing is drawn over: `draw` prints what it has, and returns None. Raises: Refused,
    KeyboardInterrupt.
    """
    picture = Picture()
    terminal = sys.stdout.isatty()
    with Live(console=Console(), screen=terminal, auto_refresh=False) if terminal else contextlib.nullcontext() as live:

        def show(said: str) -> None:
            drawn = draw(picture, said)
            if live is not None and drawn is not None:
                live.update(drawn, refresh=True)

        while True:
            try:
                with socket_of(api) as socket:
                    _listen(socket, picture, show)
            except (OSError, WebSocketException) as error:
                show(_stale(picture, str(error)))
                time.sleep(AGAIN_S)


def _listen(socket: ClientConnection, picture: Picture, show: Callable[[str], None]) -> None:
    drawn_mono_s, fresh = 0.0, False
    heard_mono_s = time.monotonic()
    while True:
        now_mono_s = time.monotonic()
        if now_mono_s - heard_mono_s > SILENT_S:
            raise OSError(f"nothing was heard for {SILENT_S:.0f} s")
        if fresh and now_mono_s - drawn_mono_s >= DRAW_S:
            show("live")
            drawn_mono_s, fresh = now_mono_s, False
        try:
            text = socket.recv(timeout=DRAW_S if fresh else 1.0)
        except TimeoutError:
            fresh = fresh or now_mono_s - drawn_mono_s >= 1.0  # ages grow
            continue
        heard_mono_s = time.monotonic()
        if not picture.take(text):
            socket.send('{"type":"get_state"}')
        fresh = True


def _stale(picture: Picture, why: str) -> str:
    if picture.heard_mono_s is None:
        return f"not connected: {why}"
    return f"not connected, this is {time.monotonic() - picture.heard_mono_s:.0f} s old: {why}"
