"""The parameters of the listings' queries, for the API's document and for the check of requests."""

from __future__ import annotations

import enum
from typing import Annotated, Final

from msgspec import Meta

from processes.core.fanout.history import Span
from processes.core.records.command import State
from processes.core.records.run import RunState
from processes.core.shown.inventory import PORT
from processes.core.travels.audit import Kind
from processes.core.travels.operator_frames import OFFSET_MAX
from processes.core.travels.operator_requests import QUERY_CHARS_MAX, REQUEST_HOSTS_MAX
from processes.core.values import HOST_NAME_MAX, Presence
from processes.fanout.openapi import Query

LISTED_MAX: Final = 1000  # commands, runs, incidents or lines in one answer

Limit = Annotated[int, Meta(ge=1, le=LISTED_MAX)]
Text = Annotated[str, Meta(max_length=HOST_NAME_MAX)]
QueryText = Annotated[str, Meta(max_length=QUERY_CHARS_MAX)]
Flag = Annotated[int, Meta(ge=0, le=1)]


class TargetBy(enum.StrEnum):
    """What a target for Prometheus is."""

    ADDRESS = "address"
    NAME = "name"


_BEFORE: Final = Query("before", Text, "Those after this one in the list: `next` of the page before")
_LIMIT: Final = Query("limit", Limit, "How many at most")

HOSTS_QUERY: Final = (
    Query("limit", Annotated[int, Meta(ge=1, le=REQUEST_HOSTS_MAX)], "How many at most; all, if it is not given"),
    Query("after", Text, "Those after this name: `next` of the page before"),
    Query("presence", Presence, "Only those"),
    Query("search", Text, "Only those whose name has this in it"),
    Query("query", QueryText, "Only those that this query finds, or the saved one (@NAME)"),
)
TARGETS_QUERY: Final = (
    Query("port", Annotated[int, Meta(ge=1, le=65535)], f"Of each target; {PORT} if it is not given"),
    Query("by", TargetBy, "What each target is: its address as the hub sees it, or its name"),
    Query("presence", Presence, "Only those"),
    Query("query", QueryText, "Only those that this query finds, or the saved one (@NAME)"),
)
HISTORY_QUERY: Final = (
    Query("span", Span, "How far it looks back: each heartbeat of an hour, or means of five minutes of a day"),
)
DEAD_LETTERS_QUERY: Final = (_LIMIT,)
COMMANDS_QUERY: Final = (
    _LIMIT,
    _BEFORE,
    Query("host", Text, "Of this host"),
    Query("run", Text, "Of this fleet run"),
    Query("state", State, "In this state"),
    Query("open", Flag, "1: only those that have not ended"),
    Query("query", QueryText, "Of the hosts that this query finds now, or the saved one (@NAME)"),
)
OUTPUT_QUERY: Final = (Query("from", Annotated[int, Meta(ge=0, le=OFFSET_MAX)], "The offset of the first record"),)
INCIDENTS_QUERY: Final = (_LIMIT, _BEFORE, Query("process", Text, "Of this process"))
RUNS_QUERY: Final = (_LIMIT, _BEFORE, Query("state", RunState, "In this state"))
RUN_QUERY: Final = (Query("hosts", Flag, "0: without its hosts, only counted"),)
CONDITIONS_QUERY: Final = (
    _LIMIT,
    Query("query", QueryText, "Of the hosts that this query finds now, or the saved one (@NAME)"),
    Query("host", Text, "Of this host"),
    Query("over", Flag, "1: also those that are over"),
)
AUDIT_QUERY: Final = (
    _LIMIT,
    Query("before", Annotated[int, Meta(ge=1, le=OFFSET_MAX)], "Older than this line: `next` of the page before"),
    Query("kind", Kind, "Of this kind"),
    Query("subject", Text, "Of this host, command, token or address"),
    Query("actor", Text, "By whom"),
)
