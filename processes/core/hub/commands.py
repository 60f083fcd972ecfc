"""Commands are made here, for a request or for the next step of a run; delivery.py sends them. Pure."""

from __future__ import annotations

from processes.core.hub.memory import Draft
from processes.core.records.command import Command
from processes.core.records.host import HostRecord


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
