"""Ctrl-C while a run is followed on a terminal: it is noted, and the person is asked between two pieces of news."""

from __future__ import annotations

import signal
import sys
from types import FrameType, TracebackType
from typing import Final

QUESTION: Final = "leave running or cancel? [l/c] "
ASKED_MAX: Final = 3  # after as many unclear answers the run is left running, which does no harm


class Interrupts:
    """While this context is open, Ctrl-C is only noted. A second one before the question was asked leaves at once."""

    def __init__(self) -> None:
        self.noted = False

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        signal.signal(signal.SIGINT, self._before or signal.default_int_handler)

    def wants_cancel(self) -> bool:
        """Ask the person, and return True if the run is to be cancelled.

        Raises: KeyboardInterrupt, if the run is to be left running: by that answer, by another Ctrl-C, or by no
        answer at all.
        """
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.noted = False
        try:
            for _ in range(ASKED_MAX):
                print(QUESTION, end="", file=sys.stderr, flush=True)
                line = sys.stdin.readline()
                word = line.strip().lower()
                if word in ("c", "cancel"):
                    return True
                if not line or word in ("l", "leave"):
                    break
            raise KeyboardInterrupt
        finally:
            signal.signal(signal.SIGINT, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True


def asks() -> bool:
    """True if there is a person to ask."""
    return sys.stdin.isatty() and sys.stderr.isatty()
