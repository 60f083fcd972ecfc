"""What the operator wants of each process: run/wanted.json. The command line writes it, the watchdog obeys it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from processes.adapters import ownership
from processes.adapters.settings import Settings
from processes.adapters.state import durable, lock

RUNNING: Final = "running"
STOPPED: Final = "stopped"
FILE_BYTES_MAX: Final = 1 << 20  # 100 processes are about 3 KiB

_wanted = msgspec.json.Decoder(dict[str, str])


def read(settings: Settings) -> dict[str, str]:
    """Return what the operator wants of each process, by name; empty if the file is missing or cannot be read."""
    try:
        with settings.wanted.open("rb") as file:
            return _wanted.decode(file.read(FILE_BYTES_MAX))
    except (OSError, msgspec.DecodeError):
        return {}


def change(settings: Settings, changes: Mapping[str, str]) -> None:
    """Write `changes` into the file. What it says of other processes stays.

    Raises: ResourceError, if another verb holds the file for 5 s.
    """
    with _held(settings):
        _write(settings, {**read(settings), **changes})


def replace(settings: Settings, wanted: Mapping[str, str]) -> None:
    """Write `wanted`, and nothing else, into the file. Raises: ResourceError."""
    with _held(settings):
        _write(settings, wanted)


@contextlib.contextmanager
def _held(settings: Settings) -> Iterator[None]:
    fd = lock.hold(lock.place(settings.run, "wanted"), wait_s=5.0)
    try:
        yield
    finally:
        os.close(fd)


def _write(settings: Settings, wanted: Mapping[str, str]) -> None:
    group = ownership.group_let_into(settings.state)
    durable.replace(settings.wanted, msgspec.json.encode(dict(wanted)), durable=False, group=group)
