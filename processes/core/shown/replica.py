"""A copy of the state as rows of encoded JSON: the hub makes snapshots of its copy, each fanout shows its own. Pure.

A row is a JSON object, kept as bytes and merged by its top-level keys, so a snapshot decodes nothing inside a row. All
open commands are kept, but only the newest final ones. Of the canary's final commands only a few are kept, apart from
the others, so that they displace nobody's.

What heartbeats change of a host is kept beside its row, undecoded, and is merged into it only when somebody reads the
row or changes it otherwise: most heartbeats are followed by another one before that.

    host, command, ledger          `fields` are merged into the row; if there is no such row, they are the new row
    host_removed, command_removed  the row is deleted, if it is there
    condition, silence             the same; of conditions that are over only the newest are kept
    silence_removed                the row is deleted, if it is there
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from processes.core.records.command import FINAL
from processes.core.records.condition import OVER_KEPT_MAX, ConditionState
from processes.core.travels.messages import Change, Json
from processes.core.values import CANARY_HOST

FINAL_COMMANDS_MAX: Final = 500  # a few screens of the page; older commands are read from the database
CANARY_COMMANDS_MAX: Final = 8  # there is a round every 2 s, and each is seen within one


class _CommandKeys(msgspec.Struct):
    state: str = ""
    host: str = ""


class _ConditionKeys(msgspec.Struct):
    state: str = ""
    host: str | None = None
    kind: str = ""


class _CommandRow(NamedTuple):
    fields: Json
    host: str
    final: bool


HostApart = tuple[str, Json, Json | None]  # a host's name, its row, and what was heard of it since

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_keys = msgspec.json.Decoder(_CommandKeys)
_condition_keys = msgspec.json.Decoder(_ConditionKeys)
_encoder = msgspec.json.Encoder()


def merged(row: Json, fields: Json) -> Json:
    """Return the row with its top-level keys replaced by those of `fields`.

    Raises: msgspec.DecodeError, if either is not a JSON object.
    """
    known = _object.decode(row)
    known.update(_object.decode(fields))
    return Json(_encoder.encode(known))


def check(change: Change) -> None:
    """Check that the change can be applied. Raises: msgspec.DecodeError, if `fields` is not a JSON object."""
    if change.kind in ("host", "command", "ledger", "condition", "silence"):
        _object.decode(change.fields)


class Replica:
    """The rows of hosts, commands and the ledger.

    `mutations` grows with each change that was applied: if the number is the same, so are the rows.
    Invariant: at most FINAL_COMMANDS_MAX final commands and CANARY_COMMANDS_MAX final ones of the canary; every row is
    a JSON object.
    """

    def __init__(self, *, final_commands_max: int = FINAL_COMMANDS_MAX) -> None:
        self.mutations = 0
        self._final_commands_max = final_commands_max
        self._hosts: dict[str, Json] = {}
        self._heard: dict[str, Json] = {}  # fields that are not merged into the host's row yet; only of hosts with one
        self._ledger: dict[str, Json] = {}
        self._open: dict[str, _CommandRow] = {}
        self._final: dict[str, _CommandRow] = {}  # in the order in which they ended
        self._final_canary: dict[str, _CommandRow] = {}
        self._conditions: dict[str, Json] = {}
        self._over: dict[str, Json] = {}  # conditions, in the order in which they ended
        self._silences: dict[str, Json] = {}

    def __len__(self) -> int:
        """Return the number of all rows."""
        told = len(self._conditions) + len(self._over) + len(self._silences)
        return len(self._hosts) + len(self._ledger) + self.commands + told

    @property
    def hosts(self) -> int:
        """Return the number of hosts, including the canary's."""
        return len(self._hosts)

    @property
    def commands(self) -> int:
        """Return the number of commands."""
        return len(self._open) + len(self._final) + len(self._final_canary)

    def apply(self, change: Change) -> None:
        """Apply the change to the rows. Unknown kinds are ignored: a newer hub may send more.

        Raises: msgspec.DecodeError, if `fields` is not a JSON object; then nothing has changed.
        """
        match change.kind:
            case "host":
                _object.decode(change.fields)  # if it raises, nothing has changed
                self._hosts[change.id] = merged(self._host(change.id) or Json(b"{}"), change.fields)
            case "ledger":
                self._ledger[change.id] = merged(self._ledger.get(change.id, Json(b"{}")), change.fields)
            case "command":
                self._apply_command(change)
            case "condition":
                self._apply_condition(change)
            case "silence":
                self._silences[change.id] = merged(self._silences.get(change.id, Json(b"{}")), change.fields)
            case "silence_removed":
                self._silences.pop(change.id, None)
            case "host_removed":
                self._hosts.pop(change.id, None)
                self._heard.pop(change.id, None)
            case "command_removed":
                for rows in (self._open, self._final, self._final_canary):
                    rows.pop(change.id, None)
            case _:
                return
        self.mutations += 1

    def hear(self, host: str, fields: Json) -> bool:
        """Take what a heartbeat changes of a host: a JSON object with the same keys each time. Return False if there is
        no row of this host, and nothing changes.
        """
        if host not in self._hosts:
            return False
        self._heard[host] = fields
        self.mutations += 1
        return True

    def _merge_heard(self) -> None:
        for host, fields in self._heard.items():
            self._hosts[host] = merged(self._hosts[host], fields)
        self._heard.clear()

    def row(self, kind: str, id: str) -> Json | None:
        """Return one row of kind host, command, ledger, condition or silence; None if it is not there."""
        match kind:
            case "host":
                return self._host(id)
            case "ledger":
                return self._ledger.get(id)
            case "condition":
                return self._conditions.get(id) or self._over.get(id)
            case "silence":
                return self._silences.get(id)
            case "command":
                found = self._command(id)
                return None if found is None else found.fields
        return None

    def host_of(self, change: Change) -> str:
        """Return the host that the change is about, as far as the rows tell; empty: none.

        An operator who may not see a host must not see its commands either.
        """
        match change.kind:
            case "host" | "host_removed":
                return change.id
            case "command" | "command_removed":
                found = self._command(change.id)
                return found.host if found is not None else _keys.decode(change.fields).host
            case "condition":
                return _condition_keys.decode(self.row("condition", change.id) or change.fields).host or ""
        return ""

    def rows(self, kind: str) -> list[Json]:
        """Return all rows of a kind (host, command, ledger, condition, silence), including the canary's.

        Shape: hosts in the order in which they came; final commands before open ones.
        """
        return [change.fields for change in self.changes(kind)]

    def changes(self, kind: str) -> list[Change]:
        """Return the rows as `rows` does, each as the change that makes it."""
        match kind:
            case "host":
                self._merge_heard()
                return [Change("host", id, fields) for id, fields in self._hosts.items()]
            case "ledger":
                return [Change("ledger", id, fields) for id, fields in self._ledger.items()]
            case "command":
                ended = (*self._final.items(), *self._final_canary.items(), *self._open.items())
                return [Change("command", id, row.fields) for id, row in ended]
            case "condition":
                return [Change(kind, id, row) for id, row in (*self._over.items(), *self._conditions.items())]
            case "silence":
                return [Change(kind, id, row) for id, row in self._silences.items()]
        return []

    def hosts_apart(self) -> list[HostApart]:
        """Return the hosts, each with what is not merged into its row yet: to merge all costs more than to look."""
        return [(name, row, self._heard.get(name)) for name, row in self._hosts.items()]

    def standing_kinds(self) -> dict[str, list[str]]:
        """Return the kinds of the conditions that stand, by host."""
        found: dict[str, list[str]] = {}
        for row in self._conditions.values():
            keys = _condition_keys.decode(row)
            if keys.host is not None:
                found.setdefault(keys.host, []).append(keys.kind)
        return found

    def pieces(self, items_per_piece: int) -> Iterator[list[Change]]:
        """Yield all rows in pieces, at least one piece. Each row is as it is when its piece is taken.

        The replica may change between two pieces. A row that is removed meanwhile is left out; a row that is added is
        in no piece, but its own change brings it.
        """
        names = [
            *(("host", id) for id in self._hosts),
            *(("command", id) for rows in (self._final, self._final_canary, self._open) for id in rows),
            *(("ledger", id) for id in self._ledger),
            *(("condition", id) for id in (*self._over, *self._conditions)),
            *(("silence", id) for id in self._silences),
        ]
        for first in range(0, max(len(names), 1), items_per_piece):
            piece = names[first : first + items_per_piece]
            yield [Change(kind, id, row) for kind, id in piece if (row := self.row(kind, id)) is not None]

    def _host(self, name: str) -> Json | None:
        row, heard = self._hosts.get(name), self._heard.pop(name, None)
        if row is None or heard is None:
            return row
        row = self._hosts[name] = merged(row, heard)
        return row

    def _command(self, id: str) -> _CommandRow | None:
        return self._open.get(id) or self._final.get(id) or self._final_canary.get(id)

    def _apply_condition(self, change: Change) -> None:
        row = merged(self.row("condition", change.id) or Json(b"{}"), change.fields)
        is_over = _condition_keys.decode(row).state == ConditionState.OVER
        (self._conditions if is_over else self._over).pop(change.id, None)
        (self._over if is_over else self._conditions)[change.id] = row
        if len(self._over) > OVER_KEPT_MAX:
            del self._over[next(iter(self._over))]

    def _apply_command(self, change: Change) -> None:
        before = self._command(change.id)
        fields = merged(before.fields if before is not None else Json(b"{}"), change.fields)
        keys = _keys.decode(fields)
        row = _CommandRow(fields, keys.host, keys.state in FINAL)
        canary = row.host == CANARY_HOST
        rows = self._open if not row.final else self._final_canary if canary else self._final
        if before is not None and change.id not in rows:
            for others in (self._open, self._final, self._final_canary):
                others.pop(change.id, None)
        rows[change.id] = row
        if row.final and len(rows) > (CANARY_COMMANDS_MAX if canary else self._final_commands_max):
            del rows[next(iter(rows))]
