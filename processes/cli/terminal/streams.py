"""stdout and stderr of the command line.

A stream that cannot be written raises an error of its own, and causes no traceback when the interpreter ends.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from processes.cli.terminal.failure import EXIT_READER_GONE, Failure
from processes.core.errors import FleethubError


class Unwritable(Failure):
    """stdout cannot be written: the disk is full, or the descriptor is closed."""

    def __init__(self, why: str) -> None:
        super().__init__("unwritable", f"cannot write to stdout: {why}")


class ReaderGone(FleethubError):
    """The program that reads our output has ended, as `head` does. Nothing is wrong; there is no one to write to."""

    exit_code = EXIT_READER_GONE


class Checked(io.TextIOWrapper):
    """stdout or stderr, whose errors can be told from those of sockets and files. Raises: Unwritable, ReaderGone."""

    def write(self, text: str) -> int:
        """Write the text and return its length, as TextIOWrapper does. Raises: Unwritable, ReaderGone."""
        try:
            return super().write(text)
        except OSError as error:
            raise _named(error) from None

    def flush(self) -> None:
        """Write what is buffered, as TextIOWrapper does. Raises: Unwritable, ReaderGone."""
        try:
            super().flush()
        except OSError as error:
            raise _named(error) from None


def prepare() -> None:
    """Make both streams usable: open, checked, and showing a character that they cannot encode as its number.

    Raises: Unwritable, if stdout is closed.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # else print() would take stdout for it
    else:
        sys.stderr = _checked(sys.stderr)
    if sys.stdout is None:
        raise Unwritable("it is closed")
    sys.stdout = _checked(sys.stdout)


def leave_quietly() -> None:
    """Drop buffered text that cannot be written.

    Otherwise the interpreter would try again at its end, complain, and choose another exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (FleethubError, OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _checked(stream: TextIO) -> TextIO:
    """A checked stream on the same file.

    The first stream must live on, as sys.__stdout__ and sys.__stderr__ see to: if it were collected, it would close
    the file for both.
    """
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    return Checked(
        stream.buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=stream.line_buffering
    )


def _named(error: OSError) -> FleethubError:
    if isinstance(error, BrokenPipeError):
        return ReaderGone("the reader is gone")
    return Unwritable(error.strerror or str(error))
