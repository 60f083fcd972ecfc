"""The restore of a backup: what becomes of its open commands, runs and tokens. Nothing is guessed. Pure.

A command that is open in the backup may have ended on its host long ago. So it becomes `lost` (restored) and is never
delivered. A run begins no further host. A token that was made void since the backup stays void.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from processes.core.records.command import Command, State, Transition, moved
from processes.core.records.host import HostRecord
from processes.core.records.ledger import Ledger
from processes.core.records.run import HostPart, Part, Run, counted, settled

REASON = "restored"
ACTOR = "restore"


class Rollback(msgspec.Struct, frozen=True):
    """The backup's rows as they are after the restore."""

    hosts: list[HostRecord]
    commands: list[Command]
    transitions: list[Transition]
    runs: list[Run]
    parts: list[tuple[str, HostPart]]  # each with the id of its run
    ledger: Ledger
    revoked: int  # hosts of the backup whose tokens were made void since


def restored(
    hosts: Iterable[HostRecord],
    opened: Iterable[Command],
    runs: Iterable[Run],
    ledger: Ledger,
    *,
    parts: Iterable[tuple[str, HostPart]] = (),
    revoked: frozenset[str],
    now_wall_s: float,
) -> Rollback:
    """Return the backup's hosts, open commands, open runs and the `parts` under way in them, as they are from now
    on. `revoked`: hashes of tokens.
    """
    by_name = {host.name: host for host in hosts}
    commands, transitions = [], []
    for command in opened:
        commands.append(moved(command, State.LOST, now_wall_s, REASON))
        transitions.append(Transition(command.id, now_wall_s, command.state, State.LOST, REASON, ACTOR))
        ledger = ledger.moved(command.state, State.LOST)
        host = by_name.get(command.host)
        if host is not None and host.enrolment == command.enrolment:
            by_name[host.name] = msgspec.structs.replace(host, ledger=host.ledger.moved(command.state, State.LOST))
    void = [host for host in by_name.values() if host.token_hash in revoked]
    by_name = {name: host.without(revoked) for name, host in by_name.items()}
    ended = {run.id: run for run in runs}
    left = []
    for run_id, part in parts:
        failed = msgspec.structs.replace(part, part=Part.FAILED, reason=REASON)
        left.append((run_id, failed))
        ended[run_id] = counted(ended[run_id], part.part, failed)
    over = [_ended(run, now_wall_s) for run in ended.values()]
    return Rollback(list(by_name.values()), commands, transitions, over, left, ledger, len(void))


def _ended(run: Run, now_wall_s: float) -> Run:
    cancelled = msgspec.structs.replace(run, cancel_wall_s=run.cancel_wall_s or now_wall_s, cancel_actor=ACTOR)
    return settled(cancelled, now_wall_s)
