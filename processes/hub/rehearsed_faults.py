"""Faults rehearsed inside the hub's step, for drills only: the evidence must name the function of the fault."""

from __future__ import annotations

import os
import threading
import time
from typing import Final

from processes.core.hub.refused import Refused
from processes.core.travels.messages import RehearseFault

FAULTS: Final = ("deadlock", "busy", "blocked", "exception", "exit", "leak", "poison", "poison_exit")
POISON: Final = ("poison", "poison_exit")  # these happen whenever they are stepped, whatever the epoch


def rehearse(drill: RehearseFault) -> None:
    """Let the fault happen now, in the middle of a step. Most do not return. Raises: Refused, for an unknown fault."""
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
    """Take a lock that is already held, as a handler did in the founding incident."""
    lock = threading.Lock()
    with lock, lock:
        pass


def turn_for_ever() -> None:
    """Run a busy loop that never ends."""
    while True:
        pass


def wait_for_ever() -> None:
    """Make a blocking call where none may be made."""
    time.sleep(3600)


def raise_an_error() -> None:
    """Raise, as a faulty handler does."""
    raise RuntimeError("a drill: this handler raises")


_kept: list[bytearray] = []


def keep_memory() -> None:
    """Take 50 MiB of memory that is never freed."""
    _kept.append(bytearray(os.urandom(1024) * 51_200))
