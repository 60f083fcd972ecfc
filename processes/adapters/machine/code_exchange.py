"""The exchange of a one-time code for a credential that this machine makes itself.

The secret is on disk before the code is sent, and only its hash goes with the code. So whatever is killed or lost on
the way, the same words typed again go on with the same secret, and the hub's answer is the same.
"""

from __future__ import annotations

import http.client
import ssl
import time
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from processes.adapters.state import agent_token
from processes.core.errors import EXIT_USAGE, Failure
from processes.core.travels import enrolment_exchange
from processes.core.values import HOST_NAME, TOKEN_VOID

ANSWER_S: Final = 15.0  # for one answer; a hub gives it within 5 s
AGAIN_S_MAX: Final = 60.0  # for which a hub that is away is asked again
PAUSE_S: Final = 1.0
TOLD_BYTES_MAX: Final = 4096


class Code(NamedTuple):
    """A one-time code, and the host that it is for."""

    text: str
    host: str


def parsed(text: str) -> Code:
    """Return the code that was typed. Raises: Failure."""
    code = text.strip()
    host, _, secret = code.partition(":")
    if not HOST_NAME.fullmatch(host) or not secret or not code.isascii() or not code.isprintable() or " " in code:
        raise Failure(
            "no_code", "that is no enrolment code", "fleethub enroll NAME --code prints one: NAME:…", EXIT_USAGE
        )
    return Code(code, host)


def exchange(hub: str, code: Code, token_file: Path, ca_file: str = "") -> None:
    """Give the host a new token: it is in `token_file` (0600), and the hub has its hash. The one before is void.

    A code that this very file had its token of is not offered again: the hub would take it for somebody else's try.
    Raises: Failure; OSError.
    """
    if agent_token.came_of(token_file, code.text):
        return
    token_hash = agent_token.make(token_file)
    if not _offer(hub, code, token_hash, ca_file):
        agent_token.discard(token_file)  # left of an earlier time, and made void since
        token_hash = agent_token.make(token_file)
        _offer(hub, code, token_hash, ca_file)
    agent_token.note_code(token_file, code.text, token_hash)
    agent_token.promote(token_file)


def _offer(hub: str, code: Code, token_hash: str, ca_file: str) -> bool:
    """Offer the code until the hub has answered. Return False if the token was made void before. Raises: Failure."""
    try:
        trust = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise Failure(
            "bad_ca", f"{ca_file} holds no certificate in PEM: {error}", "See ca_file in agent.toml."
        ) from None
    headers = {
        "Authorization": f"{enrolment_exchange.SCHEME} {code.text}",
        enrolment_exchange.TOKEN_HASH_HEADER: token_hash,
    }
    deadline_mono_s = time.monotonic() + AGAIN_S_MAX
    while True:
        answer = _asked(hub, headers, trust)
        if answer.status == enrolment_exchange.CREATED and answer.host == code.host:
            return True
        if answer.status == TOKEN_VOID:
            return False
        if answer.status != 503 or time.monotonic() + PAUSE_S > deadline_mono_s:
            raise _failure(urlsplit(hub)._replace(path=enrolment_exchange.PATH).geturl(), answer.status, answer.text)
        time.sleep(PAUSE_S)  # nothing tells when the hub is back


class _Answer(NamedTuple):
    """What the agents' port said. A hub that is not reached is one that says 503."""

    status: int
    host: str | None
    text: str


def _asked(hub: str, headers: dict[str, str], trust: ssl.SSLContext) -> _Answer:
    """Ask once, as the agent dials: at the hub itself, not through a proxy of the environment."""
    parts = urlsplit(hub)
    assert parts.hostname, "the URL was looked at before"
    link: http.client.HTTPConnection
    if parts.scheme == "wss":
        link = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=ANSWER_S, context=trust)
    else:
        link = http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_S)
    try:
        link.request("GET", enrolment_exchange.PATH, headers=headers)
        answer = link.getresponse()
        told = answer.read(TOLD_BYTES_MAX).decode("utf-8", "replace").strip()
        return _Answer(answer.status, answer.getheader(enrolment_exchange.HOST_HEADER), told)
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        return _Answer(503, None, str(error) or type(error).__name__)
    finally:
        link.close()


def _failure(url: str, status: int, told: str) -> Failure:
    if status == 503:
        return Failure("hub_away", f"{url}: {told}", "Type the same again: a code that was accepted is accepted again.")
    if status == 429:
        return Failure(
            "too_many_codes", f"{url}: {told}", "Wait a minute and type the same again: the code is as good as it was."
        )
    if status in (400, 401, 409):
        return Failure("code_refused", f"{url}: {told}", "fleethub enroll NAME --code --again makes another code.")
    return Failure(
        "bad_answer", f"{url} answers HTTP {status}, which is no hub's", "--hub is the URL of the agents' port."
    )
