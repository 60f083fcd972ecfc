"""A census overtakes presence; who comes after the census is not in it."""

from __future__ import annotations

from processes.core.gateway.outbox import Bounds, Outbox


def test_who_registers_after_a_census_began_is_told_of_though_a_batch_from_before_it_fails() -> None:
    """Else the hub would never hear of that connection, and its agent would wait for `registered` for ever."""
    outbox = Outbox(Bounds())
    outbox.put_presence("a", b"a down", 0)
    assert outbox.next(0) is not None  # on its way
    outbox.start_census(iter([b"census"]))
    outbox.put_presence("b", b"b up", 0)
    outbox.refused(0)
    items = []
    while (batch := outbox.next(10)) is not None:
        items += batch.items
        outbox.appended()
    assert items == [b"census", b"b up"]
