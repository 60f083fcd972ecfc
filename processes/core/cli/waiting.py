"""Why a command waits for its host. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from processes.core.records.command import State
from processes.core.shown.views import CommandView, HostView
from processes.core.values import Presence


def why_waits(command: CommandView, host: HostView | None, others: Iterable[CommandView]) -> tuple[str, str | None]:
    """Return why an open command is not at its end, and since when that is so; empty, if nothing keeps it.

    `others`: the commands of its host that are sent or running. `host` None: it is not known.
    """
    if command.state in (State.SENT, State.RUNNING):
        if command.unheard_since is not None:
            return f"{command.host} is not connected: whether it still runs there is not known", command.unheard_since
        return "", None
    if command.state is not State.QUEUED:
        return "", None
    if host is not None and host.presence == Presence.OFFLINE:
        return f"{command.host} is offline", host.last_seen
    if host is not None and host.suspended:
        return f"{command.host} is suspended: {host.suspended}", host.suspended_at
    ahead = [other for other in others if other.id != command.id]
    if ahead:
        first = min(ahead, key=lambda other: other.started_at or other.sent_at or "")
        more = f", and {len(ahead) - 1} more" if len(ahead) > 1 else ""
        said = f"{command.host} runs {first.op}{more} ({first.id[:8]}, given by {first.actor})"
        return said, first.started_at or first.sent_at
    return "", None
