"""The charts of README and docs, as SVG, drawn from what bin/bench has written: how cost grows, and how this hub stands
beside others. Pure.

They have no background and take the colours of light or dark from whoever looks (prefers-color-scheme). The same
figures make the same file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any, Final, NamedTuple

from bench.summary import median

Measured = dict[str, Any]

WIDTH: Final = 270  # of one panel, in pixels, with what surrounds it
HEIGHT: Final = 190
LEFT: Final = 46  # of its axes, from its own edges
RIGHT: Final = 16
TOP: Final = 40
BOTTOM: Final = 34
ACROSS: Final = 3  # panels beside each other
TICKS: Final = 2  # of the axis that begins at 0
NAMED: Final = 26  # between the names of two points, at least; the last one always has its own
STYLE: Final = """
  text { font: 11px system-ui, sans-serif; fill: #59636e; }
  .title { font-weight: 600; fill: #1f2328; }
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  .spread { stroke: #0969da; stroke-width: 1; opacity: 0.6; }
  .line { stroke: #0969da; stroke-width: 2; fill: none; }
  .point { fill: #0969da; }
  .ours { fill: #0969da; }
  .other { fill: #8c959f; }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1; }
    .title { fill: #f0f6fc; }
    .grid { stroke: #3d444d; }
    .spread, .line { stroke: #4493f8; }
    .point, .ours { fill: #4493f8; }
    .other { fill: #656c76; }
  }
"""


class Undrawable(Exception):
    """The chart cannot be drawn; the text says why."""


class Point(NamedTuple):
    """A figure, its place on the other axis or its name, and how far it was spread."""

    at: float | str
    value: float
    least: float
    most: float


class Panel(NamedTuple):
    """One small chart. `along`: what the other axis shows; empty: the points have names, and are bars."""

    title: str
    along: str
    points: list[Point]


def _point(at: float | str, figure: object) -> Point:
    value = median(figure)
    spread = figure if isinstance(figure, dict) else {}
    return Point(at, value, float(spread.get("least", value)), float(spread.get("most", value)))


def _found(measured: Measured, path: Sequence[str]) -> object:
    found: object = measured
    for name in path:
        if not isinstance(found, dict) or name not in found:
            raise Undrawable(f"there is no {' '.join(path)} in it")
        found = found[name]
    return found


SLOPES: Final = (  # what grows, the figure, its title, and the axis
    ("agents", ("heartbeats", "cpu_ms_each"), "CPU of a heartbeat, ms", "connected agents, 100 heartbeats/s"),
    ("agents", ("commands", "cpu_ms", "all"), "CPU of a command, ms", "connected agents, 20 commands/s"),
    ("agents", ("connections", "memory_mb", "all"), "memory of all processes, MB", "connected agents"),
    ("rate", ("heartbeats", "cpu_ms_each"), "CPU of a heartbeat, ms", "heartbeats/s of 1,000 agents"),
    ("commands", ("commands", "cpu_ms", "all"), "CPU of a command, ms", "commands/s to 100 agents"),
    ("subscribers", ("heartbeats", "cpu_ms_each"), "CPU of a heartbeat, ms", "subscribers, 100 heartbeats/s"),
)
BESIDE: Final = (
    (("highest_per_s",), "most heartbeats/s, each shown"),
    (("cores", "all"), "CPU of all processes, cores"),
    (("shown_per_s",), "heartbeats shown in a second"),
    (("lag_p50_ms",), "sent to seen, median, ms"),
    (("lag_p99_ms",), "sent to seen, 99 %, ms"),
    (("accepted_p50_ms",), "a command accepted, median, ms"),
    (("ended_p50_ms",), "its end seen, median, ms"),
    (("updates_per_s",), "updates/s to all subscribers"),
    (("updates_per_cpu_s",), "updates for each second of CPU"),
    (("memory_mb", "all"), "memory, MB"),
    (("back_s",), "all agents back after, s"),
)


def panels(found: Measured) -> list[Panel]:
    """Return what is drawn of slopes, or of hubs side by side. Raises: Undrawable."""
    grown = [
        Panel(title, along, [_point(float(each["size"]), _found(each, path)) for each in found[growing]])
        for growing, path, title, along in SLOPES
        if isinstance(found.get(growing), list)
    ]
    if grown:
        return grown
    hubs = {name: each for name, each in found.items() if isinstance(each, dict)}
    beside = [
        Panel(title, "", [_point(name, _found(each, path)) for name, each in hubs.items()])
        for path, title in BESIDE
        if hubs and all(path[0] in each for each in hubs.values())
    ]
    if not beside:
        raise Undrawable("it is made of what slopes wrote, or heartbeats, commands … --beside plain (--out FILE)")
    return beside


def drawn(found: Measured) -> str:
    """Return the chart. Raises: Undrawable."""
    shown = panels(found)
    wide, high = WIDTH * min(ACROSS, len(shown)), HEIGHT * -(-len(shown) // ACROSS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}">',
        f"<style>{STYLE}</style>",
    ]
    for number, panel in enumerate(shown):
        parts.append(f'<g transform="translate({number % ACROSS * WIDTH} {number // ACROSS * HEIGHT})">')
        parts += [f'<text class="title" x="{LEFT}" y="18">{escape(panel.title)}</text>', *_axes(panel)]
        parts += _line(panel) if panel.along else _bars(panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _ceiling(value: float) -> float:
    """Return the next of 1, 1.5, 2, 3, 5, 8 times a power of ten: where an axis ends."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.5, 2, 3, 5, 8, 10) if power * step >= value * (1 - 1e-9))


def _top(panel: Panel) -> float:
    return _ceiling(max(point.most for point in panel.points))


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top


def _axes(panel: Panel) -> list[str]:
    top, parts = _top(panel), []
    for tick in range(TICKS + 1):
        value = top * tick / TICKS
        y = _y(value, top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text text-anchor="end" x="{LEFT - 6}" y="{y + 4:.1f}">{_short(value)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text text-anchor="middle" x="{middle:.0f}" y="{HEIGHT - 4}">{escape(panel.along)}</text>')
    return parts


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:.3g}"


def _spread(x: float, point: Point, top: float) -> str:
    low, high = _y(point.least, top), _y(point.most, top)
    return f'<line class="spread" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'


def _line(panel: Panel) -> list[str]:
    """Return a line over an axis of powers of ten."""
    top, sizes = _top(panel), [float(point.at) for point in panel.points]
    least, most = math.log10(min(sizes)), math.log10(max(sizes))
    across = (WIDTH - LEFT - RIGHT - 20) / max(most - least, 1e-9)
    at = [(LEFT + 10 + (math.log10(size) - least) * across) for size in sizes]
    path = " ".join(f"{x:.1f},{_y(point.value, top):.1f}" for x, point in zip(at, panel.points, strict=True))
    parts = [f'<polyline class="line" points="{path}"/>']
    for x, point in zip(at, panel.points, strict=True):
        told = f"{float(point.at):,.0f}: {point.value:.3g} ({point.least:.3g} to {point.most:.3g})"
        parts.append(_spread(x, point, top))
        parts.append(
            f'<circle class="point" cx="{x:.1f}" cy="{_y(point.value, top):.1f}" r="3"><title>{told}</title></circle>'
        )
        if x == at[-1] or at[-1] - x >= NAMED:
            name = _short(float(point.at))
            parts.append(f'<text text-anchor="middle" x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}">{name}</text>')
    return parts


def _bars(panel: Panel) -> list[str]:
    top, parts = _top(panel), []
    each = (WIDTH - LEFT - RIGHT) / len(panel.points)
    for number, point in enumerate(panel.points):
        x, y = LEFT + each * (number + 0.5), _y(point.value, top)
        kind = "ours" if number == 0 else "other"
        size = f'width="{each * 0.5:.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
        parts.append(f'<rect class="{kind}" x="{x - each * 0.25:.1f}" y="{y:.1f}" {size}/>')
        parts.append(_spread(x, point, top))
        parts.append(
            f'<text text-anchor="middle" x="{x:.1f}" y="{y - 5:.1f}">{_short(float(f"{point.value:.3g}"))}</text>'
        )
        parts.append(
            f'<text text-anchor="middle" x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}">{escape(str(point.at))}</text>'
        )
    return parts
