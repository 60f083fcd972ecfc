"""Follows commands, or a fleet run with its commands, and hands on their output: by the operators' WebSocket, or by
asking where there is none.

What was handed on is known by its offset, so a lost connection, a new hub or a message that comes twice neither loses
nor repeats a line. The WebSocket brings news early; the API is believed: the end of each command is asked for once,
and the
run says which commands it made.
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

MANY: Final = 50  # open commands, beyond which they are asked for together; guess
SILENT_S_MAX: Final = 600.0  # nobody answers for so long: give up, and say so


class Pace(NamedTuple):
    """How often is asked, and how much at once. Units: seconds, unless it says otherwise."""

    look_s: float = 5.0  # without news, every command is asked for so often
    poll_s: float = 0.5  # without a WebSocket
    run_poll_s: float = 0.4  # a run is asked for so often
    news_s: float = 0.1  # and so soon after one of its commands ended
    rest_factor: float = (
        5.0  # a look that took long waits so many times as long for the next; guess: a sixth of our time
    )
    outputs_max: int = OUTPUTS_MAX  # commands whose output the connection brings; the others are asked for
    gone_s: float = (
        10.0  # a host is away for so long: told. A hub that was just replaced hears of some for the first time
    )
    silent_s_max: float = SILENT_S_MAX


class Listener:
    """What a program wants to hear while it follows. Each method does nothing: override those that you want."""

    def on_output(self, command: Watched, record: OutputView) -> None:
        """Called with each record of a command's output, in order, once."""

    def on_truncated(self, command: Watched) -> None:
        """Called at the end of a command whose output was longer than what is kept."""

    def on_run(self, view: RunView) -> None:
        """Called with each look at the run."""

    def on_host_gone(self, host: str) -> None:
        """Called when a host of an open command has not been connected for a while."""

    def on_host_back(self, host: str) -> None:
        """Called when such a host is connected again."""

    def on_hub_away(self, error: HubAway) -> None:
        """Called when nobody answers, once until somebody does. The commands go on, and so does the following."""

    def between(self) -> None:
        """Called between two pieces of news, often: it may ask a person something, or raise to end the following."""


class Following:
    """Commands that are followed, and the run that makes more of them. `run` returns when all are over or the time is.

    `output`: False if nobody wants to see it; then only the ends are waited for.
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
        self._seen: Counter[str] = Counter()  # commands by host
        for each in commands:
            self._add(each)
        self._look_due_mono_s = self._heard_mono_s = time.monotonic()
        self._run_looked_mono_s, self._run_pause_s = 0.0, 0.0
        self._run_known = fleet_run is None  # all commands of the run are, once it is over
        self._news = True  # something happened that may have moved the run
        self._away = False
        self._gone: set[str] = set()  # hosts of which the listener was told that they are gone

    def run(self, wait_s: float | None = None) -> bool:
        """True when all have ended; False after `wait_s`.

        Raises: Refused, if it may not be seen; HubAway, when nobody answered for `pace.silent_s_max`; whatever the
        listener raises.
        """
        deadline_mono_s = None if wait_s is None else time.monotonic() + wait_s
        self._look_at_all()
        while not self._over():
            try:
                with open_socket(self._api) as socket:
                    self._listen(socket, deadline_mono_s)
            except (OSError, WebSocketException):
                self._look_at_all()
                # then it connects again; meanwhile asking shows what there is
                time.sleep(self._left(deadline_mono_s, self._pace.poll_s))
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
        """The connection brings the output of as many open commands as it may; the others are asked for."""
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
                self._look([each])  # a gap: the API has what lies between
            self._show(each, [OutputView(frame.offset, frame.stream, frame.data)])
        elif isinstance(frame, Delta):
            changes = [change for change in operator_frames.decode_changes(frame) if change.kind == "command"]
            news = [{**_fields(change.fields), "id": change.id} for change in changes]
        elif isinstance(frame, FullState):
            self._news = True  # perhaps a new hub
            news = [_fields(row) for row in operator_frames.decode_state(frame).commands]
        if ended := [each for fields in news if (each := self._learned(str(fields.get("id")), fields))]:
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
        self._listener.between()
        if self._run is not None and not (self._run.over and self._run_known):
            self._look_at_run(whole=True)
        opened = self._open()
        self._look(opened if self._run is None or len(opened) <= MANY else self._behind(self._run.id, opened))
        self._tell_gone()
        now_mono_s = time.monotonic()
        self._look_due_mono_s = now_mono_s + max(
            self._pace.look_s, self._pace.rest_factor * (now_mono_s - started_mono_s)
        )

    def _tell_gone(self) -> None:
        """Tells the listener whose host is not connected any more, and so what is waited for; and who is back."""
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
        """Asks the API for each command's state and for the output that is not shown yet."""
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
                not self._output or (view.output_next <= each.next_offset and not view.output_truncated)
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
        least_s = self._pace.news_s if self._news else self._pace.run_poll_s
        return time.monotonic() - self._run_looked_mono_s >= max(least_s, self._run_pause_s)

    def _look_at_run(self, *, whole: bool = False) -> None:
        """Asks for the run; of its hosts, which are many, only now and then and at its end."""
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
        self._run_known = True
        self._run.learn(view)  # last: an ended run is not asked for again, so by then all its commands are known
        self._listener.on_run(self._run.view)

    def _add(self, each: Watched) -> None:
        if each.id not in self.commands:
            self.commands[each.id] = each
            self._seen[each.host] += 1

    def _asked(self, ask: Callable[[], None]) -> bool:
        """False: nobody answered it, this time.

        Raises: Refused, HubAway, after `pace.silent_s_max`.
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
        if not self._output:  # nobody reads it
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
