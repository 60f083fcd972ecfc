"""The fanout's turn: broadcasts into the mirror → subscribers → state folder → request for a snapshot → pulse.

Calls to `queues`, the database and the disk run beside the turns; a turn only takes their results.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from processes.adapters.accepts import Accepts
from processes.adapters.logs import Log
from processes.adapters.queue_reader import QueueReader
from processes.adapters.queues import Queues, QueuesAway
from processes.adapters.state import fleet_db, history_file
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.adapters.state.pulse_file import PulseFile
from processes.adapters.wake import Wake
from processes.core.errors import LocalError
from processes.core.fanout.history import Histories
from processes.core.fanout.mirror import Mirror
from processes.core.records.condition import condition_view, silence_view
from processes.core.records.host import Link
from processes.core.shown.replica import FINAL_COMMANDS_MAX
from processes.core.shown.views import command_view, encode, host_view
from processes.core.travels import messages
from processes.core.travels.audit import Kind
from processes.core.travels.judged import STANDING_MAX
from processes.core.travels.messages import Change, HostsHeard, Json, SnapshotWanted
from processes.core.travels.pulse import Blocked
from processes.core.values import Presence, process_name, rfc3339, token_id
from processes.fanout import state_folder
from processes.fanout.audit_notes import AuditNotes
from processes.fanout.auth import Auth
from processes.fanout.database_reader import Reader
from processes.fanout.judging import Judging
from processes.fanout.outputs import Outputs
from processes.fanout.poison_guard import PoisonGuard
from processes.fanout.requests import Requests
from processes.fanout.state_folder import FolderWatch
from processes.fanout.subscribers import Audience

TURN_S_MAX: Final = 0.2  # an idle loop turns too
BATCH_ITEMS_MAX: Final = 500  # broadcasts a turn; about 20 ms
LOAD_S: Final = 2.0  # between two reads of the database while no hub has sent anything
FORGET_S: Final = 60.0  # between two checks whether rows that are left out may be tried again
KEEP_S: Final = 60.0  # between two writes of the hosts' histories: a kill may lose the last minute
FINISH_S_MAX: Final = 3.5  # for answers and closing handshakes
FIRST: Final = {process_name("fanout", 0, count) for count in (1, 2)}  # the names of the first fanout
FIRST_LOAD_S_MAX: Final = 2.0  # for the database, before the first connection is accepted; clients wait meanwhile


@dataclass(frozen=True)
class Parts:
    """The parts that the loop drives."""

    link: Queues
    mirror: Mirror
    audience: Audience
    outputs: Outputs
    requests: Requests
    folder_watch: FolderWatch
    auth: Auth
    audit_notes: AuditNotes
    database_reader: Reader
    histories: Histories
    kept: Path  # the file of the histories, for the next fanout
    accepts: Accepts
    judging: Judging


class Loop:
    """One fanout's loop."""

    def __init__(self, name: str, parts: Parts, pulse: PulseFile, poison_guard: PoisonGuard, log: Log) -> None:
        self.wake = Wake()
        self._name, self._pulse, self._log = name, pulse, log
        self._link, self._mirror, self._audience = parts.link, parts.mirror, parts.audience
        self._outputs, self._requests = parts.outputs, parts.requests
        self._folder_watch, self._auth, self._database_reader = parts.folder_watch, parts.auth, parts.database_reader
        self._audit_notes = parts.audit_notes
        self._histories, self._kept, self._poison_guard = parts.histories, parts.kept, poison_guard
        self._accepts, self._judging = parts.accepts, parts.judging
        self._audience.on_subscribe = self._outputs.subscribe
        self._audience.on_unsubscribe = self._outputs.unsubscribe
        self._audience.on_room = self._outputs.has_room
        self._loop = asyncio.get_running_loop()
        self._broadcasts = QueueReader(self._link, messages.broadcasts_of(name), BATCH_ITEMS_MAX, self.wake.set)
        self._asking: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._keep_told = False
        self._keep_s = self._loop.time() + KEEP_S
        self._load_s = self._forget_s = self._end_s = 0.0
        self._own_hash = self._folder_watch.seen.own_hash
        self._gaps = self._errors = 0
        self._asked_again: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Show the database's rows, if they can be read in time, so that the first operators see no empty fleet.

        Also take over the hosts' histories of the fanout before this one.
        """
        self._pulse.beat()  # a freeze from now on is one of the loop, not of the start
        await self._remember()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOAD_S_MAX):
                await self._load()

    async def run(self, stop: asyncio.Event) -> None:
        """Turn until `stop` is set."""
        stopping = self._loop.create_task(stop.wait())
        stopping.add_done_callback(lambda _: self.wake.set())
        self._show_folder()
        while not stop.is_set():
            await self._wait()
            self._turn()

    async def finish(self, serving: asyncio.Task[None]) -> None:
        """Turn until the server has closed: open requests get their answers, and the pulse still advances.

        Raises: TimeoutError, if the server has not closed within FINISH_S_MAX.
        """
        serving.add_done_callback(lambda _: self.wake.set())
        async with asyncio.timeout(FINISH_S_MAX):
            while not serving.done():
                await self._wait()
                self._turn()
        self._broadcasts.cancel()
        for task in (self._asking, self._loading):
            if task is not None:
                task.cancel()
        await self._judging.leave()
        if self._keeping is not None:
            await self._keeping  # else two tasks would write one file
        await self._keep()

    async def _wait(self) -> None:
        due_s = self._audience.due_s()
        wait_s = TURN_S_MAX if due_s is None else min(max(due_s - self._loop.time(), 0.0), TURN_S_MAX)
        await self.wake.wait(wait_s)

    def _turn(self) -> None:
        now_s = self._loop.time()
        self._take_broadcasts(now_s)
        self._audience.flush()
        self._outputs.turn()
        if self._folder_watch.turn(now_s) is not None:
            self._show_folder()
            self._note_own_token()
        if now_s >= self._end_s:  # by the clock, also while the disk gives no new look
            self._end_s = now_s + state_folder.LOOK_S
            self._audience.close_those(lambda principal: not self._auth.still_good(principal), "signed out")
        if now_s >= self._forget_s:
            self._forget_s = now_s + FORGET_S
            if self._poison_guard.forget_old():
                self._take_anew()
        self._judging.turn(now_s, self._folder_watch.seen.report)
        self._load_if_alone(now_s)
        self._ask_for_snapshot(now_s)
        if now_s >= self._keep_s and (self._keeping is None or self._keeping.done()):
            self._keep_s = now_s + KEEP_S
            self._keeping = self._loop.create_task(self._keep())
        self._beat()

    # broadcasts

    def _take_broadcasts(self, now_s: float) -> None:
        batch = self._broadcasts.take()
        if batch is not None:
            if batch.gap:
                self._log.warning("broadcasts were lost", queue=self._broadcasts.queue)
                self._gaps += 1
                self._mirror.gap()
                self._ask_for_snapshot(now_s)
                self._requests.again()
                self._outputs.grew_all()
            for item in batch.items:
                self._take_one(item, now_s)
            self._link.epoch = self._mirror.epoch
        self._broadcasts.ask()

    def _take_one(self, item: bytes, now_s: float) -> None:
        """Show one broadcast. A broadcast that cannot be shown is counted and logged."""
        pulse = self._pulse
        pulse.pulse.received += 1
        name = f"broadcast {hashlib.blake2b(item, digest_size=8).hexdigest()}"
        if self._poison_guard.is_poison(name):
            return
        pulse.take(name)
        try:
            self._show(item, name, now_s)
        except (LocalError, ValueError, msgspec.DecodeError):  # of a newer hub, or of a broken one
            self._errors += 1
            self._log.error("a broadcast that could not be shown", exc_info=True)
        pulse.put_down()  # a broadcast that ends the process stays in hand, to be blamed
        pulse.pulse.stepped += 1

    def _show(self, item: bytes, name: str, now_s: float) -> None:
        message = messages.decode_broadcast(item)
        if isinstance(message, HostsHeard):
            message = self._poison_guard.singly(name, message)
        seen = self._mirror.take(message, now_s, self._poison_guard.admit)
        self._judging.take(seen)
        if seen.heard:
            self._audience.hear(seen.heard)
            self._histories.hear(seen.heard, time.time())
            return
        for shown in seen.changes:
            self._poison_guard.in_hand(shown[0])
            self._audience.show([shown])
        self._pulse.take(name)
        if seen.new_hub:
            self._log.info("a new hub", epoch=self._mirror.epoch)
            self._ask_for_snapshot(now_s)  # before the requests, so that their changes come after the state before them
            self._requests.again()
        for change, _ in seen.changes:
            if change.kind == "command":
                self._outputs.grew(change.id)
            else:
                self._histories.take(change, time.time())
        if seen.renewed:
            self._histories.renew(self._mirror.shown.changes("host"), time.time())
            self._show_source()
            self._audience.renew()
            self._outputs.grew_all()
        if seen.replied is not None:
            self._requests.replied(seen.replied)
        if seen.again:
            self._asked_again = self._loop.create_task(self._poison_guard.forgive(seen.again))
            self._asked_again.add_done_callback(lambda _: self._take_anew())
        if seen.grew is not None:
            self._outputs.grew(seen.grew.command_id)

    # snapshots

    def _take_anew(self) -> None:
        self._mirror.gap()
        self.wake.set()

    def _ask_for_snapshot(self, now_s: float) -> None:
        if self._mirror.wants(now_s):
            snapshot = uuid.uuid4().hex
            self._mirror.ask(snapshot, now_s)
            if self._asking is not None:
                self._asking.cancel()
            self._asking = self._loop.create_task(
                self._append(messages.encode(SnapshotWanted(self._name, snapshot, hears=True)))
            )

    async def _append(self, item: bytes) -> None:
        with contextlib.suppress(QueuesAway):  # asked again a second later
            await self._link.append(messages.EVENTS, [item])

    # the database, while no hub has sent anything

    def _load_if_alone(self, now_s: float) -> None:
        if self._mirror.live or now_s < self._load_s or (self._loading is not None and not self._loading.done()):
            return
        self._load_s = now_s + LOAD_S
        self._loading = self._loop.create_task(self._load())

    async def _load(self) -> None:
        with contextlib.suppress(DatabaseUnreadable):
            epoch, changes = await self._database_reader.read(_rows)
            if not self._mirror.live:
                self._mirror.load(epoch, changes, self._poison_guard.admit)
                self._pulse.put_down()
                self._show_source()
                self._audience.renew()
                self.wake.set()

    # the histories of the hosts

    async def _remember(self) -> None:
        content = await asyncio.to_thread(history_file.read, self._kept)
        if content is None:
            return
        try:
            self._histories.restore(content, time.time())
        except ValueError as error:
            self._log.warning(
                "the hosts' histories cannot be read: they begin anew", path=str(self._kept), error=str(error)
            )

    async def _keep(self) -> None:
        """Write the histories beside the turns. If the disk refuses, the charts begin anew after a restart."""
        try:
            await asyncio.to_thread(history_file.write, self._kept, self._histories.dump())
            self._keep_told = False
        except OSError as error:
            if not self._keep_told:
                self._log.warning("the hosts' histories cannot be kept", error=str(error))
            self._keep_told = True

    # the state folder

    def _show_folder(self) -> None:
        folder_seen = self._folder_watch.seen
        for kind, rows in state_folder.rows(folder_seen).items():
            self._audience.show_rows(kind, rows)
        self._show_source()

    def _note_own_token(self) -> None:
        """Note in the audit trail that the installation's own token is another one. One fanout does so for all."""
        before, self._own_hash = self._own_hash, self._folder_watch.seen.own_hash or self._own_hash
        if before != self._own_hash and self._name in FIRST:
            self._audit_notes.note(
                Kind.TOKEN, token_id(self._own_hash), "rotated", actor="this machine", reason="operator.token"
            )

    def _show_source(self) -> None:
        """Show whether the rows come from the hub or from the database, and of which time the database's are."""
        as_of = None if self._mirror.live else rfc3339(self._folder_watch.seen.hub_record_wall_s or None)
        source: dict[str, object] = {
            "from": "hub" if self._mirror.live else "database",
            "as_of": as_of,
            "fanout": self._name,
        }
        if self._poison_guard.left_out:
            source["left_out"] = [{"kind": kind, "id": id} for kind, id in self._poison_guard.left_out.values()]
        self._audience.show_rows("source", {"source": Json(msgspec.json.encode(source))})

    # the pulse

    def _beat(self) -> None:
        pulse, audience = self._pulse.pulse, self._audience
        pulse.epoch = self._mirror.epoch
        pulse.published = audience.sent + audience.full_states
        pulse.dropped = self._gaps + audience.skipped
        pulse.errors = self._errors + audience.malformed
        pulse.refused = self._audit_notes.refused
        pulse.connections, pulse.dead_letters = len(audience.subscribers), len(self._poison_guard.left_out)
        pulse.blocked_on = Blocked.QUEUES if self._broadcasts.away else Blocked.NOTHING
        self._accepts.enter(pulse, time.monotonic_ns())
        self._pulse.beat()


def _rows(connection: sqlite3.Connection) -> tuple[int, list[Change]]:
    """Return the state in the database: hosts (as stale), open commands and the newest others, the ledger."""
    found = [
        Change("host", host.name, encode(host_view(host, Link(Presence.STALE)))) for host in fleet_db.hosts(connection)
    ]
    opened = fleet_db.commands(connection, limit=100_000, open_only=True)
    newest = fleet_db.commands(connection, limit=FINAL_COMMANDS_MAX)
    both = {command.id: command for command in (*newest, *opened)}
    for command in sorted(both.values(), key=lambda command: command.number):
        found.append(Change("command", command.id, encode(command_view(command))))
    found.append(Change("ledger", "ledger", encode(fleet_db.ledger(connection))))
    kept = fleet_db.conditions(connection, limit=STANDING_MAX)
    found += [Change("condition", each.id, encode(condition_view(each))) for each in reversed(kept)]
    found += [Change("silence", each.id, encode(silence_view(each))) for each in fleet_db.silences(connection)]
    return fleet_db.epoch(connection), found
