"""Leaves out the rows and messages that ended earlier fanouts. The pulse names each row while it is being entered.

Operators see that: a row that was on show keeps its old fields with `put_aside` beside them, one that was not has no
fields but its name, and the source row names all rows that are left out. The hub is told too, and keeps a dead letter
of each. A host's row is tried again when an operator asks for it, after an hour, and once the host has been removed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec

from processes.adapters.logs import Log
from processes.adapters.queue_link import QueuesAway
from processes.adapters.state.deaths import Poison
from processes.adapters.state.pulse_file import PulseFile
from processes.core.records import poison
from processes.core.records.host import HostRecord, Link
from processes.core.shown.views import encode, host_view
from processes.core.travels import messages
from processes.core.travels.messages import Change, Json, PutAside
from processes.core.values import Presence
from processes.fanout import poison_row
from processes.fanout.queues import Queues

TELL_S: Final = 1.0  # between two tries to tell the hub, while `queues` is away
PUT_ASIDE: Final = "its last change ended the fanout each time, and is left out: see the dead letters"


class PoisonGuard:
    """Rows and messages that are left out. Invariant: each is poisonous by the record of deaths,
    which bounds their number.
    """

    def __init__(
        self, fanout: str, pulse: PulseFile, aside: Poison, link: Queues, log: Log, *, drilled: str = ""
    ) -> None:
        self.left_out: dict[str, tuple[str, str]] = {}  # by name in the pulse: kind and id
        self._fanout, self._pulse, self._poison, self._link, self._log = fanout, pulse, aside, link, log
        self._drilled = drilled  # the id of a row that is poison here, in a drill
        self._tasks: set[asyncio.Task[None]] = set()

    def admit(self, change: Change, known: bool) -> Change | None:
        """Return the change to enter for this one: itself, a `put_aside` mark, or None. Name it in the pulse.

        `known`: the row is there already and keeps its fields. A new row of a host must be whole, since
        readers expect every field.
        """
        if change.kind == "host_removed":
            self._end_with_its_host(poison.name_of_own("host", change.id))
        name = poison.name_of_change(change)
        if name not in self._poison.events:
            self._pulse.take(name)
            if self._drilled and change.id == self._drilled:
                poison_row.take_a_lock_twice()
            return change
        self._leave_out(name, change.kind, change.id)
        if known:
            return Change(change.kind, change.id, Json(msgspec.json.encode({"put_aside": PUT_ASIDE})))
        if change.kind != "host":
            return None
        empty = host_view(HostRecord(change.id, "", None, 0.0), Link(Presence.STALE))
        unknown = msgspec.structs.replace(empty, revoked=False, enrolled_at=None, put_aside=PUT_ASIDE)
        return Change("host", change.id, encode(unknown))

    def in_hand(self, change: Change) -> None:
        """Name this change in the pulse, as the cause if the process ends now."""
        self._pulse.take(poison.name_of_change(change))

    def is_poison(self, name: str) -> bool:
        """Return whether the whole message must be left out; if so, tell the hub."""
        if name not in self._poison.events:
            return False
        self._leave_out(name, name.partition(" ")[0], "")
        return True

    def forget_old(self) -> bool:
        """Forget deaths that are too long ago. Return whether a row or message may be tried again because of that."""
        found = self._poison.forget_old()
        if found:
            self.left_out = {name: row for name, row in self.left_out.items() if name in self._poison.events}
        return found

    def _end_with_its_host(self, name: str) -> None:
        """Forget what a host of this name did once it is removed: who is enrolled under the name later is another."""
        if name in self._poison.events:
            self.left_out.pop(name, None)
            self._poison.forget(name)
            self._keep(asyncio.get_running_loop().create_task(self._save()))

    async def _save(self) -> None:
        with contextlib.suppress(OSError):  # if the disk refuses, a successor within the hour leaves the name out again
            await asyncio.to_thread(self._poison.save)

    async def forgive(self, name: str) -> None:
        """Let this row or message be tried again, as an operator asked."""
        self.left_out.pop(name, None)
        with contextlib.suppress(OSError):  # if the disk refuses, the successor leaves it out again and reports that
            await asyncio.to_thread(self._poison.forgive, name)

    def _leave_out(self, name: str, kind: str, id: str) -> None:
        if name in self.left_out:
            return
        self.left_out[name] = (kind, id)
        self._log.error("left out: it ended this fanout each time", kind=kind, id=id, name=name)
        task = asyncio.get_running_loop().create_task(
            self._tell(PutAside(self._fanout, name, kind, id, self._poison.events[name]))
        )
        self._keep(task)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, event: PutAside) -> None:
        while event.name in self.left_out:
            with contextlib.suppress(QueuesAway):
                if (await self._link.append(messages.EVENTS, [messages.encode(event)])).accepted:
                    return
            await asyncio.sleep(TELL_S)
