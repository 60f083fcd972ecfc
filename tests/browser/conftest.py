"""One browser and one stage for the tests of a file: a playwright that lives on would keep its event loop in
everybody's thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S
from doubles.page_stage import Stage
from playwright.sync_api import Browser, expect, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists() and "CI" not in os.environ:
        pytest.skip(f"{CHROMIUM} is not installed: apt-get install chromium")
    expect.set_options(timeout=WAIT_S * 1000)
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def played() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture
def stage(played: Stage) -> Stage:
    """The stage, cleared of the scene before."""
    played.clear()
    return played
