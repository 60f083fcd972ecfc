"""A host: its record on disk, and its connection, which only a living hub knows. Pure."""

from __future__ import annotations

import contextlib
import itertools
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import Meta

from processes.core.records.ledger import Ledger
from processes.core.travels.agent_frames import Heartbeat, Register
from processes.core.travels.messages import Json
from processes.core.values import NIXFLEET_OPS, Presence

PROGRESS_MAX: Final = 32  # operations of one host; NixFleet's agents know fifteen


class EnrolmentCode(msgspec.Struct, frozen=True, omit_defaults=True):
    """A one-time code for a host, by its SHA-256 (hex). `used_hash`: of the token that it was exchanged for; empty: it
    was not used yet. `refused`: how often it was offered after that, for another token.
    """

    code_hash: str
    expires_wall_s: float
    used_hash: str = ""
    refused: int = 0


class HostRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One enrolled host as it is in the database. `token_hash` None: revoked. `register` None: never seen.

    `ledger` counts the commands of this host. It balances, as the ledger of all hosts does.
    """

    WORDS: ClassVar = frozenset({"register", "facts", "heartbeat", "heartbeat_facts"})  # what its agent has said

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
    suspended: str = ""  # why its token is not accepted until an operator lifts the suspension; empty: not suspended
    suspended_wall_s: float | None = None
    lifted_wall_s: float | None = None  # the last lift of a suspension: deaths of the hub before it are forgiven
    rotation_wall_s: float | None = None  # since when its agent is asked to make a new token; None: it is not
    code: EnrolmentCode | None = None  # the last one that was made for it and not taken back
    labels: dict[str, str] = {}  # the hub's; what its agent claims is in `register`

    def without(self, revoked: frozenset[str]) -> HostRecord:
        """Return the record without what was ever made void. `revoked`: hashes of tokens and codes."""
        void_code = self.code is not None and not self.code.used_hash and self.code.code_hash in revoked
        void_token = self.token_hash is not None and self.token_hash in revoked
        if not void_code and not void_token:
            return self
        token_hash, code = (None if void_token else self.token_hash), (None if void_code else self.code)
        return msgspec.structs.replace(self, token_hash=token_hash, code=code)

    def without_words(self) -> HostRecord:
        """Return the record without anything that its agent has said."""
        own = {name: getattr(self, name) for name in self.__struct_fields__ if name not in self.WORDS}
        return HostRecord(**own)

    @property
    def foreign(self) -> bool:
        """Return True for a host whose agent has no journal and knows no `ack`."""
        return self.register is not None and self.register.protocol == 0

    def offers(self, op: str) -> bool:
        """Return True unless the host has said which ops it offers, and `op` is not one of them."""
        offered = self.offered()
        return offered is None or op in offered

    def offered(self) -> list[str] | None:
        """Return the ops that this host offers; None: unknown, it was never seen."""
        if self.register is None:
            return None
        if self.register.protocol == 0:
            return list(NIXFLEET_OPS)
        return self.register.commands or []

    def concurrent(self, op: str) -> bool:
        """Return True if the agent said that this op may run beside another."""
        options = (self.register.command_options or {}).get(op) if self.register else None
        return options is not None and options.concurrent

    def back_s(self, op: str) -> float | None:
        """Return within how many seconds the host is back from this op, which reboots it; None: it does not."""
        if self.register is None or self.foreign:
            return None
        options = (self.register.command_options or {}).get(op)
        return options.back_s if options is not None else None


def read_record(text: str | bytes) -> HostRecord:
    """Return a host's record as it stands in the database, without the words of its agent if this version cannot read
    those: what an agent has said keeps no hub from beginning. Raises: msgspec.MsgspecError, if the rest cannot be read.
    """
    try:
        return _record.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        fields = _fields.decode(text)
        return _record.decode(msgspec.json.encode({key: fields[key] for key in fields if key not in HostRecord.WORDS}))


_record = msgspec.json.Decoder(HostRecord)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Progress(msgspec.Struct, frozen=True):
    """How far one operation is, as its agent says: `current` of `total` steps. total 0: the agent did not say.

    status: the agent's own word.
    """

    current: Annotated[int, Meta(ge=0, le=2**53)] = 0
    total: Annotated[int, Meta(ge=0, le=2**53)] = 0
    status: Annotated[str, Meta(max_length=64)] = ""


_entries = msgspec.json.Decoder(dict[Annotated[str, Meta(max_length=64)], msgspec.Raw])
_progress = msgspec.json.Decoder(Progress)


def progress_of(told: Json) -> dict[str, Progress]:
    """Return the progress of an agent's operations, of PROGRESS_MAX at most.

    Entries that cannot be decoded are left out: progress is only shown.
    """
    found: dict[str, Progress] = {}
    with contextlib.suppress(msgspec.DecodeError):
        for op, entry in itertools.islice(_entries.decode(told).items(), PROGRESS_MAX):
            with contextlib.suppress(msgspec.DecodeError):
                found[op] = _progress.decode(entry)
    return found


class Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """A host's current connection, as this hub knows it. Volatile.

    `idle`: a foreign agent said on this connection that it runs nothing. Before that the hub sends it no command: the
    agent may run a command of an earlier enrolment, and its reports carry no command ids.
    Units: `heard_boot_s` in seconds of CLOCK_BOOTTIME, the time of the last sign of life.
    """

    presence: Presence
    connection: str = ""
    gateway: str = ""
    since_wall_s: float | None = None
    heard_boot_s: float = 0.0
    idle: bool = False
    progress: dict[str, Progress] = {}  # op → how far it is, as the agent said on this connection
    told_s: float = 0.0  # the interval of heartbeats that the agent was told; 0: its own
