"""The watchdog's loop. A turn, every TURN_S (while all is calm, CALM_S) and as soon as a process dies, in order:

1. look: pulses, the kernel, the newest answers of supervisord, database and queues;
2. judge each process (core/stall);
3. decide (core/remedy);
4. act: a rescue or a start is a task of its own, one at a time for a process;
5. close the incidents that are over;
6. report;
7. write the pulse.

Nothing in a turn waits for anything outside: what could hang is asked on threads, with deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine
from typing import Final

from processes.adapters import failpoint
from processes.adapters.bootstrap import Process
from processes.adapters.state import asked_to_end, desired_state, drill_mark, pulse_file, status_file
from processes.adapters.supervisor import Supervisor
from processes.core.errors import LocalError
from processes.core.shown.status import CanaryReport, Verdict, is_wanted
from processes.core.travels.pulse import Unreadable
from processes.core.watchdog import remedy, second_witness, verdict
from processes.core.watchdog.incident import Incident, end_of, is_over, lost_between
from processes.core.watchdog.remedy import Act, Decision, Past
from processes.core.watchdog.verdict import Judgement, ProcessFacts, Track
from processes.watchdog import evidence, kill_note, restart, status_writer
from processes.watchdog.alarms import Alarms
from processes.watchdog.canary import Canary
from processes.watchdog.incident_log import IncidentLog
from processes.watchdog.inquiries import Inquiries
from processes.watchdog.systemd import Systemd
from processes.watchdog.witness import Subject, Witness

TURN_S: Final = 0.1
# a turn while every pulse is fresh: nothing can be found before one is quiet, and a death wakes the loop
CALM_S: Final = 0.5
WELL: Final = (Verdict.ADVANCING, Verdict.LAGGING)
ASKED: Final = ("STOPPING", "STOPPED")  # supervisord's states of a process whose end somebody asked for
OWN: Final = "watchdog"


class Loop:
    """The judgement of one installation."""

    def __init__(
        self,
        process: Process,
        supervisor: Supervisor,
        views: Inquiries,
        book: IncidentLog,
        canary: Canary,
        *,
        alarms: Alarms,
        systemd: Systemd,
    ) -> None:
        self._process, self._settings, self._log = process, process.settings, process.log
        self._supervisor, self._views, self._book, self._canary = supervisor, views, book, canary
        self._alarms, self._systemd = alarms, systemd
        self._hub_remedies = 0  # kills and starts of the hub from here
        self._stall_s = process.settings.file.watchdog.stall_s
        limits = {
            name: self._settings.file.memory.bytes_max(name.partition(":")[0]) for name in self._settings.all_names()
        }
        self._witness = Witness(self._settings.pulses, limits, self._on_death)
        self._writer = status_writer.Writer(self._settings.report, self._log)
        self._tracks: dict[str, Track] = {}
        self._pasts: dict[str, Past] = {}
        self._judgements: dict[str, Judgement] = {}
        self._decisions: dict[str, Decision] = {}
        self._wanted: dict[str, bool] = {}
        self._wanted_path = str(process.settings.wanted)
        self._desired: dict[str, str] = {}
        self._desired_mark = (-1, 0, 0)
        self._tasks: set[asyncio.Task[None]] = set()
        self._rescues: dict[str, asyncio.Task[None]] = {}
        self._closing: set[str] = set()
        self._wake = asyncio.Event()
        self._turned_s = time.monotonic()
        self._pace_s = TURN_S
        self._hub_epoch = 0
        self._round = (False, 0)  # the canary as it was last reported: green, under which epoch
        self._last = status_file.last_report(self._settings.report)
        self._restarts: dict[str, int] | None = None  # of the watchdog before this one; None: not yet known

    async def run(self) -> None:
        """Turns until the process is to stop. Raises: whatever a task of this loop died of."""
        stopping = asyncio.create_task(self._process.stop.wait())
        stopping.add_done_callback(lambda _: self._wake.set())
        try:
            while not self._process.stop.is_set():
                self._turn()
                await self._until_next()
        finally:
            stopping.cancel()
            for task in self._tasks:
                task.cancel()
            self._witness.close()

    async def _until_next(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.001, self._turned_s + self._pace_s - time.monotonic())):
                await self._wake.wait()
        self._wake.clear()

    def _turn(self) -> None:
        now_s = time.monotonic()
        gap_s, self._turned_s = now_s - self._turned_s, now_s
        self._alarms.away(gap_s)
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            task.result()  # a rescue never fails; if it does, this process is broken and must be replaced
        self._witness.look(self._views.processes, now_s)
        facts = self._facts(now_s)
        changed = self._judge(facts, gap_s, now_s)
        self._pasts, self._decisions = remedy.decide(
            {name: judgement for name, judgement in self._judgements.items() if name != OWN}, facts, self._pasts, now_s,
            drill=any(j.verdict in remedy.KILLED for j in self._judgements.values()) and drill_mark.is_held(self._settings.run),
        )  # fmt: skip
        self._act(now_s)
        self._close_incidents(now_s)
        canary = self._canary.report(self._hub_epoch, now_s)
        if self._writer.due(changed or self._round != (canary.ok, canary.epoch), now_s):
            self._round = canary.ok, canary.epoch
            self._report(canary, now_s)
        calm = not self._book.open and not self._witness.quiet(now_s) and self._stall_s >= 4 * CALM_S
        self._pace_s = CALM_S if calm else TURN_S
        settled = all(
            not s.alive or s.supervised is None or s.supervised.state == "RUNNING"
            for s in self._witness.subjects.values()
        )
        self._views.calm = calm and settled and not any(d.note for d in self._decisions.values())
        self._process.pulse.pulse.epoch = self._hub_epoch
        self._process.pulse.beat()

    # look and judge

    def _facts(self, now_s: float) -> dict[str, ProcessFacts]:
        desired, views = self._read_desired(), self._views
        found: dict[str, ProcessFacts] = {}
        for name, subject in self._witness.subjects.items():
            self._wanted[name] = is_wanted(name, desired)
            doubted = subject.pulse is None or subject.pulse.pid != subject.pid
            untouched_s = (
                second_witness.untouched_since_s(name, views.readings, views.queues_unanswered_s) if doubted else None
            )
            found[name] = self._witness.facts(subject, self._wanted[name], untouched_s, views.events_full)
        return found

    def _read_desired(self) -> dict[str, str]:
        """Return what the operator wants of each process; the file is read again only when it has been replaced."""
        try:
            stat = os.stat(self._wanted_path)
            mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        except OSError:
            mark = (0, 0, 0)
        if mark != self._desired_mark:
            self._desired_mark, self._desired = mark, desired_state.read(self._settings)
        return self._desired

    def _judge(self, facts: dict[str, ProcessFacts], gap_s: float, now_s: float) -> bool:
        """All verdicts anew. True if one changed."""
        changed = False
        for name, seen in facts.items():
            track = verdict.own_gap(self._tracks.get(name, Track()), gap_s, self._pace_s, now_s)
            self._tracks[name], judgement = verdict.judge(name.partition(":")[0], track, seen, now_s, self._stall_s)
            if name == OWN:
                if judgement.verdict is Verdict.MEMORY:
                    raise LocalError(judgement.reason)  # the next one begins small
                judgement = Judgement(Verdict.ADVANCING, "", now_s)
            before = self._judgements.get(name)
            self._judgements[name] = judgement
            if before is None or before.verdict is not judgement.verdict:
                changed = True
                was = str(before.verdict) if before else None
                self._log.info(
                    "verdict", of=name, was=was, verdict=str(judgement.verdict), reason=judgement.reason, pid=seen.pid
                )
        hub = self._witness.subjects["hub"].pulse
        if hub is not None and hub.epoch > self._hub_epoch:
            self._hub_epoch = hub.epoch
            self._canary.kick()
        return changed

    # act

    def _act(self, now_s: float) -> None:
        for name, decision in self._decisions.items():
            subject, judgement = self._witness.subjects[name], self._judgements[name]
            self._hub_remedies += name == "hub" and decision.act is not Act.NOTHING
            if decision.act is Act.KILL:
                subject.killed_s = now_s
                self._rescue(subject, judgement)
            elif decision.act is Act.START:
                incident = self._book.of(name) or self._new(name, judgement, 0)
                self._start(self._revive(name, incident))
            elif decision.alarm or judgement.verdict is Verdict.UNKILLABLE:
                self._alarm(subject, judgement, decision)

    def _rescue(self, subject: Subject, judgement: Judgement) -> None:
        running = self._rescues.get(subject.name)
        if running is not None and not running.done():
            return
        incident = self._book.of(subject.name, subject.pid) or self._new(subject.name, judgement, subject.pid)
        self._rescues[subject.name] = self._start(self._replace(subject, judgement, incident))

    async def _replace(self, subject: Subject, judgement: Judgement, incident: Incident) -> None:
        """Evidence, then the kill. The death is seen by its pidfd, which also wakes supervisord (`_on_death`)."""
        pid, turn = subject.pid, self._tracks[subject.name].turn
        failpoint.reach("watchdog.found")
        collected = await evidence.collect(
            self._settings.evidence / incident.id, subject, self._settings, self._views.queues
        )
        failpoint.reach("watchdog.collected")
        incident.evidence, incident.stuck_at = collected.files, collected.stuck_at or incident.stuck_at
        waits = f"; its main task waits at {collected.waits_at}" if collected.waits_at else ""
        self._book.tell(incident, f"evidence collected: stuck at {incident.stuck_at or 'an unknown place'}{waits}")
        if subject.pid != pid:
            incident.remedy = "replaced by supervisord"
            self._book.tell(incident, "it died before it was killed")
            return
        if judgement.verdict is Verdict.FROZEN and self._turned_again(subject, turn):
            subject.killed_s = None
            incident.remedy = "none: it went on by itself"
            self._book.tell(incident, "it went on by itself and is left alone")
            return
        if in_hand := await kill_note.write(self._settings, subject, judgement.verdict, incident.id):
            self._book.tell(incident, in_hand)
        failpoint.reach("watchdog.noted")
        incident.killed = True
        subject.killed_s = time.monotonic()
        incident.remedy = "killed and replaced"
        self._book.tell(incident, await restart.kill(self._supervisor, subject, mute=self._views.processes is None))
        failpoint.reach("watchdog.killed")

    def _turned_again(self, subject: Subject, turn: int) -> bool:
        try:
            pulse = pulse_file.read(self._settings.pulses, subject.name)
        except (Unreadable, OSError):
            return False
        return pulse is not None and pulse.pid == subject.pid and pulse.turn > turn

    async def _revive(self, name: str, incident: Incident) -> None:
        incident.remedy = incident.remedy or "started again"
        self._book.tell(incident, await restart.start(self._supervisor, name))
        self._views.ask_supervisor()

    def _alarm(self, subject: Subject, judgement: Judgement, decision: Decision) -> None:
        incident = self._book.of(subject.name, subject.pid)
        if incident is None:
            incident = self._new(subject.name, judgement, subject.pid)
        line = decision.note or judgement.reason
        if not any(line in told for told in incident.events):
            incident.verdict = str(judgement.verdict)
            self._book.tell(incident, line)

    def _on_death(self, subject: Subject, pid: int) -> None:
        """Called by the kernel's word, before any turn sees it."""
        self._wake.set()
        self._start(self._after_death(subject, pid, time.monotonic(), subject.killed_s is not None))

    async def _after_death(self, subject: Subject, pid: int, died_s: float, killed: bool) -> None:
        """Supervisord is asked what it knew of it, and woken so that the successor starts now."""
        name = subject.name
        counting = asyncio.ensure_future(
            self._views.look_at_ledger()
        )  # what was committed, before the successor adds to it
        known = self._views.processes.get(name) if self._views.processes else None
        self._views.ask_supervisor()
        if self._process.stop.is_set() or name == OWN:
            return
        await self._views.look_at_processes()
        now_known = self._views.processes.get(name) if self._views.processes else None
        asked = any(info is not None and info.pid in (0, pid) and info.state in ASKED for info in (known, now_known))
        asked = asked or asked_to_end.said(self._settings.run, name, pid)
        own = self._book.of(name, pid) if killed else None
        if own is not None:
            self._book.tell(own, f"process {pid} is gone")
        elif self._wanted.get(name, True) and not asked:
            self._record_death(name, pid, died_s)
        await restart.poke(self._supervisor)
        await self._views.look_at_processes()
        self._wake.set()
        await counting
        incident = self._book.of(name, pid)
        if incident is not None:
            incident.ledger = self._views.ledger or incident.ledger
            self._book.changed(incident)

    def _record_death(self, name: str, pid: int, died_s: float) -> None:
        incident = self._book.of(name)
        if incident is not None:
            self._book.tell(incident, f"process {pid} died too")
            return
        incident = self._new(name, Judgement(Verdict.DEAD, "died unexpectedly", died_s), pid)
        incident.remedy = "replaced by supervisord"
        incident.found_wall_s -= incident.found_mono_s - died_s
        incident.found_mono_s = died_s
        self._book.changed(incident)

    def _new(self, name: str, judgement: Judgement, pid: int) -> Incident:
        incident = self._book.new(name, judgement, pid, self._hub_epoch, self._views.ledger)
        incident.drill = drill_mark.is_held(self._settings.run)  # the book writes it later: the loop's turn comes first
        return incident

    # what is over

    def _close_incidents(self, now_s: float) -> None:
        for incident in list(self._book.open.values()):
            subject = self._witness.subjects.get(incident.process)
            rescue = self._rescues.get(incident.process)
            if incident.id in self._closing or subject is None or (rescue is not None and not rescue.done()):
                continue  # a rescue under way has still to say what it did
            judgement, track = self._judgements[incident.process], self._tracks[incident.process]
            if not self._wanted.get(incident.process, True):
                self._close(incident, None)
            elif is_over(
                incident, subject.pid, judgement.verdict in WELL, track.advanced_s, self._canary.round_began_s
            ):
                self._close(incident, now_s)
            elif judgement.verdict in WELL:
                self._canary.kick()  # it may be over: only a round since then can tell

    def _close(self, incident: Incident, now_s: float | None) -> None:
        self._closing.add(incident.id)
        self._start(self._settle(incident, now_s))

    async def _settle(self, incident: Incident, over_s: float | None) -> None:
        """The ledger is looked at once more: whatever was accepted before must still be there."""
        pid = self._witness.subjects[
            incident.process
        ].pid  # of whom was judged; it may die while the ledger is looked at
        await self._views.look_at_ledger()
        self._book.tell(
            incident, "an operator stopped it" if over_s is None else end_of(incident, pid, self._hub_epoch)
        )
        self._book.over(incident, over_s, max(lost_between(incident.ledger, self._views.ledger), self._views.missing))
        self._closing.discard(incident.id)

    # report

    def _report(self, canary: CanaryReport, now_s: float) -> None:
        subjects = self._witness.subjects
        if self._restarts is None:
            self._restarts = status_writer.restarts_before(
                self._last, {name: subject.pid for name, subject in subjects.items()}
            )
        before = self._restarts or {}
        rows = [
            status_writer.process_report(
                subject,
                self._judgements[name],
                now_s,
                wanted=self._wanted[name],
                restarts=before.get(name, 0) + max(0, subject.starts - 1),
                note=self._decisions[name].note if name in self._decisions else "",
            )
            for name, subject in subjects.items()
        ]
        report = status_writer.make_report(rows, canary, self._views, self._book.totals, subjects)
        self._writer.write(report, now_s)
        budgets = frozenset(name for name, decision in self._decisions.items() if decision.alarm)
        self._alarms.look(report, budgets, self._views.ledger)
        self._systemd.look(report, self._hub_remedies + subjects["hub"].starts, now_s)

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._wake.set() if not task.cancelled() and task.exception() else None)
        return task


async def for_ever(name: str, work: Coroutine[None, None, None]) -> None:
    """`work` must never end. Raises: LocalError, if it does; or what it died of."""
    await work
    raise LocalError(f"the watchdog's {name} ended")
