"""One HTTP/1.1 request on a fresh connection, which proves that new connections are accepted. Without a larger client
library, so that the watchdog stays small.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Final, NamedTuple

import h11

ANSWER_BYTES_MAX: Final = 1 << 20
PIECE_BYTES: Final = 65536


class BadAnswer(Exception):
    """The answer is not HTTP, or too large."""


class Request(NamedTuple):
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


async def ask(host: str, port: int, request: Request, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    """Send the request, and return the answer's status and body. The caller sets the deadline.

    Raises: OSError, BadAnswer.
    """
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        return await _exchange(reader, writer, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", request)
    except h11.ProtocolError as error:
        raise BadAnswer(str(error)) from None
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await writer.wait_closed()


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, request: Request
) -> tuple[int, bytes]:
    connection = h11.Connection(h11.CLIENT)
    headers = {"Host": host, "Connection": "close", "Content-Length": str(len(request.body)), **request.headers}
    head = h11.Request(method=request.method, target=request.path, headers=list(headers.items()))
    for part in (head, h11.Data(data=request.body), h11.EndOfMessage()):
        writer.write(connection.send(part) or b"")
    await writer.drain()
    status, body = 0, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(PIECE_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > ANSWER_BYTES_MAX:
                raise BadAnswer(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return status, body
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise BadAnswer("the connection ended before the answer did")
