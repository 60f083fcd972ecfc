"""The endpoints of dead letters: what was put aside, from the database; trying again and discarding, by the hub."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from processes.adapters.state import fleet_db
from processes.core.records import dead_letter
from processes.core.shown.pages import DeadLettersPage
from processes.core.travels.messages import DiscardDeadLetter, RetryDeadLetter
from processes.fanout.database_reader import Reader
from processes.fanout.queries import LISTED_MAX
from processes.fanout.requests import Requests
from processes.fanout.web import Problem, answered, check_there, integer, json, principal_of


class DeadLetters:
    """Each method is an endpoint."""

    def __init__(self, reader: Reader, requests: Requests) -> None:
        self._reader, self._requests = reader, requests

    async def listed(self, request: Request) -> Response:
        """The newest dead letters, newest first; ?limit."""
        limit = integer(request, "limit", 200, 1, LISTED_MAX)
        found = await self._reader.read(lambda connection: fleet_db.dead_letters(connection, limit=limit))
        return json(DeadLettersPage([dead_letter.view(letter, whole=False) for letter in found]))

    async def one(self, request: Request) -> Response:
        """One dead letter, with what was put aside and the stacks."""
        letter_id = request.path_params["id"]
        found = await self._reader.read(lambda connection: fleet_db.dead_letter(connection, letter_id))
        if found is None:
            raise Problem(404, "unknown_letter", f"there is no dead letter {letter_id!r}")
        return json(dead_letter.view(found, whole=True))

    async def retry(self, request: Request) -> Response:
        """It is stepped once more; 409 if it cannot be."""
        asked = RetryDeadLetter(request.path_params["id"])
        await check_there(request)
        return answered(await self._requests.ask(principal_of(request).actor, asked))

    async def discard(self, request: Request) -> Response:
        """It is no more."""
        asked = DiscardDeadLetter(request.path_params["id"])
        await check_there(request)
        return answered(await self._requests.ask(principal_of(request).actor, asked))
