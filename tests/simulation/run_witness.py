"""What must hold of fleet runs, seen at each commit: never more hosts at once than asked for, none begun past the
limit, each run ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from processes.core.records.run import Part, Run, RunState

if TYPE_CHECKING:
    from simulation.invariants import Witness

AFTER = {  # of a host's part; written out once more, on purpose
    Part.PENDING: {Part.PENDING, Part.ACTIVE, Part.SUCCEEDED, Part.FAILED, Part.NOT_ATTEMPTED},
    Part.ACTIVE: {Part.ACTIVE, Part.SUCCEEDED, Part.FAILED},
}


class RunWitness:
    """Every run as it stands on disk, beside its commands."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._disk: dict[str, Run] = {}
        self._touched: list[Run] = []
        self._promised: list[str] = []

    def accepted(self, run_id: str) -> None:
        """An operator holds a 202, or the 200 of asking again."""
        self._promised.append(run_id)
        self._witness.expect("I1", run_id in self._disk, f"run {run_id[:6]} was accepted and is not on disk")

    def put(self, run: Run) -> None:
        """A run's row is written, in a transaction that is not over yet."""
        before = self._disk.get(run.id)
        if before is not None:
            self._witness.expect("I3", before.open, f"run {run.id[:6]} goes on after its end")
            self._expect_steps(before, run)
        self._disk[run.id] = run
        self._touched.append(run)

    def _expect_steps(self, before: Run, after: Run) -> None:
        failed = sum(part.part is Part.FAILED and bool(part.command_id) for part in after.parts)
        stopped = (after.max_failures is not None and failed > after.max_failures) or before.cancel_wall_s is not None
        for was, now in zip(before.parts, after.parts, strict=True):
            name = f"run {after.id[:6]} on {now.host}"
            legal = now.part in AFTER.get(was.part, {was.part}) and now.step >= was.step
            self._witness.expect("I3", legal, f"{name}: {was.part} {was.step} → {now.part} {now.step}")
            begun = was.part is Part.PENDING and bool(now.command_id)
            self._witness.expect("I3", not (begun and stopped), f"{name} is begun after {failed} failures or a cancel")

    def committed(self) -> None:
        """The transaction is on disk."""
        touched, self._touched = self._touched, []
        for run in touched:
            commands = [command for command in self._witness.disk.values() if command.run == run.id]
            busy = {command.host for command in commands if command.open}
            self._witness.expect(
                "I3", len(busy) <= run.parallel, f"run {run.id[:6]} is on {sorted(busy)}, {run.parallel} at once"
            )
            for part in run.parts:
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
            f"L3: run {run.id[:6]} is {run.state}: {[str(part.part) for part in run.parts]}"
            for run in self._disk.values()
            if run.open
        ]

    def judge(self) -> None:
        """Every end is true: of each host, and of the whole."""
        for run_id in self._promised:
            self._witness.expect("I1", run_id in self._disk, f"run {run_id[:6]} is gone")
        for run in self._disk.values():
            for part in run.parts:
                mine = [
                    "lost once"
                    if c.lost_wall_s is not None
                    else str(c.state)  # a late report ends the command, but its host has left
                    for c in self._witness.disk.values()
                    if c.run == run.id and c.host == part.host
                ]
                done = mine == ["succeeded"] * len(run.steps)
                right = (
                    done if part.part is Part.SUCCEEDED else not mine if part.part is Part.NOT_ATTEMPTED else not done
                )
                self._witness.expect(
                    "I1", right, f"run {run.id[:6]} on {part.host} is {part.part}, and its commands are {mine}"
                )
            good = all(part.part is Part.SUCCEEDED for part in run.parts)
            self._witness.expect("I1", good == (run.state is RunState.SUCCEEDED), f"run {run.id[:6]} is {run.state}")
