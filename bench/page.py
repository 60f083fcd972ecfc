"""What ten thousand hosts cost the page beside a hundred, in a real browser over a played hub, by turns.

Measured are the times from frame to frame, while somebody scrolls and while somebody types into the search.
"""

from __future__ import annotations

import statistics
from typing import Any, Final

from doubles.page_stage import Stage, Watched
from playwright.sync_api import expect, sync_playwright

CHROMIUM: Final = "/usr/bin/chromium"
TURNS: Final = 3
FEW: Final = 100
MANY: Final = 10_000
FRAMES: Final = """async (act) => {
  const grid = document.querySelector(".grid"), find = document.getElementById("find"), frames = [];
  let last = performance.now(), step = 0;
  const scroll = () => { grid.scrollTop = (step += 1711) % grid.scrollHeight; };
  const filter = () => { find.value = "host" + "1234".slice(0, step++ % 5); find.dispatchEvent(new Event("input")); };
  const timer = setInterval(act === "scroll" ? scroll : filter, act === "scroll" ? 16 : 60);
  await new Promise((done) => {
    const tick = (now) => {
      frames.push(now - last);
      last = now;
      if (frames.length < 60) requestAnimationFrame(tick); else done();
    };
    requestAnimationFrame(tick);
  });
  clearInterval(timer);
  find.value = "";
  find.dispatchEvent(new Event("input"));
  return frames.slice(2);
}"""


def _show(stage: Stage, watched: Watched, times: dict[tuple[str, int], list[float]]) -> None:
    for count in (FEW, MANY):
        stage.clear()
        stage.crowd(count)
        expect(watched.page.locator("#counts .chip").first).to_contain_text(f"{count:,}", timeout=60_000)
        for act in ("scroll", "filter"):
            times.setdefault((act, count), []).extend(watched.page.evaluate(FRAMES, act))


def measured() -> dict[str, Any]:
    """Return for each act and fleet how long a frame took, and how much longer with many hosts. Units: ms."""
    times: dict[tuple[str, int], list[float]] = {}
    with sync_playwright() as play, Stage() as stage:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        with stage.sign_in(browser) as watched:
            for _ in range(TURNS):
                _show(stage, watched, times)
        browser.close()
    found: dict[str, Any] = {}
    for (act, count), frames in sorted(times.items()):
        cuts = statistics.quantiles(frames, n=10)
        figures = {"median_ms": cuts[4], "p90_ms": cuts[8], "worst_ms": max(frames)}
        found.setdefault(act, {})[f"{count} hosts"] = figures
    for act, each in found.items():
        each["ratio"] = statistics.median(times[act, MANY]) / statistics.median(times[act, FEW])
    return found
