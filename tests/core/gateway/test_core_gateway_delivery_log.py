"""A gateway says "never written" only of what it knows."""

from __future__ import annotations

from processes.core.gateway.delivery_log import DeliveryLog


def test_a_command_that_was_not_written_was_never_written() -> None:
    assert DeliveryLog("boot").never("boot.1", "c1")


def test_what_was_written_is_remembered_after_its_connection() -> None:
    """A second copy of a delivery meets an ended connection; the hub must not hear that the first was never written."""
    written = DeliveryLog("boot")
    written.add("boot.1", "c1")
    assert not written.never("boot.1", "c1")
    assert written.never("boot.1", "c2")
    assert written.never("boot.2", "c1")


def test_nothing_is_said_of_another_gateways_connections() -> None:
    """The gateway before this one may have written it and died before it acknowledged the delivery."""
    assert not DeliveryLog("boot").never("earlier.1", "c1")
    assert not DeliveryLog("boot").never("boot2.1", "c1")


def test_nothing_is_said_of_what_may_be_forgotten() -> None:
    written = DeliveryLog("boot", remembered_max=2)
    for number in (3, 1, 4):
        written.add(f"boot.{number}", "c1")
    assert not written.never("boot.3", "c1")  # forgotten, so it cannot be said
    assert not written.never("boot.2", "c9")  # older than the newest of which something is forgotten
    assert written.never("boot.5", "c1")
