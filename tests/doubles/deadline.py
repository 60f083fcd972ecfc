"""How long a test waits for what must come: the one guard of all tests. A guard ends a test that hangs; it claims nothing about speed."""

from __future__ import annotations

import time
from collections.abc import Callable

WAIT_S = 60.0  # guess: what takes a second on a quiet machine takes ten on one with six busy loops beside the tests


def until(condition: Callable[[], object], what: str | Callable[[], str] = "it did not happen") -> None:
    """Waits until the condition holds.

    Raises: AssertionError after WAIT_S, with what was waited for.
    """
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, what if isinstance(what, str) else what()
        time.sleep(0.01)
