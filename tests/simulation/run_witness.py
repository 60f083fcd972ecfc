"""What must hold of fleet runs, seen at each commit: never more hosts at once than asked for, none begun past the
limit, each run ends.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from processes.core.hub.effects import Put
from processes.core.records.run import HostPart, Part, Run, RunState

if TYPE_CHECKING:
    from simulation.invariants import Witness

AFTER = {  # of a host's part; written out once more, on purpose
    Part.PENDING: {Part.ACTIVE, Part.SUCCEEDED, Part.FAILED},
    Part.ACTIVE: {Part.ACTIVE, Part.SUCCEEDED, Part.FAILED},
}


class RunWitness:
    """Every run as it stands on disk, beside its commands."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._disk: dict[str, Run] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._parts: dict[str, dict[str, HostPart]] = {}  # of each run: host → its part, if it has begun
        self._touched: dict[str, None] = {}  # the runs in the transaction
        self._promised: list[str] = []

    def accepted(self, run_id: str) -> None:
        """An operator holds a 202, or the 200 of asking again."""
        self._promised.append(run_id)
        self._witness.expect("I1", run_id in self._disk, f"run {run_id[:6]} was accepted and is not on disk")

    def put(self, put: Put) -> None:
        """A row is written, in a transaction that is not over yet."""
        if isinstance(put.row, Run):
            before = self._disk.get(put.key)
            if before is not None:
                self._witness.expect("I3", before.open, f"run {put.key[:6]} goes on after its end")
            self._touched[put.key] = None
            self._disk[put.key] = put.row
        elif isinstance(put.row, HostPart):
            self._put_part(put.key.partition("/")[0], put.row)
        elif put.table == "run_hosts":
            self._witness.expect("I3", put.key not in self._names, f"run {put.key[:6]} gets other hosts")
            self._names[put.key] = put.row

    def _put_part(self, run_id: str, now: HostPart) -> None:
        parts = self._parts.setdefault(run_id, {})
        was = parts.get(now.host, HostPart(now.host))
        name = f"run {run_id[:6]} on {now.host}"
        legal = now.part in AFTER.get(was.part, {was.part}) and now.step >= was.step
        self._witness.expect("I3", legal, f"{name}: {was.part} {was.step} → {now.part} {now.step}")
        if was.part is Part.PENDING and now.command_id:
            run = self._disk[run_id]
            failed = sum(part.part is Part.FAILED and bool(part.command_id) for part in parts.values())
            stopped = (run.max_failures is not None and failed > run.max_failures) or run.cancel_wall_s is not None
            self._witness.expect("I3", not stopped, f"{name} is begun after {failed} failures or a cancel")
        parts[now.host] = now

    def _hosts(self, run: Run) -> list[HostPart]:
        """All hosts of the run, in order; those that have not begun are pending, whatever became of the run."""
        known = self._parts.get(run.id, {})
        return [known.get(name, HostPart(name)) for name in self._names[run.id]]

    def _expect_counts(self, run: Run) -> None:
        """The run counts its hosts rightly, and no host is lost: those that have begun are the first ones."""
        hosts = self._hosts(run)
        counts = Counter(host.part for host in hosts)
        counted = {Part.ACTIVE: run.active, Part.SUCCEEDED: run.succeeded, Part.FAILED: run.failed}
        counted[Part.PENDING] = run.total - run.begun
        right = +counts == +Counter(counted) and len(hosts) == run.total
        right = right and all(host.part is not Part.PENDING for host in hosts[: run.begun])
        self._witness.expect("I10", right, f"run {run.id[:6]} is {run}, and its hosts are {dict(counts)}")

    def committed(self) -> None:
        """The transaction is on disk."""
        touched, self._touched = self._touched, {}
        for run in [self._disk[run_id] for run_id in touched]:
            self._expect_counts(run)
            commands = [command for command in self._witness.disk.values() if command.run == run.id]
            busy = {command.host for command in commands if command.open}
            self._witness.expect(
                "I3", len(busy) <= run.parallel, f"run {run.id[:6]} is on {sorted(busy)}, {run.parallel} at once"
            )
            for part in self._hosts(run):
                mine = sorted(
                    (command for command in commands if command.host == part.host), key=lambda command: command.number
                )
                right = [command.op for command in mine] == run.steps[: len(mine)] and all(
                    str(command.state) == "succeeded" for command in mine[:-1]
                )
                self._witness.expect(
                    "I3", right, f"run {run.id[:6]} on {part.host}: {[(c.op, str(c.state)) for c in mine]}"
                )

    def unsettled(self) -> list[str]:
        """Runs that have not ended."""
        return [
            f"L3: run {run.id[:6]} is {run.state}: {[str(part.part) for part in self._hosts(run)]}"
            for run in self._disk.values()
            if run.open
        ]

    def judge(self) -> None:
        """Every end is true: of each host, and of the whole."""
        for run_id in self._promised:
            self._witness.expect("I1", run_id in self._disk, f"run {run_id[:6]} is gone")
        for run in self._disk.values():
            for part in self._hosts(run):
                mine = [
                    "lost once"
                    if c.lost_wall_s is not None
                    else str(c.state)  # a late report ends the command, but its host has left
                    for c in self._witness.disk.values()
                    if c.run == run.id and c.host == part.host
                ]
                done = mine == ["succeeded"] * len(run.steps)
                right = done if part.part is Part.SUCCEEDED else not mine if part.part is Part.PENDING else not done
                self._witness.expect(
                    "I1", right, f"run {run.id[:6]} on {part.host} is {part.part}, and its commands are {mine}"
                )
            good = all(part.part is Part.SUCCEEDED for part in self._hosts(run))
            self._witness.expect("I1", good == (run.state is RunState.SUCCEEDED), f"run {run.id[:6]} is {run.state}")
