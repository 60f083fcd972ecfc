"""The hub, opened and closed: settings → lock, database, epoch, memory, queues → loop → close."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine
from typing import Final, TypeVar

from processes.adapters import bootstrap, clock, failpoint
from processes.adapters.bootstrap import Process
from processes.adapters.queue_engine import open_queues
from processes.core.hub import step
from processes.core.hub.memory import Memory
from processes.core.hub.rules import Rules
from processes.core.travels.pulse import Blocked
from processes.core.values import Position
from processes.hub.loop import Loop
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
    process.pulse.pulse.committed = store.written
    process.log.info("the hub begins", epoch=memory.epoch, hosts=memory.hosts_known, ledger=str(memory.ledger))
    try:
        await Loop(process, store, memory, link, position).run()
    finally:
        await asyncio.wait_for(store.close(), 1.0)
        await asyncio.wait_for(link.close(), 1.0)


async def _restored(process: Process, rules: Rules) -> tuple[Store, Memory, Position]:
    settings, pulse = process.settings, process.pulse.pulse
    gc.disable()  # what is loaded stays: the collector would look at all of it several times meanwhile
    try:
        store = await Store.open(settings.database, settings.epoch_file, pulse)  # it still says what the last hub wrote
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
    while not process.stop.is_set():
        try:
            return await _patiently(process, _restored(process, rules))
        except StorageBlocked as error:
            process.log.warning("the database cannot be opened now", error=str(error))
            process.pulse.pulse.blocked_on = str(Blocked.STORAGE)
            process.pulse.beat()
            await asyncio.sleep(RETRY_S)
    return None


if __name__ == "__main__":
    bootstrap.run("hub", main)
