"""The watchdog's loop. It turns every TURN_S (CALM_S while all is well), and at once when a process dies. In order:

1. look at the pulses, the kernel's figures and the newest answers of supervisord, database and queues;
2. judge each process (core/watchdog/verdict);
3. decide (core/watchdog/remedy);
4. act: a rescue or a start is a task of its own, one at a time for a process;
5. close the incidents that are over;
6. report;
7. write the pulse.

A turn waits for nothing outside: calls that could hang are made on threads, with deadlines.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine, Iterable
from typing import Final, TypedDict

from processes.adapters import failpoint
from processes.adapters.bootstrap import Process
from processes.adapters.state import asked_to_end, deaths, desired_state, drill_mark, pulse_file, status_file
from processes.adapters.supervisor import Supervisor
from processes.core.errors import LocalError
from processes.core.records.ledger import Ledger
from processes.core.shown import status as reports
from processes.core.shown.status import CanaryReport, Verdict, is_wanted
from processes.core.travels.pulse import Blocked, Unreadable
from processes.core.watchdog import remedy, second_witness, verdict
from processes.core.watchdog.incident import Incident
from processes.core.watchdog.incident_lifecycle import Ending, ProcessCondition
from processes.core.watchdog.remedy import Act, Decision, Past
from processes.core.watchdog.restarts import RestartCounts
from processes.core.watchdog.verdict import Judgement, ProcessFacts, Track
from processes.watchdog import evidence, kill_note, restart, status_writer
from processes.watchdog.alarms import Alarms
from processes.watchdog.canary import Canary
from processes.watchdog.incident_log import IncidentLog
from processes.watchdog.inquiries import Inquiries
from processes.watchdog.process_reader import ProcessReader, Subject
from processes.watchdog.systemd import Systemd

TURN_S: Final = 0.1
# a turn while every pulse is fresh: nothing can be found before one is quiet, and a death wakes the loop
CALM_S: Final = 0.5
ASKED: Final = ("STOPPING", "STOPPED")  # supervisord's states of a process whose end somebody asked for
OWN: Final = "watchdog"


class Circumstances(TypedDict):
    """The state of the installation at the moment when an incident is found, as the incident keeps it."""

    epoch: int
    ledger: Ledger | None
    drill: bool


class Loop:
    """Judges the processes of one installation."""

    def __init__(
        self,
        process: Process,
        supervisor: Supervisor,
        inquiries: Inquiries,
        incident_log: IncidentLog,
        canary: Canary,
        *,
        alarms: Alarms,
        systemd: Systemd,
    ) -> None:
        self._process, self._settings, self._log = process, process.settings, process.log
        self._supervisor, self._inquiries, self._canary = supervisor, inquiries, canary
        self._incident_log, self._incidents = incident_log, incident_log.incidents
        self._alarms, self._systemd = alarms, systemd
        self._hub_remedies = 0  # kills and starts of the hub from here
        self._stall_s = process.settings.file.watchdog.stall_s
        limits = {
            name: self._settings.file.memory.bytes_max(name.partition(":")[0]) for name in self._settings.all_names()
        }
        self._reader = ProcessReader(self._settings.pulses, limits, self._on_death)
        self._writer = status_writer.Writer(self._settings.report, self._settings.report_reserve, self._log)
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
        self._wake = asyncio.Event()
        self._began_s = self._turned_s = time.monotonic()
        self._pace_s = TURN_S
        self._hub_epoch = 0
        self._told: tuple[object, ...] = ()  # of the last report: what a reader must not wait a second for
        self._restarts = RestartCounts(status_file.last_report(self._settings.report))

    async def run(self) -> None:
        """Turn until the process is asked to stop. Raises: the exception of any task of this loop that failed."""
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
            self._reader.close()

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
        self._reader.look(self._inquiries.processes, now_s)
        facts = self._facts(now_s)
        changed = self._judge(facts, gap_s, now_s)
        self._decide(facts, now_s)
        self._act(now_s)
        self._close_incidents(now_s)
        canary = self._canary.report(self._hub_epoch, now_s)
        known = self._inquiries.ledger is not None, self._incident_log.totals.total is not None
        is_quiet = reports.is_quiet(self._reader.subjects["hub"].pulse, now_s)
        telling = canary.ok, canary.epoch, is_quiet, self._inquiries.hindrance, *known
        if self._writer.due(changed or self._told != telling, now_s):
            self._told = telling
            self._report(canary, now_s)
        calm = not self._incidents.open and not self._reader.quiet(now_s) and self._stall_s >= 4 * CALM_S
        self._pace_s = CALM_S if calm else TURN_S
        self._inquiries.calm = calm and _settled(self._reader.subjects.values(), self._decisions.values())
        self._process.pulse.pulse.epoch = self._hub_epoch
        self._process.pulse.beat()

    # look and judge

    def _facts(self, now_s: float) -> dict[str, ProcessFacts]:
        desired, inquiries = self._read_desired(), self._inquiries
        found: dict[str, ProcessFacts] = {}
        for name, subject in self._reader.subjects.items():
            self._wanted[name] = is_wanted(name, desired)
            doubted = subject.pulse is None or subject.pulse.pid != subject.pid
            untouched_s = None
            if doubted:
                unanswered_s = inquiries.queues_unanswered_s
                untouched_s = second_witness.untouched_since_s(name, inquiries.readings, unanswered_s)
            found[name] = self._reader.facts(subject, self._wanted[name], untouched_s, inquiries.events_full)
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
        """Judge every process anew. Return whether a verdict changed."""
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
        hub = self._reader.subjects["hub"].pulse
        self._inquiries.blocked = hub.pid if hub is not None and hub.blocked_on == Blocked.STORAGE else 0
        if hub is not None and hub.epoch > self._hub_epoch:
            self._hub_epoch = hub.epoch
            self._canary.kick()
        return changed

    # decide and act

    def _decide(self, facts: dict[str, ProcessFacts], now_s: float) -> None:
        judged = {name: judgement for name, judgement in self._judgements.items() if name != OWN}
        pasts, decisions = remedy.decide(judged, facts, self._pasts, now_s)
        if remedy.differs_in_a_drill(self._decisions, decisions) and drill_mark.is_held(self._settings.run):
            pasts, decisions = remedy.decide(judged, facts, self._pasts, now_s, drill=True)
        self._pasts, self._decisions = pasts, decisions

    def _act(self, now_s: float) -> None:
        for name, decision in self._decisions.items():
            subject, judgement = self._reader.subjects[name], self._judgements[name]
            self._hub_remedies += name == "hub" and decision.act is not Act.NOTHING
            if decision.act is Act.KILL:
                subject.killed_s = now_s
                self._rescue(subject, judgement)
            elif decision.act is Act.START:
                self._start(self._revive(name, self._found(name, judgement, None)))
            elif decision.alarm or judgement.verdict is Verdict.UNKILLABLE:
                incident = self._found(name, judgement, subject.pid)
                self._incidents.tell_once(incident, judgement.verdict, decision.note or judgement.reason, now_s)

    def _found(self, name: str, judgement: Judgement, pid: int | None) -> Incident:
        """Return the open incident, or a new one; only then it is asked what is kept of the whole."""
        known = self._incidents.of(name, pid)
        if known is not None:
            return known
        return self._incidents.found(name, judgement, pid, self._incident_log.now(), **self._circumstances())

    def _circumstances(self) -> Circumstances:
        drill = drill_mark.is_held(self._settings.run)
        return {"epoch": self._hub_epoch, "ledger": self._inquiries.ledger, "drill": drill}

    def _rescue(self, subject: Subject, judgement: Judgement) -> None:
        running = self._rescues.get(subject.name)
        if running is None or running.done():
            incident = self._found(subject.name, judgement, subject.pid)
            self._rescues[subject.name] = self._start(self._replace(subject, judgement, incident))

    async def _replace(self, subject: Subject, judgement: Judgement, incident: Incident) -> None:
        """Collect the evidence, then kill the process. Its pidfd tells of the death; `_on_death` wakes supervisord."""
        pid, turn, incidents = subject.pid, self._tracks[subject.name].turn, self._incidents
        failpoint.reach("watchdog.found")
        folder = self._settings.evidence / incident.id
        found = await evidence.collect(folder, subject, self._settings, self._inquiries.queues)
        failpoint.reach("watchdog.collected")
        at_s, stopped = time.monotonic(), found.stopped
        incidents.collected(incident, found.files, found.stuck_at, found.waits_at, at_s, stopped=stopped)
        if subject.pid != pid:
            incidents.spared(incident, died=True, now_s=time.monotonic())
            return
        if self._went_on(subject, judgement.verdict, turn):
            subject.killed_s = None
            incidents.spared(incident, died=False, now_s=time.monotonic())
            return
        if in_hand := await kill_note.write(self._settings, subject, judgement.verdict, incident.id):
            incidents.tell(incident, in_hand, time.monotonic())
        failpoint.reach("watchdog.noted")
        incidents.killing(incident)
        subject.killed_s = time.monotonic()
        done = await restart.kill(self._supervisor, subject, mute=self._inquiries.processes is None)
        incidents.tell(incident, done, time.monotonic())
        failpoint.reach("watchdog.killed")

    def _went_on(self, subject: Subject, found: Verdict, turn: int) -> bool:
        try:
            pulse = pulse_file.read(self._settings.pulses, subject.name)
        except (Unreadable, OSError):
            return False
        return pulse is not None and pulse.pid == subject.pid and verdict.went_on(found, turn, pulse)

    async def _revive(self, name: str, incident: Incident) -> None:
        self._incidents.reviving(incident)
        self._incidents.tell(incident, await restart.start(self._supervisor, name), time.monotonic())
        self._inquiries.ask_supervisor()

    def _on_death(self, subject: Subject, pid: int) -> None:
        """Called when a pidfd tells that the process is dead, before any turn sees it."""
        self._wake.set()
        self._start(self._after_death(subject, pid, time.monotonic(), subject.killed_s is not None))

    async def _after_death(self, subject: Subject, pid: int, died_s: float, killed: bool) -> None:
        """Ask supervisord what it knew of the process, and wake it, so that it starts the successor at once."""
        name, inquiries = subject.name, self._inquiries
        counting = asyncio.ensure_future(inquiries.look_at_ledger())  # what was committed, before the successor adds
        known = inquiries.processes.get(name) if inquiries.processes else None
        inquiries.ask_supervisor()
        if self._process.stop.is_set() or name == OWN:
            return
        await inquiries.look_at_processes()
        now_known = inquiries.processes.get(name) if inquiries.processes else None
        asked = any(info is not None and info.pid in (0, pid) and info.state in ASKED for info in (known, now_known))
        expected = asked or asked_to_end.said(self._settings.run, name, pid) or not self._wanted.get(name, True)
        self._incidents.died(
            name, pid, died_s, self._incident_log.now(), killed=killed, expected=expected, **self._circumstances()
        )
        await restart.poke(self._supervisor)
        await inquiries.look_at_processes()
        self._wake.set()
        if not killed and not expected:
            words = await evidence.on_thread(lambda: deaths.last_words(self._settings, pid))
            self._incidents.ended_by(name, pid, words, time.monotonic())
        await counting
        self._incidents.counted(name, pid, inquiries.ledger)

    # what is over

    def _close_incidents(self, now_s: float) -> None:
        conditions = {name: self._condition(subject) for name, subject in self._reader.subjects.items()}
        endings, round_wanted = self._incidents.endings(conditions, self._canary.round_began_s, now_s)
        for ending in endings:
            self._start(self._settle(ending))
        if round_wanted:
            self._canary.kick()

    def _condition(self, subject: Subject) -> ProcessCondition:
        name, rescue = subject.name, self._rescues.get(subject.name)
        busy, wanted = rescue is not None and not rescue.done(), self._wanted.get(name, True)
        return ProcessCondition(subject.pid, self._judgements[name], self._tracks[name].advanced_s, wanted, busy)

    async def _settle(self, ending: Ending) -> None:
        """Read the ledger once more: every command accepted before must still be in it."""
        # the pid that was judged: the process may die while the ledger is read
        pid, inquiries = self._reader.subjects[ending.incident.process].pid, self._inquiries
        await inquiries.look_at_ledger()
        self._incidents.settle(
            ending, pid, self._incident_log.now(),
            epoch=self._hub_epoch, ledger=inquiries.ledger, missing=inquiries.missing,
        )  # fmt: skip

    # report

    def _report(self, canary: CanaryReport, now_s: float) -> None:
        subjects = self._reader.subjects
        restarts = self._restarts.now(
            {name: subject.pid for name, subject in subjects.items()},
            {name: subject.starts for name, subject in subjects.items()},
        )
        rows = [
            status_writer.process_report(
                subject,
                self._judgements[name],
                now_s,
                wanted=self._wanted[name],
                restarts=restarts[name],
                note=self._decisions[name].note if name in self._decisions else "",
            )
            for name, subject in subjects.items()
        ]
        log = self._incident_log.totals
        report = status_writer.make_report(rows, canary, self._inquiries, log, subjects, began_s=self._began_s)
        alarming = frozenset(name for name, decision in self._decisions.items() if decision.alarm)
        report = self._alarms.look(report, alarming, self._inquiries.ledger)
        self._writer.write(report, now_s)
        self._systemd.look(report, self._hub_remedies + subjects["hub"].starts, now_s)

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda _: self._wake.set() if not task.cancelled() and task.exception() else None)
        return task


def _settled(subjects: Iterable[Subject], decisions: Iterable[Decision]) -> bool:
    """Return whether supervisord holds every process that lives to be running, and nothing is to be noted of any."""
    if any(decision.note for decision in decisions):
        return False
    return all(not s.alive or s.supervised is None or s.supervised.state == "RUNNING" for s in subjects)


async def for_ever(name: str, work: Coroutine[None, None, None]) -> None:
    """Await work that must never end. Raises: LocalError if it returns, or the exception that ended it."""
    await work
    raise LocalError(f"the watchdog's {name} ended")
