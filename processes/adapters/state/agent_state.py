"""The files in the state folder of an agent that runs by itself (agent-state). Pure names.

Under the hub's own supervisord an agent has its lock, pulse and stacks in the installation's run/ instead.
"""

from __future__ import annotations

from pathlib import Path


def lock(state: Path) -> Path:
    """Return the file that one agent at a time holds locked: two of them must not share a journal."""
    return state / "lock"


def pulses(state: Path) -> Path:
    """Return the folder of the agent's pulse."""
    return state / "pulse"


def stacks(state: Path) -> Path:
    """Return the folder of the agent's stacks (stacks_file.py)."""
    return state / "stacks"


def failpoint(state: Path) -> Path:
    """Return the file that kills or hangs the agent or one of its shims at a named place (adapters/failpoint.py)."""
    return state / "failpoint"
