"""`python -m processes.fanout MEMBER`: the operators' WebSockets, API and page. MEMBER counts from 1; supervisord's
member 0 holds the listening socket.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from importlib.metadata import version
from typing import Final

from processes.adapters import bootstrap, tls
from processes.adapters.accepts import Accepts
from processes.adapters.bootstrap import Process
from processes.adapters.queue_engine import open_queues
from processes.adapters.state import deaf_file, session_files, sightings
from processes.core.fanout.history import Histories
from processes.core.fanout.mirror import Mirror
from processes.fanout import poison_row, server, state_folder
from processes.fanout.application import application
from processes.fanout.audit_notes import AuditNotes
from processes.fanout.auth import Auth
from processes.fanout.change_api import ChangeApi
from processes.fanout.condition_api import ConditionApi
from processes.fanout.database_reader import DatabaseReader, Reader
from processes.fanout.dead_letter_api import DeadLetterApi
from processes.fanout.judging import Judging
from processes.fanout.loop import Loop, Parts
from processes.fanout.metrics import Metrics
from processes.fanout.outputs import Outputs
from processes.fanout.poison_guard import PoisonGuard
from processes.fanout.read_api import ReadApi
from processes.fanout.request_budget import RequestBudget
from processes.fanout.requests import Requests
from processes.fanout.state_folder import FolderWatch
from processes.fanout.subscribers import Audience
from processes.fanout.token_uses import TokenUses

QUEUES_S_MAX: Final = 2.0  # for one call


async def main(process: Process) -> None:
    """Open the resources, turn until the process is asked to stop, close them in reverse order."""
    settings = process.settings
    sock = bootstrap.listening_socket()
    accepts = Accepts(sock)
    folder_watch = FolderWatch(settings, await asyncio.to_thread(state_folder.look, settings, None))
    link = open_queues(settings, process.name, timeout_s=QUEUES_S_MAX)
    token_uses = TokenUses(link, process.name)
    auth = Auth(settings, folder_watch, session_files.cookie_key(settings.run), on_token_use=token_uses.tell)
    database_reader = _database_reader(process)
    mirror = Mirror()
    audience = Audience(mirror, process.log)
    requests = Requests(link, process.name, process.log)
    histories = Histories(time.time())
    guessed = functools.partial(sightings.say, settings.run, sightings.GUESSED, process.name.replace(":", "-"))
    threads = asyncio.get_running_loop()
    audit_notes = AuditNotes(link, process.name, lambda text: threads.run_in_executor(None, guessed, text))
    parts = Parts(
        link, mirror, audience, Outputs(database_reader), requests, folder_watch, auth, audit_notes, database_reader,
        histories, settings.histories / process.name, accepts,
        Judging(settings, process.name, link, mirror, database_reader, process.log, version("fleethub")),
    )  # fmt: skip
    read_api = ReadApi(settings, mirror, database_reader, Metrics(settings), histories)
    trusted = settings.file.operators.proxies()
    change_api = ChangeApi(settings, auth, requests, mirror, read_api, audit_notes)
    dead_letter_api = DeadLetterApi(auth, database_reader, requests)
    condition_api = ConditionApi(mirror, database_reader, requests, read_api.finder, lambda: folder_watch.seen.report)
    app = application(
        change_api, read_api, auth, audit_notes, dead_letter_api, condition_api, trusted=trusted, budget=RequestBudget()
    )

    def turned_away() -> None:
        process.pulse.pulse.turned_away += 1

    subscriber = server.subscriber_class(audience, auth, audit_notes, trusted)
    web = server.make_server(
        app, settings.file.tls, subscriber, process.log, on_accepted=accepts.count, on_turned_away=turned_away
    )
    accepts.is_short = lambda: web.is_short
    poison_guard = PoisonGuard(
        process.name, process.pulse, process.poison, link, process.log, drilled=poison_row.poison_row(settings)
    )
    loop = Loop(process.name, parts, process.pulse, poison_guard, process.log)
    await loop.load()
    serving = asyncio.create_task(web.serve(sockets=[sock]))
    serving.add_done_callback(lambda _: process.stop.set())  # the server ends by itself only if it is broken
    renewing = asyncio.create_task(tls.follow(web.config.ssl, settings.file.tls, process.log))
    rehearsing = asyncio.create_task(deaf_file.follow(settings, process.name, web.deafen))
    try:
        await loop.run(process.stop)
        accepts.end()
        web.end()  # the server tells every connection, including WebSockets
        await loop.finish(serving)
        serving.result()
    finally:
        renewing.cancel()
        rehearsing.cancel()
        await audit_notes.leave()
        database_reader.close()
        await link.close()


def _database_reader(process: Process) -> Reader:
    settings = process.settings
    if not settings.file.store.url:
        return DatabaseReader(settings.database)
    from processes.fanout.postgres_reader import PostgresReader  # noqa: PLC0415  # psycopg only where it is wanted

    return PostgresReader(settings.file.store.url, process.name)


if __name__ == "__main__":
    member = sys.argv[1] if len(sys.argv) == 2 else ""
    if not member.isascii() or not member.isdigit() or int(member) < 1:
        print("usage: python -m processes.fanout MEMBER (from 1)", file=sys.stderr)
        sys.exit(64)  # EX_USAGE of sysexits.h
    bootstrap.run("fanout", main, int(member) - 1)
