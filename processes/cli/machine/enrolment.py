"""The agent of this very machine: `up` enrols it and writes its file and token, so that a new fleet has one host."""

from __future__ import annotations

import re
import socket
import stat
import time
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from processes.adapters.settings import Settings
from processes.adapters.state import durable
from processes.cli.machine.sign_in import write_secret
from processes.cli.terminal.failure import Failure
from processes.client.api import Api
from processes.core.values import Presence

ONLINE_S_MAX: Final = 30.0
POLL_S: Final = 0.1
TOKEN_FILE: Final = "agent.token"  # noqa: S105  # a path beside the agent's file, unless that says otherwise


class AgentFile(msgspec.Struct, frozen=True):
    """The part of an agent's file that the command line needs."""

    hub: str = ""
    name: str = ""
    token_file: str = TOKEN_FILE
    ca_file: str = ""


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
    file = existing(path)
    name = file.name or own_name()
    changed = False
    if file.hub != hub_url:
        write_agent_file(path, hub_url, name, ca=settings.file.tls.certificate)
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


def existing(path: Path) -> AgentFile:
    """The content of the agent's file; the defaults if there is none. Raises: Failure, if it cannot be read."""
    try:
        return msgspec.convert(tomllib.loads(path.read_bytes().decode("utf-8-sig")), AgentFile)
    except FileNotFoundError:
        return AgentFile()
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise Failure(
            "bad_agent_file", f"{path} cannot be read: {error}", "Mend it, or remove it: then it is written anew."
        ) from None


def own_name() -> str:
    """This machine's name, made fit to be enrolled."""
    return host_name(socket.gethostname())


def write_agent_file(path: Path, hub_url: str, name: str, *, token: Path | str = TOKEN_FILE, ca: str = "") -> None:
    """Make the agent's file, or set only `hub` in one that exists. Raises: OSError."""
    line = f"hub = {_toml(hub_url)}"
    if path.exists():
        text, count = re.subn(r"(?m)^hub\s*=.*$", lambda _: line, path.read_bytes().decode(), count=1)
        text = text if count else f"{line}\n{text}"
    else:
        text = (
            "# The agent of this machine, written by fleethub. What is added under [commands.NAME] can be run here,\n"
            "# once the agent was started again.\n"
            f'{line}\nname = {_toml(name)}\ntoken_file = {_toml(str(token))}\nheartbeat_s = 5\nstate = "agent-state"\n'
            "builtins = true  # offers uptime and facts, beside what is added\n"
        )
        if ca:
            text += f"ca_file = {_toml(str(Path(ca).absolute()))}\n"
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
    durable.replace(path, text.encode(), mode=mode)


def _toml(text: str) -> str:
    return msgspec.json.encode(text).decode()  # a JSON string is a TOML basic string too
