"""Every word of an agent about a command in every state has a defined answer: none raises, and every report is
acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from doubles.fleet_play import Play, delivered

from processes.core.hub.memory import Draft
from processes.core.records.command import FINAL, TRANSITIONS, State, UnknownTransition, moved
from processes.core.travels.messages import (
    AckReceived,
    DeliverAck,
    Event,
    Json,
    OutputReceived,
    ProgressReceived,
    RejectReceived,
    StatusReceived,
    Undelivered,
)
from processes.core.values import OutputRecord, Stream

WHO = ("c1", "gateway", "a")
RECORD = OutputRecord(0, Stream.STDOUT, "line")

Q, S, R = State.QUEUED, State.SENT, State.RUNNING
OK, FAILED, REJECTED, CANCELLED, LOST = State.SUCCEEDED, State.FAILED, State.REJECTED, State.CANCELLED, State.LOST


def status(word: str, code: int | None) -> Callable[[str], Event]:
    return lambda command_id: StatusReceived(*WHO, word, code, "", command_id)


WORDS: dict[
    str, tuple[Callable[[str], Event], dict[State, State]]
] = {  # and what becomes of each open state, and of lost
    "ack accepted": (lambda i: AckReceived(*WHO, i, "accepted"), {Q: R, S: R, R: R, LOST: LOST}),
    "ack duplicate": (lambda i: AckReceived(*WHO, i, "duplicate"), {Q: R, S: R, R: R, LOST: LOST}),
    "progress": (lambda i: ProgressReceived(*WHO, Json(b"{}"), i), {Q: R, S: R, R: R, LOST: LOST}),
    "output": (lambda i: OutputReceived(*WHO, [RECORD], i), {Q: R, S: R, R: R, LOST: LOST}),
    "rejected": (lambda i: RejectReceived(*WHO, "busy", i, "pull"), {Q: REJECTED, S: REJECTED, R: LOST, LOST: LOST}),
    "ok": (status("ok", 0), {Q: OK, S: OK, R: OK, LOST: OK}),
    "ok without an exit code": (status("ok", None), {Q: OK, S: OK, R: OK, LOST: OK}),
    "ok with an exit code": (status("ok", 3), {Q: FAILED, S: FAILED, R: FAILED, LOST: FAILED}),
    "warning": (status("warning", 0), {Q: OK, S: OK, R: OK, LOST: OK}),
    "error": (status("error", 1), {Q: FAILED, S: FAILED, R: FAILED, LOST: FAILED}),
    "timed out": (status("timed_out", -15), {Q: FAILED, S: FAILED, R: FAILED, LOST: FAILED}),
    "cancelled": (status("cancelled", None), {Q: CANCELLED, S: CANCELLED, R: CANCELLED, LOST: FAILED}),
    "stopped": (status("stopped", 130), {Q: CANCELLED, S: CANCELLED, R: CANCELLED, LOST: FAILED}),
    "a word we do not know": (status("melted", 1), {Q: FAILED, S: FAILED, R: FAILED, LOST: FAILED}),
    "undelivered": (lambda i: Undelivered(*WHO, i, 1), {Q: Q, S: S, R: R, LOST: LOST}),
}
REPORTS = ("rejected", "ok", "ok without an exit code", "ok with an exit code", "warning", "error", "timed out",
"cancelled", "stopped",
           "a word we do not know")  # fmt: skip
WAY = {  # how a command comes into each state
    Q: (), S: (S,), R: (S, R), OK: (S, OK), FAILED: (S, R, FAILED), REJECTED: (S, REJECTED),
    State.EXPIRED: (State.EXPIRED,),
    CANCELLED: (CANCELLED,), LOST: (S, R, LOST),
}  # fmt: skip


def in_state(state: State) -> tuple[Play, str]:
    """A connected host that keeps its command in this state: what is queued behind another is not sent."""
    play = Play()
    play.enroll("a")
    play.connect("a", "c1")
    if state is State.QUEUED:
        play.give("switch", "a")
        return play, play.give("pull", "a")[0]
    play.disconnect("a", "c1")
    (command_id,) = play.give("pull", "a")
    for after in WAY[state]:
        draft = Draft(play.memory, play.now)
        draft.move(play.command(command_id), after, "test", attempt=1, connection="c1", journal="journal")
        draft.apply()
    play.connect("a", "c1")  # no evidence about what was sent on this very connection
    return play, command_id


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("word", WORDS)
def test_every_word_in_every_state_has_its_answer(state: State, word: str) -> None:
    play, command_id = in_state(state)
    assert play.state(command_id) is state
    say, answers = WORDS[word]
    done = play.do(say(command_id))
    assert play.state(command_id) is answers.get(state, state), "a final state stays, but for lost"
    assert play.memory.ledger.balanced
    assert play.memory.hosts["a"].ledger == play.memory.ledger
    acks = [ack for ack in delivered(done, DeliverAck) if isinstance(ack, DeliverAck) and ack.offset is None]
    assert [ack.command_id for ack in acks] == ([command_id] if word in REPORTS else [])
    assert not any(ack.quarantined for ack in acks)
    if play.state(command_id) in FINAL:
        assert command_id not in play.memory.queues.get("a", ())


def test_a_word_about_a_queued_command_proves_that_it_was_sent() -> None:
    """The hub's database is older than what the agent knows: the command is not sent as if for the first time."""
    play, command_id = in_state(Q)
    done = play.do(status("ok", 0)(command_id))
    lines = [
        (str(w.transition.before), str(w.transition.after), w.transition.reason)
        for w in done.writes
        if hasattr(w, "transition")
    ]
    assert lines == [("queued", "sent", "known_to_agent"), ("sent", "succeeded", "")]


def test_who_says_that_it_runs_and_then_rejects_it_contradicts_itself() -> None:
    play, command_id = in_state(R)
    play.do(RejectReceived(*WHO, "busy", command_id))
    command = play.command(command_id)
    assert (command.state, command.reason) == (State.LOST, "contradicted")
    assert "busy" in command.message


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_the_table_has_exactly_its_pairs_and_every_other_is_an_error(before: State, after: State) -> None:
    play, command_id = in_state(before)
    command = play.command(command_id)
    if after in TRANSITIONS[before]:
        assert moved(command, after, 5.0).state is after
    else:
        with pytest.raises(UnknownTransition):
            moved(command, after, 5.0)
    assert not TRANSITIONS[before] or not before.final or before is State.LOST
    assert msgspec.structs.asdict(command)["state"] is before
