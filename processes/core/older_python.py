"""What older interpreters lack. Pure.

The agent runs on Python 3.9, which many servers have; all else needs 3.11. tests/house/test_house_small_agent.py has
the list of the modules that an agent needs, and finds what they must not use.
"""

from __future__ import annotations

import datetime
import enum
from typing import Final, NoReturn

UTC: Final = datetime.timezone.utc  # datetime.UTC, from 3.11 on

try:
    from enum import StrEnum as StrEnum  # noqa: PLC0414  # given on to others
except ImportError:

    class StrEnum(str, enum.Enum):  # type: ignore[no-redef]
        """An enum whose members are text, and are written as that."""

        def __str__(self) -> str:
            return str(self.value)

        def __format__(self, format_spec: str) -> str:
            return format(str(self.value), format_spec)


try:
    from typing import assert_never as assert_never  # noqa: PLC0414
except ImportError:

    def assert_never(value: NoReturn, /) -> NoReturn:
        """Fail: mypy was to see that nothing is left."""
        raise AssertionError(f"unexpected: {value!r}")
