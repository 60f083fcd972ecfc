"""The judge of hosts in one fanout, the one that holds the lock: it is fed by the mirror, and tells the hub what
changes.

Of several fanouts one judges; when it ends, the kernel lets its lock go and another one takes over what the hub has.
What is judged is appended to `events` and said again until the mirror shows it, so nothing is lost with a queue. All of
it is beside the turns' work for operators: a turn takes what its changes cost, and the rest waits for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from processes.adapters.clock import Clock
from processes.adapters.logs import Log
from processes.adapters.queues import Queues, QueuesAway
from processes.adapters.settings import Settings
from processes.adapters.state import fleet_db, lock, rules_file
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.adapters.state.rules_file import RulesUnreadable
from processes.core.conditions.freshness import House
from processes.core.conditions.happened import CommandSight, RunSight
from processes.core.conditions.judge import ActiveSilence, Judge
from processes.core.conditions.rules import DEFAULTS, Rulebook, RulesError, read
from processes.core.conditions.sight import wall_s
from processes.core.errors import ResourceError
from processes.core.fanout.mirror import Mirror, MirrorUpdate
from processes.core.records import poison
from processes.core.records.condition import ConditionView, SilenceView, is_shown_as, judged_of
from processes.core.records.run import Run, RunState
from processes.core.shown.query import QueryError, parse
from processes.core.shown.status import WELL, Report, Verdict
from processes.core.travels import messages
from processes.core.travels.judged import JUDGED_MAX, JudgedCondition
from processes.core.travels.messages import Change, ConditionsJudged, PutAside
from processes.core.values import Now
from processes.fanout.database_reader import Reader

TURN_S: Final = 1.0  # between two turns of the judge
TRY_S: Final = 1.0  # between two tries to have the lock
REST_S: Final = 60.0  # after a mistake of ours; guess
RULES_S: Final = 5.0  # between two looks at the file of rules
RUNS_S: Final = 15.0  # between two looks at runs that have ended
RUNS_MAX: Final = 30  # the newest that are looked at
MARK_S: Final = 5.0  # between two marks on the lock that this judge turns
AGAIN_S: Final = 3.0  # what is not shown by then is said again
FED_MAX: Final = 500  # rows that the judge is given in one turn of the loop, when it begins
YOUNG_S: Final = 10.0  # a gateway that runs for less counts as not well
UNREAD: Final = (-1, 0, 0)  # the mark of rules that nobody has looked at yet


class _RulesLook(NamedTuple):
    mark: rules_file.Mark
    book: Rulebook | None  # None: the problem says why
    problem: str = ""


_condition = msgspec.json.Decoder(ConditionView)
_silence = msgspec.json.Decoder(SilenceView)
_command = msgspec.json.Decoder(CommandSight)


class Judging:
    """Feeds the judge, if this is the fanout that judges. All calls belong to the loop's thread."""

    def __init__(  # noqa: PLR0917  # what the fanout is made of
        self,
        settings: Settings,
        name: str,
        link: Queues,
        mirror: Mirror,
        reader: Reader,
        log: Log,
        version: str,
    ) -> None:
        self._settings, self._name, self._link, self._mirror = settings, name, link, mirror
        self._reader, self._log, self._version = reader, log, version
        self._clock = Clock()
        self._lock: int | None = None
        self._judge: Judge | None = None
        self._known: set[str] = set()  # hosts that the judge knows
        self._backlog: deque[Change] = deque()
        self._house = House(0)
        self._rest_s = 0.0  # until then nothing is judged
        self._wanted: dict[str, JudgedCondition] = {}
        self._said_s: dict[str, float] = {}
        self._letters: dict[str, bytes] = {}  # of hosts that cannot be judged, until they are in the queue
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._next_s: dict[str, float] = {}
        self._rules = _RulesLook(UNREAD, Rulebook(DEFAULTS))

    @property
    def is_judging(self) -> bool:
        """Return whether this fanout judges."""
        return self._judge is not None

    def take(self, seen: MirrorUpdate) -> None:
        """Called with each result of the mirror, in order."""
        try:
            self._take(seen)
        except Exception:
            self._rest()

    def _take(self, seen: MirrorUpdate) -> None:
        judge = self._judge
        if judge is None:
            return
        if seen.renewed:
            self._feed_all(judge)
            return
        now = self._clock.now()
        for host, fields in seen.heard:
            try:
                judge.hear(host, fields, now)
            except (msgspec.MsgspecError, ValueError):  # of a newer hub
                continue
            except Exception as mistake:
                judge.put_aside(host, mistake, now)
        for change, _ in seen.changes:
            if self._backlog:
                self._backlog.append(change)  # behind the rows that the judge must know first
            else:
                self._give(judge, change, now)

    def turn(self, now_s: float, report: Report) -> None:
        """Called in each turn of the loop. Never waits."""
        try:
            self._turn(now_s, report)
        except Exception:
            self._rest()

    def _rest(self) -> None:
        """Begin anew after REST_S: what operators are shown does not end with what is judged of it."""
        self._log.error("judging failed, and begins anew", rest_s=REST_S, exc_info=True)
        self._judge = None
        self._backlog.clear()
        self._rest_s = time.monotonic() + REST_S

    def _turn(self, now_s: float, report: Report) -> None:
        if now_s < self._rest_s:
            return
        if self._lock is None:
            self._start("lock", now_s, TRY_S, self._take_lock)
            return
        self._start("rules", now_s, RULES_S, self._look_at_rules)
        if self._judge is None:
            if not self._mirror.live or self._rules.mark == UNREAD:
                return
            self._begin()
        judge, now = self._judge, self._clock.now()
        assert judge is not None
        for _ in range(min(FED_MAX, len(self._backlog))):
            self._give(judge, self._backlog.popleft(), now)
        if self._backlog or now_s < self._next_s.get("turn", 0.0):
            return
        self._next_s["turn"] = now_s + TURN_S
        self._start("runs", now_s, RUNS_S, self._look_at_runs)
        judge.happenings.rules_problem(self._rules.problem, now)
        seen = house(report, self._mirror)
        if seen[1:] != self._house[1:]:
            self._log.info(
                "the house, as the judge sees it", well=seen.is_well, anew=seen.is_anew, not_well=sorted(seen.gateways)
            )
        self._house = seen
        for changed in judge.turn(now, seen):
            self._wanted[changed.id] = changed
            self._said_s.pop(changed.id, None)
        for host, mistake in judge.aside.take().items():
            self._put_aside(host, mistake)
        self._say(now_s)
        self._start("mark", now_s, MARK_S, self._mark)

    async def leave(self) -> None:
        """End what is under way."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, name: str, now_s: float, every_s: float, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Begin work beside the turns when its time has come and the last of it has ended."""
        running = self._tasks.get(name)
        if now_s < self._next_s.get(name, 0.0) or (running is not None and not running.done()):
            return
        if running is not None and not running.cancelled() and (error := running.exception()) is not None:
            self._log.error("a part of judging failed", part=name, exc_info=error)
        self._next_s[name] = now_s + every_s
        self._tasks[name] = asyncio.get_running_loop().create_task(work())

    async def _take_lock(self) -> None:
        path = self._settings.judging
        with contextlib.suppress(ResourceError, OSError):
            self._lock = await asyncio.to_thread(lock.hold, path)
            self._log.info("this fanout judges the hosts' conditions")

    async def _mark(self) -> None:
        """Note on the lock that a turn was made: any fanout can tell for how long nobody has judged (metrics.py)."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(os.utime, self._lock)

    # what the judge is told

    def _begin(self) -> None:
        assert self._rules.book is not None
        self._judge = Judge(self._rules.book, self._version, self._clock.now())
        views = [view for change in self._mirror.shown.changes("condition") if (view := _view(change)) is not None]
        self._judge.load([judged_of(view) for view in views])
        self._known = set()
        self._feed_all(self._judge)

    def _feed_all(self, judge: Judge) -> None:
        """Give the judge all rows, hosts first, and take away what is there no more."""
        rows, now = self._mirror.shown, self._clock.now()
        hosts = rows.changes("host")
        for name in self._known - {change.id for change in hosts}:
            judge.host(name, None, now)
            self._known.discard(name)
        self._backlog = deque([*hosts, *rows.changes("command"), *rows.changes("condition")])
        self._tell_silences(judge, now)

    def _give(self, judge: Judge, change: Change, now: Now) -> None:
        """Tell the judge of a change. A mistake that a host's values bring out puts that host aside, and no other."""
        host = change.id if change.kind in ("host", "host_removed") else ""
        try:
            match change.kind:
                case "host":
                    row = self._mirror.shown.row("host", change.id)
                    if row is not None:
                        judge.host(change.id, row, now)
                        self._known.add(change.id)
                case "host_removed":
                    judge.host(change.id, None, now)
                    self._known.discard(change.id)
                case "command":
                    command = _command.decode(self._mirror.shown.row("command", change.id) or change.fields)
                    host = command.host
                    judge.command(command, now)
                case "condition":
                    view = _view(change, self._mirror)
                    if view is not None and view.acknowledged_by:
                        judge.happenings.acknowledged(judged_of(view), now)
                case "silence" | "silence_removed":
                    self._tell_silences(judge, now)
        except (msgspec.MsgspecError, ValueError):  # of a newer hub
            return
        except Exception as mistake:
            if not host:
                raise
            judge.put_aside(host, mistake, now)

    def _tell_silences(self, judge: Judge, now: Now) -> None:
        found = []
        for row in self._mirror.shown.rows("silence"):
            with contextlib.suppress(QueryError, msgspec.DecodeError, ValueError):
                view = _silence.decode(row)
                if view.ended_at is None and view.starts_at is not None and view.until is not None:
                    from_wall_s, until_wall_s = wall_s(view.starts_at), wall_s(view.until)
                    assert from_wall_s is not None
                    assert until_wall_s is not None
                    found.append(ActiveSilence(view.id, parse(view.query), from_wall_s, until_wall_s))
        judge.silences(found, now)

    async def _look_at_rules(self) -> None:
        look = await asyncio.to_thread(_look, self._settings.rules, self._rules)
        if look is self._rules:
            return
        book = look.book or self._rules.book
        self._rules = look._replace(book=book)
        if look.problem:
            self._log.error("the rules cannot be used", problem=look.problem)
        if self._judge is not None and look.book is not None:
            self._judge.use(look.book)

    async def _look_at_runs(self) -> None:
        judge = self._judge
        if judge is None:
            return
        with contextlib.suppress(DatabaseUnreadable):
            runs = await self._reader.read(_ended_runs)
            for run in runs:
                judge.run(run, self._clock.now())

    # what the judge says

    def _put_aside(self, host: str, mistake: Exception) -> None:
        """Have the hub keep a dead letter of a host that cannot be judged."""
        self._log.error("a host cannot be judged, and is left out", host=host, exc_info=mistake)
        error = f"{self._name} cannot judge the host, and tries again each minute: no condition of it begins or ends\n"
        error += "".join(traceback.format_exception(mistake))
        name = poison.name_of_own("judged", host)
        self._letters[host] = messages.encode(PutAside(self._name, name, "host", host, [], error))

    async def _send_letters(self) -> None:
        for host, letter in list(self._letters.items()):
            with contextlib.suppress(QueuesAway):
                if (await self._link.append(messages.EVENTS, [letter])).accepted and self._letters[host] is letter:
                    del self._letters[host]

    def _say(self, now_s: float) -> None:
        """Tell the hub what it does not show yet, and which hosts cannot be judged."""
        if self._letters:
            self._start("letters", now_s, TURN_S, self._send_letters)
        shown = self._mirror.shown
        for id, wanted in list(self._wanted.items()):
            row = shown.row("condition", id)
            with contextlib.suppress(msgspec.DecodeError):
                if row is not None and is_shown_as(wanted, _condition.decode(row)):
                    del self._wanted[id]
                    self._said_s.pop(id, None)
        due = [each for id, each in self._wanted.items() if now_s - self._said_s.get(id, -AGAIN_S) >= AGAIN_S]
        running = self._tasks.get("say")
        if due and (running is None or running.done()):
            batch = due[:JUDGED_MAX]
            self._said_s.update({each.id: now_s for each in batch})
            item = messages.encode(ConditionsJudged(self._name, batch))
            self._tasks["say"] = asyncio.get_running_loop().create_task(self._append(item))

    async def _append(self, item: bytes) -> None:
        with contextlib.suppress(QueuesAway):  # said again
            await self._link.append(messages.EVENTS, [item])


def house(report: Report, mirror: Mirror) -> House:
    """Return how the house is, by the watchdog's report and by how whole the rows are."""
    states = {process.name: process for process in report.processes}
    # there is no process `queues` where PostgreSQL has the queues
    ways = ("hub", "queues") if "queues" in states else ("hub",)
    verdicts = {states[name].verdict if name in states else Verdict.DEAD for name in ways}
    # one that is excused, such as on a machine that is too busy, has lost nothing: what it says is only late
    is_anew = not verdicts <= WELL | {Verdict.EXCUSED} or not mirror.is_whole
    gateways = frozenset(
        process.name
        for process in report.processes
        if process.name.partition(":")[0] == "gateway"
        and (process.verdict not in WELL | {Verdict.EXCUSED} or (process.uptime_s or 0.0) < YOUNG_S)
    )
    is_well = not is_anew and verdicts <= WELL and report.canary.ok and report.watchdog_silent_s is None
    return House(mirror.epoch, is_well, is_anew, gateways)


def _view(change: Change, mirror: Mirror | None = None) -> ConditionView | None:
    row = change.fields if mirror is None else mirror.shown.row("condition", change.id)
    try:
        return None if row is None else _condition.decode(row)
    except msgspec.DecodeError:  # of a newer hub
        return None


def _look(path: Path, before: _RulesLook) -> _RulesLook:
    mark = rules_file.mark_of(path)
    if mark == before.mark:
        return before
    try:
        return _RulesLook(mark, Rulebook(read(rules_file.read(path))))
    except (RulesUnreadable, RulesError) as error:
        return _RulesLook(mark, None, str(error))


def _ended_runs(connection: sqlite3.Connection) -> list[RunSight]:
    return [_run_sight(run) for run in reversed(fleet_db.runs(connection, limit=RUNS_MAX)) if not run.open]


def _run_sight(run: Run) -> RunSight:
    left = run.total - run.begun
    text = f"{run.failed} of {run.total} hosts failed" + (f", {left} were not begun" if left else "")
    is_good = run.state is not RunState.FAILED
    return RunSight(run.id, ",".join(run.steps), is_good, run.finished_wall_s or 0.0, text)
