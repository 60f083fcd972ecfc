"""Who is connected: registrations, heartbeats, disconnects, censuses. Pure.

The order of arrival at the hub decides which connection of a host is current; a disconnect counts only for the current
one. All of this is volatile: nothing here waits for the disk, so presence goes on while the database is slow, locked or
full. The consequences of a registration for the host's commands are durable, and are left to the next durable step (the
host is marked as due).
"""

from __future__ import annotations

from typing import Final

import msgspec

from processes.core.hub import foreign, host_tokens, pace
from processes.core.hub.memory import Draft
from processes.core.hub.rules import Census
from processes.core.records.host import HostRecord, Link, progress_of
from processes.core.travels.messages import (
    AgentDisconnected,
    AgentRegistered,
    CensusTaken,
    CloseConnection,
    Connection,
    DeliverRegistered,
    HeartbeatReceived,
    Token,
    TokensPiece,
)
from processes.core.values import CANARY_HOST, CloseCode, Presence

TOKENS_PIECE: Final = 1000  # tokens in one message: about 150 KiB
TIMERS_MAX: Final = 2000  # looked at in one tick, so that a turn stays short; the others wait for the next


def registered(draft: Draft, event: AgentRegistered) -> None:
    """Make the connection the host's current one, and keep a census that is under way from ending it."""
    connect(draft, event.info)
    # plant: census-names
    _name(draft, event.gateway, event.connection)


def connect(draft: Draft, info: Connection) -> None:
    """Make this connection the host's current one, unless a later one is known, and tell its agent so."""
    host = draft.host(info.host)
    if host is None or host.enrolment != info.enrolment or (host.token_hash is None and host.name != CANARY_HOST):
        draft.deliver(
            info.gateway, CloseConnection(draft.memory.epoch, info.connection, CloseCode.REVOKED, "not enrolled")
        )
        return
    if host.suspended:
        draft.deliver(
            info.gateway, CloseConnection(draft.memory.epoch, info.connection, CloseCode.SUSPENDED, "suspended")
        )
        return
    link = draft.link(host.name)
    current = draft.connection(link.connection) if link.connection else None
    if current is not None and current.connection != info.connection:
        if current.since_boot_s > info.since_boot_s:
            draft.deliver(
                info.gateway, CloseConnection(draft.memory.epoch, info.connection, CloseCode.REPLACED, "replaced")
            )
            return
        draft.deliver(
            current.gateway, CloseConnection(draft.memory.epoch, current.connection, CloseCode.REPLACED, "replaced")
        )
    if current is None or current.connection != info.connection:
        # when it was accepted, also for a hub that started later
        since_wall_s = draft.now.wall_s - max(0.0, draft.now.boot_s - info.since_boot_s)
        link = Link(
            Presence.ONLINE, info.connection, info.gateway, since_wall_s, heard_boot_s=draft.now.boot_s, idle=info.idle
        )
        host = msgspec.structs.replace(
            host, register=info.register, facts=info.facts, address=info.address, seen_wall_s=draft.now.wall_s
        )
        wanted_s = pace.interval_s(draft, host)
        link = msgspec.structs.replace(link, progress=progress_of(info.progress), told_s=info.told_s or wanted_s)
        draft.put_link(host.name, link, info)
        draft.put_host_behind(host)
        _arm(draft, host, link)
        if link.told_s != wanted_s:
            draft.mark(draft.memory.untold, host.name)
    registered = DeliverRegistered(draft.memory.epoch, info.connection, host.name, host.enrolment, link.told_s)
    draft.deliver(info.gateway, registered)
    host_tokens.ask(draft, host)
    draft.mark(draft.memory.due, host.name)
    draft.mark(draft.memory.arrived, host.name)


def disconnected(draft: Draft, event: AgentDisconnected) -> None:
    """Make the host offline, if this was its current connection."""
    link = draft.link(event.host)
    if draft.host(event.host) is not None and link.connection == event.connection:
        _gone(draft, event.host)


def _gone(draft: Draft, name: str) -> None:
    draft.put_link(name, Link(Presence.OFFLINE))
    draft.mark(draft.memory.due, name)  # to note in its commands since when they are unheard of


def heartbeat(draft: Draft, event: HeartbeatReceived) -> None:
    """Make the host online with these metrics. A heartbeat of a connection that is not current is ignored."""
    host, link = draft.host(event.host), draft.link(event.host)
    if host is None or link.connection != event.connection:
        return
    host = msgspec.structs.replace(
        host,
        heartbeat=draft.ledgers_word(host, event.heartbeat),
        heartbeat_facts=event.facts,
        seen_wall_s=draft.now.wall_s,
    )
    if host.name == CANARY_HOST:
        draft.beat = event.heartbeat.command_pid or 0
    draft.put_host_behind(host)
    host_tokens.ask(draft, host)  # again: its answer may have been lost, or came while nothing could be written
    idle = link.idle or (host.foreign and event.heartbeat.pending_command is None)
    now_online = msgspec.structs.replace(link, presence=Presence.ONLINE, heard_boot_s=draft.now.boot_s, idle=idle)
    draft.put_link(host.name, now_online)
    if host.foreign:
        foreign.beat(draft, host, event)
    if idle and not link.idle:
        draft.mark(draft.memory.due, host.name)
    _arm(draft, host, link)


def _arm(draft: Draft, host: HostRecord, link: Link) -> None:
    draft.arm(host.name, draft.now.boot_s + pace.patience_s(draft, host, link))


def tick(draft: Draft) -> None:
    """Let presence expire: a connected host that missed its heartbeats becomes stale, and a host that no census named
    in time becomes offline.
    """
    if not draft.settled and draft.now.boot_s >= draft.memory.started_boot_s + draft.rules.settle_s:
        settle(draft)
    for name in draft.take_presence_timers(TIMERS_MAX):
        host, link = draft.host(name), draft.link(name)
        if host is None or link.presence is not Presence.ONLINE:
            continue
        patience_s = pace.patience_s(draft, host, link)
        # plant: presence-clock
        if draft.now.boot_s - link.heard_boot_s < patience_s:
            draft.arm(name, link.heard_boot_s + patience_s)  # a later heartbeat came
            continue
        draft.put_link(name, msgspec.structs.replace(link, presence=Presence.STALE))


def settle(draft: Draft) -> None:
    """Called when the censuses are in, or it is too late for them: hosts not found connected become offline."""
    draft.settled = True
    for name in draft.memory.hosts:
        if draft.link(name).presence is Presence.STALE and not draft.link(name).connection:
            _gone(draft, name)


def census(draft: Draft, event: CensusTaken) -> None:
    """Take one piece of a census. After the last piece, exactly the named connections of this gateway live. The first
    piece is answered with the token table.
    """
    running = draft.memory.censuses.get(event.gateway)
    if running is not None and running.number > event.census and running.boot == event.boot:
        return  # a piece of a census that a newer one has overtaken
    if event.piece == 0:
        running = Census(event.census, event.boot)
        _tell_tokens(draft, event.gateway)
    if running is None or running.done or running.number != event.census or running.boot != event.boot:
        return  # its first piece was lost: the gateway takes another census when it hears of the loss
    draft.put(draft.memory.censuses, event.gateway, running)
    _name(draft, event.gateway, *(info.connection for info in event.connections))
    for info in event.connections:
        connect(draft, info)
    if not event.last:
        return
    whole = draft.get(draft.memory.censuses, event.gateway)
    assert whole is not None
    named = whole.named
    draft.put(draft.memory.censuses, event.gateway, Census(event.census, event.boot, done=True))
    for name, link in list(draft.memory.links.items()):
        if (
            link.gateway == event.gateway
            and link.connection
            and link.connection not in named
            and draft.link(name) == link
        ):
            _gone(draft, name)
    counted = draft.memory.counted
    draft.mark(counted, event.gateway)
    if not draft.settled and all(draft.get(counted, gateway) is not None for gateway in draft.rules.gateways):
        settle(draft)


def _name(draft: Draft, gateway: str, *connections: str) -> None:
    """Keep a census that is under way, if there is one, from ending these connections."""
    running = draft.get(draft.memory.censuses, gateway)
    if running is not None and not running.done:
        named = running.named.union(connections)
        draft.put(draft.memory.censuses, gateway, Census(running.number, running.boot, named))


def _tell_tokens(draft: Draft, gateway: str) -> None:
    tokens = [
        Token(host.token_hash, host.name, host.enrolment)
        for host in draft.memory.hosts.values()
        if host.token_hash is not None and not host.suspended and host.name != CANARY_HOST
    ]
    pieces = [tokens[at : at + TOKENS_PIECE] for at in range(0, len(tokens), TOKENS_PIECE)] or [[]]
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        draft.deliver(gateway, TokensPiece(draft.memory.epoch, number, last, piece, batches=True))
