"""The exception barrier around a step: what raises, and what is known to end the hub, is put aside, and the loop goes
on.
"""

from __future__ import annotations

import hashlib
import traceback

import msgspec

from processes.adapters import failpoint
from processes.adapters.bootstrap import Process
from processes.core.errors import LocalError
from processes.core.hub import step
from processes.core.hub.effects import Effects, Put
from processes.core.hub.memory import Draft, Memory
from processes.core.hub.requests import Refused
from processes.core.hub.step import OwnEvent
from processes.core.records import dead_letter
from processes.core.records.dead_letter import UNDECODABLE, DeadLetter, Why
from processes.core.travels import messages
from processes.core.travels.messages import Event, RehearseFault, RequestReceived, StatusReceived
from processes.core.values import Now
from processes.hub import rehearsed_faults


class Barrier:
    """Steps on a memory. Invariant: what is stepped stands in the pulse while it is, and only then."""

    def __init__(self, process: Process, memory: Memory) -> None:
        self._process, self._memory, self._log = process, memory, process.log
        self._drills = process.settings.file.drills.enabled
        self._letters = 0
        self._known: dict[str, str] = {}  # poison that has a letter of this hub: a copy of it is let go without another

    def step(self, event: Event | OwnEvent, name: str, now: Now, letter: DeadLetter | None = None) -> Draft:
        """Returns the draft of the step, or of putting its event aside. Poison is not even tried. `letter`: the dead
        letter that is tried again.
        """
        deaths = self._process.poison.events.get(name)
        if deaths is not None:
            causes = ", ".join(death.cause for death in deaths)
            error = f"it ended the hub {len(deaths)} times ({causes}), and was not stepped again"
            return self._aside(event, name, Why.POISON, error, now, old=letter)
        self._process.pulse.take(name)
        try:
            draft = self._stepped(event, now)
            if letter is not None:
                draft.drop(self._memory.dead_letters, letter.id)
        except Exception as error:
            self._process.pulse.pulse.errors += 1
            draft = self._aside(event, name, Why.RAISED, "".join(traceback.format_exception(error)), now, old=letter)
        self._process.pulse.put_down()  # not after what ends the process: that stays in hand, to be blamed
        if isinstance(event, StatusReceived):
            failpoint.reach("hub.report_stepped")
        return draft

    def undecodable(self, item: bytes, error: Exception, now: Now) -> Draft:
        """Returns the draft of keeping what cannot be read."""
        self._process.pulse.pulse.errors += 1
        name = f"{UNDECODABLE} {hashlib.blake2b(item, digest_size=8).hexdigest()}"
        told = f"{type(error).__name__}: {error}"
        letter = DeadLetter(self._new_id(), now.wall_s, UNDECODABLE, Why.UNDECODABLE, name=name, error=told, event=item)
        return step.keep(self._memory, letter, now)

    def applied(self, effects: Effects) -> None:
        """Called when these effects are no draft any more: logs the dead letters among them, and knows them from now
        on.
        """
        for write in effects.writes:
            letter = write.row if isinstance(write, Put) else None
            if isinstance(letter, DeadLetter) and not letter.retrying:
                if letter.why == Why.POISON and letter.process == "hub":
                    self._known[letter.name] = letter.id
                told = {"letter": letter.id, "why": str(letter.why), "kind": letter.kind, "host": letter.host}
                self._log.error("an event was put aside", **told, by=letter.process, error=letter.error)

    def not_retried(self, letter: DeadLetter, error: LocalError) -> None:
        """Called when a dead letter that should be tried again cannot be read by this version."""
        self._log.error("a dead letter cannot be tried again", letter=letter.id, error=str(error))

    def _stepped(self, event: Event | OwnEvent, now: Now) -> Draft:
        if self._drills and isinstance(event, RequestReceived) and isinstance(event.request, RehearseFault):
            return self._rehearsed(event, event.request, now)
        return step.step(self._memory, event, now)

    def _rehearsed(self, event: RequestReceived, request: RehearseFault, now: Now) -> Draft:
        draft = Draft(self._memory, now)
        try:
            if request.epoch == self._memory.epoch or request.fault in rehearsed_faults.POISON:
                rehearsed_faults.rehearse(request)
            body = messages.Json(b'{"fault":"rehearsed"}')
            draft.reply(event.fanout, event.request_id, 200, body, durable=False)
        except Refused as refused:
            draft.reply(event.fanout, event.request_id, refused.status, refused.body(), durable=False)
        return draft

    def _aside(
        self, event: Event | OwnEvent, name: str, why: Why, error: str, now: Now, *, old: DeadLetter | None
    ) -> Draft:
        """Returns the draft of a new dead letter; of the one it was, if it was tried again; or of one more copy of what
        this hub has a dead letter of.
        """
        known = self._known.get(name, "") if why is Why.POISON else ""
        deaths = self._process.poison.events.get(name, [])
        letter_id = old.id if old is not None else known or self._new_id()
        letter = dead_letter.of_event(letter_id, now.wall_s, event, why, name=name, error=error, deaths=deaths)
        if old is not None:
            letter = msgspec.structs.replace(letter, retries=old.retries)
        try:
            return step.put_aside(self._memory, event, letter, now, again=bool(known))
        except Exception:  # whoever waits for an answer gets none; the dead letter is kept, and the loop goes on
            self._log.error("an event could not be put aside in order", letter=letter_id, exc_info=True)
            return step.keep(self._memory, letter, now)

    def _new_id(self) -> str:
        self._letters += 1
        return f"{self._memory.epoch}-{self._letters}"
