"""How a verb fails: a code for scripts, a text for a person, an exit code. Pure."""

from __future__ import annotations

from typing import Final

from processes.core.errors import EXIT_FAILED as EXIT_FAILED  # noqa: PLC0414  # given on
from processes.core.errors import EXIT_USAGE as EXIT_USAGE  # noqa: PLC0414
from processes.core.errors import Failure as Failure  # noqa: PLC0414

EXIT_OK: Final = 0
EXIT_UNKNOWN: Final = 3  # of `status`: there is nothing to judge
EXIT_UNANSWERED: Final = 4  # of `run`: a host had not answered at --wait
EXIT_NOT_ACCEPTED: Final = 5  # of `run`: the hub did not accept it in time
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT
EXIT_READER_GONE: Final = 141  # 128 + SIGPIPE
