"""Errors, typed by who is to blame: us, the peer or the world. Pure.

FleethubError
├── LocalError       we are wrong: let the process die, supervisord restarts it
│   └── Fenced       a newer hub has taken over: this one must do nothing more
├── RemoteError      the peer is wrong: refuse, with the error's code
│   └── BadFrame     a frame that breaks the protocol
├── ResourceError    the world is wrong (a peer is away, a disk is full): retry with backoff, or report it
└── Failure          what a person asked for has failed: tell them, and what to do about it
"""

from __future__ import annotations

from typing import Final

# exit codes of processes; source: sysexits.h, EX_CONFIG and EX_SOFTWARE
EXIT_OK: Final = 0
EXIT_FAILED: Final = 1  # … of verbs, as many programs have them
EXIT_USAGE: Final = 2
EXIT_SETTINGS: Final = 78
EXIT_BROKEN: Final = 70


class FleethubError(Exception):
    """Base of all errors that fleethub defines."""


class LocalError(FleethubError):
    """We are wrong, or may not go on: let the process end. supervisord starts it again."""


class Fenced(LocalError):
    """A hub of a newer epoch exists. A hub that gets this error must write nothing more."""

    def __init__(self, own_epoch: int, newest_epoch: int) -> None:
        super().__init__(f"fenced: epoch {own_epoch} was replaced by {newest_epoch}")
        self.own_epoch = own_epoch
        self.newest_epoch = newest_epoch


class RemoteError(FleethubError):
    """The peer is wrong. `code` is the fixed word that the peer is told; `message` is for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BadFrame(RemoteError):
    """A frame of an agent or an operator that breaks the protocol."""

    def __init__(self, message: str) -> None:
        super().__init__("malformed", message)


class ResourceError(FleethubError):
    """The world is wrong (a peer is away, a disk is full): retry with backoff, or report it."""


class Failure(FleethubError):
    """What a person asked for has failed. `message`: what happened and why. `advice`: what to do about it. `code`: a
    fixed word.
    """

    def __init__(self, code: str, message: str, advice: str = "", exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.code, self.message, self.advice, self.exit_code = code, message, advice, exit_code
