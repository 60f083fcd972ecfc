"""rules.toml: which conditions of hosts are told (core/conditions/rules.py). The operator writes it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

RULES_BYTES_MAX: Final = 1 << 20

Mark = tuple[int, int, int]  # inode, time of the last change, size; zeros: there is no such file


class RulesUnreadable(Exception):
    """The file cannot be read; the text says why."""


def mark_of(path: Path) -> Mark:
    """Return what tells this content of the file from another one. Blocks."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_ino, found.st_mtime_ns, found.st_size


def read(path: Path) -> dict[str, Any]:
    """Return the content of the file; none, if there is no file. Blocks. Raises: RulesUnreadable."""
    try:
        with path.open("rb") as file:
            content = file.read(RULES_BYTES_MAX + 1)
        if len(content) > RULES_BYTES_MAX:
            raise RulesUnreadable(f"{path} is larger than {RULES_BYTES_MAX >> 20} MiB")
        return tomllib.loads(content.decode("utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise RulesUnreadable(f"{path} cannot be read: {why}") from None
