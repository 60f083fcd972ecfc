"""The chain of the audit trail: whatever is changed, removed, moved or put in is found, and nothing else is."""

from __future__ import annotations

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.travels import audit, audit_chain
from processes.core.travels.audit import AHEAD_S_MAX, Ageing, AuditView, Head, Kind
from processes.core.travels.audit_chain import Verified, Verifier

DAY_S = 86400.0
START = Head(7, "")  # as after a migration: seven lines are not covered


def trail(count: int, since: Head = START, **more: str) -> list[AuditView]:
    """Returns lines behind the checkpoint, oldest first."""
    lines, before = [], bytes.fromhex(since.hash)
    for number in range(since.number + 1, since.number + 1 + count):
        line = audit.view((number, 1.7e9 + number, Kind.HOST, f"web{number}", None, "enrolled", "", "ann", ""))
        if number == since.number + count and more:
            line = msgspec.structs.replace(line, **more)
        before = audit.chained(before, line)
        lines.append(msgspec.structs.replace(line, hash=before.hex()))
    return lines


def verified(lines: list[AuditView], since: Head = START, *heads: Head, page: int = 3) -> Verified:
    """Returns what comes of it, page by page, newest first."""
    verifier = Verifier(heads)
    for start in range(0, len(lines), page):
        verifier.take(lines[::-1][start : start + page], since)
    verifier.take([], since)
    return verifier.finish()


def head_of(line: AuditView) -> Head:
    assert line.hash is not None
    return Head(line.number, line.hash)


def test_the_canonical_encoding_is_what_is_stated() -> None:
    """So that anybody can compute it with nothing but what the API gives."""
    line = audit.view((8, 1.7e9 + 0.25, Kind.HOST, 'w"\x1f\n\x7f ü😀\u2028/\\', "a", "b", "why", "ann", ""))
    fields = [8, "2023-11-14T22:13:20.250Z", "host", line.subject, "a", "b", "ann", "why"]
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    assert audit.chained(b"x" * 32, line) == hashlib.sha256(b"x" * 32 + text.encode()).digest()


@given(st.text(), st.text(), st.one_of(st.none(), st.text()), st.integers(1, 1 << 60))
def test_any_text_is_encoded_as_json_dumps_does_it(subject: str, actor: str, before: str | None, number: int) -> None:
    line = AuditView(number, "2023-11-14T22:13:20.250Z", Kind.REQUEST, subject, before, "refused", actor, "")
    fields = [number, line.at, "request", subject, before, "refused", actor, ""]
    try:
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a character, which is in no database
        return
    assert audit.chained(b"", line) == hashlib.sha256(text).digest()


@pytest.mark.parametrize("page", [1, 2, 3, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 12])
@pytest.mark.parametrize("since", [Head(0, ""), START, Head(7, "ab" * 32)])
def test_a_whole_trail_is_whole_in_pages_of_any_size(count: int, since: Head, page: int) -> None:
    lines = trail(count, since)
    found = verified(lines, since, *(head_of(line) for line in lines), page=page)
    assert (found.is_whole, found.lines, found.since) == (True, count, since)
    assert found.head == (head_of(lines[-1]) if lines else since)


@given(st.data())
def test_whatever_is_done_to_a_trail_is_found_at_or_before_the_first_line_that_differs(data: st.DataObject) -> None:
    """Any edits of somebody who does not compute the hashes anew. The tail is held by a head from elsewhere."""
    good = trail(data.draw(st.integers(2, 9)))
    bad = list(good)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(bad) - 1))
        match data.draw(st.sampled_from(["change", "remove", "swap", "double", "bare", "other"])):
            case "change":
                bad[place] = msgspec.structs.replace(bad[place], actor=bad[place].actor + "?")
            case "remove" if len(bad) > 1:
                del bad[place]
            case "swap":
                other = data.draw(st.integers(0, len(bad) - 1))
                one, two = bad[place], bad[other]
                bad[place] = msgspec.structs.replace(two, number=one.number)
                bad[other] = msgspec.structs.replace(one, number=two.number)
            case "bare":
                bad[place] = msgspec.structs.replace(bad[place], hash=None)
            case "other":
                bad[place] = msgspec.structs.replace(bad[place], hash="cd" * 32)
            case _:
                bad.append(msgspec.structs.replace(bad[-1], number=bad[-1].number + 1))
    found = verified(bad, START, head_of(good[-1]))
    assert found.is_whole == (bad == good)
    if bad != good:
        differs = next((n for n, (x, y) in enumerate(zip(bad, good, strict=False)) if x != y), min(len(bad), len(good)))
        assert found.breaks[0].number <= START.number + 1 + differs + 1


def test_the_first_broken_line_is_named_first_and_all_are_counted() -> None:
    lines = trail(60)
    for place in range(1, 60, 3):
        lines[place] = msgspec.structs.replace(lines[place], after="revoked")
    found = verified(lines)
    assert found.breaks[0].number == lines[1].number
    assert len(found.breaks) == audit_chain.BREAKS_MAX
    assert found.broken == 20


def test_a_trail_that_was_cut_or_written_anew_is_found_by_a_head_and_by_nothing_else() -> None:
    good = trail(6)
    forged = trail(6, START, actor="mallory")
    assert verified(forged).is_whole
    assert verified(good[:-2]).is_whole
    for lines, says in ((forged, "is not the one"), (good[:-2], "was told of a later one")):
        found = verified(lines, START, head_of(good[-1]))
        assert not found.is_whole
        assert says in found.breaks[0].why


def test_a_head_from_before_a_restore_is_explained_by_the_line_of_the_restore() -> None:
    replaced = trail(9)
    reason = audit_chain.replaced(head_of(replaced[-1]))
    lines = trail(5, START, kind="database", after=audit_chain.RESTORED, reason=reason)
    lines = [msgspec.structs.replace(line, kind=Kind(line.kind)) for line in lines]
    found = verified(lines, START, head_of(replaced[-1]))
    assert found.is_whole
    assert any("a backup was restored here" in note and str(head_of(replaced[-1])) in note for note in found.notes)
    earlier = verified(lines, START, head_of(replaced[-2]))
    assert not earlier.is_whole
    assert "verify the one that was kept" in earlier.breaks[0].why


def test_lines_that_go_by_their_age_while_it_is_verified_are_not_missed() -> None:
    lines = trail(10)
    verifier = Verifier([head_of(lines[2])])
    for start in range(0, 10, 3):
        since = head_of(lines[3]) if start else START
        verifier.take([line for line in lines[::-1][start : start + 3] if line.number > since.number], since)
    verifier.take([], head_of(lines[3]))
    found = verifier.finish()
    assert (found.is_whole, found.lines) == (True, 6)
    assert any("have gone by their age" in note for note in found.notes)
    assert any("cannot be checked" in note for note in found.notes)


def test_only_a_head_with_all_its_digits_is_one() -> None:
    assert audit_chain.parse_head(f" 12:{'AB' * 32}\n") == Head(12, "ab" * 32)
    for text in ("", "12", "12:ab", f"0:{'ab' * 32}", f"-1:{'ab' * 32}", f"12:{'xy' * 32}", f"12:{'ab' * 33}"):
        assert audit_chain.parse_head(text) is None


def test_lines_go_from_the_oldest_on_and_none_that_is_young_or_needed() -> None:
    def last(*lines: Ageing, now_s: float = 200 * DAY_S) -> int:
        return audit.last_to_go(lines, now_s, 90 * DAY_S)

    assert last() == 0
    assert last(Ageing(1, 1 * DAY_S, False), Ageing(2, 109 * DAY_S, False), Ageing(3, 111 * DAY_S, False)) == 2
    assert last(Ageing(1, 111 * DAY_S, False), Ageing(2, 1 * DAY_S, False)) == 0, "never out of the middle"
    assert last(Ageing(1, 21 * DAY_S, True), Ageing(2, 21 * DAY_S, False)) == 0, "its command is still there"
    assert last(Ageing(1, 19 * DAY_S, True), Ageing(2, 21 * DAY_S, False)) == 2, "but not for ever"
    wrong = Ageing(2, 200 * DAY_S + AHEAD_S_MAX + 1, False)
    assert last(Ageing(1, 1 * DAY_S, False), wrong) == 1, "a wrong clock makes no line old"
    assert last(Ageing(1, 1 * DAY_S, False), wrong, Ageing(3, 2 * DAY_S, False)) == 3, "nor keeps others for ever"
