"""How PostgreSQL is named and reached, by the truth's connections and by those of the queues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

DSN: Final[Mapping[str, str | int]] = {  # what the URL does not say otherwise
    "target_session_attrs": "read-write",
    "connect_timeout": 2,  # seconds, of each host that is named
    "tcp_user_timeout": 3000,  # ms
    "keepalives_idle": 1,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "client_encoding": "utf8",
}
NAME_CHARS_MAX: Final = 63  # source: NAMEDATALEN of PostgreSQL, which would cut it too
VERSION_MIN: Final = 140000  # server_version_num; source: client_connection_check_interval is of 14


def conninfo(url: str, name: str) -> str:
    """Return the URL with what it does not say itself. `name`: what the server shows of who is connected.

    Raises: psycopg.ProgrammingError, if it is none.
    """
    more = {**DSN, "application_name": f"fleethub {name}"[:NAME_CHARS_MAX]}
    said = conninfo_to_dict(url)
    return make_conninfo(url, **{key: value for key, value in more.items() if key not in said})


def one_line(error: Exception) -> str:
    """Return what the error says, in one line; its name, if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
