"""What can go wrong between a program and a hub. Each error carries facts; advice is left to the program.

ClientError
├── Refused          the answer is an error, or none that the hub gives: its HTTP status, code and message
├── HubAway          nobody answered, or not in time; whether a request was carried out is unknown
├── NoToken          the file does not give a token
├── NotAnAddress     the text is not the URL of an operators' port
└── BadVariable      a variable of the environment, of proxies or of certificates, cannot be followed
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Final

from processes.core.errors import FleethubError

STRANGERS: Final = ("http", "redirected", "bad_answer")  # codes of answers that are not the hub's


class ClientError(FleethubError):
    """Base of all errors of the client. `str` of one is a sentence for a person."""


class Refused(ClientError):
    """The answer is an error, or it is none that the hub gives: then a proxy, or another program, has answered.

    `status`: HTTP's. `code`: the API's fixed word, or one of STRANGERS: `http` for an error, `redirected`, and
    `bad_answer` for anything else that the API does not promise. `url`: of the operators' port. `token_file`: where the
    token came from. `retry_after_s`: when to ask again, if the hub said so. `own`: the hub is this machine's own.
    `moved_to`: the URL under which the operators' port is, if a redirect tells.
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
        moved_to: str = "",
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.url, self.token_file, self.retry_after_s, self.own = url, token_file, retry_after_s, own
        self.moved_to = moved_to

    @property
    def by_hub(self) -> bool:
        """True when the hub said it. If not, it is not known whether the request was carried out."""
        return self.code not in STRANGERS

    @property
    def passes(self) -> bool:
        """True when the hub, or a proxy before it, is unwell for a moment: the same request may be asked again."""
        too_soon = self.code == "too_many_requests"  # nothing was done; `retry_after_s` says when it may be
        of_proxy = self.code == "http" and (self.status in (425, 429) or self.status >= 500)
        return too_soon or of_proxy or self.status in (408, 503, 504)

    @property
    def not_found(self) -> bool:
        """True when the hub says that it knows no such thing. A proxy's 404 says nothing of the hub's."""
        return self.status == 404 and self.by_hub


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


class BadVariable(ClientError):
    """A variable of the environment says what cannot be followed, so nothing was asked. `variable`: its name."""

    def __init__(self, variable: str, message: str) -> None:
        super().__init__(message)
        self.variable = variable
