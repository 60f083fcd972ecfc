"""Codes at the agents' port: what is read of a request, and that guesses, floods and an absent hub have their answers."""

from __future__ import annotations

import hashlib

import pytest

from processes.core.gateway import code_offers
from processes.core.gateway.admission import Refusal
from processes.core.gateway.code_offers import (
    ADDRESSES_MAX,
    ANSWER_S,
    OFFERS_MAX,
    OFFERS_S,
    WAITING_MAX,
    Answered,
    CodeOffers,
    Offer,
)

HASH = "ab" * 32


def test_an_offer_is_read_by_its_hashes_alone() -> None:
    digest = hashlib.sha256(b"web1.example:secret-Text_1").hexdigest()
    for scheme in ("Code", "code"):
        read = code_offers.read([f"{scheme} web1.example:secret-Text_1"], [HASH])
        assert read == Offer("web1.example", digest, HASH)
    assert "secret" not in repr(read)


@pytest.mark.parametrize(
    ("authorization", "hashes"),
    [
        ([], [HASH]), (["Bearer a:b"], [HASH]), (["Code a:b", "Code a:b"], [HASH]), (["Code a"], [HASH]), (["Code a:"], [HASH]),
        (["Code _canary:b"], [HASH]), (["Code ../a:b"], [HASH]), (["Code a:" + "b" * 400], [HASH]), (["Code a:b"], []),
        (["Code a:b"], [HASH, HASH]), (["Code a:b"], [HASH.upper()]), (["Code a:b"], [HASH[:-1]]), (["Code a:b"], ["x" * 64]),
    ],
)  # fmt: skip
def test_anything_else_is_malformed(authorization: list[str], hashes: list[str]) -> None:
    read = code_offers.read(authorization, hashes)
    assert isinstance(read, Refusal)
    assert read.status == 400


def test_an_address_has_some_tries_a_minute_and_others_are_not_held_up() -> None:
    offers = CodeOffers()
    for number in range(OFFERS_MAX):
        assert offers.begin(f"o{number}", "10.0.0.1", 5.0) is None
        offers.answered(f"o{number}", Answered(401, "no"), 5.0)
        assert offers.take(f"o{number}", 5.0) == Answered(401, "no")
    refused = offers.begin("late", "10.0.0.1", 5.0 + OFFERS_S - 0.1)
    assert refused is not None
    assert (refused.status, refused.retry_after_s) == (429, 60)
    assert offers.begin("other", "10.0.0.2", 5.0) is None
    assert offers.begin("later", "10.0.0.1", 5.0 + OFFERS_S) is None


def test_who_waits_for_an_absent_hub_is_told_to_ask_again_and_holds_no_place_for_ever() -> None:
    offers = CodeOffers()
    for number in range(WAITING_MAX):
        assert offers.begin(f"o{number}", f"10.0.0.{number}", 0.0) is None
    full = offers.begin("more", "10.1.0.1", ANSWER_S - 0.1)
    assert full is not None
    assert full.status == 503
    assert offers.take("o0", ANSWER_S - 0.1) is None
    late = offers.take("o0", ANSWER_S)
    assert isinstance(late, Refusal)
    assert late.status == 503
    assert offers.begin("now", "10.1.0.1", ANSWER_S) is None, "the others are gone, whether they were fetched or not"
    offers.answered("o1", Answered(201, "a"), ANSWER_S)
    gone = offers.take("o1", ANSWER_S)
    assert isinstance(gone, Refusal), "nobody waited for that answer any more"


def test_addresses_are_remembered_in_a_bounded_number() -> None:
    offers = CodeOffers()
    for number in range(ADDRESSES_MAX + 100):
        offers.begin(f"o{number}", str(number), float(number))
        offers.answered(f"o{number}", Answered(401, "no"), float(number))
    assert len(offers._wrong) == ADDRESSES_MAX


def test_a_rack_behind_one_address_is_not_held_up_by_its_own_good_codes() -> None:
    offers = CodeOffers()
    for number in range(5 * OFFERS_MAX):
        assert offers.begin(f"o{number}", "10.0.0.1", 5.0) is None
        offers.answered(f"o{number}", Answered(201, f"web{number}"), 5.0)
        assert offers.take(f"o{number}", 5.0) == Answered(201, f"web{number}")
