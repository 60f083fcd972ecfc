"""The exception barrier around a step: an event that raises, or that is known to end the hub, is put aside as a dead
letter, and the loop goes on.
"""

from __future__ import annotations

import hashlib
import traceback

import msgspec

from processes.adapters import failpoint
from processes.adapters.bootstrap import Process
from processes.core.errors import LocalError
from processes.core.hub import beats, flood, step
from processes.core.hub.beats import Heard
from processes.core.hub.effects import Effects, Put
from processes.core.hub.memory import Draft, Memory
from processes.core.hub.refused import Refused
from processes.core.hub.step import OwnEvent
from processes.core.records import dead_letter, poison
from processes.core.records.dead_letter import UNDECODABLE, DeadLetter, Why
from processes.core.travels import messages
from processes.core.travels.messages import (
    Death,
    Event,
    HeartbeatsReceived,
    RehearseFault,
    RequestReceived,
    StatusReceived,
)
from processes.core.values import Now
from processes.hub import rehearsed_faults, store


class Barrier:
    """Steps on a memory. Invariant: an event stands in the pulse while it is stepped, and only then."""

    def __init__(self, process: Process, memory: Memory) -> None:
        self._process, self._memory, self._log = process, memory, process.log
        self._drills = process.settings.file.drills.enabled
        self._dead_letters = 0  # made by this hub
        self._known: dict[str, str] = {}  # poison → its dead letter of this hub: a copy makes no second one

    def step(self, event: Event | OwnEvent, name: str, now: Now, retried: DeadLetter | None = None) -> Draft:
        """Return the draft of the step, or of putting its event aside. Poison is not even tried. `retried`: the dead
        letter that is tried again.
        """
        host = flood.to_blame(event) if retried is None else ""  # a dead letter is tried again by an operator's will
        own_deaths = self._process.poison.events.get(name, [])
        if deaths := own_deaths or flood.blamed(self._memory, host, self._process.poison.hosts, now):
            who = "it" if own_deaths else f"other events of {host}"
            causes = ", ".join(death.cause for death in deaths)
            error = f"{who} ended the hub {len(deaths)} times ({causes}), and it was not stepped"
            return self._aside(event, name, Why.POISON, error, now, old=retried, deaths=deaths)
        self._process.pulse.take(poison.in_hand(name, host))
        try:
            draft = self._stepped(event, now)
            if retried is not None:
                draft.drop(self._memory.dead_letters, retried.id)
            self._check(draft)
        except Exception as error:
            self._process.pulse.pulse.errors += 1
            told = "".join(traceback.format_exception(error))
            draft = self._aside(event, name, Why.RAISED, told, now, old=retried, deaths=[])
        self._process.pulse.put_down()  # an event that ends the process stays in hand, to be blamed
        if isinstance(event, StatusReceived):
            failpoint.reach("hub.report_stepped")
        return draft

    def beats(self, event: HeartbeatsReceived, name: str, now: Now) -> Heard:
        """Take the common heartbeats of a batch into the memory; return what that shows, and those to step alone.

        All of a batch are stepped alone if one of them raises, or if a hub has died with it in hand: each then stands
        in the pulse by itself, so that one is put aside, and its host to blame, and no other's.
        """
        aside = self._process.poison
        if name in aside.names:
            return Heard([], event.beats)
        suspects: set[str] = set()
        if aside.hosts:
            suspects = {beat.host for beat in event.beats if poison.mark_of_host(beat.host) in aside.hosts}
        self._process.pulse.take(name)
        try:
            heard = beats.take(self._memory, event, now, suspects)
        except Exception:  # whoever caused it is met again below, by its own event
            self._log.warning("a batch of heartbeats is stepped one by one", batch=name, exc_info=True)
            heard = Heard([], event.beats)
        self._process.pulse.put_down()  # a batch that ends the process stays in hand
        return heard

    def undecodable(self, item: bytes, error: Exception, now: Now, host: str) -> Draft:
        """Return the draft that keeps an item that cannot be decoded, as a dead letter. `host`: whose it is, if that
        could be read; else empty.
        """
        self._process.pulse.pulse.errors += 1
        name = f"{UNDECODABLE} {hashlib.blake2b(item, digest_size=8).hexdigest()}"
        told = f"{type(error).__name__}: {error}"
        kept = DeadLetter(
            self._new_id(), now.wall_s, UNDECODABLE, Why.UNDECODABLE, name=name, host=host, error=told, event=item
        )
        return step.keep(self._memory, kept, now)

    def unsaid(self, what: str, host: str, error: str, now: Now) -> Draft:
        """Return the draft that keeps, as a dead letter, why something that this host said was not written or shown."""
        self._process.pulse.pulse.errors += 1
        kept = DeadLetter(
            self._new_id(), now.wall_s, what, Why.RAISED, name=f"{what} of {host}", host=host, error=error
        )
        return step.keep(self._memory, kept, now)

    def applied(self, effects: Effects) -> None:
        """Called when the draft of these effects was applied: logs and remembers the dead letters among them."""
        for write in effects.writes:
            row = write.row if isinstance(write, Put) else None
            if isinstance(row, DeadLetter) and not row.retrying:
                if row.why == Why.POISON and row.process == "hub":
                    self._known[row.name] = row.id
                told = {"dead_letter": row.id, "why": str(row.why), "kind": row.kind, "host": row.host}
                self._log.error("an event was put aside", **told, by=row.process, error=row.error)

    def not_retried(self, kept: DeadLetter, error: LocalError) -> None:
        """Called when a dead letter is to be tried again and this version cannot decode it."""
        self._log.error("a dead letter cannot be tried again", dead_letter=kept.id, error=str(error))

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
        self, event: Event | OwnEvent, name: str, why: Why, error: str, now: Now, *, old: DeadLetter | None,
        deaths: list[Death],
    ) -> Draft:  # fmt: skip
        """Return the draft that puts the event aside: as a new dead letter, as the old one if that was tried again, or
        as one more copy of an event that is a dead letter already.
        """
        known = self._known.get(name, "") if why is Why.POISON else ""
        dead_letter_id = old.id if old is not None else known or self._new_id()
        kept = dead_letter.of_event(dead_letter_id, now.wall_s, event, why, name=name, error=error, deaths=deaths)
        if old is not None:
            kept = msgspec.structs.replace(kept, retries=old.retries)
        try:
            return self._check(step.put_aside(self._memory, event, kept, now, again=bool(known)))
        except Exception:  # a client that waits for an answer gets none; the dead letter is kept, and the loop goes on
            self._log.error("an event could not be put aside in order", dead_letter=dead_letter_id, exc_info=True)
            return step.keep(self._memory, kept, now)

    def _check(self, draft: Draft) -> Draft:
        """Return the draft, which can be written and shown. Raises: anything, if it cannot."""
        for write in draft.seal().effects.writes:
            store.check(write)
        return draft

    def _new_id(self) -> str:
        self._dead_letters += 1
        return f"{self._memory.epoch}-{self._dead_letters}"
