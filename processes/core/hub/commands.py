"""Commands are made here, for a request or for the next step of a run, and asked to end. Pure.

What is sent to agents when, is in delivery.py.
"""

from __future__ import annotations

import msgspec

from processes.core.hub.memory import Draft
from processes.core.records.command import Command, State
from processes.core.records.host import HostRecord
from processes.core.travels.messages import DeliverKill


def make_command(
    draft: Draft,
    host: HostRecord,
    op: str,
    command_id: str,
    *,
    ttl_s: float,
    actor: str,
    key: str | None = None,
    run: str | None = None,
) -> Command:
    """Make one more command, queued for this host, and return it."""
    command = Command(
        id=command_id,
        number=draft.next_number,
        host=host.name,
        enrolment=host.enrolment,
        op=op,
        actor=actor,
        created_wall_s=draft.now.wall_s,
        ttl_s=ttl_s,
        expires_wall_s=draft.now.wall_s + ttl_s,
        expires_boot_s=draft.now.boot_s + ttl_s,
        boot=draft.memory.boot,
        key=key,
        run=run,
    )
    draft.accept(command)
    return command


def cancel_command(draft: Draft, command: Command, actor: str) -> Command:
    """End the command if it is still queued; else ask its agent to. Return the command as it is now.

    Who asked first is kept, as is when: whoever asks again has not ended it.
    """
    asked = command
    if command.cancel_wall_s is None:
        asked = msgspec.structs.replace(command, cancel_wall_s=draft.now.wall_s, cancel_actor=actor)
        draft.put_command(asked)
    if asked.state is State.QUEUED:
        return draft.move(asked, State.CANCELLED, actor, "cancelled")
    _kill(draft, asked)
    return asked


def _kill(draft: Draft, command: Command) -> None:
    """Ask the agent to end the command, now if it is connected, else when it comes back."""
    link = draft.link(command.host)
    if link.connection:
        draft.deliver(link.gateway, DeliverKill(draft.memory.epoch, link.connection, command.id))
