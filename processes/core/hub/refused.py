"""How the hub refuses a request. Pure."""

from __future__ import annotations

from processes.core.errors import RemoteError
from processes.core.shown.views import encode
from processes.core.travels.messages import Json


class Refused(RemoteError):
    """A request that is not accepted: an HTTP status, a fixed word and a text for a person."""

    def __init__(self, status: int, code: str, message: str, **more: object) -> None:
        super().__init__(code, message)
        self.status, self.more = status, more

    def body(self) -> Json:
        """Return the answer's JSON."""
        return encode({"error": self.code, "message": self.message, **self.more})
