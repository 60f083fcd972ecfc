"""The targets of alarms, of the settings."""

from __future__ import annotations

from processes.adapters import alarm_sender
from processes.adapters.alarm_sender import Target
from processes.adapters.settings import Alarms


def targets_of(alarms: Alarms) -> list[Target]:
    """Return all targets, in order: `urls`, `exec`, `targets`."""
    further = [
        Target("", each.url, each.exec, each.webhook, each.secret, each.severity, each.query) for each in alarms.targets
    ]
    return alarm_sender.targets(alarms.urls, alarms.exec, further)
