"""Follows commands, or a fleet run with its commands, and streams their output: by the operators' WebSocket, or by
asking without.

What was shown is known by its offset, so a lost connection, a new hub or a message that comes twice neither loses nor
repeats a line. The WebSocket brings news early; the API is believed: every end is asked for once, and the run says
which commands it made.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection

from processes.cli.client import Api, HubAway, Refused
from processes.cli.live import socket_of
from processes.cli.terminal import output
from processes.cli.terminal.text import drawn, seconds_between
from processes.cli.watch import Watched, WatchedRun, commands_made, watched
from processes.core.records.command import State
from processes.core.records.run import RunState, RunView
from processes.core.shown.views import CommandView, OutputView
from processes.core.values import Stream, rfc3339

LOOK_S: Final = 5.0  # without news, every command is asked for so often
POLL_S: Final = 0.5  # without a WebSocket
RUN_POLL_S: Final = 0.4  # a run is asked for so often
NEWS_S: Final = 0.1  # and so soon after one of its commands ended
MANY: Final = 50  # open commands, beyond which they are asked for together; guess
SHARE: Final = 5.0  # a look that took long waits so many times as long for the next; guess: a sixth of our time
WATCHING_MAX: Final = 20  # outputs that one connection brings, by the fanout's own limit
# a host is gone for so long: said. A hub that was just replaced hears of some for the first time
UNHEARD_S: Final = 10.0
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
    """Commands that are followed, and the run that makes more of them. `run` returns when all are over or the time is.

    `on_run` is called with each look at the run. `between` is called between two pieces of news: it may ask the person
    something.
    """

    def __init__(
        self,
        api: Api,
        commands: Iterable[Watched] = (),
        *,
        fleet_run: WatchedRun | None = None,
        prefixed: bool = True,
        quiet: bool = False,
        on_run: Callable[[RunView], None] = lambda _: None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._api, self._run = api, fleet_run
        self.commands: dict[str, Watched] = {}
        self._seen: Counter[str] = Counter()  # commands by host
        self._prefixed, self._quiet, self._on_run, self._between = prefixed, quiet, on_run, between
        for each in commands:
            self._add(each)
        hosts = [part.host for part in fleet_run.view.hosts] if fleet_run else self._seen
        self._width = max(map(len, hosts), default=0)
        self._look_due_mono_s = self._heard_mono_s = time.monotonic()
        self._run_looked_mono_s, self._run_pause_s = 0.0, 0.0
        self._news = True  # something happened that may have moved the run
        self._away = False
        self._gone: set[str] = set()  # hosts of which that was said

    def run(self, wait_s: float | None = None) -> bool:
        """True when all have ended; False after `wait_s`.

        Raises: Refused, if it may not be seen; HubAway, when nobody answered for SILENT_S_MAX; whatever `between`
        raises.
        """
        deadline_mono_s = None if wait_s is None else time.monotonic() + wait_s
        self._look_at_all()
        while not self._over():
            try:
                with socket_of(self._api) as socket:
                    self._listen(socket, deadline_mono_s)
            except (OSError, WebSocketException):
                self._look_at_all()
                time.sleep(
                    self._left(deadline_mono_s, POLL_S)
                )  # then connect again; meanwhile asking shows what there is
            if deadline_mono_s is not None and time.monotonic() >= deadline_mono_s:
                self._look_at_all()
                return self._over()
        return True

    def _listen(self, socket: ClientConnection, deadline_mono_s: float | None) -> None:
        subscribed: set[str] = set()
        self._subscribe(socket, subscribed)
        version = 0
        self._look_at_all()  # what happened while we were not connected
        while not self._over():
            self._between()
            self._subscribe(socket, subscribed)
            left_s = self._left(deadline_mono_s, LOOK_S if self._run is None else RUN_POLL_S)
            if left_s <= 0:
                return
            try:
                frame = _decoded(socket.recv(timeout=left_s))
            except TimeoutError:
                frame = None
            if frame is not None:
                if frame.type == "delta" and version and frame.version != version + 1:
                    socket.send('{"type":"get_state"}')
                version = frame.version or version
                self._hear(frame)
            if time.monotonic() > self._look_due_mono_s:
                self._look_at_all()
            elif self._run_due():
                self._look_at_run()

    def _subscribe(self, socket: ClientConnection, subscribed: set[str]) -> None:
        """The connection brings the output of as many open commands as it may; the others are asked for."""
        if self._quiet:
            return
        for command_id in [command_id for command_id in subscribed if self.commands[command_id].over]:
            socket.send(_asking("unsubscribe", command_id))
            subscribed.discard(command_id)
        if len(subscribed) >= WATCHING_MAX:
            return
        for each in [each for each in self._open() if each.id not in subscribed][: WATCHING_MAX - len(subscribed)]:
            subscribed.add(each.id)
            socket.send(_asking("subscribe", each.id, offset=each.next_offset))

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
            self._news = True  # perhaps a new hub
            news = [(str(fields.get("id")), fields) for fields in frame.state.commands]
            ended = [each for command_id, fields in news if (each := self._learned(command_id, fields))]
        if ended:
            self._look(ended)

    def _learned(self, command_id: str, fields: dict[str, Any]) -> Watched | None:
        """The command, if it has ended with this."""
        if command_id not in self.commands:
            if self._run is None or fields.get("run") != self._run.id:
                return None
            self._news = True  # one of ours that is not known yet
            if "host" not in fields or "op" not in fields:
                return None  # a part of it only: the run tells which, and what came before it
            self._add(Watched(command_id, str(fields["host"]), str(fields["op"]), State.QUEUED))
        each = self.commands[command_id]
        if each.over:
            return None
        with contextlib.suppress(ValueError):  # a state that this version does not know
            each.learn(fields)
        return each if each.state.final else None

    def _look_at_all(self) -> None:
        """Asks for everything that is open: first the run, which may name commands that are not known yet."""
        started_mono_s = time.monotonic()
        self._between()
        if self._run is not None and not self._run.over:
            self._look_at_run(whole=True)
        opened = self._open()
        self._look(opened if self._run is None or len(opened) <= MANY else self._behind(self._run.id, opened))
        self._tell_gone()
        now_mono_s = time.monotonic()
        self._look_due_mono_s = now_mono_s + max(LOOK_S, SHARE * (now_mono_s - started_mono_s))

    def _tell_gone(self) -> None:
        """On stderr: whose host is not connected any more, and so what is waited for; and who is back."""
        now = rfc3339(self._api.now_wall_s())
        views = [each.view for each in self._open() if each.view]
        silent = {view.host for view in views if (seconds_between(view.unheard_since, now) or 0.0) > UNHEARD_S}
        back = self._gone & {view.host for view in views if view.unheard_since is None}
        if not self._quiet:
            for host in sorted(silent - self._gone):
                output.note(
                    f"fleethub: {host} is not connected: what it runs goes on there, and it tells when it is back"
                )
            for host in sorted(back):
                output.note(f"fleethub: {host} is back")
        self._gone = (self._gone | silent) - back

    def _look(self, wanted: Iterable[Watched]) -> None:
        """Asks the API for each command's state and for the output that is not shown yet."""
        for each in wanted:
            if not self._asked(partial(self._look_at, each)):
                return
            self._news = self._news or each.over
            self._between()

    def _look_at(self, each: Watched) -> None:
        if not each.confirmed:
            each.view = self._api.command(each.id)
            each.learn(msgspec.to_builtins(each.view))
            each.confirmed = each.state.final
        self._fetch(each)

    def _behind(self, run_id: str, opened: list[Watched]) -> list[Watched]:
        """Those of which there is more to see, by a few long answers in place of one for each."""
        found: dict[str, CommandView] = {}

        def ask() -> None:
            found.update((view.id, view) for view in self._api.commands({"run": run_id}, len(self.commands) + MANY)[0])

        if not self._asked(ask):
            return []
        behind = []
        for each in opened:
            view = found.get(each.id)
            if view is None:
                behind.append(each)
                continue
            each.view = view
            each.learn(msgspec.to_builtins(view))
            each.confirmed = each.state.final
            each.complete = each.confirmed and (
                self._quiet or (view.output_next <= each.next_offset and not view.output_truncated)
            )
            if not each.complete and (each.confirmed or view.output_next > each.next_offset):
                behind.append(each)
        return behind

    def _run_due(self) -> bool:
        """True when the run is to be asked for: soon after news, else now and then; a large one, that takes long, more
        seldom.
        """
        if self._run is None or self._run.over:
            return False
        least_s = NEWS_S if self._news else RUN_POLL_S
        return time.monotonic() - self._run_looked_mono_s >= max(least_s, self._run_pause_s)

    def _look_at_run(self, *, whole: bool = False) -> None:
        """Asks for the run; of its hosts, which are many, only now and then and at its end."""
        started_mono_s = time.monotonic()
        self._news = False
        self._asked(self._learn_run if whole else self._count_run)
        self._run_looked_mono_s = time.monotonic()
        self._run_pause_s = SHARE * (self._run_looked_mono_s - started_mono_s)

    def _count_run(self) -> None:
        assert self._run is not None
        counted = self._api.run(self._run.id, hosts=False)
        made = sum(part.command_id is not None for part in self._run.view.hosts)
        if counted.state is not RunState.RUNNING or (not made and counted.active):
            self._learn_run()
        else:
            self._on_run(counted)

    def _learn_run(self) -> None:
        """Takes up the commands that the run has made since: all of each host's, in their order."""
        assert self._run is not None
        view = self._api.run(self._run.id)
        for part in self._run.unseen(view, self._seen):
            if commands_made(part) == self._seen[part.host] + 1 and part.command_id is not None:
                self._add(Watched(part.command_id, part.host, part.op, State.QUEUED))
            else:  # it was quicker than we looked
                for command in self._api.commands_of(view.id, commands_made(part), part.host):
                    self._add(watched(command))
                self._run.searched(part)
        self._run.learn(view)  # last: an ended run is not asked for again, so by then all its commands are known
        self._on_run(self._run.view)

    def _add(self, each: Watched) -> None:
        if each.id not in self.commands:
            self.commands[each.id] = each
            self._seen[each.host] += 1

    def _asked(self, ask: Callable[[], None]) -> bool:
        """False: nobody answered it, this time.

        Raises: Refused, HubAway, after SILENT_S_MAX.
        """
        try:
            ask()
        except HubAway as error:
            self._missing(error)
            return False
        except Refused as refused:
            if refused.status not in (503, 504):
                raise
            self._missing(HubAway(refused.message))
            return False
        self._heard_mono_s, self._away = time.monotonic(), False
        return True

    def _fetch(self, each: Watched) -> None:
        if self._quiet:  # nobody reads it
            each.complete = each.confirmed
            return
        while not each.complete:
            page = self._api.output(each.id, each.next_offset)
            self._show(each, page.records)
            each.complete = page.complete
            if page.complete and page.truncated:
                output.note(f"{each.host}: the output was longer than what is kept")
            if not page.records:
                return

    def _show(self, each: Watched, records: Iterable[OutputView]) -> None:
        if self._quiet:
            return
        for record in each.take(records):
            prefix = f"{each.host.ljust(self._width)} | " if self._prefixed else ""
            output.stream(prefix + drawn(record.data), record.stream == "stderr")

    def _missing(self, error: HubAway) -> None:
        if time.monotonic() - self._heard_mono_s > SILENT_S_MAX:
            raise error
        if not self._away:
            self._away = True
            output.note(f"fleethub: {error}; the commands go on, asking again …")

    def _open(self) -> list[Watched]:
        return [each for each in self.commands.values() if not each.over]

    def _over(self) -> bool:
        return (self._run is None or self._run.over) and all(each.over for each in self.commands.values())

    def _left(self, deadline_mono_s: float | None, most_s: float) -> float:
        return most_s if deadline_mono_s is None else min(most_s, max(0.0, deadline_mono_s - time.monotonic()))


def _asking(what: str, command_id: str, **more: int) -> str:
    return msgspec.json.encode({"type": what, "command_id": command_id, **more}).decode()


def _decoded(message: str | bytes) -> _Frame | None:
    try:
        return _frame.decode(message)
    except msgspec.DecodeError:
        return None  # a newer hub may say more than this version knows
