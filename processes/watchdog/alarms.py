"""Sends alarms: conditions that the judging loop sees become events, which are kept on disk and brought to each target
by a process of its own.

The order is: an event is written to disk, then it is sent, then it is marked as sent on disk. So a watchdog that is
killed loses no event, and its successor repeats only those that were being sent. While the disk refuses, events are
sent all the same; a watchdog that is killed then forgets them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Final

import msgspec

from processes.adapters import alarm_sender
from processes.adapters.alarm_sender import Target
from processes.adapters.alarm_targets import targets_of
from processes.adapters.logs import Log
from processes.adapters.settings import Settings
from processes.adapters.state import durable, incidents_db, status_file
from processes.core.alarms import alarm, conditions, outbox
from processes.core.alarms.alarm import AlarmEvent, AlarmState, AlarmWatch, Condition, ConditionsSeen
from processes.core.alarms.conditions import AlarmFacts
from processes.core.alarms.hosts import HOSTS, mass_losses, of_the_house, untold
from processes.core.alarms.hosts import conditions as conditions_of_hosts
from processes.core.alarms.hosts import told as told_of
from processes.core.alarms.outbox import Pace, Wish
from processes.core.records.ledger import Ledger
from processes.core.shown.query import parse
from processes.core.shown.status import Overall, Report, standing, unheard
from processes.core.shown.troubles import TroubleCode, TroubleWatch, aged, joined, trouble
from processes.core.watchdog import incident
from processes.watchdog import alarm_facts
from processes.watchdog.evidence import on_thread, within
from processes.watchdog.heartbeat import DeadMansSwitch
from processes.watchdog.incident_log import IncidentLog

LOOK_S: Final = 5.0  # between two looks at the disk, the certificate and the database
LOOK_S_MAX: Final = 5.0
PAUSE_S: Final = 1.0  # between two turns without news
KEEP_S_MAX: Final = 2.0  # then the disk counts as hanging, and events are sent unwritten
SEND_S_MAX: Final = 20.0  # of one attempt; apprise itself gives up a connection after 4 s
LEAVE_S_MAX: Final = 3.0  # for messages under way when the watchdog is asked to end
CAUGHT_UP_MAX: Final = 200  # incidents of an earlier watchdog that are looked at; alarm.NOTED_MAX is more

_state = msgspec.json.Decoder(AlarmState)


class Alarms:
    """The conditions that stand, the events told to each target, and the messages under way. `run` runs for ever; the
    judging loop calls `look` and `away`.
    """

    def __init__(
        self,
        settings: Settings,
        incident_log: IncidentLog,
        log: Log,
        switch: DeadMansSwitch | None = None,
        *,
        leave_s_max: float = LEAVE_S_MAX,
    ) -> None:
        self._switch = switch
        self._settings, self._incident_log, self._log = settings, incident_log, log
        self._leave_s_max = leave_s_max
        wished = settings.file.alarms
        self._targets = {target.name: target for target in targets_of(wished)}
        self._least = wished.severity
        self._wishes = {
            name: Wish(target.severity or wished.severity, parse(target.query) if target.query else None)
            for name, target in self._targets.items()
        }
        self._name = socket.gethostname()
        self._state, self._kept, self._watch = AlarmState(), AlarmState(), AlarmWatch()
        self._caught_up = self._first = False
        self._paces = {name: Pace() for name in self._targets}
        self._sending: dict[str, asyncio.Task[None]] = {}
        self._report: Report | None = None
        self._budgets: frozenset[str] = frozenset()
        self._ledger: Ledger | None = None
        self._since = TroubleWatch()
        self._once: list[Condition] = []
        self._facts = AlarmFacts()
        self._looking: asyncio.Future[AlarmFacts] | None = None
        self._looked_s: float | None = None
        self._missed: list[Condition] = []  # incidents that were over before this start
        self._news = asyncio.Event()
        self._refused = False
        self._note_hole_before()

    def look(self, report: Report, budgets: frozenset[str], ledger: Ledger | None) -> Report:
        """Called when the judging loop has made a report. Return it with what only the alarms know."""
        self._report, self._budgets, self._ledger = report, budgets, ledger
        self._news.set()
        return self._shown(report)

    def _shown(self, report: Report) -> Report:
        """Return the report with the conditions that stand, of whom was told what, and with what they mean for the
        whole.
        """
        heard = told_of(self._state, self._wishes)
        told = {key.removeprefix(HOSTS): names for key, names in heard.items() if key.startswith(HOSTS)}
        stands = of_the_house(self._state, self._wishes)
        heartbeats = self._switch.reports if self._switch is not None else []
        lost = [trouble(TroubleCode.MASS_LOSS, each) for each in mass_losses(self._facts.hosts or [])]
        verdict = Overall.DEGRADED if lost and report.verdict is Overall.OK else report.verdict
        found = joined([*report.troubles, *lost, *unheard(heartbeats), *untold(self._state.targets)], standing(stands))
        known = {key: each.since_wall_s for key, each in self._state.standing.items()}
        self._since, found = aged(self._since, found, known, time.time())
        shown = msgspec.structs.replace(
            report, verdict=verdict, reasons=[*report.reasons, *(each.text for each in lost)], conditions=stands,
            told=told, heartbeats=heartbeats, troubles=found,
        )  # fmt: skip
        if self._switch is not None:
            self._switch.look(shown)
        return shown

    def away(self, away_s: float) -> None:
        """Called at each turn of the judging loop with the time since the turn before. Units: away_s in seconds."""
        self._once += conditions.hole(away_s)

    async def run(self) -> None:
        """Keep and send events for ever. A disk that refuses and targets that fail are tried again."""
        self._state = self._kept = await self._load()
        self._settle()
        while True:
            with contextlib.suppress(TimeoutError):
                await within(PAUSE_S, self._news.wait())
            self._news.clear()
            await self._catch_up()
            self._look_outside()
            if self._report is not None:
                self._turn(self._report)
            await self._keep()
            self._send_due()

    async def leave(self) -> None:
        """What is under way is finished, as far as `leave_s_max` allows, and kept: it would be sent twice."""
        if under_way := [task for task in self._sending.values() if not task.done()]:
            await asyncio.wait(under_way, timeout=self._leave_s_max)
        for task in under_way:
            task.cancel()
        await self._keep()

    def _turn(self, report: Report) -> None:
        now_s, wall_s = time.monotonic(), time.time()
        open_incidents = [incident.view(i) for i in self._incident_log.incidents.open.values()]
        ended = self._missed + [
            conditions.incident(incident.view(i)) for i in self._incident_log.incidents.take_ended()
        ]
        self._missed = []
        facts = msgspec.structs.replace(self._facts, budgets=self._budgets)
        stands = conditions.conditions(report, facts, wall_s)
        stands += conditions_of_hosts(facts.hosts or [], self._state.standing)
        for shown in open_incidents:
            stands += [conditions.incident(shown), conditions.lasting(shown)]
        once, self._once = self._once, []
        if self._ledger is not None:
            once += conditions.lost(self._state.lost, self._ledger.lost)
        unknown = conditions.unknown(report, facts, self._caught_up)
        seen = ConditionsSeen(stands, ended, once, unknown, conditions.over(facts))
        before = self._state.number
        self._state, self._watch = alarm.turn(self._state, self._watch, seen, now_s, wall_s)
        if self._ledger is not None and self._state.lost != self._ledger.lost:
            self._state = msgspec.structs.replace(self._state, lost=self._ledger.lost)
        for event in self._state.events:
            if event.number > before:
                self._log.warning(
                    "alarm", phase=str(event.phase), severity=str(event.severity), what=event.title, text=event.text
                )
        self._settle()

    def _settle(self) -> None:
        """Let new targets begin at this moment, and forget the events that every target was told."""
        self._state = outbox.settled(self._state, list(self._targets), self._least, self._wishes)

    def _send_due(self) -> None:
        now_s = time.monotonic()
        for name, target in self._targets.items():
            running = self._sending.get(name)
            told = self._state.targets.get(name)
            if (
                told is None
                or (running is not None and not running.done())
                or outbox.wait_s(self._paces[name], now_s) > 0
            ):
                continue
            if events := outbox.due(self._state, told, self._wishes[name]):
                self._sending[name] = asyncio.create_task(self._send(target, events))

    async def _send(self, target: Target, events: list[AlarmEvent]) -> None:
        name = target.name
        error = await alarm_sender.deliver(
            target, outbox.message(self._name, events, self._facts.audit_head), SEND_S_MAX
        )
        wall_s = time.time()
        if error:
            self._state = outbox.failed(self._state, name, events, error, wall_s)
            told = self._state.targets[name]
            self._log.error("an alarm was not sent", to=name, error=error, attempts=told.attempts, dropped=told.dropped)
        else:
            self._state = outbox.sent(self._state, name, events[-1].number, wall_s)
            self._log.info("alarm sent", to=name, events=len(events))
        self._paces[name] = outbox.paced(self._paces[name], self._state.targets[name].attempts, time.monotonic())
        self._news.set()

    # what an earlier watchdog left

    async def _load(self) -> AlarmState:
        path = self._settings.alarms
        try:
            return await within(LOOK_S_MAX, on_thread(lambda: _state.decode(path.read_bytes())))
        except FileNotFoundError:
            self._log.info("alarms begin", targets=list(self._targets))
        except (OSError, msgspec.DecodeError, TimeoutError) as error:
            self._log.error(
                "what was told before cannot be read: alarms begin anew", error=str(error) or type(error).__name__
            )
        self._first = True
        return AlarmState()

    async def _catch_up(self) -> None:
        """Take over incidents that an earlier watchdog closed, or found and did not live to tell. At the very first
        start of alarms all of them are old news.
        """
        if self._caught_up or not self._incident_log.loaded:
            return
        path = self._settings.incidents_database
        with contextlib.suppress(TimeoutError):
            listed = await within(LOOK_S_MAX, on_thread(lambda: incidents_db.incidents(path, CAUGHT_UP_MAX)))
            over = {conditions.INCIDENTS + shown.id: shown for shown in reversed(listed) if shown.over_at is not None}
            if self._first:
                self._state = alarm.noted(self._state, over)
            self._missed = [
                conditions.incident(shown)
                for key, shown in over.items()
                if key in self._state.standing or key not in self._state.noted
            ]
            self._caught_up = True

    def _note_hole_before(self) -> None:
        """Note how long before this start the last watchdog of this installation wrote its report. There is no hole
        after `fleethub down`, which removes the report.
        """
        last = status_file.last_report(self._settings.report)
        if last is not None:
            with contextlib.suppress(OSError):
                at_wall_s = self._settings.report.stat().st_mtime
                self.away(conditions.away_s(last.at_mono_s, at_wall_s, time.monotonic(), time.time()))

    async def _keep(self) -> None:
        """Write the state to disk; if the disk refuses, the next turn tries again."""
        state = self._state
        if state is self._kept:
            return
        try:
            await within(
                KEEP_S_MAX, on_thread(lambda: durable.replace(self._settings.alarms, msgspec.json.encode(state)))
            )
        except (OSError, TimeoutError) as error:
            if not self._refused:
                self._log.error("what was told cannot be kept now", error=str(error) or type(error).__name__)
            self._refused = True
        else:
            self._kept, self._refused = state, False

    def _look_outside(self) -> None:
        """Begin to read the facts beside the report on a thread, or take its result. A thread
        that hangs is left behind.
        """
        now_s = time.monotonic()
        if self._looking is not None and self._looking.done():
            with contextlib.suppress(OSError):
                self._facts = self._looking.result()
            self._looking = None
        if self._looked_s is None or now_s - self._looked_s >= LOOK_S:
            self._looked_s, before = now_s, self._facts
            self._looking = on_thread(lambda: alarm_facts.now(self._settings, before))
