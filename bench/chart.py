"""The charts of the README, drawn from what bin/bench has written: how cost grows, and how this hub stands beside
others.

matplotlib draws them. It belongs to no installation: pip install matplotlib, in whatever environment runs this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

Measured = dict[str, Any]


class Undrawable(Exception):
    """The chart cannot be drawn; the text says why."""


def points(found: Measured) -> list[tuple[str, list[tuple[float, float]]]]:
    """Return the lines of the slopes: what grows, and for each of its sizes what one more costs.

    Shape: (title, [(size, cost)]), sizes ascending. Units: ms of CPU for a heartbeat; for agents kB of memory.
    """

    def cpu_ms(point: Measured) -> float:
        return 1e3 * float(point["cores"]["all"]) * float(point["seconds"]) / max(1, int(point["sent"]))

    memory = [(float(point["agents"]), float(point["connections"]["kb_each"])) for point in found["agents"]]
    return [
        ("CPU of a heartbeat in ms, by agents", [(float(each["agents"]), cpu_ms(each)) for each in found["agents"]]),
        ("memory of a connection in kB, by agents", memory),
        ("CPU of a heartbeat in ms, by subscribers",
         [(float(each["subscribers"]), cpu_ms(each)) for each in found["subscribers"]]),
        ("CPU of a heartbeat in ms, by heartbeats a second",
         [(float(each["rate"]), cpu_ms(each)) for each in found["rate"]]),
    ]  # fmt: skip


def bars(found: Measured) -> list[tuple[str, list[tuple[str, float, float, float]]]]:
    """Return what was measured side by side: for each figure, the median of each hub and how far it was spread.

    Shape: (title, [(hub, median, least, most)]).
    """
    figures = {
        "cores": ("cores", "all"),
        "shown in a second": ("shown_per_s",),
        "lag p50 in ms": ("lag_p50_ms",),
        "lag p99 in ms": ("lag_p99_ms",),
    }
    drawn = []
    for title, path in figures.items():
        rows = []
        for hub, measured in found.items():
            figure = measured
            for name in path:
                # a peer is one process, so the sum over all is its own
                figure = figure[name]
            rows.append((hub, float(figure["median"]), float(figure["least"]), float(figure["most"])))
        drawn.append((title, rows))
    return drawn


def draw(found: Measured, to: Path) -> None:
    """Draw the file that the name's ending says (svg, png): of `slopes`, or of a measurement beside others.

    Raises: Undrawable.
    """
    try:
        import matplotlib as drawing  # noqa: PLC0415  # see the module's docstring
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise Undrawable("matplotlib is not installed here: .venv/bin/pip install matplotlib") from None
    drawing.rcParams["svg.hashsalt"] = "fleethub"  # the same figures make the same file
    made = Figure(figsize=(11, 3), layout="constrained")
    try:
        if "subscribers" in found:
            for place, (title, line) in zip(made.subplots(1, 4), points(found), strict=True):
                place.plot(*zip(*line, strict=True), marker="o")
                place.set(title=title, xscale="log", ylim=(0, None))
                place.title.set_fontsize(8)
        else:
            for place, (title, rows) in zip(made.subplots(1, 4), bars(found), strict=True):
                names, medians = [row[0] for row in rows], [row[1] for row in rows]
                spread = [[row[1] - row[2] for row in rows], [row[3] - row[1] for row in rows]]
                place.bar(names, medians, yerr=spread, capsize=4)
                place.set_title(title, fontsize=8)
    except (KeyError, TypeError) as error:
        wanted = "bin/bench --out FILE slopes, or heartbeats --beside plain --times 5"
        raise Undrawable(f"this is not what a chart is drawn of ({error}): it takes the file of {wanted}") from None
    made.savefig(to, metadata={"Date": None} if to.suffix == ".svg" else None)
