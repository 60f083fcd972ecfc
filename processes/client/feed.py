"""The live state of a fleet, as the operators' WebSocket tells it: rows by kind, kept up to date."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import UNSET
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from processes.client.api import Api
from processes.client.errors import Refused
from processes.core.travels import operator_frames
from processes.core.travels.operator_frames import Delta, FullState, GetState, RowChange

FRAME_BYTES_MAX: Final = 64 << 20  # the full state of a large fleet
OPEN_S_MAX: Final = 5.0  # for connecting
AGAIN_S: Final = 0.5  # between two attempts to connect
EVERY_S: Final = 0.25  # between two updates, at least
AGES_S: Final = 1.0  # without news there is an update so often, because shown ages grow
SILENT_S_MAX: Final = 8.0  # the hub sends a sync every 5 s: a connection without one is dead
LISTS: Final = {  # list in a full state → kind of its rows, and the field that identifies a row
    "hosts": ("host", "name"),
    "commands": ("command", "id"),
    "processes": ("process", "name"),
    "incidents": ("incident", "id"),
}
SINGLE: Final = ("overall", "ledger", "source")


class Picture:
    """All known rows.

    Shape: `rows[kind][id]`. Kinds of many rows are host, command, process and incident; the kinds overall, ledger and
    source have one row, whose id is the kind.

    Invariant: a delta is merged only on top of the full state of the same connection, and only without a gap.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.heard_mono_s: float | None = None  # None: never
        self._version = 0

    def take(self, text: str | bytes) -> bool:
        """Merge a frame into the picture. False: a frame before it is missing, so ask for the full state."""
        frame = operator_frames.decode(text)
        self.heard_mono_s = time.monotonic()
        if isinstance(frame, FullState):
            self._replace(frame)
        elif isinstance(frame, Delta):
            if frame.version != self._version + 1:
                return False
            self._version = frame.version
            for change in operator_frames.decode_changes(frame):
                self._merge(change)
        return True

    def _replace(self, frame: FullState) -> None:
        state = operator_frames.decode_state(frame)
        self._version = frame.version
        self.rows = {
            kind: {row[key]: row for row in map(_decoded, getattr(state, name))} for name, (kind, key) in LISTS.items()
        }
        for kind in SINGLE:
            row = getattr(state, kind)
            if row is not UNSET:
                self.rows[kind] = {kind: _decoded(row)}

    def _merge(self, change: RowChange) -> None:
        if change.is_removal:
            self.rows.get(change.row_kind, {}).pop(change.id, None)
        else:
            self.rows.setdefault(change.kind, {}).setdefault(change.id, {}).update(_decoded(change.fields))


def _decoded(row: msgspec.Raw) -> dict[str, Any]:
    return msgspec.json.decode(row or b"{}", type=dict[str, Any])


@contextlib.contextmanager
def open_socket(api: Api) -> Iterator[ClientConnection]:
    """Connect a WebSocket to the operators' port.

    Raises: OSError, WebSocketException, if it cannot connect or ends; Refused, if the token is not accepted.
    """
    try:
        with connect(
            "ws" + api.url.removeprefix("http") + "/ws",
            additional_headers={"Authorization": f"Bearer {api.token}"},
            ssl=api.trust,
            compression=None,
            open_timeout=OPEN_S_MAX,
            close_timeout=1,
            max_size=FRAME_BYTES_MAX,
            proxy=None if api.proxy is None else api.proxy.url,
            logger=logging.Logger("unheard", logging.CRITICAL + 1),  # otherwise its threads write tracebacks to stderr
        ) as socket:
            yield socket
    except InvalidStatus as error:
        status = error.response.status_code
        if status in (401, 403):
            raise Refused(
                status, "not_signed_in", "this token may not watch the fleet", url=api.url, own=api.own
            ) from None
        raise OSError(str(error)) from None
    except (InvalidHandshake, InvalidURI, TimeoutError, UnicodeError) as error:
        raise OSError(str(error)) from None


class Feed:
    """The live state of one installation. `problem`: why it is not connected now; empty while it is.

    `again_s`: pause between two attempts to connect. `every_s`: least time between two updates. Units: seconds.
    """

    def __init__(self, api: Api, *, again_s: float = AGAIN_S, every_s: float = EVERY_S) -> None:
        self.picture = Picture()
        self.problem = "not yet"
        self._api, self._again_s, self._every_s = api, again_s, every_s

    @property
    def age_s(self) -> float | None:
        """How long ago the last frame came; None if none ever came."""
        heard_mono_s = self.picture.heard_mono_s
        return None if heard_mono_s is None else time.monotonic() - heard_mono_s

    def updates(self) -> Iterator[Picture]:
        """Yield the picture whenever it has changed or the connection was lost, without end; reconnect as needed.

        Raises: Refused, if the token is not accepted.
        """
        while True:
            try:
                with open_socket(self._api) as socket:
                    self.problem = ""
                    yield from self._heard(socket)
            except (OSError, WebSocketException) as error:
                self.problem = str(error) or type(error).__name__
                yield self.picture
                time.sleep(self._again_s)

    def _heard(self, socket: ClientConnection) -> Iterator[Picture]:
        told_mono_s, changed = 0.0, False
        heard_mono_s = time.monotonic()
        while True:
            now_mono_s = time.monotonic()
            if now_mono_s - heard_mono_s > SILENT_S_MAX:
                raise OSError(f"nothing was heard for {SILENT_S_MAX:.0f} s")
            if changed and now_mono_s - told_mono_s >= self._every_s:
                yield self.picture
                told_mono_s, changed = now_mono_s, False
            try:
                text = socket.recv(timeout=self._every_s if changed else AGES_S)
            except TimeoutError:
                changed = changed or now_mono_s - told_mono_s >= AGES_S
                continue
            heard_mono_s = time.monotonic()
            if not self.picture.take(text):
                socket.send(operator_frames.encode_text(GetState()))
            changed = True
