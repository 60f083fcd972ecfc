"""The exception barrier around a step: what raises, and what is known to end the hub, is put aside, and the loop goes
on.
"""

from __future__ import annotations

import hashlib
import traceback

import msgspec

from processes.adapters import clock
from processes.adapters.bootstrap import Process
from processes.core.hub import step
from processes.core.hub.effects import Effects, PutDeadLetter
from processes.core.hub.memory import Draft, Memory
from processes.core.hub.requests import Refused
from processes.core.hub.step import OwnEvent
from processes.core.records import dead_letter
from processes.core.records.dead_letter import UNDECODABLE, DeadLetter, Why
from processes.core.travels import messages
from processes.core.travels.messages import Event, RehearseFault, RequestReceived
from processes.hub import rehearsed_faults


class Barrier:
    """Steps on a memory. Invariant: what is stepped stands in the pulse while it is, and only then."""

    def __init__(self, process: Process, memory: Memory) -> None:
        self._process, self._memory, self._log = process, memory, process.log
        self._drills = process.settings.file.drills.enabled
        self._letters = 0
        self._known: dict[str, str] = {}  # poison that has a letter of this hub: a copy of it is let go without another

    def step(self, event: Event | OwnEvent, name: str, letter: DeadLetter | None = None) -> Draft:
        """The draft of the step, or of putting its event aside. Poison is not even tried. `letter`: the one that is
        tried again.
        """
        deaths = self._process.poison.events.get(name)
        if deaths is not None:
            error = f"it ended the hub {len(deaths)} times ({', '.join(death.cause for death in deaths)}), and was not stepped again"
            return self._aside(event, name, Why.POISON, error, letter)
        self._process.pulse.take(name)
        try:
            draft = self._stepped(event)
            if letter is not None:
                draft.drop_letter(letter.id)
        except Exception as error:
            self._process.pulse.pulse.errors += 1
            draft = self._aside(event, name, Why.RAISED, "".join(traceback.format_exception(error)), letter)
        self._process.pulse.put_down()  # not after what ends the process: that stays in hand, to be blamed
        return draft

    def undecodable(self, item: bytes, error: Exception) -> Draft:
        """The draft of keeping what cannot be read."""
        self._process.pulse.pulse.errors += 1
        name = f"{UNDECODABLE} {hashlib.blake2b(item, digest_size=8).hexdigest()}"
        told = f"{type(error).__name__}: {error}"
        letter = DeadLetter(
            self._new_id(), clock.now().wall_s, UNDECODABLE, Why.UNDECODABLE, name=name, error=told, event=item
        )
        return step.keep(self._memory, letter, clock.now())

    def applied(self, effects: Effects) -> None:
        """These effects are no longer a draft: what they put aside is told."""
        for write in effects.writes:
            if isinstance(write, PutDeadLetter) and not write.letter.retrying:
                letter = write.letter
                if letter.why == Why.POISON and letter.process == "hub":
                    self._known[letter.name] = letter.id
                told = {"letter": letter.id, "why": str(letter.why), "kind": letter.kind, "host": letter.host}
                self._log.error("an event was put aside", **told, by=letter.process, error=letter.error)

    def _stepped(self, event: Event | OwnEvent) -> Draft:
        if self._drills and isinstance(event, RequestReceived) and isinstance(event.request, RehearseFault):
            return self._rehearsed(event, event.request)
        return step.step(self._memory, event, clock.now())

    def _rehearsed(self, event: RequestReceived, request: RehearseFault) -> Draft:
        draft = Draft(self._memory, clock.now())
        try:
            if request.epoch == self._memory.epoch or request.fault in rehearsed_faults.POISON:
                rehearsed_faults.rehearse(request)
            body = messages.Json(b'{"fault":"rehearsed"}')
            draft.reply(event.fanout, event.request_id, 200, body, durable=False)
        except Refused as refused:
            draft.reply(event.fanout, event.request_id, refused.status, refused.body(), durable=False)
        return draft

    def _aside(self, event: Event | OwnEvent, name: str, why: Why, error: str, old: DeadLetter | None) -> Draft:
        """As a new letter; as the one it was, if it was tried again; or as one more copy of a letter of this hub."""
        now = clock.now()
        known = self._known.get(name, "") if why is Why.POISON else ""
        deaths = self._process.poison.events.get(name, [])
        letter_id = old.id if old is not None else known or self._new_id()
        letter = dead_letter.of_event(letter_id, now.wall_s, event, why, name=name, error=error, deaths=deaths)
        if old is not None:
            letter = msgspec.structs.replace(letter, retries=old.retries)
        try:
            return step.put_aside(self._memory, event, letter, now, again=bool(known))
        except Exception:  # whoever waits for an answer gets none; the letter is kept, and the loop goes on
            self._log.error("an event could not be put aside in order", letter=letter_id, exc_info=True)
            return step.keep(self._memory, letter, now)

    def _new_id(self) -> str:
        self._letters += 1
        return f"{self._memory.epoch}-{self._letters}"
