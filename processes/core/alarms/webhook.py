"""How a message to a webhook is signed, so that its receiver knows who sent it, and when. Pure.

Source: standardwebhooks.com, version 1: the signature is HMAC-SHA256 over `ID.TIMESTAMP.BODY`, in base64. A secret that
begins with `whsec_` is base64 behind that; any other one is taken as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

PREFIX: Final = "whsec_"
SECRET_CHARS_MIN: Final = 16  # guess: a shorter one is guessed


def key_of(secret: str) -> bytes:
    """Return the key that a secret stands for. Raises: ValueError, with what is wrong with it."""
    if len(secret.removeprefix(PREFIX)) < SECRET_CHARS_MIN:
        raise ValueError(f"the secret of a webhook has at least {SECRET_CHARS_MIN} characters")
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(f"behind {PREFIX} a secret is base64") from None


def headers(secret: str, id: str, at_wall_s: float, body: bytes) -> dict[str, str]:
    """Return the headers of a signed message; without a secret it is only named. `id`: the same in each attempt.

    Raises: ValueError.
    """
    timestamp = str(int(at_wall_s))
    found = {"content-type": "application/json", "webhook-id": id, "webhook-timestamp": timestamp}
    if secret:
        signed = f"{id}.{timestamp}.".encode() + body
        digest = hmac.new(key_of(secret), signed, hashlib.sha256).digest()
        found["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return found
