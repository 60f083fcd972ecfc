"""Commands' output for the connections that watch it: read from the database when it grew, and sent to each connection
from its own offset on.

A connection that does not read keeps its offset, and goes on from there when it has room: no output is skipped.
"""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from typing import Final

from processes.adapters.state import fleet_db
from processes.adapters.state.fleet_db import DatabaseUnreadable
from processes.adapters.websocket import frame_text
from processes.core.shown.views import OutputPage, output_page
from processes.core.travels import operator_frames
from processes.core.travels.operator_frames import OUTPUTS_MAX, OutputEnd, OutputFrame
from processes.core.values import CANARY_HOST, Stream
from processes.fanout.database_reader import Reader
from processes.fanout.subscribers import Subscriber

PAGE_RECORDS: Final = 1000
PAGE_BYTES_MAX: Final = 256 * 1024  # of one page; a quarter of BUFFER_BYTES_HIGH


class Outputs:
    """Which connection watches which command. All calls belong to the loop's thread."""

    def __init__(self, database_reader: Reader) -> None:
        self._database_reader = database_reader
        self._watchers: dict[str, set[Subscriber]] = {}
        self._ended: dict[tuple[Subscriber, str], int] = {}  # the next_offset of an `output_end` that was sent
        self._dirty: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None
        self.unreadable = False

    def subscribe(self, subscriber: Subscriber, command_id: str, offset: int) -> None:
        """Send the connection the command's output from `offset` on."""
        if command_id not in subscriber.watching and len(subscriber.watching) >= OUTPUTS_MAX:
            told = f"a connection is sent the output of {OUTPUTS_MAX} commands at a time: unsubscribe from one first"
            subscriber.tell_error("too_many", told, command_id=command_id)
            return
        subscriber.watching[command_id] = offset
        self._ended.pop((subscriber, command_id), None)
        self._watchers.setdefault(command_id, set()).add(subscriber)
        self.grew(command_id)

    def unsubscribe(self, subscriber: Subscriber, command_id: str | None) -> None:
        """Send the connection no more output of this command; None: of any command."""
        for watched in list(subscriber.watching) if command_id is None else [command_id]:
            subscriber.watching.pop(watched, None)
            self._ended.pop((subscriber, watched), None)
            watchers = self._watchers.get(watched, set())
            watchers.discard(subscriber)
            if not watchers:
                self._watchers.pop(watched, None)
                self._dirty.pop(watched, None)

    def grew(self, command_id: str) -> None:
        """Called when there is more output, or the command has ended."""
        if command_id in self._watchers:
            self._dirty[command_id] = None
            self.turn()

    def grew_all(self) -> None:
        """Called when messages were lost: any output may have grown."""
        for command_id in self._watchers:
            self.grew(command_id)

    def has_room(self, subscriber: Subscriber) -> None:
        """Called when a slow connection has caught up."""
        for command_id in subscriber.watching:
            self.grew(command_id)

    def turn(self) -> None:
        """Start to read, if there is output to read and no read is under way."""
        if self._dirty and (self._task is None or self._task.done()):
            if self._task is not None and not self._task.cancelled() and (error := self._task.exception()) is not None:
                raise error
            self._task = asyncio.get_running_loop().create_task(self._pump())

    async def _pump(self) -> None:
        while self._dirty:
            command_id = next(iter(self._dirty))
            del self._dirty[command_id]
            waiting = [s for s in self._watchers.get(command_id, ()) if not s.is_slow]
            for offset in sorted({s.watching[command_id] for s in waiting}):
                try:
                    page = await self._database_reader.read(partial(_page, command_id=command_id, offset=offset))
                    self.unreadable = False
                except DatabaseUnreadable:
                    self.unreadable = True
                    self._dirty[command_id] = None
                    return  # the loop's next turn tries again
                self._send(command_id, offset, page)

    def _send(self, command_id: str, offset: int, page: OutputPage | None) -> None:
        frames = b"" if page is None else b"".join(_frames(page))
        for subscriber in list(self._watchers.get(command_id, ())):
            if subscriber.watching.get(command_id) != offset or subscriber.is_slow:
                continue
            if page is None:
                self.unsubscribe(subscriber, command_id)
                subscriber.tell_error("not_found", "there is no such command", command_id=command_id)
                continue
            if frames:
                subscriber.write(frames)
                subscriber.watching[command_id] = page.next_offset
            if page.complete and self._ended.get((subscriber, command_id)) != page.next_offset:
                self._ended[subscriber, command_id] = page.next_offset
                subscriber.send(operator_frames.encode(OutputEnd(command_id, page.next_offset, page.truncated)))
            elif frames:
                self._dirty[command_id] = None  # there may be more


def _page(connection: sqlite3.Connection, command_id: str, offset: int) -> OutputPage | None:
    command = fleet_db.command(connection, command_id)
    if command is None or command.host == CANARY_HOST:
        return None
    return output_page(command, fleet_db.output(connection, command_id, offset, PAGE_RECORDS, PAGE_BYTES_MAX))


def _frames(page: OutputPage) -> list[bytes]:
    return [
        frame_text(operator_frames.encode(OutputFrame(page.command_id, r.offset, Stream(r.stream), r.data)))
        for r in page.records
    ]
