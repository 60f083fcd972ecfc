"""A dead letter: a message that was put aside instead of stepped, with why; kept in bounds, shown, tried again or
discarded. Pure.
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

LETTERS_MAX: Final = 1000  # kept; beyond it the oldest go. Guess: far more than anybody reads
LETTERS_BYTES_MAX: Final = 8 << 20  # of all that is kept, in memory and on disk; one is 2 MiB at most
ERROR_CHARS_MAX: Final = 16 * 1024  # of one traceback
UNDECODABLE: Final = "undecodable"  # the kind of what could not even be read

_RETRIED: Final = (StatusReceived, RejectReceived, AckReceived, ProgressReceived, RequestReceived)
_event = msgspec.json.Decoder(Event)


class Why(enum.StrEnum):
    """Why it was put aside."""

    POISON = "poison"  # it ended the process that stepped it, DEATHS_MAX times
    RAISED = "raised"  # its step raised
    UNDECODABLE = "undecodable"  # of another version, or broken
    STRAY = "stray"  # a report of a command that is not its host's, or not known any more


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message put aside. `process`: who put it aside (the hub, or a fanout). `event`: as JSON; of what is
    undecodable, as it came.
    """

    id: str
    at_wall_s: float
    kind: str
    why: str
    process: str = "hub"
    name: str = ""  # as it stood in the pulse
    host: str = ""
    error: str = ""
    deaths: list[Death] = []
    retries: int = 0
    retrying: bool = False
    event: bytes = b""

    @property
    def size_bytes(self) -> int:
        """About what it takes to keep it."""
        return len(self.event) + len(self.error) + sum(len(death.stacks) for death in self.deaths) + 500


class DeathView(msgspec.Struct, frozen=True):
    """One death in the API."""

    at: Time | None
    cause: str
    pid: int
    incident: str
    stacks: str | None


class LetterView(msgspec.Struct, frozen=True):
    """A dead letter in the API. `event`: null in a listing; of what is undecodable, a text. `retrying`: about to be
    stepped once more.
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
    """What the outside sees of it; not whole: without the event, the stacks, and all but the last line of the error."""
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
        letter.id, rfc3339(letter.at_wall_s), letter.process, letter.kind, letter.why, letter.host, error, letter.size_bytes,
        letter.retries, letter.retrying, deaths, event,
    )  # fmt: skip


def of_event(
    id: str, at_wall_s: float, event: object, why: Why, *, error: str, name: str = "", deaths: list[Death] | None = None
) -> DeadLetter:
    """The letter that an event becomes. The hub's own events (timers) have no content."""
    outside = isinstance(event, msgspec.Struct)
    return DeadLetter(
        id,
        at_wall_s,
        type(event).__name__,
        why,
        name=name,
        host=host_of(event),
        error=error[-ERROR_CHARS_MAX:],
        deaths=deaths or [],
        event=msgspec.json.encode(event) if outside else b"",
    )


def host_of(event: object) -> str:
    """The agent that said it; empty: none did. Its gateway says `Undelivered` by itself."""
    if isinstance(event, AgentEvent) and not isinstance(event, Undelivered):
        return event.host
    if isinstance(event, CensusTaken) and len(event.connections) == 1:
        return event.connections[0].host
    return ""


def revived(letter: DeadLetter) -> Event:
    """The event, to be stepped once more. A request's deadline is over: whoever tries it again wants it now.

    Raises: LocalError, with why it cannot be: what it says of a connection is long over, or it is still of no version
    known here.
    """
    try:
        event = messages.decode_event(letter.event) if letter.kind == UNDECODABLE else _event.decode(letter.event)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LocalError(f"it cannot be read: {error}") from None
    if not isinstance(event, _RETRIED):
        raise LocalError(f"a {letter.kind} is of its moment: if it still holds, it comes again by itself")
    return msgspec.structs.replace(event, deadline_boot_s=math.inf) if isinstance(event, RequestReceived) else event


def name_again(letter: DeadLetter) -> str:
    """What stands in the pulse while it is stepped again: another name each time, so that each try is counted by
    itself.
    """
    return poison.name_of_own(letter.kind, letter.id, str(letter.retries))


def too_many(letters: Mapping[str, DeadLetter]) -> list[str]:
    """The ids of the oldest that must go. `letters`: oldest first."""
    gone: list[str] = []
    size, count = sum(letter.size_bytes for letter in letters.values()), len(letters)
    for id, letter in letters.items():
        if count - len(gone) <= LETTERS_MAX and size <= LETTERS_BYTES_MAX:
            break
        gone.append(id)
        size -= letter.size_bytes
    return gone
