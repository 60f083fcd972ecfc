"""What can go wrong between a program and a hub. Each error carries facts; advice is left to the program.

ClientError
├── Refused          the hub answered with an error: its HTTP status, code and message
├── HubAway          the hub did not answer, or not in time; whether a request was carried out is unknown
├── NoToken          the file does not hold a token, or cannot be read
└── NotAnAddress     the text is not the URL of an operators' port
"""

from __future__ import annotations

import enum
from pathlib import Path

from processes.core.errors import FleethubError


class ClientError(FleethubError):
    """Base of all errors of the client. `str` of one is a sentence for a person."""


class Refused(ClientError):
    """The hub answered with an error.

    `status`: HTTP's. `code`: the API's fixed word; `http` if the answer is not the API's, `bad_answer` if it cannot be
    decoded. `url`: of the operators' port. `token_file`: where the token came from. `retry_after_s`: after how long to
    ask again, if the hub said so. `own`: the hub is this machine's own.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        url: str = "",
        token_file: Path | None = None,
        retry_after_s: float | None = None,
        own: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.url, self.token_file, self.retry_after_s, self.own = url, token_file, retry_after_s, own

    @property
    def passes(self) -> bool:
        """True if the hub is only away for a moment: the request may be repeated."""
        return self.status in (503, 504)


class Silence(enum.StrEnum):
    """Why there was no answer."""

    UNREACHABLE = "unreachable"  # no connection was made
    NO_TLS = "no_tls"  # the port does not speak TLS
    UNTRUSTED = "untrusted"  # its certificate is not trusted here
    CUT = "cut"  # the connection or the time ended before the answer came
    BUSY = "busy"  # the fanout answered that the hub is away for now
    NOT_ACCEPTED = "not_accepted"  # the request was repeated until the time was over


class HubAway(ClientError):
    """The hub did not answer, or not in time. Whether a request was carried out is unknown.

    `url`: of the operators' port. `why`: how it failed. `own`: the hub is this machine's own.
    """

    def __init__(self, message: str, *, url: str = "", why: Silence = Silence.CUT, own: bool = False) -> None:
        super().__init__(message)
        self.message, self.url, self.why, self.own = message, url, why, own


class NoToken(ClientError):
    """The file does not hold a token. `missing`: there is no such file. `empty`: what it holds is no token."""

    def __init__(self, path: Path, message: str, *, missing: bool = False, empty: bool = False) -> None:
        super().__init__(message)
        self.path, self.message, self.missing, self.empty = path, message, missing, empty


class NotAnAddress(ClientError):
    """The text is not the URL of an operators' port."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text!r} is not the URL of an operators' port: it looks like https://fleet.example.org:7700")
        self.text = text
