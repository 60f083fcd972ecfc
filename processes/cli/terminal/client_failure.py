"""The client's errors in words for a person: what happened, and what to do about it."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from processes.adapters.settings import SettingsError, load
from processes.cli.machine import own_processes
from processes.cli.machine.environment import program
from processes.cli.terminal.failure import Failure
from processes.client.errors import BadVariable, ClientError, HubAway, NoToken, Refused, Silence

LISTED_BY: Final = {  # the API's code for an unknown or ambiguous id → how to find the one that is meant
    "ambiguous_id": "Type more of the one that is meant.",
    "unknown_host": "fleethub hosts lists them.",
    "unknown_command": "fleethub commands lists them.",
    "unknown_run": "fleethub runs lists them.",
    "unknown_condition": "fleethub conditions lists them.",
    "unknown_silence": "fleethub silences lists them.",
    "unknown_letter": "fleethub deadletters lists them.",
    "unknown_session": "fleethub sessions lists them.",
    "unknown_token": "fleethub token list lists them.",
}


def failure_of(error: ClientError) -> Failure:
    """The error as a failure of a verb, with advice."""
    if isinstance(error, Refused):
        return Failure(error.code, error.message, _advice_on_refusal(error))
    if isinstance(error, HubAway):
        return _away(error)
    if isinstance(error, NoToken):
        return Failure("no_token", error.message, _advice_on_token(error))
    if isinstance(error, BadVariable):
        return Failure("bad_variable", str(error), f"Mend or unset {error.variable}.")
    return Failure("failed", str(error))


def _advice_on_refusal(error: Refused) -> str:
    if error.code in ("redirected", "bad_answer"):
        return _advice_on_stranger(error)
    if error.token_file is not None and error.status == 401:
        return "It was revoked, or belongs to another hub: fleethub token create on that hub makes one."
    if error.token_file is not None and error.status == 403:
        return f"The token in {error.token_file} has a role that may not do this."
    if error.code == "http" and "not an operators' port" in error.message:
        return "Is it the agents' port? Operators have a port of their own, usually 7700."
    return "" if "`fleethub " in error.message else LISTED_BY.get(error.code, "")


def _advice_on_stranger(error: Refused) -> str:
    """What to do about an answer that the hub does not give: it came from a proxy, or from another program."""
    if error.own:
        return f"Another program has the hub's port: {program()} doctor tells which."
    if error.moved_to:
        return f"Use --hub {error.moved_to}"
    return (
        "Whether the hub got the request is not known. --hub must lead to its operators' port; "
        "a proxy on the way must not want a sign-in of its own."
    )


def _away(error: HubAway) -> Failure:
    if error.why is Silence.NOT_ACCEPTED:
        cause = error.__cause__
        return Failure("hub_away", error.message, failure_of(cause).advice if isinstance(cause, ClientError) else "")
    if error.why is Silence.BUSY:
        return Failure("hub_away", error.message)
    if error.own:
        if nothing_runs_here():
            said = f"nothing runs here, and so {error.message}"
            return Failure("hub_away", said, f"Start it: {program()} up")
        return Failure("hub_away", error.message, "Who is unwell? fleethub status")
    advice = "Is this the URL of its operators' port, and does it run there?"
    if error.why is Silence.NO_TLS:
        advice = f"Perhaps http{error.url.removeprefix('https')} is meant."
    elif error.why is Silence.UNTRUSTED:
        advice = "Name a file of certificates to trust in SSL_CERT_FILE."
    return Failure("hub_away", error.message, advice)


def _advice_on_token(error: NoToken) -> str:
    if error.missing:
        return "fleethub token create on that hub makes a token for it."
    return "It must hold one line: the token that fleethub token create prints." if error.empty else ""


def nothing_runs_here() -> bool:
    """True if this machine's installation is certainly down. Another user's processes cannot be seen: then False."""
    with contextlib.suppress(OSError, SettingsError):
        settings = load()
        return settings.state.stat().st_uid == os.geteuid() and own_processes.supervisord_of(settings) is None
    return False
