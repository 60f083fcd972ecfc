"""The bodies of the operators' requests, with their limits. Pure.

The API decodes a body into these types, its document is made from them, and the hub and the command line check with the
same constants. `GiveCommand` and `StartRun` of messages.py, which the hub gets, have the fields of the bodies here.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from processes.core.labels import KEY_CHARS_MAX as LABEL_KEY_CHARS_MAX
from processes.core.labels import LABELS_MAX
from processes.core.labels import VALUE_CHARS_MAX as LABEL_VALUE_CHARS_MAX
from processes.core.values import ENROLMENT_CODE_S, HOST_NAME_MAX, Role

REQUEST_HOSTS_MAX: Final = 10_000  # hosts in one request; the largest fleet that one hub is measured with
TTL_S_MAX: Final = 7 * 86400.0  # of a command; contract: at most 7 days
TTL_WORDS: Final = "at most 7 days, which are 604800"
KEY_CHARS_MAX: Final = 128  # contract
OP_CHARS_MAX: Final = 64
STEPS_MAX: Final = 20  # of a run; guess
PARALLEL: Final = 10  # hosts of a run at a time, if nothing is said; guess: what goes wrong is seen before all have it
CONDITIONS_MAX: Final = 20  # of `where`; guess
LABEL_CHARS_MAX: Final = 100  # of a token
QUERY_CHARS_MAX: Final = 1000  # guess: some lines; a list of names is no query
QUERY_NAME: Final = "^[a-z][a-z0-9_.-]{0,62}$"  # of a saved query
FAULT_CHARS_MAX: Final = 40
SECRET_CHARS_MAX: Final = 512  # of a token or a one-time code
LIFE_S_MIN: Final = 60.0  # of a token or an enrolment code; guess: what is shorter is a typing mistake
LIFE_S_MAX: Final = 10 * 365 * 86400.0  # of a token; who wants more wants none that expires
CODE_S_MAX: Final = 30 * 86400.0  # of an enrolment code; guess: machines that are prepared and shipped
OVERLAP_S: Final = 600.0  # for which a token is still good that another one replaces; guess: to write it to its places
OVERLAP_S_MAX: Final = 7 * 86400.0

SILENCE_S_MAX: Final = 366 * 86400.0
WHY_CHARS_MAX: Final = 500

HostName = Annotated[str, Meta(min_length=1, max_length=HOST_NAME_MAX)]
HostNames = Annotated[list[HostName], Meta(min_length=1, max_length=REQUEST_HOSTS_MAX)]
OpName = Annotated[str, Meta(min_length=1, max_length=OP_CHARS_MAX)]
RequestKey = Annotated[str, Meta(min_length=1, max_length=KEY_CHARS_MAX)]
TimeToLive = Annotated[float, Meta(ge=0, le=TTL_S_MAX)]
QueryText = Annotated[str, Meta(min_length=1, max_length=QUERY_CHARS_MAX)]
QueryName = Annotated[str, Meta(pattern=QUERY_NAME)]
LabelKey = Annotated[str, Meta(min_length=1, max_length=LABEL_KEY_CHARS_MAX)]
LabelValue = Annotated[str, Meta(max_length=LABEL_VALUE_CHARS_MAX)]
Labels = Annotated[dict[LabelKey, LabelValue], Meta(max_length=LABELS_MAX)]
Secret = Annotated[str, Meta(max_length=SECRET_CHARS_MAX)]


class GiveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/commands."""

    op: OpName
    hosts: HostNames
    key: RequestKey | None = None
    ttl_s: TimeToLive | None = None


class RunBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/runs. Either hosts, where or query; an empty where is every host.

    With both hosts and query it runs on these hosts: they are those that the query found when they were shown.
    Without parallel it runs on PARALLEL hosts at a time.
    """

    steps: Annotated[list[OpName], Meta(min_length=1, max_length=STEPS_MAX)]
    hosts: HostNames | None = None
    where: Annotated[dict[str, str], Meta(max_length=CONDITIONS_MAX)] | None = None
    parallel: Annotated[int, Meta(ge=1, le=REQUEST_HOSTS_MAX)] | None = None
    max_failures: Annotated[int, Meta(ge=0, le=REQUEST_HOSTS_MAX)] | None = None
    ttl_s: TimeToLive | None = None
    key: RequestKey | None = None
    query: QueryText | None = None


class LabelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/hosts/labels. Hosts or a query, or both: then the hosts are those that the query found."""

    hosts: HostNames | None = None
    query: QueryText | None = None
    set: Labels = {}
    remove: Annotated[list[LabelKey], Meta(max_length=LABELS_MAX)] = []


class SavedQueryBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/queries. A query of that name takes the place of the one before."""

    name: QueryName
    query: QueryText


class EnrollBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/hosts."""

    name: HostName
    again: bool = False
    labels: Labels = {}


class CodeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/hosts/NAME/code."""

    again: bool = False
    expires_s: Annotated[float, Meta(ge=LIFE_S_MIN, le=CODE_S_MAX)] = ENROLMENT_CODE_S
    labels: Labels = {}


class TokenBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/tokens."""

    role: Role
    label: Annotated[str, Meta(max_length=LABEL_CHARS_MAX)] = ""
    expires_s: Annotated[float, Meta(ge=LIFE_S_MIN, le=LIFE_S_MAX)] | None = None


class RotateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/tokens/ID/rotate. overlap_s 0: the old token is void at once."""

    overlap_s: Annotated[float, Meta(ge=0, le=OVERLAP_S_MAX)] = OVERLAP_S


class AcknowledgeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/conditions/ID/acknowledge."""

    why: Annotated[str, Meta(max_length=WHY_CHARS_MAX)] = ""


class SilenceBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/silences. It begins in `in_s` seconds, and ends `for_s` later."""

    query: Annotated[str, Meta(min_length=1, max_length=1000)]
    why: Annotated[str, Meta(min_length=1, max_length=WHY_CHARS_MAX)]
    for_s: Annotated[float, Meta(ge=60, le=SILENCE_S_MAX)]
    in_s: Annotated[float, Meta(ge=0, le=SILENCE_S_MAX)] = 0.0


class DrillBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/v1/drill."""

    fault: Annotated[str, Meta(max_length=FAULT_CHARS_MAX)]


class LoginBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /login: one of them."""

    code: Secret | None = None
    token: Secret | None = None
