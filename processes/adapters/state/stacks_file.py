"""The files of a process's stacks, written when they are asked for: run/stacks (an agent has a folder of its own).

NAME.stacks is written by faulthandler, to a descriptor that is open from the start on: at SIGUSR1, and when the
interpreter dies. NAME.tasks is written by the process's tasks thread at SIGUSR2 (adapters/bootstrap.py).
"""

from __future__ import annotations

from pathlib import Path


def folder(run: Path) -> Path:
    """Return the folder for an installation's processes."""
    return run / "stacks"


def of_main(folder: Path, name: str) -> Path:
    """Return the file of the main thread's Python stacks, one dump after the other."""
    return folder / f"{name}.stacks"


def of_tasks(folder: Path, name: str) -> Path:
    """Return the file of the stacks of the other threads and of the asyncio tasks, as they were last asked for."""
    return folder / f"{name}.tasks"
