"""One simulated house: its processes, its hosts, its operators, and what befalls them. A seed is a run."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import hashlib
import itertools
import random
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, NamedTuple

from simulation import gateway_side, hub_side, operator_side
from simulation.agent_side import OPS, Machine
from simulation.faults import Faults
from simulation.foreign_side import FOREIGN_OPS, ForeignMachine
from simulation.invariants import Witness
from simulation.operator_side import Operator
from simulation.queues_side import VirtualLink, VirtualQueues
from simulation.schedule import Draws, Schedule
from simulation.timeline import LIFE, Clock, Life, VirtualLoop, task_of_a_life

from processes.adapters.queues import QueuesAway
from processes.core.errors import Fenced
from processes.core.records.dead_letter import Why
from processes.core.travels.messages import CancelRun, StartRun
from processes.hub.store import StorageBroken

# then whatever has not settled is stuck; the longest legitimate wait is hub_side.LOST_AFTER_S and a backoff
HEAL_S_MAX = 500.0
LOOK_S = 2.0
STEADY_LOOKS = 2  # settled for so many looks in a row


class Outcome(NamedTuple):
    """How a run went."""

    seed: int
    wrong: list[str]
    counts: Counter[str]
    simulated_s: float


class World:
    """Everything there is."""

    def __init__(self, schedule: Schedule, tell: Callable[[str], None] | None = None) -> None:
        self.schedule = schedule
        self._streams: dict[str, random.Random] = {}
        self.loop = VirtualLoop()
        self.loop.set_task_factory(task_of_a_life)  # type: ignore[arg-type]
        self.loop.set_exception_handler(self._unhandled)
        self._tell = tell
        self.counts: Counter[str] = Counter()
        self.numbers = itertools.count(1)
        self._made_of = draws = schedule.acts_of("world", 1)[0]
        self.heartbeat_s = draws.choice("heartbeat_s", (5.0, 10.0))
        # in every third run the fleet is too large for its interval, and is told a longer one
        self.heartbeats_per_s = 0.3 if schedule.seed % 3 == 0 else 1000.0
        # in every second run a step takes one host of a fleet run, as if there were many more
        self.run_parts_max = 1 if schedule.seed % 2 == 0 else 100
        self.gateway_names = ("gateway",) if draws.happens("one_gateway", 0.7) else ("gateway:0", "gateway:1")
        self.fanout_names = ("fanout",) if draws.happens("one_fanout", 0.8) else ("fanout:0", "fanout:1")
        self.house_clock = Clock(self.loop, "house")
        self.witness = Witness(self)
        self.disk = hub_side.HubDisk(self)
        self.queues = VirtualQueues(self)
        self.hubs: list[tuple[Life, Any, Any]] = []
        self.hub_pulse: Any = None  # the newest hub's
        self.gateways: list[tuple[Life, Any]] = []
        self.fanouts: list[tuple[Life, Any]] = []
        self.wires: dict[Any, None] = {}
        self.machines: list[Any] = [
            Machine(self, f"h{number}", draws.choice(f"clock_off_s_h{number}", (0.0, 0.0, -3600.0, 86400.0)))
            for number in range(draws.number("hosts", 1, 3))
        ]
        if draws.happens("foreign_host", 0.35):
            self.machines.append(ForeignMachine(self, "nix"))
        self.operator = Operator(self)
        self.faults = Faults(self)
        self.house: list[Life] = []
        self._scripts: dict[asyncio.Task[Any], None] = {}
        self._chaos_s = draws.uniform("chaos_s", 20.0, 90.0)

    # what everybody uses

    @property
    def dice(self) -> random.Random:
        """The dice of the process in which this is asked: what one process draws moves no other's."""
        life = LIFE.get(None)
        name = life.name if life is not None else "world"
        if name not in self._streams:
            self._streams[name] = self.schedule.dice(name)
        return self._streams[name]

    def machine(self, name: str) -> Any:
        """The machine of this name."""
        return next(machine for machine in self.machines if machine.name == name)

    def trace(self, who: str, text: str) -> None:
        """A line for a person, if one reads."""
        if self._tell is not None:
            self._tell(f"{self.loop.now_s - 1000:9.3f} {who:<12} {text}")

    def frame(self, sender: Life, receiver: Life, text: bytes) -> None:
        """Called when a frame goes onto a wire."""

    def closes(self, sender: Life, receiver: Life, code: int) -> None:
        """Called when one end closes a wire."""

    def count(self, name: str) -> None:
        """One more of these."""
        self.counts[name] += 1

    def io_s(self) -> float:
        """How long one local I/O takes: mostly a moment, sometimes long."""
        chance = self.dice.random()
        return 0.0002 + chance * 0.003 if chance < 0.97 else self.dice.uniform(0.01, 0.3)

    def net_s(self) -> float:
        """How long one frame is on its way."""
        chance = self.dice.random()
        return 0.001 + chance * 0.02 if chance < 0.97 else self.dice.uniform(0.05, 1.5)

    def after(self, delay_s: float, call: Callable[[], object]) -> None:
        """Something happens that belongs to no process."""
        self.loop.call_later(delay_s, call)

    def hash(self, token: str) -> str:
        """As the house keeps tokens."""
        return hashlib.sha256(token.encode()).hexdigest()

    def link(self, life: Life, role: str) -> VirtualLink:
        """A way to the queues."""
        return VirtualLink(self, life, role)

    def log(self, life: Life) -> Any:
        """A log that goes to the trace; a step that raised is a fault of ours."""

        def line(text: str, **more: Any) -> None:
            if self._tell is not None:
                more.pop("exc_info", None)
                self.trace(life.name, f"{text} {more if more else ''}")

        def error(text: str, **more: Any) -> None:
            if more.get("why") == Why.RAISED or "put aside in order" in text:
                self.witness.blame("I3", f"{text}: {more.get('error') or traceback.format_exc(limit=-4)}")
            line(text, **more)

        return SimpleNamespace(debug=line, info=line, warning=line, error=error)

    def lives(self) -> list[Life]:
        """All processes and agents that live."""
        return [life for life in (*self.house, *(m.life for m in self.machines if m.life is not None)) if life.alive]

    def hub_of_now(self) -> tuple[Life, Any, Any] | None:
        """The hub of the newest epoch, if it lives."""
        return next((hub for hub in reversed(self.hubs) if hub[0].alive), None)

    # processes

    def start_hub(self) -> None:
        """One more hub."""
        self._start("hub", hub_side.main)

    def _start(self, name: str, main: Callable[[World, Life], Coroutine[Any, Any, None]]) -> None:
        life = Life(self.loop, name, self.house_clock, self.ended)
        self.house = [other for other in self.house if other.alive]
        self.house.append(life)
        self.trace(name, "starts")
        life.begin(main(self, life))

    def ended(self, life: Life, error: BaseException | None) -> None:
        """A life has ended: its connections break, and its supervisor starts the next one."""
        self.trace(life.name, f"ends: {life.ended_by}")
        # its last commit
        stopping = isinstance(error, TimeoutError) and life.machine is not None and life.machine.stop.is_set()
        if error is not None and not stopping and not isinstance(error, Fenced | StorageBroken):
            self.witness.blame("L4", f"{life.name} died of {error!r}")
        for wire in [wire for wire in self.wires if wire.belongs(life)]:
            wire.ended_by(life)
        delay_s = self.dice.uniform(0.05, 1.5)
        if life.name == "hub":
            self.after(delay_s, self._hub_again)
        elif life.name.startswith("gateway"):
            self.after(delay_s, lambda: self._start(life.name, gateway_side.main))
        elif life.name.startswith("fanout"):
            self.after(delay_s, lambda: self._start(life.name, operator_side.main))
        elif isinstance(life.machine, Machine | ForeignMachine):
            self.after(self.dice.uniform(0.1, 3.0), life.machine.start)

    def _hub_again(self) -> None:
        if not any(life.alive and life.name == "hub" for life in self.house):
            self.start_hub()

    def _unhandled(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        expected = (asyncio.CancelledError, Fenced, StorageBroken, QueuesAway)
        if error is not None and not isinstance(error, expected):
            self.witness.blame("L4", f"unhandled: {context.get('message')}: {error!r}")

    # the run

    def run(self) -> Outcome:
        """Faults, healing, judgement."""
        main = self.loop.create_task(self._run())
        try:
            self.loop.run_until_complete(main)
        finally:
            self._end_all()
        self.disk.sqlite.close()
        return Outcome(self.schedule.seed, self.witness.wrong, self.counts, self.loop.now_s - 1000.0)

    async def _run(self) -> None:
        self.queues.start()
        self.start_hub()
        for name in self.gateway_names:
            self._start(name, gateway_side.main)
        for name in self.fanout_names:
            self._start(name, operator_side.main)
        for machine in self.machines:
            self._script(self.operator.enroll(machine))
        await asyncio.sleep(self._made_of.uniform("begins_s", 0.5, 3.0))
        for story in self.schedule.acts_of("story", self._made_of.number("stories", 3, 14)):
            self._script(self._story(story))
        for fault in self.schedule.acts_of("fault", self._made_of.number("faults", 6, 30)):
            self.after(fault.uniform("at_s", 0.0, self._chaos_s), functools.partial(self.faults.strike, fault))
        await asyncio.sleep(self._chaos_s)
        self.trace("world", "healed")
        self.faults.heal()
        await self._settle()
        if not self.witness.wrong:
            self.witness.judge()

    async def _settle(self) -> None:
        until_s, steady, why = self.loop.now_s + HEAL_S_MAX, 0, [""]
        while steady < STEADY_LOOKS and not self.witness.wrong:
            await asyncio.sleep(LOOK_S)
            why = self.witness.unsettled()
            steady = 0 if why else steady + 1
            if self.loop.now_s > until_s:
                for text in why[:5] or ["L3: never steady"]:
                    self.witness.blame(*text.split(": ", 1))
                return

    def _script(self, script: Coroutine[Any, Any, Any]) -> None:
        task = self.loop.create_task(script)
        self._scripts[task] = None
        task.add_done_callback(lambda done: self._scripts.pop(done, None))

    async def _story(self, draws: Draws) -> None:
        """What one operator does: a command for some hosts, perhaps its cancel, perhaps a host that moves."""
        await asyncio.sleep(draws.uniform("at_s", 0.0, self._chaos_s))
        hosts = [machine.name for machine in self.machines]
        if draws.happens("moves", 0.05):
            await self.operator.move(self.machine(draws.choice("host", hosts)))
            return
        if draws.happens("is_run", 0.15):
            await self._run_story(draws, hosts)
            return
        op = draws.choice("op", sorted(OPS.keys() | FOREIGN_OPS.keys()))
        wanted = draws.sample("hosts", hosts, min(2, len(hosts)))
        ttl_s = draws.choice("ttl_s", (0.0, 3.0, 20.0, 60.0, 120.0))
        insists = draws.happens("insists", 0.7)
        keyed = insists or draws.happens("keyed", 0.7)
        ids = await self.operator.give(op, wanted, ttl_s, insists=insists, keyed=keyed)
        self.counts["commands"] += len(ids)
        if ids and draws.happens("cancelled", 0.25):
            await asyncio.sleep(draws.uniform("cancel_after_s", 0.0, 8.0))
            await self.operator.cancel(ids[draws.number("cancels", 0, len(ids) - 1) % len(ids)])

    async def _run_story(self, draws: Draws, hosts: list[str]) -> None:
        """A fleet run, and perhaps its cancel."""
        asked = StartRun(
            draws.sample("steps", sorted(OPS.keys() & FOREIGN_OPS.keys()), 3),
            draws.sample("hosts", hosts, len(hosts)),
            parallel=draws.choice("parallel", (None, 1, 2)),
            max_failures=draws.choice("max_failures", (None, 0, 1)),
            ttl_s=draws.choice("ttl_s", (20.0, 60.0, 120.0)),
            key=f"run-{next(self.numbers)}",
        )
        run_id = await self.operator.start(asked)
        self.counts["runs"] += bool(run_id)
        if run_id and draws.happens("cancelled", 0.2):
            await asyncio.sleep(draws.uniform("cancel_after_s", 0.0, 20.0))
            await self.operator.insist(CancelRun(run_id))

    def _end_all(self) -> None:
        for life in self.lives():
            life._on_end = lambda *_: None
            life.end("the end")
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        with contextlib.suppress(Exception):
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.forget_all()
        self.loop.close()


def simulate(seed: int, tell: Callable[[str], None] | None = None) -> Outcome:
    """One run, from its seed to its judgement."""
    return replay(Schedule(seed), tell)


def replay(schedule: Schedule, tell: Callable[[str], None] | None = None) -> Outcome:
    """One run by this schedule, which afterwards holds every draw of it."""
    was_on = gc.isenabled()
    gc.disable()  # a coroutine that a cycle keeps would else be closed at a time of the collector's choice
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return World(schedule, tell).run()
    finally:
        if was_on:
            gc.enable()
