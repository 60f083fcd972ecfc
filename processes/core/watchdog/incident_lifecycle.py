"""The life of incidents, from the moment when one is found to its end. Pure: moments and ids are arguments.

    found ──▶ open ──▶ told: evidence, kill, death, start … ──▶ well again, and a round of the canary since ──▶ settled
                 │                                                                                              │
                 └──▶ an operator stopped the process ──────────────────────────────────────────────────────────┘

    a process is found frozen, stalled …     one incident for this process and pid, however often it is found
    it dies, and nobody asked for that       one more line of its open incident, or an incident of its own
    it dies by the watchdog's own kill       a line of that incident, and no further incident
    it dies because somebody asked           nothing
    it is to be started again                its open incident, or one of its own
    it is well again                         over once it has turned since, and (of what the canary runs through) a
                                             round that began since was complete; until then a round is wanted
    it is over                               the ledger is looked at once more: whatever was accepted is still there
    OPEN_MAX are open, and one more is found one is over, and nobody can say since when: the oldest of a process of
                                             which a newer one is open. (One that never gets well has an incident a
                                             minute, and the newest tells most.)

Units: *_s of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final, NamedTuple

from processes.core.records.ledger import Ledger
from processes.core.shown.status import HALTED, WELL, Verdict
from processes.core.watchdog.incident import Incident, end_of, is_over, lost_between
from processes.core.watchdog.verdict import Judgement

DIED: Final = "died unexpectedly"
OPEN_MAX: Final = 100  # an incident a minute of a process that never gets well, for an hour and a half


class Moment(NamedTuple):
    """One moment on both clocks, and the id of an incident that would begin in it."""

    mono_s: float
    wall_s: float
    id: str


class ProcessCondition(NamedTuple):
    """How one process is now. `wanted`: an operator wants it to run. `busy`: a rescue of it is under way, whose outcome
    is still to come.
    """

    pid: int
    judgement: Judgement
    advanced_s: float
    wanted: bool = True
    busy: bool = False


class Ending(NamedTuple):
    """An incident that is over. over_s None: nobody can say since when, for an operator stopped the process."""

    incident: Incident
    over_s: float | None


class Incidents:
    """The open incidents, oldest first, and those that ended lately.

    `changed` is called with an incident whenever one of its fields has changed, and with the line added to its story.

    Invariant: at most one open incident of a process and pid. Invariant: an incident ends once.
    """

    def __init__(self, boot_id: str, changed: Callable[[Incident, str], None]) -> None:
        self.open: dict[str, Incident] = {}
        self._boot_id, self._changed = boot_id, changed
        self._ended: collections.deque[Incident] = collections.deque(maxlen=OPEN_MAX)
        self._settling: set[str] = set()

    def of(self, process: str, pid: int | None = None) -> Incident | None:
        """Return the newest open incident of a process; with `pid`, of exactly that one."""
        found = [i for i in self.open.values() if i.process == process and (pid is None or i.pid == pid)]
        return found[-1] if found else None

    def found(
        self, process: str, judgement: Judgement, pid: int | None, at: Moment, *,
        epoch: int, ledger: Ledger | None, drill: bool = False,
    ) -> Incident:  # fmt: skip
        """Return the open incident of this process and pid, or open one that is found now. pid None: of any pid."""
        known = self.of(process, pid)
        if known is not None:
            return known
        incident = Incident(
            id=at.id,
            process=process,
            verdict=str(judgement.verdict),
            reason=judgement.reason,
            pid=pid or 0,
            epoch=epoch,
            boot_id=self._boot_id,
            good_mono_s=min(judgement.good_s, at.mono_s),
            found_mono_s=at.mono_s,
            found_wall_s=at.wall_s,
            ledger=ledger,
            drill=drill,
        )
        self._make_room(at)
        self.open[incident.id] = incident
        self._changed(incident, "")
        return incident

    def tell(self, incident: Incident, line: str, now_s: float) -> None:
        """Add a line to the incident's story."""
        incident.tell(now_s, line)
        self._changed(incident, line)

    def tell_once(self, incident: Incident, verdict: Verdict, line: str, now_s: float) -> None:
        """Add a line unless the story has it already; the incident then also takes this verdict."""
        if not any(line in told for told in incident.events):
            incident.verdict = str(verdict)
            self.tell(incident, line, now_s)

    def collected(
        self, incident: Incident, files: Collection[str], stuck_at: str | None, waits_at: str | None, now_s: float,
        *, stopped: bool = False,
    ) -> None:  # fmt: skip
        """Called when the evidence is collected. `stopped`: the process was stopped by a signal or a debugger."""
        incident.evidence = list(files)
        if stopped:  # where it stood is not why it does not go on
            stood = f" (it stood at {stuck_at})" if stuck_at else ""
            self.tell(incident, f"evidence collected: it was {HALTED}, and is not stuck in its own code{stood}", now_s)
            return
        incident.stuck_at = stuck_at or incident.stuck_at
        waits = f"; its main task waits at {waits_at}" if waits_at else ""
        self.tell(incident, f"evidence collected: stuck at {incident.stuck_at or 'an unknown place'}{waits}", now_s)

    def spared(self, incident: Incident, *, died: bool, now_s: float) -> None:
        """Called when the process is not killed after all: it has died, or it went on by itself."""
        incident.remedy = "replaced by supervisord" if died else "none: it went on by itself"
        line = "it died before it was killed" if died else "it went on by itself and is left alone"
        self.tell(incident, line, now_s)

    def killing(self, incident: Incident) -> None:
        """Called before the kill, so that the death itself is no further incident."""
        incident.killed, incident.remedy = True, "killed and replaced"
        self._changed(incident, "")

    def reviving(self, incident: Incident) -> None:
        """Called before the process is started again."""
        incident.remedy = incident.remedy or "started again"
        self._changed(incident, "")

    def died(
        self, process: str, pid: int, died_s: float, at: Moment, *,
        killed: bool, expected: bool, epoch: int, ledger: Ledger | None, drill: bool = False,
    ) -> None:  # fmt: skip
        """Called when a process is gone. `killed`: by the watchdog. `expected`: not to run, or asked to end."""
        own = self.of(process, pid) if killed else None
        if own is not None:
            self.tell(own, f"process {pid} is gone", at.mono_s)
        elif not expected:
            self._died_unexpectedly(process, pid, died_s, at, epoch=epoch, ledger=ledger, drill=drill)

    def _died_unexpectedly(
        self, process: str, pid: int, died_s: float, at: Moment, *, epoch: int, ledger: Ledger | None, drill: bool
    ) -> None:
        known = self.of(process)
        if known is not None:
            self.tell(known, f"process {pid} died too", at.mono_s)
            return
        judgement = Judgement(Verdict.DEAD, DIED, died_s)
        incident = self.found(process, judgement, pid, at, epoch=epoch, ledger=ledger, drill=drill)
        incident.remedy = "replaced by supervisord"
        incident.found_wall_s -= at.mono_s - died_s
        incident.found_mono_s = died_s
        self._changed(incident, "")

    def ended_by(self, process: str, pid: int, words: str, now_s: float) -> None:
        """Called when supervisord has told how a process that died unexpectedly ended: "terminated by SIGKILL"."""
        incident = self.of(process)
        if incident is None or not words:
            return
        if incident.pid == pid and incident.reason == DIED:
            incident.reason = f"{DIED}: {words}"
        self.tell(incident, f"process {pid}: {words}", now_s)

    def counted(self, process: str, pid: int, ledger: Ledger | None) -> None:
        """Called when the ledger was looked at after a death, before the successor adds to it."""
        incident = self.of(process, pid)
        if incident is not None:
            incident.ledger = ledger or incident.ledger
            self._changed(incident, "")

    def endings(
        self, conditions: Mapping[str, ProcessCondition], round_began_s: float | None, now_s: float
    ) -> tuple[list[Ending], bool]:
        """Return the incidents that are over now, each once, and whether a round of the canary is wanted to
        tell whether others are over.
        """
        found: list[Ending] = []
        round_wanted = False
        for incident in self.open.values():
            now = conditions.get(incident.process)
            if incident.id in self._settling or now is None or now.busy:
                continue
            well = now.judgement.verdict in WELL
            if not now.wanted:
                found.append(Ending(incident, None))
            elif is_over(incident, now.pid, well, now.advanced_s, round_began_s):
                found.append(Ending(incident, now_s))
            else:
                round_wanted |= well
        self._settling |= {ending.incident.id for ending in found}
        return found, round_wanted

    def settle(self, ending: Ending, pid: int, at: Moment, *, epoch: int, ledger: Ledger | None, missing: int) -> None:
        """End the incident. `pid`: of the process that was judged well. `ledger`: as it is now. `missing`: commands
        that the database lacks by its own count.
        """
        incident, over_s = ending
        self._settling.discard(incident.id)
        if incident.id not in self.open:
            return  # it had to make room meanwhile
        last = "an operator stopped it" if over_s is None else end_of(incident, pid, epoch)
        self.tell(incident, last, at.mono_s)
        self._over(incident, over_s, at.wall_s, max(lost_between(incident.ledger, ledger), missing))

    def resume(self, left: Iterable[Incident], at: Moment) -> None:
        """Go on with the incidents that the last watchdog left open. Shape of `left`: newest first, as stored.

        Incidents of this boot stay open, the newest, as far as there is room; those of an earlier one ended with it,
        and so did one that this watchdog has found again by itself before it could read what was left.
        """
        left = list(left)
        stay = [i.id for i in left if i.boot_id == self._boot_id and self.of(i.process, i.pid) is None]
        stay = stay[: OPEN_MAX - len(self.open)]
        kept: dict[str, Incident] = {}
        for incident in reversed(left):
            incident.tell(at.mono_s, "the watchdog was started anew")
            if incident.id in stay:
                kept[incident.id] = incident
            else:
                self._over(incident, None, at.wall_s, incident.lost)
        self.open = {**kept, **self.open}

    def take_ended(self) -> list[Incident]:
        """Return the incidents that are over since the last call; the newest OPEN_MAX of them."""
        taken = list(self._ended)
        self._ended.clear()
        return taken

    def _make_room(self, at: Moment) -> None:
        """Ends the oldest when there is no room for one more. It is not the newest of its process, which would be found
        anew at once, and not one of which the ledger is being looked at, as long as there are others.
        """
        if len(self.open) < OPEN_MAX:
            return
        newest = {incident.process: incident.id for incident in self.open.values()}
        first = min(self.open.values(), key=lambda each: (each.id == newest[each.process], each.id in self._settling))
        self.tell(first, "it is not followed any more: too many are open", at.mono_s)
        self._over(first, None, at.wall_s, first.lost)

    def _over(self, incident: Incident, over_s: float | None, wall_s: float, lost: int) -> None:
        incident.over_mono_s, incident.over_wall_s, incident.lost = over_s, wall_s, lost
        self.open.pop(incident.id, None)
        self._ended.append(incident)
        self._changed(incident, "")
