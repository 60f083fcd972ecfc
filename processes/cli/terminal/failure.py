"""How a verb fails: a code for scripts, a text for a person, an exit code. Pure."""

from __future__ import annotations

from typing import Final

from processes.core.errors import FleethubError

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_UNKNOWN: Final = 3  # of `status`: there is nothing to judge
EXIT_UNANSWERED: Final = 4  # of `run`: a host had not answered at --wait
EXIT_NOT_ACCEPTED: Final = 5  # of `run`: the hub did not accept it in time
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT
EXIT_READER_GONE: Final = 141  # 128 + SIGPIPE


class Failure(FleethubError):
    """A verb has failed. `message`: what happened and why. `advice`: what to do about it. `code`: a fixed word."""

    def __init__(self, code: str, message: str, advice: str = "", exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code, self.message, self.advice, self.exit_code = code, message, advice, exit_code
