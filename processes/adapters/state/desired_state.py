"""What the operator wants of each process: run/wanted.json, which the watchdog obeys. Written here alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

import msgspec

from processes.adapters.settings import Settings
from processes.adapters.state import durable, lock, status_file

RUNNING = "running"
STOPPED = "stopped"


def change(settings: Settings, changes: Mapping[str, str]) -> None:
    """`changes` are part of the wishes; the others stay as they are.

    Raises: ResourceError, if another verb holds the file for 5 s.
    """
    with _held(settings):
        _write(settings, {**status_file.wishes(settings), **changes})


def replace(settings: Settings, wishes: Mapping[str, str]) -> None:
    """`wishes` are all there are. Raises: ResourceError."""
    with _held(settings):
        _write(settings, wishes)


@contextlib.contextmanager
def _held(settings: Settings) -> Iterator[None]:
    fd = lock.hold(lock.place(settings.run, "wanted"), wait_s=5.0)
    try:
        yield
    finally:
        os.close(fd)


def _write(settings: Settings, wishes: Mapping[str, str]) -> None:
    durable.replace(settings.wanted, msgspec.json.encode(dict(wishes)), durable=False)
