"""Asks a person at a terminal before something is done that cannot be taken back. A script is not asked."""

from __future__ import annotations

import sys

from processes.cli.terminal import interrupt, output


def is_sure(what_happens: str, question: str, *, yes: bool) -> bool:
    """Show what would happen, ask, and return whether it is meant; True where nobody can be asked, or `yes` was said.

    Only y and yes mean yes. Raises: KeyboardInterrupt.
    """
    if yes or not interrupt.asks():
        return True
    output.note(what_happens)
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    output.note("fleethub: nothing was done")
    return False
