"""A live screen: the state as the operators' WebSocket tells it, drawn again whenever it changes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from processes.client.feed import Feed, Picture


def watch(feed: Feed, draw: Callable[[Picture, str], RenderableType | None]) -> None:
    """Show the picture until Ctrl-C. `draw` gets the picture and a word on how fresh it is.

    Without a terminal there is no screen to draw over: there `draw` prints the picture and returns None.
    Raises: Refused, KeyboardInterrupt.
    """
    from rich.console import Console  # noqa: PLC0415  # for a terminal alone
    from rich.live import Live  # noqa: PLC0415

    terminal = sys.stdout.isatty()
    with Live(console=Console(), screen=terminal, auto_refresh=False) if terminal else contextlib.nullcontext() as live:
        for picture in feed.updates():
            drawn = draw(picture, freshness(feed))
            if live is not None and drawn is not None:
                live.update(drawn, refresh=True)


def freshness(feed: Feed) -> str:
    """How fresh the picture is, in words."""
    if not feed.problem:
        return "live"
    if feed.age_s is None:
        return f"not connected: {feed.problem}"
    return f"not connected, this is {feed.age_s:.0f} s old: {feed.problem}"
