"""For all tests: made-up examples have no deadline, for how fast a machine is proves nothing; the longest files come first."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("fleethub", deadline=None, print_blob=True)
settings.load_profile("fleethub")

LONGEST = (  # in this order: one that begins last would leave the other cores idle
    "test_drills_all.py",
    "test_cli_verbs_installation.py",
    "test_drills_house.py",
    "test_watchdog_replacement.py",
    "test_browser_page.py",
    "test_drills_failpoints.py",
    "test_drills_poison.py",
    "test_network_house.py",
    "test_bench_quick.py",
    "test_drills_hostile.py",
    "test_drills_chaos.py",
    "test_drills_watchdog.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Called when all tests are known: puts those of the longest files in front."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
