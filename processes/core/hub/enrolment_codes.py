"""One-time codes by which an agent gives its host a credential that nobody ever sees. Pure.

The agent makes its secret itself, and sends the code with the secret's hash. So the exchange can be asked for again: as
long as the host has that very token, the answer is the same. With another token, a used code is no good.

    made ──▶ waits ──offered with a token──▶ used: the host has that token, and the one before is void
               └──expired, made anew, host enrolled by token, revoked or removed──▶ no good

A code that was used or taken back is in the list beside the database too: no restored backup makes it good again.
"""

from __future__ import annotations

import hmac

import msgspec

from processes.core.hub import flood, labels, noted
from processes.core.hub.memory import Draft, derived_id
from processes.core.hub.refused import Refused
from processes.core.records.host import EnrolmentCode, HostRecord
from processes.core.shown.views import encode
from processes.core.travels.messages import CodeAnswered, CodeOffered, Json, MakeCode, Token, TokenChanged
from processes.core.values import HOST_NAME, TOKEN_VOID, rfc3339


def enrollable(draft: Draft, name: str, *, again: bool) -> HostRecord | None:
    """Return the host of this name; None: it is new. Raises: Refused, if it may not be enrolled."""
    if not HOST_NAME.fullmatch(name):
        raise Refused(
            400,
            "malformed",
            f"{name!r} is not a host name (RFC 1123): letters, digits, dashes, dots",
            host=name,
        )
    host = draft.host(name)
    if host is not None and not again:
        raise Refused(409, "exists", f"host {name} is enrolled already: --again replaces its token")
    if host is None and (same := in_other_letters(draft, name)):
        raise Refused(
            409, "exists", f"{name} is enrolled already, as {same}: names of hosts are one in capitals or not"
        )
    return host


def in_other_letters(draft: Draft, name: str) -> str:
    """Return the enrolled host's name that differs from this one by capitals alone (RFC 4343); empty: there is none."""
    lower = name.lower()
    return next((each for each in draft.memory.hosts if each.lower() == lower and each != name), "")


def make(draft: Draft, request: MakeCode, request_id: str, actor: str) -> tuple[int, Json]:
    """Make a code for the host. Its token, if it has one, is good until the code is used. Raises: Refused."""
    now_wall_s = draft.now.wall_s
    labels.check(request.labels)
    host = enrollable(draft, request.name, again=request.again)
    if host is None:
        host = HostRecord(request.name, derived_id(request_id, request.name), None, now_wall_s)
    host = labels.added(host, request.labels)
    code = EnrolmentCode(request.code_hash, now_wall_s + request.expires_s)
    host = msgspec.structs.replace(take_back(draft, host), code=code)
    draft.put(draft.memory.hosts, host.name, host)
    until = rfc3339(code.expires_wall_s)
    noted.of_host(draft, host.name, "code_made", actor, f"good until {until}")
    return 201, encode({"name": host.name, "host_id": host.enrolment, "expires_at": until, "suspended": host.suspended})


def take_back(draft: Draft, host: HostRecord) -> HostRecord:
    """Return the host's record without its code, which is good no more."""
    if host.code is not None and not host.code.used_hash:
        draft.revoke(host.code.code_hash)
    return msgspec.structs.replace(host, code=None)


def offered(draft: Draft, event: CodeOffered) -> None:
    """Give the host the token that comes with its code, and answer."""
    status, told = _judged(draft, event)
    draft.deliver(event.gateway, CodeAnswered(draft.memory.epoch, event.offer, status, told))


def _judged(draft: Draft, event: CodeOffered) -> tuple[int, str]:
    host = draft.host(event.host)
    code = host.code if host is not None else None
    if host is None or code is None or not hmac.compare_digest(code.code_hash, event.code_hash):
        return 401, "there is no such code, or it was taken back: fleethub enroll NAME --code makes one"
    if code.used_hash:
        if code.used_hash == event.token_hash == host.token_hash:
            return 201, host.name  # asked again: the answer was lost
        _refuse_used(draft, event, host, code)
        return 409, "the code was used before: if that was not you, revoke the host; then make another code"
    if draft.now.wall_s >= code.expires_wall_s:
        return 401, f"the code expired at {rfc3339(code.expires_wall_s)}: fleethub enroll NAME --code --again"
    if any(each.token_hash == event.token_hash for each in draft.memory.hosts.values()):
        return 409, "that token is another host's: a machine makes its own"
    if draft.get(draft.memory.void, event.token_hash):
        return TOKEN_VOID, "that token was made void before: make another one"
    _exchange(draft, event, host, code)
    return 201, host.name


def _refuse_used(draft: Draft, event: CodeOffered, host: HostRecord, code: EnrolmentCode) -> None:
    """Count it, and note the first time, the second, the fourth …: a code that went astray may be offered for ever, and
    must cost the trail a few lines.
    """
    code = msgspec.structs.replace(code, refused=code.refused + 1)
    draft.put(draft.memory.hosts, host.name, msgspec.structs.replace(host, code=code))
    if code.refused.bit_count() == 1:
        often = f", {code.refused} times by now" if code.refused > 1 else ""
        noted.of_host(draft, host.name, "code_refused", _actor(event), f"used before, for another token{often}")


def _exchange(draft: Draft, event: CodeOffered, host: HostRecord, code: EnrolmentCode) -> None:
    after = "enrolled" if host.register is None and host.token_hash is None else "enrolled_again"
    draft.revoke(code.code_hash)
    if host.token_hash is not None:
        draft.revoke(host.token_hash)
    if host.suspended:
        noted.of_host(draft, host.name, "lifted", _actor(event), host.suspended)
    host = msgspec.structs.replace(
        flood.lifted(draft, host),
        token_hash=event.token_hash,
        rotation_wall_s=None,
        code=msgspec.structs.replace(code, used_hash=event.token_hash),
    )
    draft.put(draft.memory.hosts, host.name, host)
    noted.of_host(draft, host.name, after, _actor(event), "by a one-time code")
    draft.deliver_all(TokenChanged(draft.memory.epoch, host.name, Token(event.token_hash, host.name, host.enrolment)))


def _actor(event: CodeOffered) -> str:
    return f"agent at {event.address}"
