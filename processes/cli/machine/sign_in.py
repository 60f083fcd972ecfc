"""The operator token, and one-time codes, by which a person signs in without ever seeing a token."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Final

from processes.adapters import ownership
from processes.adapters.settings import Settings
from processes.adapters.state import durable, signin_codes
from processes.core.values import Role

SIGN_IN_CODE_S: Final = 600  # a code is good for ten minutes and for one use
TOKEN_BYTES: Final = 32


def make_operator_token(settings: Settings) -> None:
    """Make `operator.token` (0600, or 0640 for a fanout's own user) if there is none. Raises: OSError."""
    if not settings.operator_token.exists():
        group = ownership.group_let_into(settings.state)
        write_secret(settings.operator_token, secrets.token_urlsafe(TOKEN_BYTES), group)


def write_secret(path: Path, text: str, group: int | None = None) -> None:
    """Put `text` into the file, durably, for this user alone (0600), and for `group`. Raises: OSError."""
    durable.replace(path, f"{text}\n".encode(), group=group)


def new_code(settings: Settings, role: Role = Role.ADMIN) -> str:
    """Make a one-time code and return it; it is good for SIGN_IN_CODE_S. Raises: OSError."""
    code = secrets.token_urlsafe(TOKEN_BYTES)
    signin_codes.put(settings.run, code, role, time.time() + SIGN_IN_CODE_S)
    return code


def link(url: str, code: str) -> str:
    """The sign-in link. The code stands in the fragment, which browsers send to no server and no proxy."""
    return f"{url.rstrip('/')}/#code={code}"
