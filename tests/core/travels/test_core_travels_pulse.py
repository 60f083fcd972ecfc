"""The pulse's record."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.travels import pulse as record
from processes.core.travels.pulse import Pulse, Unreadable

COUNT = st.integers(0, 2**64 - 1)
SMALL = st.integers(0, 2**32 - 1)


PULSES = st.builds(
    Pulse, pid=SMALL, start_ticks=COUNT, epoch=COUNT, turn=COUNT, written_ns=COUNT, received=COUNT, stepped=COUNT,
    committed=COUNT, published=COUNT, delivered=COUNT, backlog=SMALL, connections=SMALL, oldest_ns=COUNT,
    in_hand_ns=COUNT,
    in_hand=st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=64),
    blocked_on=st.sampled_from(["", "storage", "queues"]), hosts=SMALL, online=SMALL, stale=SMALL, offline=SMALL,
    dropped=COUNT, errors=COUNT, storage_ns=COUNT, dead_letters=SMALL, suspended=SMALL, refused_epoch=COUNT,
    refused_sequence=COUNT, accepted=COUNT, waiting=SMALL, waiting_max=SMALL, waiting_ns=COUNT, unaccepted_ns=COUNT,
    unaccepted_turns=SMALL, turned_away=COUNT, refused=COUNT,
)  # fmt: skip


@given(PULSES, COUNT)
def test_every_field_comes_back_as_it_was_written(pulse: Pulse, sequence: int) -> None:
    """Catches a field left out or swapped in pack or unpack."""
    packed = record.pack(pulse, sequence)
    assert len(packed) == record.SLOT_SIZE
    assert record.unpack(packed) == pulse


@given(PULSES, PULSES, COUNT)
def test_what_is_in_hand_is_written_into_the_slot_before_and_nothing_else_changes(
    before: Pulse, pulse: Pulse, sequence: int
) -> None:
    """Catches a place that is not where `pack` puts it, and a checksum of the slot before."""
    slot = record.repack(record.pack(before, 7), pulse, sequence)
    same = msgspec.structs.replace(before, in_hand=pulse.in_hand, in_hand_ns=pulse.in_hand_ns)
    assert slot == record.pack(same, sequence)
    assert record.unpack(slot) == same


@pytest.mark.parametrize("place", [0, 1])
def test_the_newer_slot_is_taken_wherever_it_stands(place: int) -> None:
    slots = [record.pack(Pulse(turn=1), 1), record.pack(Pulse(turn=2), 2)]
    assert record.unpack(b"".join(slots if place else reversed(slots))).turn == 2


@given(st.integers(1, record.SLOT_SIZE - 1))
def test_a_slot_that_is_being_written_hides_nothing_of_the_turn_before(written: int) -> None:
    """A writer that was stopped or killed after any byte: the other slot is whole."""
    first, second, third = (record.pack(Pulse(turn=turn, received=turn * 7), turn) for turn in (1, 2, 3))
    found = record.unpack(third[:written] + first[written:] + second)
    assert found.turn in (2, 3)
    assert found.received == found.turn * 7


@pytest.mark.parametrize(
    "garbage", [b"", b"fhpulse1", b"x" * record.SIZE, record.pack(Pulse(), 1)[:-1], b"\0" * record.SIZE]
)
def test_what_is_not_a_pulse_is_said_to_be_garbage(garbage: bytes) -> None:
    with pytest.raises(Unreadable, match="garbage"):
        record.unpack(garbage)


def test_an_overlong_event_is_cut_and_a_cut_character_is_no_error() -> None:
    found = record.unpack(record.pack(Pulse(in_hand="x" * 63 + "é" * 10), 1))
    assert found.in_hand.startswith("x" * 63)


def test_a_backlog_beyond_32_bits_is_the_largest_there_is() -> None:
    found = record.unpack(record.pack(Pulse(backlog=2**40), 1))
    assert found.backlog == 2**32 - 1
