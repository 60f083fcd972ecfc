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

FRAME_BYTES_MAX: Final = 64 << 20  # of a full state of a large fleet
OPEN_S_MAX: Final = 5.0  # for connecting
AGAIN_S: Final = 0.5  # between two tries to connect
EVERY_S: Final = 0.25  # between two updates, at least
AGES_S: Final = 1.0  # without news, an update comes so often, because ages grow
SILENT_S_MAX: Final = 8.0  # a sync comes every 5 s: a connection without one is dead
LISTS: Final = {  # of a full state → kind of its rows, and the field that names them
    "hosts": ("host", "name"),
    "commands": ("command", "id"),
    "processes": ("process", "name"),
    "incidents": ("incident", "id"),
}
SINGLE: Final = ("overall", "ledger", "source")


class Picture:
    """All rows that are known. `rows[kind][id]`: host, command, process, incident; overall, ledger and source stand
    under their own names.

    Invariant: a delta is merged only on top of the full state of the same connection, and only without a gap.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.heard_mono_s: float | None = None  # None: never
        self._version = 0

    def take(self, text: str | bytes) -> bool:
        """Merges a frame into the picture. Returns False when a frame before it is missing: then ask for the state."""
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
    """A WebSocket to the operators' port.

    Raises: OSError, WebSocketException, if there is none or it ends; Refused, if the token is not good.
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
            proxy=None,
            logger=logging.Logger("unheard", logging.CRITICAL + 1),  # else its threads write tracebacks to stderr
        ) as socket:
            yield socket
    except InvalidStatus as error:
        status = error.response.status_code
        if status in (401, 403):
            raise Refused(status, "not_signed_in", "this token may not look", url=api.url, own=api.own) from None
        raise OSError(str(error)) from None
    except (InvalidHandshake, InvalidURI, TimeoutError) as error:
        raise OSError(str(error)) from None


class Feed:
    """The live state of one installation. `problem`: why it is not connected just now; empty while it is.

    `again_s`: between two tries to connect; `every_s`: between two updates, at least. Units: seconds.
    """

    def __init__(self, api: Api, *, again_s: float = AGAIN_S, every_s: float = EVERY_S) -> None:
        self.picture = Picture()
        self.problem = "not yet"
        self._api, self._again_s, self._every_s = api, again_s, every_s

    @property
    def age_s(self) -> float | None:
        """For how long nothing was heard; None if nothing ever was."""
        heard_mono_s = self.picture.heard_mono_s
        return None if heard_mono_s is None else time.monotonic() - heard_mono_s

    def updates(self) -> Iterator[Picture]:
        """The picture, again whenever it has changed or the connection was lost, without end. Connects again by itself.

        Raises: Refused, if the token is not good.
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
