"""A host's token is made anew by its own agent, when an operator wishes it. Pure.

    wished ──agent connected──▶ asked ──its new token's hash──▶ the host has that token, the old one is void,
       └──────────asked again at each registration──────────┘   and the agent comes back with the new one

The agent keeps both secrets on its disk until the new one has let it in, so a kill of either side at any point leaves
it one that is good.
"""

from __future__ import annotations

import msgspec

from processes.core.hub import noted
from processes.core.hub.memory import Draft
from processes.core.hub.refused import Refused
from processes.core.records.host import HostRecord
from processes.core.shown.views import encode, host_view
from processes.core.travels.messages import DeliverRotate, Json, Token, TokenChanged, TokenOffered
from processes.core.values import CloseCode


def rotate(draft: Draft, host: HostRecord, actor: str) -> tuple[int, Json]:
    """Ask the host's agent for a new token, now or when it connects. Raises: Refused."""
    if host.token_hash is None:
        raise Refused(409, "no_token", f"host {host.name} has no token: fleethub enroll {host.name} --again")
    if host.foreign:
        raise Refused(
            409, "foreign_agent", f"the agent of {host.name} cannot make a token: fleethub enroll {host.name} --again"
        )
    host = msgspec.structs.replace(host, rotation_wall_s=host.rotation_wall_s or draft.now.wall_s)
    draft.put(draft.memory.hosts, host.name, host)
    noted.of_host(draft, host.name, "rotation_asked", actor)
    ask(draft, host)
    return 202, encode(host_view(host, draft.link(host.name)))


def ask(draft: Draft, host: HostRecord) -> None:
    """Ask the agent that is connected, if a rotation is wished."""
    link = draft.link(host.name)
    if host.rotation_wall_s is not None and link.connection and not host.foreign:
        draft.deliver(link.gateway, DeliverRotate(draft.memory.epoch, link.connection))


def offered(draft: Draft, event: TokenOffered) -> None:
    """Give the host the token that its agent has made, if one was asked for and the connection is the host's."""
    host = draft.host(event.host)
    if host is None or host.rotation_wall_s is None or host.token_hash is None:
        return
    if draft.link(host.name).connection != event.connection:
        return  # of the past: the connection of now is asked too
    if any(each.token_hash == event.token_hash for each in draft.memory.hosts.values()):
        return  # not a new one: nobody's token becomes another host's
    if draft.get(draft.memory.void, event.token_hash):
        return  # it was made void before: whoever has a copy of it would be let in again
    draft.revoke(host.token_hash)
    host = msgspec.structs.replace(host, token_hash=event.token_hash, rotation_wall_s=None)
    draft.put(draft.memory.hosts, host.name, host)
    noted.of_host(draft, host.name, "rotated", f"agent of {host.name}")
    token = Token(event.token_hash, host.name, host.enrolment)
    draft.deliver_all(TokenChanged(draft.memory.epoch, host.name, token, CloseCode.RESTART, "come with the new token"))
