"""Where a process writes the stacks that it is asked for: run/stacks (an agent has a folder of its own).

NAME.stacks is written by faulthandler, into a descriptor that stands open from the start on: at SIGUSR1, and when the
interpreter dies. NAME.tasks is written by the process's witness thread at SIGUSR2 (adapters/bootstrap.py).
"""

from __future__ import annotations

from pathlib import Path


def folder(run: Path) -> Path:
    """The folder of an installation's processes."""
    return run / "stacks"


def of_threads(folder: Path, name: str) -> Path:
    """All Python stacks of all threads, one dump after the other."""
    return folder / f"{name}.stacks"


def of_tasks(folder: Path, name: str) -> Path:
    """The asyncio tasks' stacks, as they were last asked for."""
    return folder / f"{name}.tasks"
