"""The agent's file as it is written here: made anew, or only its `hub` changed, for the rest is the operator's.

What the agent itself reads of it is in agent/config.py.
"""

from __future__ import annotations

import re
import stat
import sys
from pathlib import Path
from typing import Final

import msgspec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from processes.adapters.state import durable
from processes.core.errors import Failure

TOKEN_FILE: Final = "agent.token"  # noqa: S105  # a path beside the agent's file, unless that says otherwise


class AgentFile(msgspec.Struct, frozen=True):
    """The part of an agent's file that the command line needs."""

    hub: str = ""
    name: str = ""
    token_file: str = TOKEN_FILE
    ca_file: str = ""


def read(path: Path) -> AgentFile:
    """Return the content of the agent's file; the defaults if there is none. Raises: Failure, if it cannot be read."""
    try:
        return msgspec.convert(tomllib.loads(_text(path)), AgentFile)
    except FileNotFoundError:
        return AgentFile()
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise Failure(
            "bad_agent_file", f"{path} cannot be read: {error}", "Mend it, or remove it: then it is written anew."
        ) from None


def write(path: Path, hub_url: str, name: str, *, token: Path | str = TOKEN_FILE, ca: str = "") -> None:
    """Make the agent's file, or set only `hub` in one that exists. Raises: OSError."""
    line = f"hub = {_toml(hub_url)}"
    if path.exists():
        text, count = re.subn(r"(?m)^hub\s*=.*$", lambda _: line, _text(path), count=1)
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


def _text(path: Path) -> str:
    """Return the text of a TOML file, which is UTF-8 whatever the locale. Raises: OSError, UnicodeDecodeError."""
    return path.read_bytes().decode("utf-8-sig")


def _toml(text: str) -> str:
    return msgspec.json.encode(text).decode()  # a JSON string is a TOML basic string too
