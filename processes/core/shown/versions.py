"""Versions as agents say them, and which of them are old. Pure."""

from __future__ import annotations

import re
from typing import Final

from processes.core.values import PROTOCOL

_VERSION: Final = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?![\d.])")


def is_old_agent(agent_version: str, protocol: int, than: str) -> bool:
    """Return whether a host's agent is one of ours and older than this version.

    A foreign agent has versions of its own, and of one that says none, or none of three numbers, nobody knows.
    """
    said, own = _VERSION.match(agent_version), _VERSION.match(than)
    if protocol < PROTOCOL or said is None or own is None:
        return False
    return tuple(map(int, said.groups())) < tuple(map(int, own.groups()))
