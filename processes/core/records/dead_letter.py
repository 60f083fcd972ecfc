"""Dead letters: messages that were not stepped or not shown, each with the reason, until an operator decides. Pure.

They are kept in bounds, shown, and tried again or discarded by an operator.
"""

from __future__ import annotations

import enum
import math
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
    Death,
    Event,
    ProgressReceived,
    RejectReceived,
    RequestReceived,
    StatusReceived,
    Undelivered,
)
from processes.core.values import Time, rfc3339

LETTERS_MAX: Final = 1000  # dead letters kept; beyond it the oldest go. Guess: far more than anybody reads
LETTERS_BYTES_MAX: Final = 8 << 20  # of all dead letters, in memory and on disk; one has 2 MiB at most
ERROR_CHARS_MAX: Final = 16 * 1024  # of one traceback
UNDECODABLE: Final = "undecodable"  # the kind of a message that could not even be decoded

_RETRIED: Final = (StatusReceived, RejectReceived, AckReceived, ProgressReceived, RequestReceived)
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
        return len(self.event) + len(self.error) + sum(len(death.stacks) for death in self.deaths) + 500


class DeathView(msgspec.Struct, frozen=True):
    """One death in the API."""

    at: Time | None
    cause: str
    pid: int
    incident: str
    stacks: str | None


class LetterView(msgspec.Struct, frozen=True):
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


def view(letter: DeadLetter, *, whole: bool) -> LetterView:
    """Return the dead letter for the API. Not `whole`: no event, no stacks, the error's last line."""
    error = letter.error if whole else (letter.error.strip().splitlines() or [""])[-1][:300]
    deaths = [
        DeathView(rfc3339(d.wall_s), d.cause, d.pid, d.incident, d.stacks if whole else None) for d in letter.deaths
    ]
    event = msgspec.Raw(b"null")
    if whole and letter.kind == UNDECODABLE:
        event = msgspec.Raw(msgspec.json.encode(letter.event.decode("latin-1")))
    elif whole and letter.event:
        event = msgspec.Raw(letter.event)
    return LetterView(
        letter.id, rfc3339(letter.at_wall_s), letter.process, letter.kind, letter.why, letter.host, error,
        letter.size_bytes, letter.retries, letter.retrying, deaths, event,
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


def revived(letter: DeadLetter) -> Event:
    """Return the event, to be stepped once more. A request gets no deadline: an operator wants it carried out now.

    Raises: LocalError, if the event cannot be stepped again: it is about a connection of the past, or this version
    cannot decode it either.
    """
    try:
        event = messages.decode_event(letter.event) if letter.kind == UNDECODABLE else _event.decode(letter.event)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LocalError(f"it cannot be read: {error}") from None
    if not isinstance(event, _RETRIED):
        raise LocalError(f"a {letter.kind} is about one moment only: if it is still true, it comes again by itself")
    return msgspec.structs.replace(event, deadline_boot_s=math.inf) if isinstance(event, RequestReceived) else event


def name_again(letter: DeadLetter) -> str:
    """Return the name in the pulse while the dead letter is stepped again.

    It is another name each time, so that deaths are counted for each try by itself.
    """
    return poison.name_of_own(letter.kind, letter.id, str(letter.retries))


def too_many(letters: Mapping[str, DeadLetter]) -> list[str]:
    """Return the ids of the oldest dead letters, which must go. `letters`: oldest first."""
    gone: list[str] = []
    size, count = sum(letter.size_bytes for letter in letters.values()), len(letters)
    for id, letter in letters.items():
        if count - len(gone) <= LETTERS_MAX and size <= LETTERS_BYTES_MAX:
            break
        gone.append(id)
        size -= letter.size_bytes
    return gone
