"""Dead letters: messages that were not stepped or not shown, each with the reason, until an operator decides. Pure.

They are kept in bounds, shown, and tried again or discarded by an operator.
"""

from __future__ import annotations

import enum
import math
from collections import Counter, deque
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from processes.core.errors import LocalError
from processes.core.records import poison
from processes.core.travels import messages
from processes.core.travels.messages import (
    AckReceived,
    AgentEvent,
    CensusTaken,
    CreateToken,
    Death,
    EnrollHost,
    Event,
    GiveCommand,
    MakeCode,
    ProgressReceived,
    RehearseFault,
    RejectReceived,
    RemoveHost,
    RequestReceived,
    RetryDeadLetter,
    RevokeHost,
    RevokeToken,
    RotateHost,
    RotateToken,
    StartRun,
    StatusReceived,
    Undelivered,
)
from processes.core.values import Role, Time, rfc3339

DEAD_LETTERS_MAX: Final = 1000  # dead letters kept; beyond it see `too_many`. Guess: far more than anybody reads
DEAD_LETTERS_BYTES_MAX: Final = 8 << 20  # of all dead letters, in memory and on disk; one has 2 MiB at most
ERROR_CHARS_MAX: Final = 16 * 1024  # of one traceback
UNDECODABLE: Final = "undecodable"  # the kind of a message that could not even be decoded

_RETRIED: Final = (StatusReceived, RejectReceived, AckReceived, ProgressReceived, RequestReceived)
# requests that an operator may not make again for an admin
_ADMINS: Final = (
    EnrollHost, MakeCode, RotateHost, RevokeHost, RemoveHost, CreateToken, RotateToken, RevokeToken, RehearseFault,
    RetryDeadLetter,
)  # fmt: skip
_event = msgspec.json.Decoder(Event)


class Why(enum.StrEnum):
    """Why a message became a dead letter."""

    POISON = "poison"  # it ended the process that stepped it, poison.DEATHS_MAX times
    RAISED = "raised"  # its step raised an exception
    UNDECODABLE = "undecodable"  # of another version, or broken
    STRAY = "stray"  # a report of a command of another host, or of one that is not known any more


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One dead letter. `process`: the hub, or the fanout that left a row out.

    `event`: the message as JSON; an undecodable one as it came.
    """

    id: str
    at_wall_s: float
    kind: str
    why: str
    process: str = "hub"
    name: str = ""  # the event's name in the pulse (poison.name_of)
    host: str = ""
    error: str = ""
    deaths: list[Death] = []
    retries: int = 0
    retrying: bool = False
    event: bytes = b""

    @property
    def size_bytes(self) -> int:
        """Return about how many bytes it takes to keep."""
        stacks = sum(len(death.stacks) for death in self.deaths) if self.deaths else 0  # nearly all have none
        return len(self.event) + len(self.error) + stacks + 500

    def says(self, other: DeadLetter) -> bool:
        """Return whether both say the same of the same, but for when."""
        return msgspec.structs.replace(other, at_wall_s=self.at_wall_s) == self


class DeathView(msgspec.Struct, frozen=True):
    """One death in the API."""

    at: Time | None
    cause: str
    pid: int
    incident: str
    stacks: str | None


class DeadLetterView(msgspec.Struct, frozen=True):
    """A dead letter in the API. `retrying`: it is about to be stepped once more.

    `event`: null in a listing; the text of a message that is undecodable.
    """

    id: str
    at: Time | None
    process: str
    kind: str
    why: str
    host: str
    error: str
    size_bytes: int
    retries: int
    retrying: bool
    deaths: list[DeathView]
    event: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "string", "null"]})]


def view(dead_letter: DeadLetter, *, whole: bool) -> DeadLetterView:
    """Return the dead letter for the API. Not `whole`: no event, no stacks, the error's last line."""
    error = dead_letter.error if whole else (dead_letter.error.strip().splitlines() or [""])[-1][:300]
    deaths = [
        DeathView(rfc3339(d.wall_s), d.cause, d.pid, d.incident, d.stacks if whole else None)
        for d in dead_letter.deaths
    ]
    event = msgspec.Raw(b"null")
    if whole and dead_letter.kind == UNDECODABLE:
        event = msgspec.Raw(msgspec.json.encode(dead_letter.event.decode("latin-1")))
    elif whole and dead_letter.event:
        event = msgspec.Raw(dead_letter.event)
    return DeadLetterView(
        dead_letter.id, rfc3339(dead_letter.at_wall_s), dead_letter.process, dead_letter.kind, dead_letter.why,
        dead_letter.host, error, dead_letter.size_bytes, dead_letter.retries, dead_letter.retrying, deaths, event,
    )  # fmt: skip


def of_event(
    id: str, at_wall_s: float, event: object, why: Why, *, error: str, name: str = "", deaths: list[Death] | None = None
) -> DeadLetter:
    """Return the dead letter that an event becomes. The hub's own events (timers) have no content."""
    outside = isinstance(event, msgspec.Struct)
    return DeadLetter(
        id, at_wall_s, type(event).__name__, why, name=name, host=host_of(event), error=error[-ERROR_CHARS_MAX:],
        deaths=deaths or [], event=msgspec.json.encode(event) if outside else b"",
    )  # fmt: skip


def host_of(event: object) -> str:
    """Return the host whose agent caused the event; empty: none. `Undelivered` is the gateway's own."""
    if isinstance(event, AgentEvent) and not isinstance(event, Undelivered):
        return event.host
    if isinstance(event, CensusTaken) and len(event.connections) == 1:
        return event.connections[0].host
    return ""


def revived(dead_letter: DeadLetter) -> Event:
    """Return the event, to be stepped once more. A request gets no deadline: an operator wants it carried out now.

    Raises: LocalError, if the event cannot be stepped again: it is about a connection of the past, or this version
    cannot decode it either.
    """
    try:
        event = (
            messages.decode_event(dead_letter.event)
            if dead_letter.kind == UNDECODABLE
            else _event.decode(dead_letter.event)
        )
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LocalError(f"it cannot be read: {error}") from None
    if not isinstance(event, _RETRIED):
        raise LocalError(
            f"a {dead_letter.kind} is about one moment only: if it is still true, it comes again by itself"
        )
    return msgspec.structs.replace(event, deadline_boot_s=math.inf) if isinstance(event, RequestReceived) else event


def role_to_retry(dead_letter: DeadLetter) -> Role:
    """Return the role that an operator needs to have the dead letter tried again: for a request, at least that of who
    may make the request. The retry of another dead letter needs the highest role, because nobody can tell here what
    that one is.
    """
    try:
        event = revived(dead_letter)
    except LocalError:
        return Role.OPERATOR  # the hub refuses
    return Role.ADMIN if isinstance(event, RequestReceived) and isinstance(event.request, _ADMINS) else Role.OPERATOR


def ops_of(dead_letter: DeadLetter) -> list[str]:
    """Return the ops that would be run on hosts if the dead letter were tried again."""
    try:
        event = revived(dead_letter)
    except LocalError:
        return []  # the hub refuses
    request = event.request if isinstance(event, RequestReceived) else None
    if isinstance(request, GiveCommand):
        return [request.op]
    return request.steps if isinstance(request, StartRun) else []


def name_again(dead_letter: DeadLetter) -> str:
    """Return the name in the pulse while the dead letter is stepped again.

    It is another name each time, so that deaths are counted for each try by itself.
    """
    return poison.name_of_own(dead_letter.kind, dead_letter.id, str(dead_letter.retries))


def too_many(
    dead_letters: Mapping[str, DeadLetter],
    *,
    count_max: int = DEAD_LETTERS_MAX,
    bytes_max: int = DEAD_LETTERS_BYTES_MAX,
) -> list[str]:
    """Return the ids of the dead letters that must go, because there are too many or they are too large together.

    `dead_letters`: oldest first. The host that has most loses first: by number if there are too many, then by bytes. Of
    that host, the kind (`why`) of which it has most loses its oldest. So a host that floods displaces its own, and of
    these the kind that floods. What is of no host counts as one more host. The newest stays whatever its size, because
    its id is about to be told.
    """
    gone: list[str] = []
    if len(dead_letters) > count_max:
        gone = _displaced(dead_letters, dict.fromkeys(dead_letters, 1), count_max)
    sizes = {id: dead_letter.size_bytes for id, dead_letter in dead_letters.items()}
    for id in gone:
        del sizes[id]
    return gone + _displaced(dead_letters, sizes, bytes_max)


def _displaced(dead_letters: Mapping[str, DeadLetter], weights: Mapping[str, int], weight_max: int) -> list[str]:
    """Return the ids that must go until the others weigh at most `weight_max`. `weights`: of each id, oldest first."""
    weight = sum(weights.values())
    if weight <= weight_max:
        return []
    of_host: Counter[str] = Counter()
    of_kind: Counter[tuple[str, str]] = Counter()
    waiting: dict[str, dict[str, deque[str]]] = {}  # host → why → ids that may go, oldest first; none is empty
    newest = list(weights)[-1]
    for id, its_weight in weights.items():
        host, why = dead_letters[id].host, dead_letters[id].why
        of_host[host] += its_weight
        of_kind[host, why] += its_weight
        if id != newest:
            waiting.setdefault(host, {}).setdefault(why, deque()).append(id)
    gone: list[str] = []
    while weight > weight_max and waiting:
        host = max(waiting, key=of_host.__getitem__)
        _, why = max((of_kind[host, why], why) for why in waiting[host])
        id = waiting[host][why].popleft()
        gone.append(id)
        weight -= weights[id]
        of_host[host] -= weights[id]
        of_kind[host, why] -= weights[id]
        if not waiting[host][why]:
            del waiting[host][why]
        if not waiting[host]:
            del waiting[host]
    return gone
