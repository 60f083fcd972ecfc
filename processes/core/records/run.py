"""A fleet run: several steps on many hosts, a few hosts at a time. Its record, its view and its progress. Pure.

        running ──▶ succeeded        every host went through every step
           │  └───▶ failed           a host failed, or some were not attempted
           └──────▶ cancelled        an operator asked for it, and the commands under way have ended

A host leaves the run at its first step that does not succeed. Once more than `max_failures` hosts have failed, no
further host is begun; those under way go on. Hosts that were not begun are counted in the run, but in no ledger: no
command was ever made for them.

A run's own record does not grow with its hosts: it counts them. Their names are a row beside it, written once, and each
host that was begun has a row for its part. Hosts begin in the order of their names in that row, so that `begun` says
which is the next, and those that were never begun have no row.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

import msgspec

from processes.core.records.command import Command, State
from processes.core.values import Time, rfc3339


class RunState(enum.StrEnum):
    """How far a run is."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Part(enum.StrEnum):
    """How far one host is in a run."""

    PENDING = "pending"
    ACTIVE = "active"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NOT_ATTEMPTED = "not_attempted"


class HostPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """One host's part. `step`: the index of the step where it is, or where it left; `command_id`: of that step."""

    host: str
    part: Part = Part.PENDING
    step: int = 0
    command_id: str = ""
    reason: str = ""
    cancelled: bool = False  # it has failed because an operator ended it


def part_key(run_id: str, host: str) -> str:
    """Return the key of the row of this host's part in the run. A run's id has no slash."""
    return f"{run_id}/{host}"


class Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run as it is in the database, without its hosts: they are counted.

    Invariant: succeeded + failed <= begun <= total, and at most `parallel` hosts are active.
    """

    id: str
    number: int
    steps: list[str]
    total: int  # hosts
    parallel: int
    max_failures: int | None  # None: failures stop nothing
    ttl_s: float
    actor: str
    created_wall_s: float
    key: str | None = None
    state: RunState = RunState.RUNNING
    cancel_wall_s: float | None = None
    cancel_actor: str = ""
    finished_wall_s: float | None = None
    begun: int = 0  # so many hosts, the first ones
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0  # of those that failed: because an operator ended them
    asked: int = 0  # of the first so many hosts, the commands under way were asked to end
    query: str = ""  # by which its hosts were found; empty: they were named

    @property
    def open(self) -> bool:
        """Return True until the run has ended."""
        return self.state is RunState.RUNNING

    @property
    def active(self) -> int:
        """Return how many hosts are under way."""
        return self.begun - self.succeeded - self.failed

    @property
    def stopped(self) -> bool:
        """Return True if no further host may be begun."""
        too_many = self.max_failures is not None and self.failed > self.max_failures
        # plant: run-failures
        return too_many or self.cancel_wall_s is not None


def judged(part: HostPart, command: Command | None, steps: int) -> HostPart:
    """Return the part as its command says: unchanged, at the next step (active, but without a command), or ended.

    `command` None: it ended so long ago that it is not remembered, or its host was removed. Nobody saw it succeed, so
    the part has failed.
    """
    if part.part is not Part.ACTIVE or not part.command_id or (command is not None and command.open):
        return part
    if command is None:
        return msgspec.structs.replace(part, part=Part.FAILED, reason="forgotten")
    if command.state is not State.SUCCEEDED:
        cancelled = command.state is State.CANCELLED
        reason = command.reason or str(command.state)
        return msgspec.structs.replace(part, part=Part.FAILED, reason=reason, cancelled=cancelled)
    if part.step + 1 == steps:
        return msgspec.structs.replace(part, part=Part.SUCCEEDED)
    return msgspec.structs.replace(part, step=part.step + 1, command_id="")


def room(run: Run) -> int:
    """Return how many further hosts may be begun now."""
    if run.stopped:
        return 0
    # plant: run-room
    return max(0, min(run.parallel - run.active, run.total - run.begun))


def counted(run: Run, was: Part, now: HostPart) -> Run:
    """Return the run with one host's part counted in its new state."""
    return msgspec.structs.replace(
        run,
        begun=run.begun + (was is Part.PENDING),
        succeeded=run.succeeded + (now.part is Part.SUCCEEDED),
        failed=run.failed + (now.part is Part.FAILED),
        cancelled=run.cancelled + (now.part is Part.FAILED and now.cancelled),
    )


def settled(run: Run, now_wall_s: float) -> Run:
    """Return the run, ended if no host is under way and none will be begun."""
    if run.active or room(run):
        return run
    good = run.succeeded == run.total
    state = RunState.SUCCEEDED if good else RunState.CANCELLED if run.cancel_wall_s is not None else RunState.FAILED
    return msgspec.structs.replace(run, state=state, finished_wall_s=now_wall_s)


class PartView(msgspec.Struct, frozen=True):
    """One host's part in the API and the CLI."""

    host: str
    state: Part
    step: int
    op: str
    command_id: str | None
    reason: str
    cancelled: bool = False  # it has failed because an operator ended it


class RunView(msgspec.Struct, frozen=True):
    """A run in the API and the CLI. The counts add up to `total`."""

    id: str
    state: RunState
    steps: list[str]
    parallel: int
    max_failures: int | None
    ttl_s: float
    actor: str
    key: str | None
    created_at: Time | None
    finished_at: Time | None
    cancel_requested_at: Time | None
    total: int
    pending: int
    active: int
    succeeded: int
    failed: int
    not_attempted: int
    hosts: list[PartView]
    query: str = ""
    cancelled: int = 0  # of those that failed: because an operator ended them
    cancel_requested_by: str = ""


def run_view(run: Run, names: Iterable[str] = (), parts: Mapping[str, HostPart] | None = None) -> RunView:
    """Return the run as the API shows it, with the parts of these hosts: of those begun, `parts` by their names."""
    waiting = run.total - run.begun
    unbegun = Part.PENDING if run.open else Part.NOT_ATTEMPTED
    known = parts or {}
    hosts = [known.get(name) or HostPart(name, unbegun) for name in names]
    return RunView(
        id=run.id,
        state=run.state,
        steps=run.steps,
        parallel=run.parallel,
        max_failures=run.max_failures,
        ttl_s=run.ttl_s,
        actor=run.actor,
        key=run.key,
        created_at=rfc3339(run.created_wall_s),
        finished_at=rfc3339(run.finished_wall_s),
        cancel_requested_at=rfc3339(run.cancel_wall_s),
        total=run.total,
        pending=waiting if run.open else 0,
        active=run.active,
        succeeded=run.succeeded,
        failed=run.failed,
        not_attempted=0 if run.open else waiting,
        hosts=[
            PartView(
                host.host,
                host.part,
                host.step,
                run.steps[host.step],
                host.command_id or None,
                host.reason,
                host.cancelled,
            )
            for host in hosts
        ],
        query=run.query,
        cancelled=run.cancelled,
        cancel_requested_by=run.cancel_actor,
    )
