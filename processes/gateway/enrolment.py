"""One-time codes that are offered at this gateway: on their way to the hub, and its answers back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from websockets.http11 import Request, Response

from processes.core.connections import site_of
from processes.core.gateway import code_offers
from processes.core.gateway.admission import Refusal
from processes.core.gateway.code_offers import Answered, CodeOffers
from processes.core.gateway.outbox import Outbox, PutResult
from processes.core.travels import enrolment_exchange, messages
from processes.core.travels.messages import CodeAnswered, CodeOffered
from processes.gateway.agent_socket import AgentSocket

CODES: Final = "/"  # in the place of a host, for offered codes: no host has that name


class Enrolment:
    """The codes of one gateway. `on_event`: called when there is something for the hub. `dropped`: how many codes had
    no room on their way to it.
    """

    def __init__(self, name: str, boot: str, outbox: Outbox, on_event: Callable[[], None]) -> None:
        self._name, self._boot, self._outbox, self._on_event = name, boot, outbox, on_event
        self._offers = CodeOffers()
        self._numbers = 0
        self.dropped = 0

    def offer(self, socket: AgentSocket, request: Request, now_s: float) -> Refusal | Response | float:
        """Have the hub judge the code in the request. Return its answer, or after how many seconds to look for it."""
        if not socket.offer:
            return self._begin(socket, request, now_s)
        answer = self._offers.take(socket.offer, now_s)
        if answer is None:
            return code_offers.LOOK_S
        if isinstance(answer, Refusal):
            return answer
        if answer.status != enrolment_exchange.CREATED:
            return Refusal(answer.status, f"{answer.told}\n")
        return AgentSocket.refusal(201, "The token is good.\n", {enrolment_exchange.HOST_HEADER: answer.told})

    def answered(self, message: CodeAnswered, now_s: float) -> None:
        """Called with the hub's answer."""
        self._offers.answered(message.offer, Answered(message.status, message.told), now_s)

    def _begin(self, socket: AgentSocket, request: Request, now_s: float) -> Refusal | float:
        offer = code_offers.read(
            request.headers.get_all("Authorization"), request.headers.get_all(enrolment_exchange.TOKEN_HASH_HEADER)
        )
        if isinstance(offer, Refusal):
            return offer
        self._numbers += 1
        socket.offer = f"{self._boot}.code{self._numbers}"
        refusal = self._offers.begin(socket.offer, site_of(socket.peer.rpartition(":")[0].strip("[]")), now_s)
        if refusal is not None:
            return refusal
        event = CodeOffered(self._name, socket.offer, *offer, socket.peer)
        if self._outbox.put(CODES, messages.encode(event), now_s) is PutResult.REFUSED:
            self.dropped += 1  # nobody answers in time: 503
        self._on_event()
        return code_offers.LOOK_S
