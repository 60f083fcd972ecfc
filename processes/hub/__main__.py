"""The hub, opened and closed: settings → lock, database, epoch, memory, queues → loop → close."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Final, TypeVar

from processes.adapters import bootstrap, clock, failpoint
from processes.adapters.bootstrap import Process
from processes.adapters.queue_engine import open_queues
from processes.adapters.queues import Queues, QueuesAway
from processes.core.hub import step
from processes.core.hub.memory import Memory
from processes.core.hub.rules import Rules
from processes.core.hub.turn import NOWHERE
from processes.core.travels.messages import EVENTS
from processes.core.travels.pulse import Blocked
from processes.core.values import Position
from processes.hub.loop import Loop
from processes.hub.sqlite_store import SqliteStore
from processes.hub.store import StorageBlocked, Store

RETRY_S: Final = 0.2  # between tries to open a database that is locked or full
PATIENCE_S: Final = 0.1  # an ordinary database is open by then

T = TypeVar("T")


async def main(process: Process) -> None:
    """Run a hub of a new epoch, from the state in the database to a clean stop."""
    if process.settings.file.drills.enabled:
        failpoint.allow(process.settings.failpoint)
    opened = await _open(process)
    if opened is None:
        return
    store, memory, position = opened
    link = open_queues(process.settings, process.name)
    link.epoch = process.pulse.pulse.epoch = memory.epoch
    taken_at = await _taken_at(process, link) if store.is_of_another else NOWHERE
    process.pulse.pulse.committed = store.written
    process.log.info("the hub begins", epoch=memory.epoch, hosts=memory.hosts_known, ledger=str(memory.ledger))
    try:
        await Loop(process, store, memory, link, position, taken_at=taken_at).run()
    finally:
        await asyncio.wait_for(store.close(), 1.0)
        await asyncio.wait_for(link.close(), 1.0)


Opening = Callable[[], Coroutine[None, None, Store | None]]  # None: another hub leads


def _opening(process: Process) -> tuple[Opening, Callable[[], None]]:
    """Return how the store is opened, and what is to be done if it never was. Raises: StorageBroken."""
    settings = process.settings
    url = settings.file.store.url
    if not url:
        # the pulse still says what the last hub wrote
        return lambda: SqliteStore.open(settings.database, settings.epoch_file, process.pulse.pulse), lambda: None
    from processes.hub.postgres_store import Door  # noqa: PLC0415  # psycopg is imported only where it is used

    home = f"{settings.machine} {clock.boot_id()} {settings.state}"  # after a boot it waits as others do
    door = Door(url, settings.machine, home, settings.file.hub.lease_s, settings.epoch_file)
    return door.leads, door.close


async def _taken_at(process: Process, link: Queues) -> Position:
    """Return where `events` stands now. Waits, with a pulse, while the queues are away."""
    while not process.stop.is_set():
        try:
            found = [each for each in await link.stats() if each.name == EVENTS]
            return Position(found[0].epoch, found[0].appended + found[0].dropped) if found else NOWHERE
        except QueuesAway:
            process.pulse.pulse.blocked_on = str(Blocked.QUEUES)
            process.pulse.beat()
            await asyncio.sleep(RETRY_S)
    return NOWHERE


async def _restored(process: Process, rules: Rules, opening: Opening) -> tuple[Store, Memory, Position] | None:
    gc.disable()  # what is loaded stays: the collector would look at all of it several times meanwhile
    try:
        store = await opening()
        if store is None:
            return None
        now = clock.now()
        memory = step.restore(rules, store.epoch, clock.boot_id(), now, await store.restored())
        return store, memory, await store.position()
    finally:
        gc.freeze()  # nor does it later
        gc.enable()


async def _patiently(process: Process, opening: Coroutine[None, None, T]) -> T:
    """Return the result of `opening`. A large database takes longer to check than a start may take, so the pulse says
    meanwhile that the hub waits for storage.
    """
    task = asyncio.ensure_future(opening)
    while not (await asyncio.wait({task}, timeout=PATIENCE_S))[0]:
        if process.pulse.pulse.blocked_on != Blocked.STANDBY:
            process.pulse.pulse.blocked_on = str(Blocked.STORAGE)
        process.pulse.beat()
    return task.result()


async def _open(process: Process) -> tuple[Store, Memory, Position] | None:
    """Open the database and return it with the memory restored from it. Waits, with a pulse, while the database is
    locked or the disk is full. None: the process was asked to stop before.
    """
    settings = process.settings
    rules = Rules(
        gateways=tuple(settings.names("gateway")),
        fanouts=tuple(settings.names("fanout")),
        ttl_s=settings.file.commands.ttl_s,
        lost_after_s=settings.file.commands.lost_after_s,
    )
    opening, never = _opening(process)
    while not process.stop.is_set():
        try:
            opened = await _patiently(process, _restored(process, rules, opening))
            if opened is not None:
                return opened
            blocked = Blocked.STANDBY
        except StorageBlocked as error:
            process.log.warning("the database cannot be opened now", error=str(error))
            blocked = Blocked.STORAGE
        process.pulse.pulse.blocked_on = str(blocked)
        process.pulse.beat()
        await asyncio.sleep(RETRY_S)
    never()
    return None


if __name__ == "__main__":
    bootstrap.run("hub", main)
