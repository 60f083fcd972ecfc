"""The exchange of a one-time code at the agents' port, as both ends write it. Pure.

GET /enroll                        the agents' port knows nothing but GET
Authorization: Code NAME:SECRET
Fleethub-Token-Hash: 64 hex digits      of the token that the machine made itself
    ◀── 201, Fleethub-Host: NAME        the token is good; any other status comes with a text for a person
"""

from __future__ import annotations

from typing import Final

PATH: Final = "/enroll"
SCHEME: Final = "Code"
TOKEN_HASH_HEADER: Final = "Fleethub-Token-Hash"  # noqa: S105  # a header's name
HOST_HEADER: Final = "Fleethub-Host"
CREATED: Final = 201  # the status that says that a code was good
