"""The agent's loop: take a batch → step → carry out → look at what runs → pulse."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from processes.adapters import failpoint
from processes.adapters.clock import Clock
from processes.adapters.logs import Log
from processes.adapters.ownership import NotPrivate
from processes.adapters.state.pulse_file import PulseFile
from processes.agent.journal import Journal, JournalFailed
from processes.agent.link import Link
from processes.agent.metrics import Gauge
from processes.agent.runner import Runner
from processes.core.agent.effects import (
    Effect,
    Input,
    Kill,
    Launch,
    Look,
    MakeNextToken,
    NextTokenMade,
    Recorded,
    RecordEnd,
    RecordFailed,
    RecordLaunch,
    RecordRow,
    Send,
    SettleRow,
    Ticked,
    Updated,
    UpdateFailed,
)
from processes.core.agent.remembered import JournalRow
from processes.core.agent.step import Agent, Identity
from processes.core.errors import ResourceError
from processes.core.older_python import assert_never
from processes.core.travels import agent_frames

INBOX_MAX: Final = 1000  # inputs; past it the link reads no more
BATCH_MAX: Final = 200
TICK_S: Final = 0.2
TICK_RUNNING_S: Final = 0.05  # while a command runs: its output is looked for so often
PRUNE_S: Final = 3600.0
REAP_S: Final = 5.0  # guess: a machine has room for what ends in so long
JOURNAL_LOOK_S: Final = 10.0  # how often the journal's file is looked for
SENT: Final = {
    agent_frames.CommandAck: "agent.acked",
    agent_frames.StatusFrame: "agent.reported",
}  # failpoints when such a frame is on the wire


class JournalGone(ResourceError):
    """The journal was removed, replaced or damaged, and nothing runs any more that only this agent knows of: it must
    begin anew, with a new journal.
    """


class Loop:
    """One agent, from its journal's opening to its stop."""

    def __init__(
        self, identity: Identity, *, journal: Journal, runner: Runner, link: Link, gauge: Gauge,
        log: Log, pulse: PulseFile, stop: asyncio.Event,
        clock: Clock = Clock(),  # noqa: B008  # a clock has no state
        tick_s: float = TICK_S, tick_running_s: float = TICK_RUNNING_S, journal_look_s: float = JOURNAL_LOOK_S,
    ) -> None:  # fmt: skip
        """`identity`: without the journal's id, which is known once the journal is open."""
        self._identity, self._journal, self._runner, self._link, self._gauge = identity, journal, runner, link, gauge
        self._log, self._pulse, self._stop, self._clock = log, pulse, stop, clock
        self._tick_s, self._tick_running_s = tick_s, tick_running_s
        runner.on_exit = self._look_now
        self._inbox: asyncio.Queue[Input] = asyncio.Queue(INBOX_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []  # of tasks: the first ends this agent
        self._looking = False
        self._look_mono_s = 0.0  # when to look again
        self._prune_mono_s = 0.0
        self._reap_mono_s = 0.0
        self._journal_look_s = journal_look_s
        self._journal_look_mono_s = self._clock.mono_s() + journal_look_s
        self._is_journal_gone = False
        self._agent: Agent

    async def run(self) -> None:
        """Serve until `stop`.

        Raises: JournalFailed, if there is no journal to rely on; JournalGone, if there is none any more.
        """
        unsettled = await self._journal.open()
        if self._journal.put_aside is not None:
            self._log.error("the journal was damaged, and a new one is begun: what was open is lost",
                            kept=str(self._journal.put_aside))  # fmt: skip
        identity = msgspec.structs.replace(self._identity, journal_id=self._journal.id)
        self._agent = Agent(identity, unsettled)
        for removed in await self._runner.tidy({row.command_id for row in unsettled}):
            self._log.info("run folder without a command removed", folder=removed)
        ops = ",".join(identity.offers)
        self._log.info("journal open", journal_id=identity.journal_id, unacknowledged=len(unsettled), ops=ops)
        try:
            await self._look_back()
            self._start(self._link.run(self._inbox.put))
            while not (self._stop.is_set() or self._must_begin_anew or self._failures):
                await self._turn()
            await self._link.close()
        finally:
            await self._end_tasks()
            self._runner.close()
            self._gauge.close()
            self._journal.close()
        if self._failures:
            raise self._failures[0]
        if self._must_begin_anew and not self._stop.is_set():
            raise JournalGone("the journal was removed, replaced or damaged: this agent begins anew, with a new one")

    @property
    def _must_begin_anew(self) -> bool:
        return self._is_journal_gone and self._agent.may_forget

    async def _turn(self) -> None:
        pulse = self._pulse.pulse
        for happened in await self._batch():
            self._step(happened)
            pulse.received += 1
        self._step(Ticked(self._gauge.poll()))
        self._look()
        self._prune()
        self._look_for_journal()
        self._reap()
        pulse.stepped = pulse.received
        pulse.backlog = self._inbox.qsize()
        pulse.connections = self._agent.running
        pulse.hosts, pulse.online = 1, int(self._agent.registered)
        pulse.errors = self._link.malformed
        self._pulse.beat()

    async def _batch(self) -> list[Input]:
        batch: list[Input] = []
        try:
            tick_s = self._tick_running_s if self._agent.looks() else self._tick_s
            batch.append(await asyncio.wait_for(self._inbox.get(), tick_s))
        except asyncio.TimeoutError:
            return batch
        while len(batch) < BATCH_MAX and not self._inbox.empty():
            batch.append(self._inbox.get_nowait())
        return batch

    def _step(self, happened: Input) -> None:
        for effect in self._agent.step(happened, self._clock.now()):
            self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            frame = effect.frame
            self._link.send(effect.number, agent_frames.encode(frame), SENT.get(type(frame), ""))
            self._pulse.pulse.delivered += 1
        elif isinstance(effect, RecordRow):
            self._start(self._record(effect))
        elif isinstance(effect, RecordLaunch):
            self._start(self._update(effect.row, prepare=True))
        elif isinstance(effect, RecordEnd):
            self._start(self._update(effect.row, prepare=False))
        elif isinstance(effect, SettleRow):
            self._start(self._settle(effect))
        elif isinstance(effect, MakeNextToken):
            self._start(self._make_token())
        elif isinstance(effect, Launch):
            self._log.info("starting", command_id=effect.command_id, op=effect.op)
            launch = self._runner.launch(effect.command_id, effect.op)
            self._start(self._guarded(launch, "could not start", effect.command_id))
        elif isinstance(effect, Kill):
            self._log.info("cancelling", command_id=effect.command_id, signal=effect.signal)
            kill = self._runner.kill(effect.command_id, effect.signal)
            self._start(self._guarded(kill, "could not cancel", effect.command_id))
        else:
            assert_never(effect)

    async def _make_token(self) -> None:
        try:
            token_hash = await self._link.make_token()
        except (OSError, NotPrivate) as error:  # the hub asks again at the next connection
            self._log.error("no new token could be made: the old one stays", error=str(error))
        else:
            await self._inbox.put(NextTokenMade(token_hash))

    async def _record(self, effect: RecordRow) -> None:
        row = effect.row
        failpoint.reach("agent.received")
        try:
            known = await self._journal.record(row)
        except JournalFailed as error:
            self._log.error("journal failed: command refused", command_id=row.command_id, op=row.op, error=str(error))
            self._journal_look_mono_s = 0.0
            await self._inbox.put(RecordFailed(row.command_id, error.reason))
        else:
            failpoint.reach("agent.journalled")
            self._pulse.pulse.committed += 1
            await self._inbox.put(Recorded(row.command_id, known))

    async def _update(self, row: JournalRow, *, prepare: bool) -> None:
        """The folder first: what the journal calls launched must have one, or it would be taken for lost."""
        try:
            if prepare:
                await self._runner.prepare(row.command_id)
            # plant: launch-durable
            await self._journal.update(row)
        except (JournalFailed, OSError) as error:
            self._log.error("not recorded, tried again", command_id=row.command_id, op=row.op, error=str(error))
            self._journal_look_mono_s = 0.0
            await self._inbox.put(UpdateFailed(row.command_id))
        else:
            self._pulse.pulse.committed += 1
            await self._inbox.put(Updated(row))

    async def _settle(self, effect: SettleRow) -> None:
        failpoint.reach("agent.acknowledged")
        try:
            await self._journal.update(effect.row)
        except JournalFailed as error:
            self._log.error(
                "journal failed: a report will be sent again", command_id=effect.row.command_id, error=str(error)
            )
            self._journal_look_mono_s = 0.0
            return
        failpoint.reach("agent.settled")
        if effect.forget:
            await self._runner.remove(effect.row.command_id)

    async def _guarded(self, call: Coroutine[Any, Any, None], failed: str, command_id: str) -> None:
        try:
            await call
        except OSError as error:  # the next look finds the command not started: it is tried again, or reported
            self._log.error(failed, command_id=command_id, error=str(error))

    async def _look_back(self) -> None:
        """Look once into every run folder that the agent before this one left: a command that has ended meanwhile must
        not make this agent busy.
        """
        for look in self._agent.looks():
            try:
                self._step(await self._runner.look(look))
            except OSError as error:
                self._log.error("could not look into a run folder", command_id=look.command_id, error=str(error))

    def _look_now(self) -> None:
        """Called when a command has ended: its report does not wait for the next look."""
        self._look_mono_s = 0.0
        self._look()

    def _look(self) -> None:
        """Begin a round of looks on the runner's thread, one round at a time; the results come through the inbox."""
        if self._looking or self._clock.mono_s() < self._look_mono_s:
            return
        looks = self._agent.looks()
        if not looks:
            return
        if self._link.is_full:
            looks = [look._replace(room_bytes=0) for look in looks]
        self._looking = True
        self._look_mono_s = self._clock.mono_s() + self._tick_running_s

        async def round_of_looks() -> None:
            try:
                for look in looks:
                    await self._look_at(look)
            finally:
                self._looking = False

        self._start(round_of_looks())

    async def _look_at(self, look: Look) -> None:
        try:
            seen = await self._runner.look(look)
        except OSError as error:  # the others are looked at all the same
            self._log.error("could not look into a run folder", command_id=look.command_id, error=str(error))
            await asyncio.sleep(1.0)
            return
        if seen.ended is not None:
            failpoint.reach("agent.exited")
        if seen.records:
            self._look_mono_s = 0.0  # there may be more: at once
        await self._inbox.put(seen)

    def _prune(self) -> None:
        if self._clock.mono_s() < self._prune_mono_s:
            return
        self._prune_mono_s = self._clock.mono_s() + PRUNE_S

        async def prune() -> None:
            try:
                await self._journal.prune(self._clock.now(), self._identity.boot_id)
            except JournalFailed as error:
                self._log.error("journal not pruned", error=str(error))

        self._start(prune())

    def _look_for_journal(self) -> None:
        """Find out now and then whether the journal's file is still there."""
        if self._is_journal_gone or self._clock.mono_s() < self._journal_look_mono_s:
            return
        self._journal_look_mono_s = self._clock.mono_s() + self._journal_look_s

        async def look() -> None:
            self._is_journal_gone = not await self._journal.is_ours()
            if self._is_journal_gone:
                self._log.error("the journal is gone or damaged: no new command is taken until what runs has ended",
                                unacknowledged=self._agent.unacknowledged)  # fmt: skip

        self._start(look())

    def _reap(self) -> None:
        """Collect, now and then, the exits of processes that are this agent's only because their parents are gone."""
        if self._clock.mono_s() >= self._reap_mono_s:
            self._reap_mono_s = self._clock.mono_s() + REAP_S
            self._start(self._runner.reap())

    def _start(self, call: Coroutine[Any, Any, None]) -> None:
        """Run `call` beside the loop; if it raises, the whole agent ends and its supervisor starts it anew."""
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._on_end)

    def _on_end(self, task: asyncio.Task[None]) -> None:
        """Called when a task has ended."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failures.append(error)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
