"""Follows commands to their end and streams their output: by the operators' WebSocket, or by asking when there is none.

What was shown is known by its offset, so a lost connection, a new hub or a message that comes twice neither loses nor repeats a
line. The WebSocket brings news early; the API is believed: every end is asked for once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from websockets.exceptions import InvalidHandshake, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect

from processes.cli import output
from processes.cli.client import Api, HubAway, Refused
from processes.cli.watch import Watched
from processes.core.values import Stream
from processes.core.views import OutputView

FRAME_BYTES_MAX: Final = 64 << 20  # a full_state of a large fleet
OPEN_S_MAX: Final = 5.0
LOOK_S: Final = 5.0  # without news, every command is asked for so often
POLL_S: Final = 0.5  # without a WebSocket
SILENT_S_MAX: Final = 600.0  # nobody answers for so long: give up, and say so


class _Change(msgspec.Struct, frozen=True):
    kind: str
    id: str
    fields: dict[str, Any] = {}


class _State(msgspec.Struct, frozen=True):
    commands: list[dict[str, Any]] = []


class _Frame(msgspec.Struct, frozen=True):
    type: str
    version: int = 0
    state: _State = _State()
    changes: list[_Change] = []
    command_id: str = ""
    offset: Annotated[int, Meta(ge=0)] = 0
    stream: Stream = Stream.STDOUT
    data: str = ""


_frame = msgspec.json.Decoder(_Frame)


class Following:
    """Commands that are followed. `run` returns when all are over or the time is."""

    def __init__(
        self,
        api: Api,
        commands: Iterable[Watched],
        *,
        prefixed: bool = True,
        quiet: bool = False,
        on_end: Callable[[Watched], None] | None = None,
    ) -> None:
        self._api = api
        self.commands = {each.id: each for each in commands}
        self._prefixed, self._quiet, self._on_end = prefixed, quiet, on_end
        self._width = max((len(each.host) for each in self.commands.values()), default=0)
        self._looked_mono_s = self._heard_mono_s = time.monotonic()
        self._away = False

    def run(self, wait_s: float | None = None) -> bool:
        """True when all have ended; False after `wait_s`.

        Raises: Refused, if it may not be seen; HubAway, when nobody answered for SILENT_S_MAX.
        """
        deadline_mono_s = None if wait_s is None else time.monotonic() + wait_s
        self._look(self._open())
        while self._open():
            try:
                with self._connected() as socket:
                    self._listen(socket, deadline_mono_s)
            except (OSError, WebSocketException):
                self._look(self._open())
                time.sleep(self._left(deadline_mono_s, POLL_S))  # then connect again; meanwhile asking shows what there is
            if deadline_mono_s is not None and time.monotonic() >= deadline_mono_s:
                self._look(self._open())
                return not self._open()
        return True

    @contextlib.contextmanager
    def _connected(self) -> Iterator[ClientConnection]:
        url = "ws" + self._api.url.removeprefix("http") + "/ws"
        try:
            with connect(
                url,
                additional_headers={"Authorization": f"Bearer {self._api.token}"},
                ssl=self._api.trust,
                compression=None,
                open_timeout=OPEN_S_MAX,
                close_timeout=1,
                max_size=FRAME_BYTES_MAX,
                proxy=None,
            ) as socket:
                yield socket
        except (InvalidHandshake, InvalidURI, TimeoutError) as error:
            raise OSError(str(error)) from None

    def _listen(self, socket: ClientConnection, deadline_mono_s: float | None) -> None:
        for each in self._open():
            socket.send(msgspec.json.encode({"type": "subscribe", "command_id": each.id, "offset": each.next_offset}).decode())
        version = 0
        self._look(self._open())  # what happened while we were not connected
        while self._open():
            left_s = self._left(deadline_mono_s, LOOK_S)
            if left_s <= 0:
                return
            try:
                frame = _decoded(socket.recv(timeout=left_s))
            except TimeoutError:
                self._look(self._open())
                continue
            if frame is None:
                continue
            if frame.type == "delta" and version and frame.version != version + 1:
                socket.send('{"type":"get_state"}')
            version = frame.version or version
            self._hear(frame)
            if time.monotonic() - self._looked_mono_s > LOOK_S:
                self._look(self._open())

    def _hear(self, frame: _Frame) -> None:
        ended: list[Watched] = []
        if frame.type == "output" and (each := self.commands.get(frame.command_id)):
            if frame.offset > each.next_offset:
                self._look([each])  # a gap: the API has what lies between
            self._show(each, [OutputView(frame.offset, frame.stream, frame.data)])
        elif frame.type == "delta":
            news = [(change.id, change.fields) for change in frame.changes if change.kind == "command"]
            ended = [each for command_id, fields in news if (each := self._learned(command_id, fields))]
        elif frame.type == "full_state":
            news = [(str(fields.get("id")), fields) for fields in frame.state.commands]
            ended = [each for command_id, fields in news if (each := self._learned(command_id, fields))]
        if ended:
            self._look(ended)

    def _learned(self, command_id: str, fields: dict[str, Any]) -> Watched | None:
        each = self.commands.get(command_id)
        if each is None or each.over:
            return None
        with contextlib.suppress(ValueError):  # a state that this version does not know
            each.learn(fields)
        return each if each.state.final else None

    def _look(self, wanted: Iterable[Watched]) -> None:
        """Asks the API for each command's state and for the output that is not shown yet."""
        self._looked_mono_s = time.monotonic()
        for each in wanted:
            try:
                if not each.confirmed:
                    each.learn(msgspec.to_builtins(self._api.command(each.id)))
                    each.confirmed = each.state.final
                self._fetch(each)
            except HubAway as error:
                self._missing(error)
                return
            except Refused as refused:
                if refused.status not in (503, 504):
                    raise
                self._missing(HubAway(refused.message))
                return
            self._heard_mono_s, self._away = time.monotonic(), False
            if each.over and self._on_end:
                self._on_end(each)

    def _fetch(self, each: Watched) -> None:
        while not each.complete:
            page = self._api.output(each.id, each.next_offset)
            self._show(each, page.records)
            each.complete = page.complete
            if page.complete and page.truncated and not self._quiet:
                output.note(f"{each.host}: the output was longer than what is kept")
            if not page.records:
                return

    def _show(self, each: Watched, records: Iterable[OutputView]) -> None:
        for record in each.take(records):
            if not self._quiet:
                prefix = f"{each.host.ljust(self._width)} | " if self._prefixed else ""
                output.stream(prefix + record.data, record.stream == "stderr")

    def _missing(self, error: HubAway) -> None:
        if time.monotonic() - self._heard_mono_s > SILENT_S_MAX:
            raise error
        if not self._away:
            self._away = True
            output.note(f"fleethub: {error}; the commands go on, asking again …")

    def _open(self) -> list[Watched]:
        return [each for each in self.commands.values() if not each.over]

    def _left(self, deadline_mono_s: float | None, most_s: float) -> float:
        return most_s if deadline_mono_s is None else min(most_s, max(0.0, deadline_mono_s - time.monotonic()))


def _decoded(message: str | bytes) -> _Frame | None:
    try:
        return _frame.decode(message)
    except msgspec.DecodeError:
        return None  # a newer hub may say more than this version knows
