"""When a certificate expires, read from its PEM text. Pure.

The code reads the DER elements up to the expiry and nothing more. The standard library cannot do it: it decodes only
the certificate of a peer that it has verified, and our own file has no peer.

Source: RFC 5280, 4.1: Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version OPTIONAL, serialNumber INTEGER,
signature SEQUENCE, issuer SEQUENCE, validity SEQUENCE { notBefore, notAfter } … } … }; both times are UTCTime or
GeneralizedTime.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import Final

from processes.core.errors import FleethubError

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


class NoCertificate(FleethubError):
    """The text holds no certificate that can be read."""


def expires_wall_s(pem: str) -> float:
    """Return when the first certificate of the text, the server's own, expires.

    Units: seconds since 1970. Raises: NoCertificate.
    """
    found = _PEM.search(pem)
    if found is None:
        raise NoCertificate("there is no certificate in it")
    try:
        return _not_after(base64.b64decode(found.group(1)))
    except (IndexError, ValueError) as error:
        raise NoCertificate(f"its certificate cannot be read: {error}") from None


def _not_after(der: bytes) -> float:
    _, certificate, _ = _element(der)
    _, tbs, _ = _element(certificate)
    tag, _, rest = _element(tbs)
    if tag == _VERSION:
        _, _, rest = _element(rest)  # the serial number
    for _ in ("signature", "issuer"):
        _, _, rest = _element(rest)
    tag, validity, _ = _element(rest)
    if tag != _SEQUENCE:
        raise ValueError("no validity where it belongs")
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    return _time(tag, text.decode("ascii"))


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag, the content and the bytes after the element. Raises: IndexError, ValueError."""
    tag, length, start = der[0], der[1], 2
    if length >= 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    if start + length > len(der):
        raise ValueError("it is cut off")
    return tag, der[start : start + length], der[start + length :]


def _time(tag: int, text: str) -> float:
    if tag == _UTC_TIME:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time where it belongs")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
