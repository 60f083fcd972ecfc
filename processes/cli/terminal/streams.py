"""stdout and stderr of the command line: what cannot be written is an error of its own, never a traceback of the
interpreter's end.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from processes.cli.terminal.failure import EXIT_READER_GONE, Failure
from processes.core.errors import FleethubError


class Unwritable(Failure):
    """stdout takes nothing more: a full disk, a closed descriptor."""

    def __init__(self, why: str) -> None:
        super().__init__("unwritable", f"cannot write to stdout: {why}")


class ReaderGone(FleethubError):
    """Whoever read our output has ended, as `head` does: nothing is wrong, and nothing more is to be said there."""

    exit_code = EXIT_READER_GONE


class Checked(io.TextIOWrapper):
    """stdout or stderr, whose errors are told from those of sockets and files. Raises: Unwritable, ReaderGone."""

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
    else:
        sys.stderr = _checked(sys.stderr)
    if sys.stdout is None:
        raise Unwritable("it is closed")
    sys.stdout = _checked(sys.stdout)


def leave_quietly() -> None:
    """What cannot be written is not tried again by the interpreter's end, which would complain and choose another exit
    code.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (FleethubError, OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _checked(stream: TextIO) -> TextIO:
    """The same file. The stream as it was is kept by sys.__stdout__ and __stderr__: ended, it would close what both
    write to.
    """
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    return Checked(
        stream.buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=stream.line_buffering
    )


def _named(error: OSError) -> FleethubError:
    if isinstance(error, BrokenPipeError):
        return ReaderGone("whoever read it is gone")
    return Unwritable(error.strerror or str(error))
