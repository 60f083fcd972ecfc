"""This machine's own installation as a client sees it: its URLs, and its API with its own operator token."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from processes.adapters.settings import Settings, joined, reachable
from processes.cli.machine.environment import program
from processes.cli.terminal.failure import Failure
from processes.client.api import Api, read_token
from processes.client.errors import NoToken
from processes.client.patience import PATIENCE, Patience


def open_own(settings: Settings, token_file: Path | None = None, patience: Patience = PATIENCE) -> Api:
    """The API of this machine's installation, with its own operator token or with the token in a file.

    Raises: Failure, if nothing was started here yet; NoToken.
    """
    path = settings.operator_token if token_file is None else token_file
    try:
        token = read_token(path)
    except NoToken as error:
        if token_file is None and error.missing:
            said = f"there is no token at {path}: nothing was started here yet"
            raise Failure("not_running", said, f"Start it: {program()} up") from None
        raise
    return Api(own_url(settings), token, _trust(settings), own=True, token_file=token_file, patience=patience)


def own_url(settings: Settings, listen: str | None = None) -> str:
    """The URL under which this machine reaches the operators' port."""
    scheme = "https" if settings.file.tls.certificate else "http"
    return f"{scheme}://{_reachable(listen or settings.file.operators.listen)}"


def agents_url(settings: Settings, listen: str | None = None) -> str:
    """The URL under which this machine reaches the agents' port."""
    scheme = "wss" if settings.file.tls.certificate else "ws"
    return f"{scheme}://{_reachable(listen or settings.file.agents.listen)}/ws"


def _reachable(listen: str) -> str:
    return joined(*reachable(listen))


def _trust(settings: Settings) -> ssl.SSLContext | None:
    """A context that trusts exactly our own certificate, whatever name it was issued for: the port is our own."""
    if not settings.file.tls.certificate:
        return None
    context = ssl.create_default_context(cafile=os.fspath(settings.file.tls.certificate))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context
