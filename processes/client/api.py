"""The operators' API as a small, typed client: one call for each request, each with a deadline."""

from __future__ import annotations

import email.utils
import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from processes.adapters.settings import closed_to_us
from processes.client import way
from processes.client.errors import HubAway, NotAnAddress, NoToken, Refused, Silence
from processes.client.http_link import Answer, Deadline, HttpLink
from processes.client.patience import PATIENCE, Patience
from processes.core.records.run import RunView
from processes.core.shown.pages import CommandsPage, Error, HealthView, HostEnrolled, HostsPage, Named
from processes.core.shown.status import Report
from processes.core.shown.views import CommandView, HostView, OutputPage

DEADLINE: Final = Deadline(answer_s=12.0, connect_s=2.0)  # the API answers 504 after 10 s
HEALTH: Final = Deadline(answer_s=2.0, connect_s=2.0)
# clocks that differ by less count as the same: an answer names a second, and takes its time to come
CLOCK_S: Final = 2.0
AGENTS_PORT: Final = (404, 426)  # what the agents' port says to whoever does not ask for a WebSocket
RETRY_AFTER_S_MAX: Final = 10.0  # that are waited for; whoever is told more asks once more and gives up
PAGE_MAX: Final = 500  # commands in one answer

T = TypeVar("T")
Page = TypeVar("Page")
Before = TypeVar("Before", str, int)  # where a listing goes on: an id or a number


class Told(NamedTuple, Generic[T]):
    """One answer of the hub: the JSON text as it came, and the same as the type that the API promises."""

    body: bytes
    view: T


class Api:
    """One operators' port and one token. Use it in a `with` statement, or call `close`."""

    def __init__(
        self,
        url: str,
        token: str,
        trust: ssl.SSLContext | None = None,
        *,
        own: bool = False,
        token_file: Path | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        """`trust`: None for what the environment trusts. `own`: the port belongs to this machine's own installation, so
        that no proxy is used.

        `token_file`: where the token came from, for errors that name it. Raises: BadVariable, NotAnAddress.
        """
        if trust is None and url.startswith("https://"):
            trust = way.trust(os.environ)
        self.url, self.token, self.trust, self.own = url.rstrip("/"), token, trust, own
        self.proxy = None if own else way.proxy_to(url, os.environ)
        self._token_file, self._patience = token_file, patience
        self._ahead_s = 0.0
        self._http = HttpLink(self.url, token, trust, own=own, proxy=self.proxy)

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def read(self, path: str, kind: type[T], query: Mapping[str, str | int] | None = None) -> Told[T]:
        """The answer to a GET. Asks again for a while when the hub is away for a moment. Raises: Refused, HubAway."""
        deadline_mono_s = time.monotonic() + self._patience.read_again_s
        while True:
            try:
                return self.once("GET", path, kind, query=query)
            except (Refused, HubAway) as error:
                passes = error.passes if isinstance(error, Refused) else error.why is Silence.CUT
                if not passes or time.monotonic() > deadline_mono_s:
                    raise
                pause_s = self._pause_s(error)
            time.sleep(pause_s)

    def once(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: object = None,
        *,
        query: Mapping[str, str | int] | None = None,
        deadline: Deadline = DEADLINE,
        promised: tuple[int, ...] = (200,),
    ) -> Told[T]:
        """One answer, which is of the type and has a status that the API promises for this request.

        `path`: below /api/v1. Raises: Refused, also for whatever else answers in the hub's place; HubAway.
        """
        content = None if body is None else msgspec.json.encode(body)
        answer = self._http.ask(method, f"/api/v1{path}", deadline, content, query)
        if answer.status >= 400:
            raise self._refusal(answer)
        if 300 <= answer.status < 400:
            raise self._redirect(answer, path)
        if answer.status not in promised:
            raise self._stranger(answer, "bad_answer", f"HTTP {answer.status} {answer.reason}")
        try:
            view = msgspec.json.decode(answer.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._stranger(answer, "bad_answer", f"what is not of this API: {error}") from None
        self._ahead_s = _ahead_s(answer)
        return Told(answer.body, view)

    def _refusal(self, answer: Answer) -> Refused:
        try:
            error = msgspec.json.decode(answer.body, type=Error)
        except (msgspec.DecodeError, UnicodeDecodeError):
            said = f"HTTP {answer.status} {answer.reason}".rstrip()
            if answer.status in AGENTS_PORT:
                said = f"{said}: this is not an operators' port"
            return self._stranger(answer, "http", said)
        message = error.message or f"HTTP {answer.status} {error.error}"
        if self._token_file is not None and answer.status == 401:
            message = f"{self.url} does not accept the token in {self._token_file}"
        retry = answer.headers.get("retry-after", "")
        return Refused(
            answer.status,
            error.error,
            message,
            url=self.url,
            token_file=self._token_file,
            retry_after_s=float(retry) if retry.isascii() and retry.isdigit() else None,
            own=self.own,
        )

    def _redirect(self, answer: Answer, path: str) -> Refused:
        """A redirect, which is not followed: the token is for this URL alone."""
        target = answer.headers.get("location", "")
        said = f"HTTP {answer.status}, a redirect to {target or 'nowhere'}"
        return self._stranger(answer, "redirected", said, moved_to=_port_url(self.url, f"/api/v1{path}", target))

    def _stranger(self, answer: Answer, code: str, said: str, moved_to: str = "") -> Refused:
        """What the hub does not say: somebody else has answered in its place."""
        message = f"{self.url} answers {said}" + (f", asked by way of {self.proxy}" if self.proxy else "")
        return Refused(answer.status, code, message, url=self.url, own=self.own, moved_to=moved_to)

    def now_wall_s(self) -> float:
        """The time by the clock of the hub as its last answer told it, to about a second."""
        return time.time() + self._ahead_s

    def healthy(self) -> bool:
        """True when /healthz says that all is well."""
        try:
            answer = self._http.ask("GET", "/healthz", HEALTH)
            msgspec.json.decode(answer.body, type=HealthView)
        except (HubAway, msgspec.DecodeError, UnicodeDecodeError):
            return False
        return answer.status == 200

    def status(self) -> Report:
        """The watchdog's view. Raises: Refused, HubAway."""
        return self.read("/status", Report).view

    def hosts(self, query: Mapping[str, str | int] | None = None, deadline: Deadline = DEADLINE) -> list[HostView]:
        """The hosts, by name; `query`: presence, search, query. Asked once. Raises: Refused, HubAway."""
        return self.once("GET", "/hosts", HostsPage, query=query, deadline=deadline).view.hosts

    def enroll(self, name: str, *, again: bool = False, labels: Mapping[str, str] | None = None) -> HostEnrolled:
        """The host has a new token. Raises: Refused, with 409 for one that is there, unless `again`; HubAway."""
        body = {"name": name, "again": again, **({"labels": labels} if labels else {})}
        return self.once("POST", "/hosts", HostEnrolled, body, promised=(201,)).view

    def cancel(self, command_id: str) -> CommandView:
        """The command, whose end was asked for. Raises: Refused, with 409 if it has ended; HubAway."""
        return self.once("POST", f"/commands/{segment(command_id)}/cancel", CommandView, promised=(202,)).view

    def host(self, name: str) -> HostView | None:
        """One host; None if it is not enrolled. Raises: Refused, HubAway."""
        try:
            return self.read(f"/hosts/{segment(name)}", HostView).view
        except Refused as refused:
            if refused.not_found:
                return None
            raise

    def command(self, command_id: str) -> CommandView:
        """One command. Raises: Refused, HubAway."""
        return self.read(f"/commands/{segment(command_id)}", CommandView).view

    def output(self, command_id: str, first: int) -> OutputPage:
        """A page of a command's output, from offset `first`. Raises: Refused, HubAway."""
        return self.read(f"/commands/{segment(command_id)}/output", OutputPage, {"from": first}).view

    def run(self, run_id: str, *, hosts: bool = True) -> RunView:
        """One fleet run, host by host or only counted. Raises: Refused, HubAway."""
        return self.read(f"/runs/{segment(run_id)}", RunView, {"hosts": int(hosts)}).view

    def commands_of(self, run_id: str, count: int, host: str | None = None) -> list[CommandView]:
        """The newest `count` commands of a run, oldest first; fewer if there are no more. Raises: Refused, HubAway."""
        query: dict[str, str | int] = {"run": run_id} if host is None else {"run": run_id, "host": host}
        return self.commands(query, count)[0][::-1]

    def commands(self, query: Mapping[str, str | int], count: int) -> tuple[list[CommandView], str | None]:
        """At most `count` commands, newest first, and where the listing goes on, in pages. Raises: Refused, HubAway."""
        return self.paged(
            "/commands", CommandsPage, query, count, page_max=PAGE_MAX, rows=lambda page: (page.commands, page.next)
        )

    def paged(
        self,
        path: str,
        kind: type[Page],
        query: Mapping[str, str | int],
        count: int,
        *,
        page_max: int,
        rows: Callable[[Page], tuple[list[T], Before | None]],
    ) -> tuple[list[T], Before | None]:
        """At most `count` rows of a listing, newest first, and where it goes on. Asks for at most `page_max` at a time.

        `kind`: the type of an answer; `rows`: what one holds, and its `next`. Raises: Refused, HubAway.
        """
        found: list[T] = []
        following: Before | None = None
        while len(found) < count:
            more: dict[str, str | int] = {} if following is None else {"before": following}
            asked = {**query, **more, "limit": min(count - len(found), page_max)}
            page, following = rows(self.read(path, kind, asked).view)
            found += page
            if following is None or not page:
                break
        return found, following

    def start_run(self, body: Mapping[str, Any]) -> RunView:
        """Start a run, and return it. The request is repeated, with its key, until it is certain that it was accepted.

        Raises: Refused, with any status but 503 and 504; HubAway, when the time is over.
        """
        assert body.get("key"), "without a key, asking again would start it twice"
        told = self._insist("/runs", Named, body, promised=(202, 200))
        try:
            return msgspec.json.decode(told.body, type=RunView)
        except msgspec.ValidationError:
            return self.run(told.view.id)

    def cancel_run(self, run_id: str) -> RunView:
        """Cancel a run, and return it. The request is repeated until it is certain: twice does the same as once.

        Raises: Refused, with 409 if it has ended; HubAway, when the time is over.
        """
        return self._insist(f"/runs/{segment(run_id)}/cancel", RunView, promised=(202,)).view

    def _insist(self, path: str, kind: type[T], body: object = None, *, promised: tuple[int, ...]) -> Told[T]:
        """The answer to a POST that may be asked again without harm. Every try ends when the time is over."""
        deadline_mono_s = time.monotonic() + self._patience.ask_again_s
        while True:
            try:
                left = _within(deadline_mono_s - time.monotonic())
                return self.once("POST", path, kind, body, deadline=left, promised=promised)
            except (Refused, HubAway) as error:
                if isinstance(error, Refused) and not error.passes:
                    raise
                pause_s = self._pause_s(error)
                if time.monotonic() + pause_s > deadline_mono_s:
                    told = (
                        f"not accepted within {self._patience.ask_again_s:.0f} s, "
                        "but a request that still waits may be for some seconds more"
                    )
                    raise HubAway(f"{told}: {error}", url=self.url, why=Silence.NOT_ACCEPTED, own=self.own) from error
            time.sleep(pause_s)

    def _pause_s(self, error: Refused | HubAway) -> float:
        """How long to wait before asking again: as long as the hub says to whom has asked too much."""
        told_s = error.retry_after_s if isinstance(error, Refused) and error.status == 429 else None
        return max(self._patience.pause_s, min(told_s or 0.0, RETRY_AFTER_S_MAX))


def _within(left_s: float) -> Deadline:
    """The deadline of an attempt that must end within the time that is left."""
    connect_s = min(DEADLINE.connect_s, left_s / 2)
    return Deadline(min(DEADLINE.answer_s, max(0.01, left_s - connect_s)), max(0.01, connect_s))


def open_remote(url: str, token_file: Path, patience: Patience = PATIENCE) -> Api:
    """Open the API of a hub: the URL of its operators' port, and a file that holds a token.

    Raises: NotAnAddress, NoToken, BadVariable.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise NotAnAddress(url) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise NotAnAddress(url)
    return Api(url, read_token(token_file), token_file=token_file, patience=patience)


def read_token(path: Path) -> str:
    """The token that the file holds. Raises: NoToken."""
    try:
        token = path.read_bytes().decode("utf-8-sig").strip()
    except FileNotFoundError:
        raise NoToken(path, f"there is no token file at {path}", missing=True) from None
    except PermissionError:
        raise NoToken(path, closed_to_us(path)) from None
    except UnicodeDecodeError:
        token = ""
    except OSError as error:
        raise NoToken(path, f"the token file {path} cannot be read: {error.strerror or error}") from None
    if not token or not token.isascii() or not token.isprintable():
        raise NoToken(path, f"the token file {path} does not hold a token", empty=True)
    return token


def segment(name: str) -> str:
    """The name as one segment of a URL's path, whatever characters it has."""
    return quote(name, safe="") if name.strip(".") else f"%2E{name[1:]}"  # "." and ".." would be resolved as paths


def _port_url(url: str, path: str, target: str) -> str:
    """The URL of the operators' port to which a redirect of a request to `url` + `path` points; empty: to none."""
    try:
        parts = urlsplit(urljoin(url + path, target))
        found = f"{parts.scheme}://{parts.netloc}{parts.path}"
        at_port = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    except ValueError:
        return ""
    moved_to = found.removesuffix(path)
    return moved_to if at_port and moved_to not in (found, url) else ""


def _ahead_s(answer: Answer) -> float:
    """How far the clock of the answer is ahead of ours; 0 if it is no further than answers can tell."""
    try:
        ahead_s = email.utils.parsedate_to_datetime(answer.headers.get("date", "")).timestamp() - time.time()
    except ValueError:
        return 0.0
    return ahead_s if abs(ahead_s) > CLOCK_S else 0.0
