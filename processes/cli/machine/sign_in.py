"""The operator token, and one-time codes: how a person gets in without ever seeing a token."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

from processes.adapters.settings import Settings
from processes.core.values import Role

CODE_S: Final = 600  # contract: valid for 10 minutes, and used up by its first use
TOKEN_BYTES: Final = 32


def make_operator_token(settings: Settings) -> None:
    """`operator.token` exists (0600); one that is there stays as it is."""
    if not settings.operator_token.exists():
        write_secret(settings.operator_token, secrets.token_urlsafe(TOKEN_BYTES))


def write_secret(path: Path, text: str) -> None:
    """The file holds `text`, whole or not at all, and is this user's alone (0600)."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(fd)
    fresh.replace(path)


def new_code(settings: Settings, role: Role = Role.ADMIN) -> str:
    """A fresh one-time code. What is kept of it is a file named by its SHA-256, holding "EXPIRY_WALL_S ROLE": whoever
    signs in with it removes that file first.
    """
    folder = settings.run / "codes"
    folder.mkdir(mode=0o700, exist_ok=True)
    _forget_expired(folder)
    code = secrets.token_urlsafe(TOKEN_BYTES)
    write_secret(folder / hashlib.sha256(code.encode()).hexdigest(), f"{time.time() + CODE_S:.0f} {role}")
    return code


def link(url: str, code: str) -> str:
    """The sign-in link. The code is in the fragment, which no browser sends to any server or proxy."""
    return f"{url.rstrip('/')}/#code={code}"


def _forget_expired(folder: Path) -> None:
    for path in folder.iterdir():
        try:
            expired = float(path.read_text().split()[0]) < time.time()
        except (OSError, ValueError, IndexError):
            continue
        if expired:
            path.unlink(missing_ok=True)
