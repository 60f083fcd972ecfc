"""Faults rehearsed inside the hub's step, for drills only: each function here is what the evidence must name."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from processes.core.hub.requests import Refused
from processes.core.travels.messages import RehearseFault

FAULTS: Final = ("deadlock", "busy", "blocked", "exception", "exit", "leak", "poison", "poison_exit")
POISON: Final = ("poison", "poison_exit")  # these happen whenever they are stepped, whatever the epoch


def rehearse(drill: RehearseFault) -> None:
    """The fault happens now, in the middle of a step. Most do not return. Raises: Refused, for a fault that is not
    known.
    """
    match drill.fault:
        case "deadlock":
            take_a_lock_twice()
        case "busy":
            turn_for_ever()
        case "blocked":
            wait_for_ever()
        case "exception":
            raise_an_error()
        case "exit":
            os._exit(1)
        case "leak":
            keep_memory()
        case "poison":
            take_a_lock_twice()
        case "poison_exit":
            os._exit(1)
        case _:
            raise Refused(400, "malformed", f"no fault {drill.fault!r}: {', '.join(FAULTS)}")


def take_a_lock_twice() -> None:
    """The founding incident: a handler takes a lock that it already holds."""
    lock = threading.Lock()
    with lock, lock:
        pass


def turn_for_ever() -> None:
    """A busy loop that never comes back."""
    while True:
        pass


def wait_for_ever() -> None:
    """A blocking call where none may be."""
    time.sleep(3600)


def raise_an_error() -> None:
    """A handler that raises."""
    raise RuntimeError("a drill: this handler raises")


_kept: list[bytearray] = []


def keep_memory() -> None:
    """Memory that is never let go: 50 MiB a drill."""
    _kept.append(bytearray(os.urandom(1024) * 51_200))
