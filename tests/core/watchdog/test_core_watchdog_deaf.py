"""Who is deaf, who is only busy, unlucky, starved or away, and what is said of a crowded port."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processes.core.shown.status import Verdict
from processes.core.travels.pulse import Pulse, enter_accepts
from processes.core.watchdog.verdict import (
    DEAF_TURNS,
    LAG_S,
    STARVED_S_MAX,
    Judgement,
    ProcessFacts,
    Spent,
    Track,
    judge,
    own_gap,
    went_on,
)

STALL_S = 2.0
START = 100.0
TURN_S = 0.25  # of a gateway that has nothing to do


class Port:
    """A listening socket, and the processes that accept from it."""

    def __init__(self, *, hears: tuple[bool, ...] = (True,), room: int = 4096) -> None:
        self.now_s, self.queue, self.room = START, 0, room
        self.hears = list(hears)
        self.pulses = [Pulse(pid=7 + number, start_ticks=70) for number, _ in enumerate(hears)]
        self.tracks = [Track() for _ in hears]
        self.spent = Spent()

    def comes(self, count: int = 1) -> None:
        """Connections whose handshake is done, as far as there is room."""
        self.queue = min(self.room + 1, self.queue + count)

    def poll(self, number: int = 0, at_most: int = 4096) -> None:
        """One pass of a process's event loop: it takes what is there."""
        taken = min(self.queue, at_most) if self.hears[number] else 0
        self.queue -= taken
        self.pulses[number].received += taken  # stands for the count of accepts until the turn's end

    def end_turn(self, number: int = 0) -> None:
        """The end of a turn of a process."""
        pulse = self.pulses[number]
        enter_accepts(pulse, pulse.received, self.queue, self.room, int(self.now_s * 1e9))
        pulse.turn += 1
        pulse.written_ns = int(self.now_s * 1e9)

    def look(self, number: int = 0, **fields: Any) -> Judgement:
        """One look of the watchdog at a process."""
        pulse = self.pulses[number]
        facts = ProcessFacts(pid=pulse.pid, start_ticks=70, age_s=60.0, pulse=pulse, spent=self.spent)
        self.tracks[number], judgement = judge(
            "gateway", self.tracks[number], facts._replace(**fields), self.now_s, STALL_S
        )
        return judgement

    def turn(self, *, after_s: float = TURN_S, comes: int = 0, **fields: Any) -> Judgement:
        """Turns of all processes after a time in which some connections come, and the verdict on the first."""
        self.now_s += after_s
        self.comes(comes)
        for each in (self.poll, self.end_turn):
            for number, _ in enumerate(self.hears):
                each(number)
        judgements = [self.look(number, **fields) for number, _ in enumerate(self.hears)]
        return judgements[0]


def test_a_connection_that_waits_for_two_seconds_while_the_process_turns_finds_it_deaf() -> None:
    port = Port(hears=(False,))
    assert port.turn().verdict is Verdict.ADVANCING
    assert port.turn(comes=1).verdict is Verdict.ADVANCING
    began_s = port.now_s
    while (judgement := port.turn()).verdict is Verdict.ADVANCING:
        assert port.now_s < began_s + STALL_S
    assert judgement == Judgement(
        Verdict.DEAF, "1 connection waits to be accepted, and it has accepted none for 2.0 s", began_s
    )


def test_a_deaf_process_at_whose_port_nobody_waits_is_not_known_to_be_deaf() -> None:
    port = Port(hears=(False,))
    assert {port.turn().verdict for _ in range(400)} == {Verdict.ADVANCING}


def test_a_full_queue_is_told() -> None:
    port = Port(hears=(False,), room=3)
    for _ in range(20):
        judgement = port.turn(comes=1)
    assert judgement.verdict is Verdict.DEAF
    assert judgement.reason.startswith("4 connections wait to be accepted, the queue is full, and it has")


def test_who_accepts_one_of_thousands_a_turn_is_not_deaf_but_crowded() -> None:
    """Also who closes at once what it accepts, for want of room: it hears."""
    port = Port()
    port.comes(4000)
    seen = []
    for _ in range(40):
        port.now_s += TURN_S
        port.poll(at_most=1)
        port.end_turn()
        seen.append(port.look())
    assert {judgement.verdict for judgement in seen[: int(LAG_S / TURN_S)]} == {Verdict.ADVANCING}
    assert seen[-1].verdict is Verdict.LAGGING
    assert seen[-1].reason == "its port is crowded: 3960 connections wait to be accepted for 9.8 s"
    port.poll()
    port.end_turn()
    assert port.look().verdict is Verdict.ADVANCING


def test_a_deaf_process_is_not_noticed_while_another_accepts_in_its_place() -> None:
    port = Port(hears=(False, True))
    assert {port.turn(comes=3).verdict for _ in range(400)} == {Verdict.ADVANCING}


def test_of_two_at_one_port_that_are_deaf_both_are_found_and_of_one_that_hears_too_late_the_deaf_one() -> None:
    port = Port(hears=(False, False))
    for _ in range(12):
        port.turn(comes=1)
    assert [port.look(number).verdict for number in (0, 1)] == [Verdict.DEAF, Verdict.DEAF]
    port.hears[1] = True
    port.pulses[1].received += 1  # it accepts, and much waits all the same
    port.end_turn(0)
    port.end_turn(1)
    assert [port.look(number).verdict for number in (0, 1)] == [Verdict.DEAF, Verdict.ADVANCING]


def test_a_single_accept_ends_it() -> None:
    port = Port(hears=(False,))
    for _ in range(12):
        port.turn(comes=1)
    assert port.look().verdict is Verdict.DEAF
    port.hears[0] = True
    port.now_s += TURN_S
    port.poll(at_most=1)
    port.end_turn()
    assert port.look().verdict is Verdict.ADVANCING


@pytest.mark.parametrize("unaccepted_ns", [0, 5])
@pytest.mark.parametrize("turn", [6, 7, 8])
@pytest.mark.parametrize("found", Verdict)
def test_who_went_on_while_the_evidence_was_collected_is_spared(found: Verdict, turn: int, unaccepted_ns: int) -> None:
    """A deaf one that only turns has not gone on: it has turned all the time."""
    spared = went_on(found, 7, Pulse(turn=turn, unaccepted_ns=unaccepted_ns))
    assert spared == (turn == 8 and (found is Verdict.FROZEN or (found is Verdict.DEAF and unaccepted_ns == 0)))


def test_no_turn_is_frozen_and_not_deaf() -> None:
    """A process that does not turn accepts nothing either; what it says of itself is old."""
    port = Port(hears=(False,))
    port.turn(comes=1)
    port.now_s += STALL_S
    assert port.look().verdict is Verdict.FROZEN


def test_a_few_turns_prove_nothing_however_long_they_took() -> None:
    """The bug it would catch: a throttled gateway makes a turn a second, and is taken for deaf after the second."""
    port = Port(hears=(False,))
    port.turn(comes=1)
    for _ in range(DEAF_TURNS - 1):
        assert port.look().verdict is Verdict.ADVANCING
        judgement = port.turn(after_s=1.5)
    assert judgement.verdict is Verdict.DEAF


def test_many_turns_within_a_moment_prove_nothing_either() -> None:
    port = Port(hears=(False,))
    port.turn(comes=1)
    assert {port.turn(after_s=0.001).verdict for _ in range(1000)} == {Verdict.ADVANCING}


def test_a_process_without_a_cpu_is_excused_for_thirty_seconds() -> None:
    port = Port(hears=(False,))
    port.turn(comes=1)
    began_s = port.now_s
    seen = []
    while port.now_s < began_s + STARVED_S_MAX - 2 * TURN_S:
        port.spent = Spent(waited_s=0.9 * (port.now_s - START))
        seen.append(port.turn().verdict)
    assert seen[-1] is Verdict.EXCUSED
    assert set(seen) == {Verdict.ADVANCING, Verdict.EXCUSED}
    assert port.turn(after_s=1.0).verdict is Verdict.DEAF


def test_a_watchdog_that_was_away_counts_from_its_return() -> None:
    """As after a suspended machine: the first pulses still tell of the connection that waited before."""
    port = Port(hears=(False,))
    for _ in range(7):
        port.turn(comes=1)
    port.tracks[0] = own_gap(port.tracks[0], 3600.0, 0.1, START + 3600)
    port.now_s = START + 3600
    while port.now_s < START + 3600 + STALL_S - TURN_S:
        assert port.turn().verdict is Verdict.ADVANCING
    port.turn()
    assert port.turn().verdict is Verdict.DEAF


def test_a_new_watchdog_listens_before_it_judges() -> None:
    port = Port(hears=(False,))
    for _ in range(40):
        port.now_s += TURN_S
        port.comes()
        port.end_turn()
    assert port.look().verdict is Verdict.ADVANCING
    while port.now_s < START + 10 + STALL_S - TURN_S:
        assert port.turn().verdict is Verdict.ADVANCING
    port.turn()
    assert port.turn().verdict is Verdict.DEAF


@pytest.mark.parametrize("state", ["S", "R"])
def test_what_its_predecessor_left_waiting_is_not_held_against_a_new_process(state: str) -> None:
    port = Port(hears=(False,))
    for _ in range(12):
        port.turn(comes=1)
    port.pulses[0] = Pulse(pid=99, start_ticks=990)
    port.hears[0] = True
    assert port.look(start_ticks=990, pid=99, age_s=0.1, state=state).verdict is Verdict.STARTING
    for _ in range(12):
        port.now_s += TURN_S
        port.comes()
        port.poll()
        port.end_turn()
        assert port.look(start_ticks=990, pid=99, age_s=1.0, state=state).verdict is Verdict.ADVANCING


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.001, 0.1, 0.25, 0.9, 1.9]),  # how long the pass took
            st.integers(0, 3),  # connections that come before it looks
            st.integers(1, 4096),  # how many it takes, if there are so many
            st.integers(0, 3),  # … and that come between the look and the turn's end
            st.booleans(),  # the turn's timer was due before the look: this turn ends without one
        ),
        max_size=60,
    )
)
def test_who_accepts_at_its_passes_is_never_deaf(passes: list[tuple[float, int, int, int, bool]]) -> None:
    """Whatever comes, whenever it comes, however slow the passes are and however little it takes each time.

    The bug it would catch: time alone is judged, so that a slow process is killed for what came a moment ago.
    """
    port, looked = Port(), True
    for took_s, before, takes, between, early in passes:
        port.now_s += took_s
        port.comes(before)
        if not early or not looked:  # never two turns in a row without a look: a loop looks once a pass
            port.poll(at_most=takes)
            looked = True
        else:
            looked = False
        port.comes(between)
        port.end_turn()
        assert port.look().verdict in (Verdict.ADVANCING, Verdict.LAGGING)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from([0.01, 0.1, 0.25, 1.0]), st.integers(0, 2)), min_size=60, max_size=60))
def test_who_accepts_nothing_is_found_within_the_limit_and_a_few_turns(passes: list[tuple[float, int]]) -> None:
    """However turns and connections come, the verdict stands once the limit and DEAF_TURNS are over, and stays."""
    port, turns, since_s = Port(hears=(False,)), 0, None
    port.turn()
    for took_s, comes in passes:
        judgement = port.turn(after_s=took_s, comes=comes)
        if port.queue:
            since_s, turns = since_s or port.now_s, turns + 1
        due = since_s is not None and port.now_s - since_s >= STALL_S + 1e-6 and turns >= DEAF_TURNS
        early = since_s is None or port.now_s - since_s < STALL_S - 1e-6 or turns < DEAF_TURNS
        assert not due or judgement.verdict is Verdict.DEAF
        assert not early or judgement.verdict is Verdict.ADVANCING


@pytest.mark.parametrize("seed", range(20))
def test_among_several_that_hear_nobody_is_unlucky_for_long(seed: int) -> None:
    """Four share a port in a storm, and each takes as many as it can whenever the kernel wakes it. A minute each."""
    dice = random.Random(seed)
    port = Port(hears=(True,) * 4)
    while port.now_s < START + 60:
        port.now_s += dice.uniform(0.001, 0.05)
        port.comes(dice.randrange(4))
        for number in dice.sample(range(4), dice.randint(1, 4)):
            port.poll(number, at_most=dice.randint(1, 50))
            port.comes(dice.randrange(2))
            port.end_turn(number)
            assert port.look(number).verdict in (Verdict.ADVANCING, Verdict.LAGGING)
