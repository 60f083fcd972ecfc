"""Errors, typed by who is to blame. Pure.

FleethubError
├── LocalError       we are wrong: let the process die, supervisord restarts it
│   └── Fenced       a newer hub has taken over: this one must do nothing more
├── RemoteError      the peer is wrong: refuse, with its code
│   └── BadFrame     a frame that is not of the protocol
└── ResourceError    the world is wrong: retry with backoff, or say so
"""

from __future__ import annotations


class FleethubError(Exception):
    """Base of all errors that fleethub raises by itself."""


class LocalError(FleethubError):
    """We are wrong, or may not go on. The process ends; supervisord starts it again."""


class Fenced(LocalError):
    """A hub of a newer epoch exists. Whoever gets this may write nothing more."""

    def __init__(self, own_epoch: int, newest_epoch: int) -> None:
        super().__init__(f"fenced: epoch {own_epoch} was replaced by {newest_epoch}")
        self.own_epoch = own_epoch
        self.newest_epoch = newest_epoch


class RemoteError(FleethubError):
    """The peer is wrong. `code` is the fixed word told to it, the text is for a person."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BadFrame(RemoteError):
    """An agent's or operator's frame that is not of the protocol."""

    def __init__(self, message: str) -> None:
        super().__init__("malformed", message)


class ResourceError(FleethubError):
    """The world is wrong (a peer away, a disk full): retry with backoff, or say so."""
