"""Foreign agents' commands: judged by heartbeats, and by evidence when no report came. Pure.

Such an agent has no journal and sends no ids. Only its heartbeats tell what runs there: they name the op under way.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from processes.core.hub.memory import Draft
from processes.core.records.command import Command, State
from processes.core.records.host import HostRecord
from processes.core.travels.messages import HeartbeatReceived

EVIDENCE: Final = ("generation", "store_path", "binary_hash")  # NixFleet's: what a switch changes
# after these a NixFleet agent exits, to be started anew by its init
SWITCHES: Final = frozenset({"switch", "pull-switch"})
# a foreign agent sends a status before its first heartbeat without the command; guess: older heartbeats are through
UNREPORTED_S: Final = 30.0

_facts = msgspec.json.Decoder(dict[str, Any])


def beat(draft: Draft, host: HostRecord, event: HeartbeatReceived) -> None:
    """Called with a foreign agent's heartbeat: the command that it names runs; a command from before this connection
    that it does not name has ended, and is judged by evidence.
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
                told = "the agent runs nothing, and its report did not arrive"
                draft.move(command, State.LOST, "hub", "unreported", message=told)
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
    """Return the facts that tell one state of a foreign host's system from another, as far as its agent sends them."""
    facts = {**_facts.decode(host.facts), **_facts.decode(host.heartbeat_facts)}
    return {name: str(facts[name]) for name in EVIDENCE if facts.get(name)}


def _judge_by_evidence(draft: Draft, command: Command, after: dict[str, str]) -> None:
    """End a command without which its foreign agent came back, and whose end was not reported.

    A switch that replaced its own agent shows in the host's facts; every other command is lost, never guessed.
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
