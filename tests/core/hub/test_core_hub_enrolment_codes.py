"""One-time codes: of several at once one wins, a lost answer is given again, and nothing void comes back."""

from __future__ import annotations

import hashlib
import itertools

import msgspec
import pytest
from doubles.fleet_play import Play, delivered

from processes.core.cli import rollback
from processes.core.hub import step
from processes.core.hub.effects import AddAudit, Effects, Revoke
from processes.core.records.host import EnrolmentCode, HostRecord, Link
from processes.core.shown.views import host_view
from processes.core.travels import messages
from processes.core.travels.messages import CodeAnswered, CodeOffered, MakeCode, TokenChanged
from processes.core.values import ENROLMENT_CODE_S, TOKEN_VOID, Presence

MINE, OTHER = "1" * 64, "2" * 64
_numbers = itertools.count(1)


def code_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def play() -> Play:
    return Play()


def make(play: Play, host: str = "a", code: str = "a:code", *, again: bool = False) -> int:
    return play.ask(MakeCode(host, code_hash(code), again)).status


def offer(play: Play, token_hash: str = MINE, code: str = "a:code", host: str = "a") -> tuple[int, Effects]:
    done = play.do(CodeOffered("gateway", f"o{next(_numbers)}", host, code_hash(code), token_hash, "10.0.0.7:5"))
    (answer,) = delivered(done, CodeAnswered)
    assert isinstance(answer, CodeAnswered)
    return answer.status, done


def revoked(play: Play) -> set[str]:
    return {write.token_hash for write in play.effects.writes if isinstance(write, Revoke)}


def audited(play: Play) -> list[str]:
    return [w.line.after for w in play.effects.writes if isinstance(w, AddAudit) and w.line.subject == "a"]


def test_a_code_gives_its_host_the_token_that_its_agent_made(play: Play) -> None:
    assert make(play) == 201
    assert play.memory.hosts["a"].token_hash is None
    status, done = offer(play)
    assert status == 201
    assert done.durable, "nobody is told before it is on disk"
    (change,) = delivered(done, TokenChanged)
    assert isinstance(change, TokenChanged)
    assert change.token == messages.Token(MINE, "a", play.memory.hosts["a"].enrolment)
    assert play.connect("a", "c1").deliveries, "its agent is let in"
    assert audited(play) == ["code_made", "enrolled"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_lost_answer_is_given_again_also_by_the_next_hub_and_after_the_codes_time(
    play: Play, *, restarts: bool
) -> None:
    """The bug it would catch: the exchange was done, the answer never came, and the host is stranded."""
    make(play)
    assert offer(play)[0] == 201
    if restarts:
        play.restart()
    play.wait(ENROLMENT_CODE_S + 1)
    status, done = offer(play)
    assert status == 201
    assert not done.durable, "nothing changes the second time"


def test_an_answer_that_is_asked_for_twice_in_one_batch_does_not_overtake_the_commit(play: Play) -> None:
    make(play)
    event = CodeOffered("gateway", "o", "a", code_hash("a:code"), MINE)
    assert step.step(play.memory, event, play.now).apply().durable
    again = step.step(play.memory, event, play.now).effects
    assert not again.durable
    assert again.promises


def test_of_several_at_once_one_wins_and_the_others_are_audited(play: Play) -> None:
    make(play)
    tokens = [f"{number:064d}" for number in range(1, 9)]
    assert [offer(play, token)[0] for token in tokens] == [201] + [409] * 7
    assert play.memory.hosts["a"].token_hash == tokens[0]
    assert audited(play)[-1] == "code_refused", "somebody else has the code: that is worth a line"


def test_a_used_code_that_is_offered_for_ever_costs_the_trail_a_few_lines(play: Play) -> None:
    """The lines say how often by then; it counts on through a restart, for the count is in the host's record."""
    make(play)
    assert offer(play)[0] == 201
    lines = len(audited(play))
    for number in range(1000):
        assert offer(play, f"{number:064x}")[0] == 409
    refused = audited(play)[lines:]
    assert refused == ["code_refused"] * 10
    record = play.memory.hosts["a"]
    assert record.code is not None
    assert record.code.refused == 1000
    assert record.token_hash == MINE


def test_a_wrong_an_expired_and_another_hosts_code_change_nothing(play: Play) -> None:
    make(play)
    make(play, "b", "b:code")
    before = msgspec.json.encode(dict(play.memory.hosts))
    writes = len(play.effects.writes)
    for code, host in (("a:guess", "a"), ("b:code", "a"), ("a:code", "b"), ("a:code", "nobody"), ("", "_canary")):
        assert offer(play, MINE, code, host)[0] == 401, (code, host)
    play.wait(ENROLMENT_CODE_S)
    assert offer(play)[0] == 401
    assert msgspec.json.encode(dict(play.memory.hosts)) == before
    assert len(play.effects.writes) == writes, "whoever only guesses costs no disk"


def test_the_token_of_an_enrolled_host_is_good_until_its_code_is_used(play: Play) -> None:
    play.enroll("a")
    assert make(play) == 409, "not without again"
    assert make(play, again=True) == 201
    assert play.memory.hosts["a"].token_hash == "hash-a"
    assert offer(play)[0] == 201
    assert revoked(play) == {"hash-a", code_hash("a:code")}
    assert play.memory.hosts["a"].token_hash == MINE
    assert audited(play)[-1] == "enrolled_again"


@pytest.mark.parametrize(
    "request_",
    [
        messages.RevokeHost("a"), messages.RemoveHost("a"), messages.EnrollHost("a", OTHER, again=True),
        MakeCode("a", code_hash("a:newer"), again=True),
    ],
    ids=lambda request: type(request).__name__,
)  # fmt: skip
def test_a_code_is_void_once_its_host_is_revoked_removed_or_enrolled_in_another_way(
    play: Play, request_: messages.Request
) -> None:
    """The bug it would catch: a revoked host comes back with a code that was made before."""
    make(play)
    assert play.ask(request_).status in (200, 201)
    assert code_hash("a:code") in revoked(play), "and no backup brings it back"
    assert offer(play)[0] == 401


def test_after_a_revocation_the_used_code_gives_the_token_back_to_nobody(play: Play) -> None:
    make(play)
    offer(play)
    play.ask(messages.RevokeHost("a"))
    assert offer(play)[0] == 401
    assert play.memory.hosts["a"].token_hash is None


def test_no_code_makes_one_hosts_token_anothers(play: Play) -> None:
    play.enroll("b")
    make(play)
    assert offer(play, "hash-b")[0] == 409
    assert play.memory.hosts["a"].token_hash is None


def test_a_code_keeps_a_suspension_and_its_use_lifts_it_and_both_say_so(play: Play) -> None:
    play.enroll("a")
    play.connect("a", "c1")
    play.do(messages.HostFlooded("c1", "gateway", "a"))
    why = play.memory.hosts["a"].suspended
    assert why
    reply = play.ask(MakeCode("a", code_hash("a:code"), again=True))
    assert msgspec.json.decode(reply.body)["suspended"] == why == play.memory.hosts["a"].suspended
    assert offer(play)[0] == 201
    assert play.memory.hosts["a"].suspended == ""
    assert "lifted" in audited(play)


def test_a_new_token_that_lifts_a_suspension_says_so(play: Play) -> None:
    play.enroll("a")
    play.connect("a", "c1")
    play.do(messages.HostFlooded("c1", "gateway", "a"))
    why = play.memory.hosts["a"].suspended
    told = msgspec.json.decode(play.ask(messages.EnrollHost("a", OTHER, again=True)).body)
    assert told["lifted"] == why != ""
    assert audited(play)[-2:] == ["enrolled_again", "lifted"]
    told = msgspec.json.decode(play.ask(messages.EnrollHost("a", MINE, again=True)).body)
    assert told["lifted"] == ""
    assert audited(play)[-1] == "enrolled_again"


def test_a_restored_backup_makes_no_used_code_good_again_and_takes_no_token_that_came_of_one(play: Play) -> None:
    make(play)
    before = dict(play.memory.hosts)
    offer(play)
    void = frozenset(revoked(play))

    def restored(hosts: dict[str, HostRecord]) -> HostRecord:
        found = rollback.restored(hosts.values(), [], [], play.memory.ledger, revoked=void, now_wall_s=play.now.wall_s)
        return {host.name: host for host in found.hosts}["a"]

    assert (restored(before).token_hash, restored(before).code) == (None, None)
    after = dict(play.memory.hosts)
    assert restored(after) == after["a"]
    assert after["a"].token_hash == MINE


@pytest.mark.parametrize(("used_hash", "is_revoked"), [("", False), (MINE, True)])
def test_a_host_without_a_token_is_revoked_unless_a_code_still_waits_to_be_used(
    used_hash: str, is_revoked: bool
) -> None:
    """The bug it would catch: a restored host whose token is void is shown as good, for it once had a code."""
    host = HostRecord("a", "host-a", None, 1.0, code=EnrolmentCode("code", 2.0, used_hash))
    assert host_view(host, Link(Presence.OFFLINE)).revoked is is_revoked


def test_a_token_that_was_made_void_is_no_hosts_again(play: Play) -> None:
    """The bug it would catch: a machine that kept its secret brings a revoked token back, and a thief's copy with it."""
    make(play)
    assert offer(play)[0] == 201
    play.ask(messages.RevokeHost("a"))
    make(play, code="a:other", again=True)
    assert offer(play, code="a:other")[0] == TOKEN_VOID
    assert play.memory.hosts["a"].token_hash is None
    assert offer(play, OTHER, code="a:other")[0] == 201
