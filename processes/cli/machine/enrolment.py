"""The agent of this very machine: `up` enrols it and writes its file and token, so that a new fleet has one host."""

from __future__ import annotations

import re
import socket
import time
from typing import Final

from processes.adapters.settings import Settings
from processes.adapters.state import agent_file
from processes.cli.machine.sign_in import write_secret
from processes.cli.terminal.failure import Failure
from processes.client.api import Api
from processes.core.values import Presence

ONLINE_S_MAX: Final = 30.0
POLL_S: Final = 0.1


def host_name(raw: str) -> str:
    """The name as RFC 1123 allows it: other characters become hyphens; `localhost` if nothing is left. Pure."""
    labels = [re.sub(r"[^A-Za-z0-9-]+", "-", label).strip("-")[:63].strip("-") for label in raw.split(".")]
    kept = [label for label in labels if label]
    while len(".".join(kept)) > 253:
        kept.pop()
    return ".".join(kept) or "localhost"


def prepare_agent(settings: Settings, api: Api, hub_url: str) -> tuple[str, bool]:
    """Enrol this machine, and write agent.toml and agent.token, as far as this is not done yet.

    Returns the host's name, and True if a running agent must read the files again. An agent.toml that exists is the
    operator's: only its `hub` is kept up to date. Raises: Failure, Refused, HubAway.
    """
    path, token = settings.agent_file, settings.agent_token
    file = agent_file.read(path)
    name = file.name or own_name()
    changed = False
    if file.hub != hub_url:
        agent_file.write(path, hub_url, name, ca=settings.file.tls.certificate)
        changed = True
    known = api.host(name)
    if known is None or known.revoked or not token.exists():
        write_secret(token, api.enroll(name, again=known is not None).token)
        changed = True
    return name, changed


def wait_online(api: Api, name: str) -> None:
    """Wait until the host is online. Raises: Failure, after ONLINE_S_MAX; Refused, HubAway."""
    deadline_mono_s = time.monotonic() + ONLINE_S_MAX
    while True:
        host = api.host(name)
        if host is not None and host.presence == Presence.ONLINE:
            return
        if time.monotonic() > deadline_mono_s:
            said = host.presence if host else "unknown"
            raise Failure(
                "not_online",
                f"this machine's agent started, and {name} is still {said} after {ONLINE_S_MAX:.0f} s",
                "Look at log/agent.log.",
            )
        time.sleep(POLL_S)


def own_name() -> str:
    """This machine's name, made fit to be enrolled."""
    return host_name(socket.gethostname())
