"""A host: what is kept of it on disk, and what only a living hub knows. Pure."""

from __future__ import annotations

import contextlib
import itertools
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from processes.core.records.ledger import Ledger
from processes.core.travels.agent_frames import Heartbeat, Register
from processes.core.travels.messages import Json
from processes.core.values import NIXFLEET_OPS, Presence

PROGRESS_MAX: Final = 32  # operations of one host; NixFleet's agents know fifteen


class HostRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One enrolled host as it stands in the database. `token_hash` None: revoked. `register` None: never seen.

    `ledger` counts the commands of this host; it is balanced as the ledger of all is.
    """

    name: str
    enrolment: str
    token_hash: str | None
    enrolled_wall_s: float
    register: Register | None = None
    facts: Json = Json(b"{}")
    heartbeat: Heartbeat | None = None
    heartbeat_facts: Json = Json(b"{}")
    seen_wall_s: float | None = None
    address: str = ""
    ledger: Ledger = Ledger()
    suspended: str = ""  # why nobody gets in with its token, until an operator lifts it
    suspended_wall_s: float | None = None

    @property
    def foreign(self) -> bool:
        """True for an agent without a journal and without `ack`."""
        return self.register is not None and self.register.protocol == 0

    def offers(self, op: str) -> bool:
        """True unless the host said what it offers and this is not among it."""
        offered = self.offered()
        return offered is None or op in offered

    def offered(self) -> list[str] | None:
        """The ops this host offers; None: unknown, it was never seen."""
        if self.register is None:
            return None
        if self.register.protocol == 0:
            return list(NIXFLEET_OPS)
        return self.register.commands or []

    def concurrent(self, op: str) -> bool:
        """True if the agent said that this op may run beside another."""
        options = (self.register.command_options or {}).get(op) if self.register else None
        return options is not None and options.concurrent


class Progress(msgspec.Struct, frozen=True):
    """How far an agent says that one of its operations is: `current` of `total` steps; total 0: it did not say. status:
    its own word.
    """

    current: Annotated[int, Meta(ge=0, le=2**53)] = 0
    total: Annotated[int, Meta(ge=0, le=2**53)] = 0
    status: Annotated[str, Meta(max_length=64)] = ""


_entries = msgspec.json.Decoder(dict[Annotated[str, Meta(max_length=64)], msgspec.Raw])
_progress = msgspec.json.Decoder(Progress)


def progress_of(told: Json) -> dict[str, Progress]:
    """What an agent told of its operations' progress, PROGRESS_MAX of them, without what cannot be understood: it is
    only shown.
    """
    found: dict[str, Progress] = {}
    with contextlib.suppress(msgspec.DecodeError):
        for op, entry in itertools.islice(_entries.decode(told).items(), PROGRESS_MAX):
            with contextlib.suppress(msgspec.DecodeError):
                found[op] = _progress.decode(entry)
    return found


class Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """A host's current connection, as this hub knows it. Volatile.

    `idle`: a foreign agent said on it that it runs nothing; before that nothing is sent to it, for what it runs may be
    of an enrolment before this one, and its words carry no ids. Units: `heard_boot_s` seconds of CLOCK_BOOTTIME, of its
    last sign of life.
    """

    presence: Presence
    connection: str = ""
    gateway: str = ""
    since_wall_s: float | None = None
    heard_boot_s: float = 0.0
    idle: bool = False
    progress: dict[str, Progress] = {}  # op → how far it is, as the agent said on this connection
