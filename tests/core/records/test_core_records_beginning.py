"""No hub begins where its database was taken away, emptied, or replaced by an older one."""

from __future__ import annotations

import pytest

from processes.core.records.beginning import Found, refusal


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (Found(0), ""), (Found(0, 0), ""), (Found(0, 4096, is_made=True, epoch=9), ""),
        (Found(7), "missing"), (Found(7, 0), "empty"), (Found(7, 4096), "empty"),
        (Found(7, 4096, is_made=True, epoch=6), "older"), (Found(7, 4096, is_made=True, epoch=0), "older"),
        (Found(7, 4096, is_made=True, epoch=7), ""), (Found(7, 4096, is_made=True, epoch=8), ""),
        (Found(7, 4096, is_made=True, epoch=None), ""), (Found(7, 4096, True, None, 0, 7, 5), ""),
        (Found(7, 4096, True, 7, 5, 7, 5), ""), (Found(7, 4096, True, 7, 6, 7, 5), ""),
        (Found(7, 4096, True, 7, 4, 7, 5), "the last 1 rows that hub 7 wrote"), (Found(7, 4096, True, 8, 0, 7, 5), ""),
    ],
)  # fmt: skip
def test_a_hub_begins_only_with_a_database_that_knows_all_hubs_that_ran_here(found: Found, says: str) -> None:
    why = refusal("fleet.db", found)
    assert bool(why) == bool(says)
    assert says in why
    assert not why or "hub 7" in why
