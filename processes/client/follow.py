"""Follows commands, or a fleet run with its commands, to their end, and passes on their output.

News comes early by the operators' WebSocket, or by asking the API while there is none. The API has the last word: the
end of each command is asked for once, and the run tells which commands it has made. Output is counted by its offset, so
a lost connection, a new hub or a repeated message neither loses nor repeats a line.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection

from processes.client.api import Api
from processes.client.errors import HubAway, Refused, Silence
from processes.client.feed import open_socket
from processes.client.watched import Watched, WatchedRun, commands_made, watched
from processes.core.records.command import State
from processes.core.records.run import RunState, RunView
from processes.core.shown.views import CommandView, OutputView
from processes.core.travels import operator_frames
from processes.core.travels.operator_frames import (
    OUTPUTS_MAX,
    Delta,
    FullState,
    GetState,
    OutputFrame,
    Subscribe,
    Sync,
    ToOperator,
    Unsubscribe,
)
from processes.core.values import rfc3339, seconds_between

MANY: Final = 50  # more open commands than this are asked for together; guess
LOOKS: Final = 2  # at which a command must be waiting, so that nobody is told of what passes
SILENT_S_MAX: Final = 600.0  # the hub has not answered for so long: give up


class Pace(NamedTuple):
    """How often to ask, and for how much at once. Units: seconds, unless the name says otherwise."""

    look_s: float = 5.0  # between two questions for every command, if there is no news
    poll_s: float = 0.5  # the same while there is no WebSocket
    run_poll_s: float = 0.4  # between two questions for the run
    news_s: float = 0.1  # the same once one of its commands has ended
    rest_factor: float = 5.0  # a slow answer is followed by a pause so many times as long; guess: a sixth of our time
    outputs_max: int = OUTPUTS_MAX  # commands whose output the WebSocket brings; the API is asked for the others'
    gone_s: float = 10.0  # absence after which a host counts as gone: a new hub needs a while to hear of all of them
    silent_s_max: float = SILENT_S_MAX


class Listener:
    """Hears what happens while commands are followed. Each method does nothing: override those that you need."""

    def on_output(self, command: Watched, record: OutputView) -> None:
        """Called with each record of a command's output: once, and in order."""

    def on_end(self, command: Watched) -> None:
        """Called once for each command that has ended, when all of its output was passed on."""

    def on_waiting(self, command: CommandView) -> None:
        """Called once for each command that waits for its host at two looks in succession."""

    def on_truncated(self, command: Watched) -> None:
        """Called at the end of a command that has said more than the hub keeps."""

    def on_run(self, view: RunView) -> None:
        """Called with the run each time the hub was asked for it."""

    def on_host_gone(self, host: str) -> None:
        """Called when the host of an open command has not been connected for a while."""

    def on_host_back(self, host: str) -> None:
        """Called when such a host is connected again."""

    def on_hub_away(self, error: HubAway) -> None:
        """Called when the hub does not answer, once until it does. The commands go on, and so does following."""

    def between(self) -> None:
        """Called often, between two pieces of news. It may ask a person something, or raise to stop following."""


class Following:
    """Follows commands, and a run that makes more of them. `run` returns when all have ended, or the time is over.

    `output`: False if nobody reads it; then only the ends are waited for.
    """

    def __init__(
        self,
        api: Api,
        commands: Iterable[Watched] = (),
        *,
        fleet_run: WatchedRun | None = None,
        listener: Listener | None = None,
        output: bool = True,
        pace: Pace | None = None,
    ) -> None:
        self._api, self._run = api, fleet_run
        self._listener, self._output, self._pace = listener or Listener(), output, pace or Pace()
        self.commands: dict[str, Watched] = {}
        self._seen: Counter[str] = Counter()  # how many commands are known, by host
        for each in commands:
            self._add(each)
        self._look_due_mono_s = self._heard_mono_s = time.monotonic()
        self._run_looked_mono_s, self._run_pause_s = 0.0, 0.0
        self._run_known = fleet_run is None  # all commands of the run are, once it is over
        self._news = True  # something happened that may have moved the run
        self._away = False
        self._gone: set[str] = set()  # hosts that the listener was told are gone
        self._ended: set[str] = set()  # commands whose end the listener was told
        self._queued: Counter[str] = Counter()  # at how many looks each command was waiting for its host

    def run(self, wait_s: float | None = None) -> bool:
        """Follow. Returns True when all have ended, False after `wait_s`.

        Raises: Refused, if the token may not read this; HubAway, when the hub has not answered for
        `pace.silent_s_max`; whatever the listener raises.
        """
        deadline_mono_s = None if wait_s is None else time.monotonic() + wait_s
        self._look_at_all()
        while not self._over():
            try:
                with open_socket(self._api) as socket:
                    self._listen(socket, deadline_mono_s)
            except (OSError, WebSocketException):
                self._look_at_all()
                # the loop connects again; until then the API tells what there is
                time.sleep(self._left(deadline_mono_s, self._pace.poll_s))
            if deadline_mono_s is not None and time.monotonic() >= deadline_mono_s:
                self._look_at_all()
                return self._over()
        return True

    def _listen(self, socket: ClientConnection, deadline_mono_s: float | None) -> None:
        subscribed: set[str] = set()
        self._subscribe(socket, subscribed)
        version = 0
        self._look_at_all()  # for what has happened while we were not connected
        while not self._over():
            self._listener.between()
            self._subscribe(socket, subscribed)
            left_s = self._left(deadline_mono_s, self._pace.look_s if self._run is None else self._pace.run_poll_s)
            if left_s <= 0:
                return
            try:
                frame = operator_frames.decode(socket.recv(timeout=left_s))
            except TimeoutError:
                frame = None
            if isinstance(frame, Delta) and version and frame.version != version + 1:
                socket.send(operator_frames.encode_text(GetState()))
            if isinstance(frame, Delta | FullState | Sync):
                version = frame.version or version
            if frame is not None:
                self._hear(frame)
            if time.monotonic() > self._look_due_mono_s:
                self._look_at_all()
            elif self._run_due():
                self._look_at_run()

    def _subscribe(self, socket: ClientConnection, subscribed: set[str]) -> None:
        """Subscribe to the output of open commands, as many as one connection may have."""
        if not self._output:
            return
        for command_id in [command_id for command_id in subscribed if self.commands[command_id].over]:
            socket.send(operator_frames.encode_text(Unsubscribe(command_id)))
            subscribed.discard(command_id)
        room = max(0, self._pace.outputs_max - len(subscribed))
        for each in [each for each in self._open() if each.id not in subscribed][:room]:
            subscribed.add(each.id)
            socket.send(operator_frames.encode_text(Subscribe(each.id, each.next_offset)))

    def _hear(self, frame: ToOperator) -> None:
        news: list[dict[str, Any]] = []
        if isinstance(frame, OutputFrame) and (each := self.commands.get(frame.command_id)):
            if frame.offset > each.next_offset:
                self._look([each])  # a gap: the API has the lines between
            self._show(each, [OutputView(frame.offset, frame.stream, frame.data)])
        elif isinstance(frame, Delta):
            changes = [change for change in operator_frames.decode_changes(frame) if change.kind == "command"]
            news = [{**_fields(change.fields), "id": change.id} for change in changes]
        elif isinstance(frame, FullState):
            self._news = True  # perhaps a new hub
            news = [_fields(row) for row in operator_frames.decode_state(frame).commands]
        if ended := [each for fields in news if (each := self._learned(str(fields.get("id")), fields))]:
            self._look(ended)
            self._tell_ended()

    def _learned(self, command_id: str, fields: dict[str, Any]) -> Watched | None:
        """Take in fields of a command. Returns it if it has ended with this."""
        if command_id not in self.commands:
            if self._run is None or fields.get("run") != self._run.id:
                return None
            self._news = True  # one of our run that is not known yet
            if "host" not in fields or "op" not in fields:
                return None  # too little to know it by: the run will tell of it
            self._add(Watched(command_id, str(fields["host"]), str(fields["op"]), State.QUEUED))
        each = self.commands[command_id]
        if each.over:
            return None
        with contextlib.suppress(ValueError):  # a newer hub may have states that this client does not know
            each.learn(fields)
        return each if each.state.final else None

    def _look_at_all(self) -> None:
        """Ask for everything that is open; for the run first, which may name commands that are not known yet."""
        started_mono_s = time.monotonic()
        self._listener.between()
        if self._run is not None and not (self._run.over and self._run_known):
            self._look_at_run(whole=True)
        opened = self._open()
        self._look(opened if self._run is None or len(opened) <= MANY else self._behind(self._run.id, opened))
        self._tell_ended()
        self._tell_gone()
        self._tell_waiting()
        now_mono_s = time.monotonic()
        self._look_due_mono_s = now_mono_s + max(
            self._pace.look_s, self._pace.rest_factor * (now_mono_s - started_mono_s)
        )

    def _tell_ended(self) -> None:
        """Tell the listener of the commands that have ended since it was told last."""
        for each in [each for each in self.commands.values() if each.over and each.id not in self._ended]:
            self._ended.add(each.id)
            self._listener.on_end(each)

    def _tell_waiting(self) -> None:
        """Tell the listener of the commands that go on waiting for their hosts."""
        for each in self._open():
            if each.view is not None and each.state is State.QUEUED:
                self._queued[each.id] += 1
                if self._queued[each.id] == LOOKS:
                    self._listener.on_waiting(each.view)

    def _tell_gone(self) -> None:
        """Tell the listener which hosts of open commands are gone, and which are back."""
        now = rfc3339(self._api.now_wall_s())
        views = [each.view for each in self._open() if each.view]
        silent = {view.host for view in views if (seconds_between(view.unheard_since, now) or 0.0) > self._pace.gone_s}
        back = self._gone & {view.host for view in views if view.unheard_since is None}
        for host in sorted(silent - self._gone):
            self._listener.on_host_gone(host)
        for host in sorted(back):
            self._listener.on_host_back(host)
        self._gone = (self._gone | silent) - back

    def _look(self, wanted: Iterable[Watched]) -> None:
        """Ask the API for the state of each command, and for its output that was not shown yet."""
        for each in wanted:
            if not self._asked(partial(self._look_at, each)):
                return
            self._news = self._news or each.over
            self._listener.between()

    def _look_at(self, each: Watched) -> None:
        if not each.confirmed:
            each.view = self._api.command(each.id)
            each.learn(msgspec.to_builtins(each.view))
            each.confirmed = each.state.final
        self._fetch(each)

    def _behind(self, run_id: str, opened: list[Watched]) -> list[Watched]:
        """The commands with news, found by asking for all of them in a few long answers."""
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
                not self._output or (view.output_next <= each.next_offset and not view.output_truncated)
            )
            if not each.complete and (each.confirmed or view.output_next > each.next_offset):
                behind.append(each)
        return behind

    def _run_due(self) -> bool:
        """True if it is time to ask for the run: soon after news, else now and then; less often if answers are slow."""
        if self._run is None or self._run.over:
            return False
        least_s = self._pace.news_s if self._news else self._pace.run_poll_s
        return time.monotonic() - self._run_looked_mono_s >= max(least_s, self._run_pause_s)

    def _look_at_run(self, *, whole: bool = False) -> None:
        """Ask for the run. Its hosts may be many: without `whole` they are asked for only if there is need."""
        started_mono_s = time.monotonic()
        self._news = False
        self._asked(self._learn_run if whole else self._count_run)
        self._run_looked_mono_s = time.monotonic()
        self._run_pause_s = self._pace.rest_factor * (self._run_looked_mono_s - started_mono_s)

    def _count_run(self) -> None:
        assert self._run is not None
        counted = self._api.run(self._run.id, hosts=False)
        made = sum(part.command_id is not None for part in self._run.view.hosts)
        if counted.state is not RunState.RUNNING or (not made and counted.active):
            self._learn_run()
        else:
            self._listener.on_run(counted)

    def _learn_run(self) -> None:
        """Take in the commands that the run has made since, all of them for each host, in order."""
        assert self._run is not None
        view = self._api.run(self._run.id)
        for part in self._run.unseen(view, self._seen):
            if commands_made(part) == self._seen[part.host] + 1 and part.command_id is not None:
                self._add(Watched(part.command_id, part.host, part.op, State.QUEUED))
            else:  # more than one was made since we looked
                for command in self._api.commands_of(view.id, commands_made(part), part.host):
                    self._add(watched(command))
                self._run.searched(part)
        self._run_known = True
        self._run.learn(view)  # last: an ended run is not asked for again, so by then all its commands are known
        self._listener.on_run(self._run.view)

    def _add(self, each: Watched) -> None:
        if each.id not in self.commands:
            self.commands[each.id] = each
            self._seen[each.host] += 1

    def _asked(self, ask: Callable[[], None]) -> bool:
        """Call `ask`. Returns False if the hub did not answer this time.

        Raises: Refused; HubAway, if it has not answered for `pace.silent_s_max`.
        """
        try:
            ask()
        except HubAway as error:
            self._missing(error)
            return False
        except Refused as refused:
            if not refused.passes:
                raise
            self._missing(HubAway(refused.message, url=refused.url, why=Silence.BUSY, own=refused.own))
            return False
        self._heard_mono_s, self._away = time.monotonic(), False
        return True

    def _fetch(self, each: Watched) -> None:
        if not self._output:  # nobody reads the output
            each.complete = each.confirmed
            return
        while not each.complete:
            page = self._api.output(each.id, each.next_offset)
            self._show(each, page.records)
            each.complete = page.complete
            if page.complete and page.truncated:
                self._listener.on_truncated(each)
            if not page.records:
                return

    def _show(self, each: Watched, records: Iterable[OutputView]) -> None:
        if self._output:
            for record in each.take(records):
                self._listener.on_output(each, record)

    def _missing(self, error: HubAway) -> None:
        if time.monotonic() - self._heard_mono_s > self._pace.silent_s_max:
            raise error
        if not self._away:
            self._away = True
            self._listener.on_hub_away(error)

    def _open(self) -> list[Watched]:
        return [each for each in self.commands.values() if not each.over]

    def _over(self) -> bool:
        run_over = self._run is None or (self._run.over and self._run_known)
        return run_over and all(each.over for each in self.commands.values())

    def _left(self, deadline_mono_s: float | None, most_s: float) -> float:
        return most_s if deadline_mono_s is None else min(most_s, max(0.0, deadline_mono_s - time.monotonic()))


def _fields(row: msgspec.Raw) -> dict[str, Any]:
    return msgspec.json.decode(row or b"{}", type=dict[str, Any])
