"""stdout and stderr of the command line: what cannot be written is an error of its own, never a traceback of the interpreter's end."""

from __future__ import annotations

import io
import os
import sys

from processes.cli.failure import EXIT_READER_GONE, Failure
from processes.core.errors import FleethubError


class Unwritable(Failure):
    """stdout takes nothing more: a full disk, a closed descriptor."""

    def __init__(self, why: str) -> None:
        super().__init__("unwritable", f"cannot write to stdout: {why}")


class ReaderGone(FleethubError):
    """Whoever read our stdout has ended, as `head` does: nothing is wrong, and nothing more is to be said there."""

    exit_code = EXIT_READER_GONE


class Stdout(io.TextIOWrapper):
    """stdout, whose errors are told from those of sockets and files. Raises: Unwritable, ReaderGone."""

    def write(self, text: str) -> int:
        """Part of TextIOBase."""
        try:
            return super().write(text)
        except OSError as error:
            raise _named(error) from None

    def flush(self) -> None:
        """Part of TextIOBase."""
        try:
            super().flush()
        except OSError as error:
            raise _named(error) from None


def prepare() -> None:
    """Both streams are there, and a character that they cannot show is shown as its number. Raises: Unwritable."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # as long as we live; else print() would take stdout for it
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        raise Unwritable("it is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        old = sys.stdout  # sys.__stdout__ keeps it: ended, it would close what both write to
        sys.stdout = Stdout(old.buffer, encoding=old.encoding, errors="backslashreplace", line_buffering=old.line_buffering)


def leave_quietly() -> None:
    """Nothing more is written to our stdout, not even by the interpreter's end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _named(error: OSError) -> FleethubError:
    if isinstance(error, BrokenPipeError):
        return ReaderGone("the reader of stdout is gone")
    return Unwritable(error.strerror or str(error))
