"""Foreign agents' commands: what a heartbeat says of them, and how those are judged that nobody reported. Pure.

Such an agent has no journal and gives no ids. What runs there is known by its heartbeats alone: they name the op under
way.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from processes.core.hub.memory import Draft
from processes.core.records.command import Command, State
from processes.core.records.host import HostRecord
from processes.core.travels.messages import HeartbeatReceived

EVIDENCE: Final = ("generation", "store_path", "binary_hash")  # NixFleet's: what a switch changes
SWITCHES: Final = frozenset(
    {"switch", "pull-switch"}
)  # after these a NixFleet agent exits, to be started anew by its init
# a foreign agent says a status before it beats without the command; guess: older beats are through by then
UNREPORTED_S: Final = 30.0

_facts = msgspec.json.Decoder(dict[str, Any])


def beat(draft: Draft, host: HostRecord, event: HeartbeatReceived) -> None:
    """A foreign agent's heartbeat: the command it names runs; one from before this connection that it does not name is
    lost.
    """
    pending = event.heartbeat.pending_command
    for command in draft.queue(host.name):
        if command.state is State.QUEUED:
            continue
        if command.connection == event.connection:
            if command.state is State.SENT and pending == command.op:
                draft.move(command, State.RUNNING, "agent")
            # plant: foreign-unreported
            elif pending is None and command.sent_boot_s + UNREPORTED_S < draft.now.boot_s:
                draft.move(
                    command,
                    State.LOST,
                    "hub",
                    "unreported",
                    message="the agent runs nothing, and its report did not arrive",
                )
        elif not command.connection:
            continue  # never written
        elif pending == command.op:
            moved = msgspec.structs.replace(command, connection=event.connection, adopted=True, unheard_wall_s=None)
            draft.put_command(moved)
            if moved.state is State.SENT:
                draft.move(moved, State.RUNNING, "agent")
        else:
            _judge_by_evidence(draft, command, evidence(host))


def evidence(host: HostRecord) -> dict[str, str]:
    """What tells one state of a foreign host's system from another, as far as its agent says."""
    facts = {**_facts.decode(host.facts), **_facts.decode(host.heartbeat_facts)}
    return {name: str(facts[name]) for name in EVIDENCE if facts.get(name)}


def _judge_by_evidence(draft: Draft, command: Command, after: dict[str, str]) -> None:
    """A foreign agent came back without the command, and nobody reported its end.

    A switch that replaced its own agent shows in what the host says of itself; everything else is lost, never guessed.
    """
    before = command.evidence
    told = f"before: {_told(before)}; after: {_told(after)}"
    changed = any(before[name] != after[name] for name in before.keys() & after.keys())
    if command.op in SWITCHES and changed:
        state = draft.move(command, State.RUNNING, "agent") if command.state is State.SENT else command
        draft.move(state, State.SUCCEEDED, "hub", "changed_evidence", message=told)
        return
    draft.move(
        command, State.LOST, "hub", "connection_lost",
        message=f"the connection was lost before a report, and the agent came back without it: it may have run; {told}",
    )  # fmt: skip


def _told(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {value[:64]}" for name, value in found.items()) or "nothing known"
