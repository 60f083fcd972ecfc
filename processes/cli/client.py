"""The operators' API as a small, typed client: one short call a question, each with a deadline."""

from __future__ import annotations

import contextlib
import email.utils
import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit

import click
import httpx
import msgspec

from processes.adapters.settings import Settings, address, closed_to_us
from processes.cli.machine import own_processes
from processes.cli.machine.environment import program
from processes.cli.terminal.failure import EXIT_USAGE, Failure
from processes.core.errors import ResourceError
from processes.core.records.run import RunView
from processes.core.shown.pages import CommandsPage, HostEnrolled, HostsPage, Named
from processes.core.shown.status import Report
from processes.core.shown.views import CommandView, HostView, OutputPage

TIMEOUT_S: Final = httpx.Timeout(12.0, connect=2.0)  # the API answers 504 after 10 s
READ_AGAIN_S: Final = 5.0  # a read that was refused for a moment is asked again for so long
ASK_AGAIN_S: Final = 15.0  # contract: `run` asks again with the same key for so long
PAUSE_S: Final = 0.3
# two clocks that differ by less are the same: an answer names the second that had begun, and takes its way
CLOCK_S: Final = 2.0
# OpenSSL's words for an answer in plain text, and for none
NO_TLS: Final = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "record layer failure",
    "handshake operation timed out",
)
AGENTS_PORT: Final = (404, 426)  # what it says to whoever does not ask for a WebSocket
PAGE_MAX: Final = 500  # commands in one answer

ADVICE: Final = {  # by the API's word for what it does not know
    "unknown_host": "fleethub hosts lists them.",
    "unknown_command": "fleethub commands lists them.",
    "unknown_run": "fleethub runs lists them.",
    "unknown_letter": "fleethub deadletters lists them.",
    "unknown_token": "fleethub token list lists them.",
}

T = TypeVar("T")
Before = TypeVar("Before", str, int)  # where a listing goes on: an id or a number


class Refused(Failure):
    """The API answered with an error; `status` is HTTP's."""

    def __init__(self, status: int, code: str, message: str, advice: str = "") -> None:
        known = "" if "`fleethub " in message else ADVICE.get(code, "")
        super().__init__(code, message, advice or known)
        self.status = status


class HubAway(ResourceError):
    """Nobody answered, or not in time. Whether a request was carried out is unknown."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.advice = advice


class _Error(msgspec.Struct, frozen=True):
    error: str = "unknown"
    message: str = ""


class Api:
    """One operators' port and one token."""

    def __init__(
        self,
        url: str,
        token: str,
        trust: ssl.SSLContext | None = None,
        *,
        settings: Settings | None = None,
        token_file: Path | None = None,
    ) -> None:
        """`settings`: of this machine's own installation, None if it is another's."""
        self.url, self.token, self.trust = url.rstrip("/"), token, trust
        self._settings, self._token_file = settings, token_file
        self._ahead_s = 0.0
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=TIMEOUT_S,
            verify=trust if trust is not None else True,
            trust_env=settings is None,  # a proxy for the outside has no business with our own port
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends its connections."""
        self._http.close()

    def read(self, path: str, query: Mapping[str, str | int] | None = None) -> bytes:
        """The body of a GET. Asks again for READ_AGAIN_S when the hub is away for a moment.

        Raises: Refused, HubAway.
        """
        deadline_mono_s = time.monotonic() + READ_AGAIN_S
        while True:
            try:
                return self.once("GET", path, query=query)
            except (Refused, HubAway) as error:
                passing = isinstance(error.__cause__, httpx.TransportError) and not isinstance(
                    error.__cause__, httpx.ConnectError
                )
                if isinstance(error, Refused):
                    passing = error.status in (503, 504)
                if not passing or time.monotonic() > deadline_mono_s:
                    raise
            time.sleep(PAUSE_S)  # nothing tells us when it is back: ask again

    def once(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str | int] | None = None,
        timeout: httpx.Timeout = TIMEOUT_S,
    ) -> bytes:
        """The body of one answer. Raises: Refused, HubAway."""
        content = None if body is None else msgspec.json.encode(body)
        kind = {"Content-Type": "application/json"} if content else {}
        try:
            answer = self._http.request(
                method,
                f"/api/v1{path}",
                content=content,
                headers=kind,
                params=dict(query) if query else None,
                timeout=timeout,
            )
        except (httpx.TransportError, httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise self._away(error) from error
        self._ahead_s = _ahead_s(answer)
        if answer.status_code >= 400:
            raise self._refusal(answer)
        return answer.content

    def _away(self, error: Exception) -> HubAway:
        """Why nobody answered, in plain words."""
        said = str(error) or type(error).__name__
        if self._settings is not None:
            if _runs_nothing(self._settings):
                return HubAway(
                    f"nothing runs here, and so {self.url} does not answer: {said}", f"Start it: {program()} up"
                )
            return HubAway(f"{self.url} does not answer: {said}", "Who is unwell? fleethub status")
        if any(word in said for word in NO_TLS):
            return HubAway(
                f"{self.url} does not speak TLS: {said}", f"Perhaps http{self.url.removeprefix('https')} is meant."
            )
        if "CERTIFICATE_VERIFY_FAILED" in said:
            return HubAway(
                f"the certificate of {self.url} is not trusted here: {said}", "SSL_CERT_FILE names one more that is."
            )
        if isinstance(error, httpx.RemoteProtocolError) and self.url.startswith("http://"):
            said += " (perhaps it speaks TLS: https://…)"
        return HubAway(
            f"{self.url} does not answer: {said}", "Is this the URL of its operators' port, and does it run there?"
        )

    def _refusal(self, answer: httpx.Response) -> Refused:
        try:
            error = msgspec.json.decode(answer.content, type=_Error)
        except msgspec.DecodeError:
            if answer.status_code in AGENTS_PORT:
                message = (
                    f"{self.url} is not an operators' port: it answers HTTP {answer.status_code} {answer.reason_phrase}"
                )
                return Refused(
                    answer.status_code,
                    "http",
                    message,
                    "Is it the agents' port? Operators have a port of their own, 7700.",
                )
            error = _Error("http", f"HTTP {answer.status_code} {answer.reason_phrase}")
        message, advice = error.message or f"HTTP {answer.status_code} {error.error}", ""
        if self._token_file is not None and answer.status_code == 401:
            message = f"the token in {self._token_file} is not good at {self.url}"
            advice = "It was revoked, or is of another hub: fleethub token create, there, makes one."
        elif self._token_file is not None and answer.status_code == 403:
            advice = f"The token in {self._token_file} is of a role that may not do this."
        return Refused(answer.status_code, error.error, message, advice)

    def now_wall_s(self) -> float:
        """The time by the clock of the installation that answered last, to a second."""
        return time.time() + self._ahead_s

    def healthy(self) -> bool:
        """True when /healthz says 200."""
        try:
            return self._http.get("/healthz", timeout=2.0).status_code == 200
        except httpx.TransportError:
            return False

    def status(self) -> Report:
        """The watchdog's view. Raises: Refused, HubAway."""
        return decoded(self.read("/status"), Report)

    def hosts(self, query: Mapping[str, str | int] | None = None, timeout: httpx.Timeout = TIMEOUT_S) -> list[HostView]:
        """The hosts, by name; `query`: presence, search. Asked once. Raises: Refused, HubAway."""
        return decoded(self.once("GET", "/hosts", query=query, timeout=timeout), HostsPage).hosts

    def enroll(self, name: str, *, again: bool = False) -> HostEnrolled:
        """The host has a new token. Raises: Refused, with 409 for one that is there, unless `again`; HubAway."""
        return decoded(self.once("POST", "/hosts", {"name": name, "again": again}), HostEnrolled)

    def cancel(self, command_id: str) -> CommandView:
        """The command, whose end was asked for. Raises: Refused, with 409 if it has ended; HubAway."""
        return decoded(self.once("POST", f"/commands/{segment(command_id)}/cancel"), CommandView)

    def host(self, name: str) -> HostView | None:
        """One host; None if it is not enrolled. Raises: Refused, HubAway."""
        try:
            return decoded(self.read(f"/hosts/{segment(name)}"), HostView)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    def command(self, command_id: str) -> CommandView:
        """One command. Raises: Refused, HubAway."""
        return decoded(self.read(f"/commands/{segment(command_id)}"), CommandView)

    def output(self, command_id: str, first: int) -> OutputPage:
        """A page of a command's output, from offset `first`. Raises: Refused, HubAway."""
        return decoded(self.read(f"/commands/{segment(command_id)}/output", {"from": first}), OutputPage)

    def run(self, run_id: str, *, hosts: bool = True) -> RunView:
        """One fleet run, host by host or only counted. Raises: Refused, HubAway."""
        return decoded(self.read(f"/runs/{segment(run_id)}", {"hosts": int(hosts)}), RunView)

    def commands_of(self, run_id: str, count: int, host: str | None = None) -> list[CommandView]:
        """The newest `count` commands of a run, oldest first; fewer if there are no more. Raises: Refused, HubAway."""
        query: dict[str, str | int] = {"run": run_id} if host is None else {"run": run_id, "host": host}
        return self.commands(query, count)[0][::-1]

    def commands(self, query: Mapping[str, str | int], count: int) -> tuple[list[CommandView], str | None]:
        """At most `count` commands, newest first, and where the listing goes on, in pages. Raises: Refused, HubAway."""

        def rows(body: bytes) -> tuple[list[CommandView], str | None]:
            page = decoded(body, CommandsPage)
            return page.commands, page.next

        return self.paged("/commands", query, count, PAGE_MAX, rows)

    def paged(
        self,
        path: str,
        query: Mapping[str, str | int],
        count: int,
        page_max: int,
        rows: Callable[[bytes], tuple[list[T], Before | None]],
    ) -> tuple[list[T], Before | None]:
        """At most `count` rows of a listing, newest first, and where it goes on, in pages of at most `page_max`.

        `rows`: what an answer holds, and its `next`. Raises: Refused, HubAway.
        """
        found: list[T] = []
        following: Before | None = None
        while len(found) < count:
            more: dict[str, str | int] = {} if following is None else {"before": following}
            page, following = rows(self.read(path, {**query, **more, "limit": min(count - len(found), page_max)}))
            found += page
            if following is None or not page:
                break
        return found, following

    def start_run(self, body: Mapping[str, Any]) -> RunView:
        """The run that was accepted. Asked again with the same key until it is certain, for ASK_AGAIN_S.

        Raises: Refused, with any other status than 503 and 504; HubAway, when the time is over.
        """
        assert body.get("key"), "without a key, asking again would start it twice"
        answer = self._insist("/runs", body)
        try:
            return msgspec.json.decode(answer, type=RunView)
        except msgspec.ValidationError:
            return self.run(decoded(answer, Named).id)

    def cancel_run(self, run_id: str) -> RunView:
        """The run, which begins nothing more. Asked again for ASK_AGAIN_S: twice is as good as once.

        Raises: Refused, with 409 if it has ended; HubAway, when the time is over.
        """
        return decoded(self._insist(f"/runs/{segment(run_id)}/cancel"), RunView)

    def _insist(self, path: str, body: object = None) -> bytes:
        """The answer to a POST that may be asked again without harm. Every try ends when the time is over."""
        deadline_mono_s = time.monotonic() + ASK_AGAIN_S
        while True:
            try:
                return self.once("POST", path, body, timeout=_within(deadline_mono_s - time.monotonic()))
            except (Refused, HubAway) as error:
                if isinstance(error, Refused) and error.status not in (503, 504):
                    raise
                if time.monotonic() + PAUSE_S > deadline_mono_s:
                    advice = error.advice
                    told = f"not accepted within {ASK_AGAIN_S:.0f} s, but a request that still waits may be, for some seconds more"
                    raise HubAway(f"{told}: {error}", advice) from error
            time.sleep(PAUSE_S)


def _within(left_s: float) -> httpx.Timeout:
    """The timeouts of a try that ends with the time that is left."""
    connect_s = min(TIMEOUT_S.connect or 0.0, left_s / 2)
    return httpx.Timeout(min(TIMEOUT_S.read or 0.0, max(0.01, left_s - connect_s)), connect=max(0.01, connect_s))


def open_api(settings: Settings, token_file: Path | None = None) -> Api:
    """The API of this machine's installation, asked with its own token or that of a file.

    Raises: Failure, if there is no token to ask with.
    """
    path = settings.operator_token
    missing = Failure(
        "not_running", f"there is no token at {path}: nothing was started here yet", f"Start it: {program()} up"
    )
    token = _token(path, missing) if token_file is None else _token(token_file, _no_file(token_file))
    return Api(own_url(settings), token, _trust(settings), settings=settings, token_file=token_file)


def open_remote(hub: str, token_file: Path | None) -> Api:
    """The API of another installation; nothing of this machine's is needed. Raises: Failure, if there is no token to
    ask with.
    """
    if urlsplit(hub).scheme not in ("http", "https") or not urlsplit(hub).netloc:
        raise click.UsageError(
            f"{hub!r} is not the URL of an operators' port: it looks like https://fleet.example.org:7700"
        )
    if token_file is None:
        raise Failure(
            "no_token", f"--hub {hub} needs --token-file", "The local operator token is not sent elsewhere.", EXIT_USAGE
        )
    return Api(hub, _token(token_file, _no_file(token_file)), token_file=token_file)


def _no_file(path: Path) -> Failure:
    return Failure(
        "no_token", f"there is no token file at {path}", "fleethub token create, there, makes a token for it."
    )


def _token(path: Path, missing: Failure) -> str:
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        raise missing from None
    except PermissionError:
        raise Failure("no_token", closed_to_us(path)) from None
    except UnicodeDecodeError:
        token = ""
    except OSError as error:
        raise Failure("no_token", f"the token file {path} cannot be read: {error.strerror or error}") from None
    if not token or not token.isascii() or not token.isprintable():
        raise Failure(
            "no_token",
            f"the token file {path} does not hold a token",
            "It holds one line, which fleethub token create prints.",
        )
    return token


def _runs_nothing(settings: Settings) -> bool:
    """True if it is certain: another user's processes are not seen."""
    with contextlib.suppress(OSError):
        return settings.state.stat().st_uid == os.geteuid() and own_processes.supervisord_of(settings) is None
    return False


def own_url(settings: Settings, listen: str | None = None) -> str:
    """The URL under which this machine reaches the operators' port."""
    return f"{'https' if settings.file.tls.certificate else 'http'}://{_reachable(listen or settings.file.operators.listen)}"


def agents_url(settings: Settings, listen: str | None = None) -> str:
    """The URL under which this machine reaches the agents' port."""
    return (
        f"{'wss' if settings.file.tls.certificate else 'ws'}://{_reachable(listen or settings.file.agents.listen)}/ws"
    )


def segment(name: str) -> str:
    """The name as one segment of a URL's path, whatever it holds."""
    return quote(name, safe="") if name.strip(".") else f"%2E{name[1:]}"  # "." and ".." would be resolved on the way


def decoded(body: bytes, kind: type[T]) -> T:
    """The answer as what it should be. Raises: Refused, if it is not."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise Refused(502, "bad_answer", f"the answer is not of this API: {error}") from None


def _reachable(listen: str) -> str:
    host, port = address(listen)
    return f"{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104  # compared, not listened on


def _trust(settings: Settings) -> ssl.SSLContext | None:
    """Our own certificate is trusted as it is, whatever name it is for: this is our own machine, and our own port."""
    if not settings.file.tls.certificate:
        return None
    context = ssl.create_default_context(cafile=os.fspath(settings.file.tls.certificate))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context


def _ahead_s(answer: httpx.Response) -> float:
    """By how much the clock of who answered is ahead of ours; 0 if it is the same to the second, which is all that is
    told.
    """
    try:
        ahead_s = email.utils.parsedate_to_datetime(answer.headers.get("date", "")).timestamp() - time.time()
    except ValueError:
        return 0.0
    return ahead_s if abs(ahead_s) > CLOCK_S else 0.0
