"""Asks the hub why a command waits, and says it in words."""

from __future__ import annotations

from processes.cli.terminal.text import age
from processes.client.api import Api
from processes.client.errors import HubAway, Refused
from processes.core.cli.waiting import why_waits
from processes.core.records.command import State
from processes.core.shown.views import CommandView
from processes.core.values import rfc3339, seconds_between

AHEAD_MAX = 20  # commands of one host that are looked at


def why(api: Api, command: CommandView) -> str:
    """Return why the command waits, since when; empty, if nothing keeps it, or nobody can say."""
    try:
        host, others = None, list[CommandView]()
        if command.state is State.QUEUED:
            host = api.host(command.host)
            for state in (State.RUNNING, State.SENT):
                others += api.commands({"host": command.host, "state": state}, AHEAD_MAX)[0]
        said, since = why_waits(command, host, others)
    except (HubAway, Refused):  # what is shown beside this does not depend on it
        return ""
    for_s = seconds_between(since, rfc3339(api.now_wall_s()))
    return f"{said}, for {age(for_s)}" if said and for_s is not None else said
