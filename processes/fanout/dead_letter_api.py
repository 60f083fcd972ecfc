"""The endpoints of dead letters: they are read from the database; the hub retries and discards them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from processes.adapters.state import fleet_db, sqlite_file
from processes.core.records import dead_letter
from processes.core.records.dead_letter import DeadLetter
from processes.core.shown.dead_letters import DeadLettersPage
from processes.core.travels.messages import DiscardDeadLetter, RetryDeadLetter
from processes.fanout.auth import Auth
from processes.fanout.database_reader import Reader
from processes.fanout.queries import LISTED_MAX
from processes.fanout.requests import Requests
from processes.fanout.web import Problem, answered, check_fresh, check_there, integer, json, principal_of


class DeadLetterApi:
    """Each method is an endpoint."""

    def __init__(self, auth: Auth, database_reader: Reader, requests: Requests) -> None:
        self._auth, self._database_reader, self._requests = auth, database_reader, requests

    async def listed(self, request: Request) -> Response:
        """Return the dead letters, newest first; ?limit."""
        limit = integer(request, "limit", 200, 1, LISTED_MAX)
        found = await self._database_reader.read(lambda connection: fleet_db.dead_letters(connection, limit=limit))
        return json(DeadLettersPage([dead_letter.view(each, whole=False) for each in found]))

    async def one(self, request: Request) -> Response:
        """Return one dead letter, with the message and the stacks."""
        return json(dead_letter.view(await self._found(request), whole=True))

    async def retry(self, request: Request) -> Response:
        """Ask the hub to step the dead letter once more; 409 if that is impossible. A request that is a dead letter is
        retried only by who may make it.
        """
        asked = RetryDeadLetter(request.path_params["id"])
        found = await self._found(request)
        role, needed = principal_of(request).role, dead_letter.role_to_retry(found)
        if not role.may(needed):
            raise Problem(403, "forbidden", f"the role {role} may not have this request tried again; {needed} may")
        check_fresh(self._auth, request, dead_letter.ops_of(found))
        await check_there(request)
        return answered(await self._requests.ask(principal_of(request).actor, asked))

    async def discard(self, request: Request) -> Response:
        """Ask the hub to discard the dead letter."""
        asked = DiscardDeadLetter(request.path_params["id"])
        await check_there(request)
        return answered(await self._requests.ask(principal_of(request).actor, asked))

    async def _found(self, request: Request) -> DeadLetter:
        dead_letter_id = request.path_params["id"]
        found = await self._database_reader.read(
            lambda connection: fleet_db.dead_letter(
                connection, sqlite_file.meant(connection, "deadletters", dead_letter_id, "dead letters")
            )
        )
        if found is None:
            raise Problem(404, "unknown_letter", f"there is no dead letter {dead_letter_id!r}")
        return found
