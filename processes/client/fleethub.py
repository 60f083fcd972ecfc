"""fleethub's client for Python programs: ask a hub, watch its live state, follow commands and runs to their end.

    from pathlib import Path
    from fleethub import open_remote

    with open_remote("https://fleet.example.org", Path("token")) as api:
        print([host.name for host in api.hosts()])

An installation has this file as its package `fleethub`. It is the only module that just re-exports others' names.
"""

from __future__ import annotations

from processes.client.api import Api, open_remote
from processes.client.errors import ClientError, HubAway, NotAnAddress, NoToken, Refused, Silence
from processes.client.feed import Feed, Picture
from processes.client.follow import Following, Listener, Pace
from processes.client.patience import Patience
from processes.client.watched import Watched, WatchedRun, watched
from processes.core.records.command import State
from processes.core.records.run import RunState, RunView
from processes.core.shown.status import Report
from processes.core.shown.views import CommandView, HostView, OutputPage, OutputView

__all__ = [
    "Api",
    "ClientError",
    "CommandView",
    "Feed",
    "Following",
    "HostView",
    "HubAway",
    "Listener",
    "NoToken",
    "NotAnAddress",
    "OutputPage",
    "OutputView",
    "Pace",
    "Patience",
    "Picture",
    "Refused",
    "Report",
    "RunState",
    "RunView",
    "Silence",
    "State",
    "Watched",
    "WatchedRun",
    "open_remote",
    "watched",
]
