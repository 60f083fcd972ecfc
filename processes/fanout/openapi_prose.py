"""The texts of the API's document (CommonMark). Pure."""

from __future__ import annotations

from typing import Final

ABOUT: Final = """\
The operators' port of a fleethub: hosts, commands, fleet runs, and how the hub itself is. A GET is answered by the \
process that you ask, also while the hub is away. Every other request goes to the hub.

## Sign-in
`Authorization: Bearer TOKEN`, with the installation's token (`operator.token` in its state folder) or one of \
`fleethub token create`; or the session cookie of `POST /login`. Either suffices. Each operation names the role that \
it needs: viewer (may look), operator (may also give commands), admin (may also change the fleet and the tokens). \
401: nobody is signed in; 403: the role may not, or a foreign page asks. A `Host` that is neither loopback nor that \
of `operators.url` is answered 421.

## Idempotency keys
`key` in `POST /api/v1/commands` and `POST /api/v1/runs` names the whole request, within one space for the \
installation. The same request with the same key again begins nothing, and is answered 200 with the commands or the \
run of the first time; a different request with the same key is answered 409 `key_used`. Without a key each request \
is a new one. Keys are kept as long as their commands, and at least 30 days.

## Errors
Each is an `Error`: a fixed word, a text for a person, and often the field, host, command or run in question. 503: \
the request was never carried out and will not be; ask again after `Retry-After` seconds. 504 `outcome_unknown`: it \
may yet be carried out; ask again with the same key. A request is durable before its acceptance is answered. A method \
that a path does not have is answered 405 with `Allow`, an unknown parameter 400. Any \
operation may also be answered 429: `too_many_requests`, when more was asked than one operator may ask (ask again \
after `Retry-After` seconds), and `too_many`, when too many connections of its token are open; 431, when the head of \
the request is too large; and 411, when its body comes in chunks instead of with a Content-Length. The last three end \
the connection.

## Pages
Listings come newest first (hosts: by name), `limit` at a time. `next` of an answer is the `before` (hosts: the \
`after`) of the following page, and null at the end. Answers to GET have an `ETag`; a GET with `If-None-Match` is \
answered 304 without a body if nothing has changed.

## Times
Times are RFC 3339 in UTC; durations are seconds, in fields that end in `_s`. Ids are opaque texts. Fields may be \
added to any answer."""

SOCKET: Final = """\
A WebSocket of text frames, one JSON object each. It only shows: requests go by HTTP. Sign in as everywhere; a \
cookie counts only with the installation's own `Origin`. Without an upgrade the answer is 426.

From the server:
- `{"type": "full_state", "epoch", "version", "state": {"hosts": [HostView], "commands": [CommandView], "processes": \
[ProcessReport], "incidents": [IncidentView], "conditions": [ConditionView], \
"silences": [SilenceView], "ledger": Ledger, "overall", "source"}}`: on connect, when asked for, \
after a gap, when the epoch changes. It replaces everything known before.
- `{"type": "delta", "epoch", "version", "changes": [{"kind", "id", "fields"}]}`: `kind` is host, command, process, \
incident, condition, silence, ledger, overall or source, and `fields` holds what has changed of that row; \
`{"kind": "host_removed", \
"id"}` (also of commands, processes and incidents) has none.
- `{"type": "sync", "epoch", "version"}`: every 5 s. If the version is not your own, you missed something: ask with \
`get_state`.
- `{"type": "output", "command_id", "offset", "stream", "data"}`: a record of a command that was subscribed to; \
`{"type": "output_end", "command_id", "next_offset", "truncated"}`: no more output will come.
- `{"type": "error", "error", "message"}`: a frame of yours was wrong; with `command_id`, if it was about one.

To the server:
- `{"type": "get_state"}`
- `{"type": "subscribe", "command_id", "offset"}`: its output from this offset on.
- `{"type": "unsubscribe", "command_id"}`

`version` belongs to one connection: it begins anywhere in the first `full_state` and grows by exactly 1 with each \
`delta`. `epoch` is the hub's and never goes back. Close codes: 1001, 1012 and 4000 to 4499: come back, with jitter; \
4500 to 4999: do not."""

TAGS: Final = {
    "hosts": "The fleet: who belongs to it, and how each host is.",
    "commands": "One operation on one host, durable before it is accepted, run at most once.",
    "runs": "Steps over many hosts, so many at a time, carried on by the hub, whatever becomes of the client.",
    "incidents": "Which process froze or died, where it stood, and what was done.",
    "conditions": "What is wrong with hosts, and of what nobody is to be told.",
    "queries": "Queries that are kept under names.",
    "dead letters": "Messages that were put aside instead of ending a process for ever.",
    "health": "How the installation itself is.",
    "access": "Signing in and out, sessions, operator tokens.",
    "audit": "Who did or tried what.",
    "live": "Everything as it changes.",
    "drills": "Faults on purpose.",
}

ERRORS: Final = {  # status → name of the response, what it means
    400: ("Malformed", "malformed: `field` names the part"),
    401: ("NotSignedIn", "not signed in, or with a token or session that is not valid (any more)"),
    403: ("Forbidden", "this role may not, a foreign page asks, or the session must sign in again (`sign_in_again`)"),
    404: ("NotFound", "there is none"),
    405: ("MethodNotAllowed", "this path has other methods: see Allow"),
    408: ("TooLate", "the body did not come in time"),
    409: ("Conflict", "not possible now"),
    413: ("TooLarge", "the body is too large, or names too many"),
    421: ("Misdirected", "the Host that was asked for is not this installation's"),
    422: ("UnknownOp", "the host does not offer this op"),
    426: ("UpgradeRequired", "this is a WebSocket"),
    429: ("TooMany", "too many: come back later"),
    500: ("Internal", "a mistake of fleethub: the log and the dead letter have it"),
    503: ("Unavailable", "not reached or refused: it will not happen, ask again"),
    504: ("OutcomeUnknown", "outcome unknown: ask again with the same key"),
}

HEADERS: Final = {  # name → what it says, its schema
    "ETag": ("Names this very answer, for If-None-Match", {"type": "string"}),
    "Retry-After": ("Seconds after which to ask again", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("How to sign in", {"type": "string"}),
    "Set-Cookie": ("The session; HttpOnly, SameSite=Strict, Secure under TLS", {"type": "string"}),
    "Allow": ("The methods that this path has", {"type": "string"}),
    "Upgrade": ("What to upgrade to", {"type": "string"}),
}
HEADERS_OF: Final = {
    304: "ETag",
    401: "WWW-Authenticate",
    405: "Allow",
    426: "Upgrade",
    429: "Retry-After",
    503: "Retry-After",
}
