"""One-time codes that are offered at the agents' port: how often, and what the hub says to them. Pure.

    GET /enroll ──▶ malformed ────────────────────────────────▶ 400
                ──▶ this address has offered too many wrong ──▶ 429, try again in a minute
                ──▶ too many wait for the hub ────────────────▶ 503, try again
                ──▶ the hub is asked ──▶ its answer (201, 401, 409)
                                     └─▶ none within ANSWER_S ─▶ 503: whoever asks again gets the same answer

It is a GET because this port knows nothing else; it carries no body. A browser cannot be made to send it: the code is
in a header that no page of another origin may set.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from processes.core.gateway.admission import RETRY_AFTER_S, Refusal
from processes.core.travels import enrolment_exchange
from processes.core.values import HOST_NAME, digest

CODE_CHARS_MAX: Final = 400
ANSWER_S: Final = 5.0  # for the hub; it is replaced within that time
LOOK_S: Final = 0.1  # between two looks whether the hub has answered
OFFERS_MAX: Final = 10  # wrong ones of one address within OFFERS_S; whoever types a code wrong tries a few times
OFFERS_S: Final = 60.0
WAITING_MAX: Final = 100  # for the hub; guess: a rack that is installed at once
ADDRESSES_MAX: Final = 10_000  # remembered; the oldest are forgotten first

_TOKEN_HASH: Final = re.compile(r"[0-9a-f]{64}")


class Offer(NamedTuple):
    """One code that is offered, by hashes."""

    host: str
    code_hash: str
    token_hash: str


class Answered(NamedTuple):
    """What the hub said: an HTTP status, and the host's name or why not."""

    status: int
    told: str


def read(authorization: Sequence[str], token_hashes: Sequence[str]) -> Offer | Refusal:
    """Return the offer in the values of the headers."""
    scheme, _, code = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
    host, _, secret = code.strip().partition(":")
    if (
        scheme.lower() != enrolment_exchange.SCHEME.lower()
        or not secret
        or len(code) > CODE_CHARS_MAX
        or not HOST_NAME.fullmatch(host)
    ):
        return Refusal(400, "This is no enrolment code: it looks like NAME:SECRET.\n")
    if len(token_hashes) != 1 or not _TOKEN_HASH.fullmatch(token_hashes[0]):
        return Refusal(
            400, f"{enrolment_exchange.TOKEN_HASH_HEADER} must be the SHA-256 of the host's new token in hex.\n"
        )
    return Offer(host, digest(code.strip()), token_hashes[0])


class CodeOffers:
    """The offers that wait for the hub, and how often each address has offered lately.

    Units: `now_s` are seconds of the loop's clock.
    """

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()  # when each address offered what the hub refused
        # offer → until when it waits, from which address, and the answer
        self._waiting: dict[str, tuple[float, str, Answered | None]] = {}

    def begin(self, offer: str, address: str, now_s: float) -> Refusal | None:
        """Note an offer that is to be told to the hub; a refusal, if there are too many."""
        times = self._wrong.get(address, deque())
        if len(times) == OFFERS_MAX and now_s - times[0] < OFFERS_S:
            return Refusal(429, "Too many wrong codes from here: wait a minute.\n", int(OFFERS_S))
        self._waiting = {id: kept for id, kept in self._waiting.items() if kept[0] > now_s}  # of clients that are gone
        if len(self._waiting) >= WAITING_MAX:
            return Refusal(503, "Too many codes at once. Try again soon.\n", RETRY_AFTER_S)
        self._waiting[offer] = (now_s + ANSWER_S, address, None)
        return None

    def answered(self, offer: str, answer: Answered, now_s: float) -> None:
        """Called with the hub's answer; one that nobody waits for any more is dropped. A good code is no try: a rack
        that is installed at once comes from one address.
        """
        if offer not in self._waiting:
            return
        until_s, address, _ = self._waiting[offer]
        self._waiting[offer] = (until_s, address, answer)
        if answer.status != enrolment_exchange.CREATED:
            self._wrong.setdefault(address, deque(maxlen=OFFERS_MAX)).append(now_s)
            self._wrong.move_to_end(address)
            if len(self._wrong) > ADDRESSES_MAX:
                self._wrong.popitem(last=False)

    def take(self, offer: str, now_s: float) -> Answered | Refusal | None:
        """Return the answer; None: look again after LOOK_S."""
        until_s, _, answer = self._waiting.get(offer, (0.0, "", None))
        if answer is None and now_s < until_s:
            return None
        self._waiting.pop(offer, None)
        return answer or Refusal(503, "The hub is away. Ask again with the same token.\n", RETRY_AFTER_S)
