"""The token file of an agent, and beside it the secret that is to take its place.

A new secret is on disk before the hub gets its hash, and the file that holds the old one stays until the new one has
let somebody in. So there is no moment at which a kill leaves this machine without a token that is good.
"""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import Final

from processes.adapters import ownership
from processes.adapters.state import durable
from processes.core.values import digest

SECRET_BYTES: Final = 32
FILE_BYTES_MAX: Final = 4096
PENDING: Final = ".pending"  # behind the name of the token file
CODE: Final = ".code"


def pending(token_file: Path) -> Path:
    """Return the file of the secret that is to take the token's place."""
    return token_file.with_name(token_file.name + PENDING)


def make(token_file: Path) -> str:
    """Make the next secret, durably, unless there is one already, and return its SHA-256 in hex: all that the hub gets.

    Raises: OSError, NotPrivate.
    """
    with contextlib.suppress(FileExistsError):  # of a try before, or of one beside this one
        durable.create(pending(token_file), f"{secrets.token_urlsafe(SECRET_BYTES)}\n".encode())
    secret = read_pending(token_file)
    assert secret is not None
    return digest(secret)


def read_pending(token_file: Path) -> str | None:
    """Return the next secret; None if there is none. Raises: OSError, NotPrivate."""
    try:
        content = ownership.read_private(pending(token_file), FILE_BYTES_MAX)
    except FileNotFoundError:
        return None
    return content.decode("ascii", "replace").strip()


def came_of(token_file: Path, code: str) -> bool:
    """Return whether this very one-time code gave this file its token, or one that was rotated since.

    Raises: OSError, NotPrivate.
    """
    try:
        noted = ownership.read_private(_code(token_file), FILE_BYTES_MAX).decode("ascii", "replace").split()
    except FileNotFoundError:
        return False
    secret = read_pending(token_file)
    was_promoted = secret is None or digest(secret) not in noted
    return noted[:1] == [digest(code)] and was_promoted and token_file.exists()


def note_code(token_file: Path, code: str, token_hash: str) -> None:
    """Note durably that the hub took this code with the pending secret. Before `promote`. Raises: OSError."""
    durable.replace(_code(token_file), f"{digest(code)} {token_hash}\n".encode())


def _code(token_file: Path) -> Path:
    return token_file.with_name(token_file.name + CODE)


def discard(token_file: Path) -> None:
    """Forget the next secret: the hub says that it was made void. Raises: OSError."""
    pending(token_file).unlink(missing_ok=True)


def promote(token_file: Path) -> None:
    """Put the next secret into the token file, durably: the hub has its hash. Twice does the same as once.

    Raises: OSError, NotPrivate.
    """
    secret = read_pending(token_file)
    if secret is not None:
        durable.replace(token_file, f"{secret}\n".encode())
        pending(token_file).unlink(missing_ok=True)
