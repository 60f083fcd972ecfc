"""When a certificate expires, read without help of a peer; whatever is no certificate is an error that says so."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime

import pytest

from processes.core.shown.certificate import NoCertificate, expires_wall_s

# openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=fleet.example -days 30, and 36500
UTC_TIME = """-----BEGIN CERTIFICATE-----
MIIBhTCCASugAwIBAgIUDvAtLdqeZyzHia1K4G3ioMbeogwwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNZmxlZXQuZXhhbXBsZTAeFw0yNjExMjMyMjI4MzlaFw0yNjEy
MjMyMjI4MzlaMBgxFjAUBgNVBAMMDWZsZWV0LmV4YW1wbGUwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAAT2gYPmofz0S/Xc9v8i0mXLaPehY8KwgFtlo4+DPql3HEnW
98zoz5JXs0qXoqOsiVbFgKYcCLk5C21RI87GZzKZo1MwUTAdBgNVHQ4EFgQU38jJ
ZhSI8XVH6GeAXIbLWBXWYycwHwYDVR0jBBgwFoAU38jJZhSI8XVH6GeAXIbLWBXW
YycwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAjsR2dQDqCMDL
A04Y7FPDKWDA4rl+HQM5NarMV+WKKhUCIEU8KUvzgnMQHhWoizTR9JtSAhrgk0jn
R+ax8Ke+jg2m
-----END CERTIFICATE-----
"""
GENERALIZED_TIME = """-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUepCQAsoXHB9zDvHJzPj0fsPP9AcwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNZmxlZXQuZXhhbXBsZTAgFw0yNjExMjMyMjI4MzlaGA8yMTI2
MTAzMDIyMjgzOVowGDEWMBQGA1UEAwwNZmxlZXQuZXhhbXBsZTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABB69Zf+bJim6iDUAJsNww6KQKM7jowTOcNbvf20akbY4
HtXVSdlAMn3G5flo1N4J9xGU91yKrLl9ZMxw8RPB9gSjUzBRMB0GA1UdDgQWBBRn
A1IFUmXlI2pXzTrx5IctspGDmjAfBgNVHSMEGDAWgBRnA1IFUmXlI2pXzTrx5Ict
spGDmjAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCFxdWYC/+E
2Vg74QuZuE6qWDEu1Ozy8MIgmDhhpB/oEAIgJ/bFtXJdiKmCoIR5DNKbZc+v5DmL
ASANN7nhWHbBpI8=
-----END CERTIFICATE-----
"""


def test_both_kinds_of_time_are_read() -> None:
    assert datetime.fromtimestamp(expires_wall_s(UTC_TIME), UTC) == datetime(2026, 12, 23, 22, 28, 39, tzinfo=UTC)
    assert datetime.fromtimestamp(expires_wall_s(GENERALIZED_TIME), UTC) == datetime(
        2126, 10, 30, 22, 28, 39, tzinfo=UTC
    )


def test_first_certificate_of_a_chain_counts_whatever_stands_before_it() -> None:
    assert expires_wall_s("a comment\n" + UTC_TIME + GENERALIZED_TIME) == expires_wall_s(UTC_TIME)


@pytest.mark.parametrize("text", ["", "nothing", UTC_TIME.replace("CERTIFICATE", "PRIVATE KEY"), UTC_TIME[:200]])
def test_text_without_a_certificate_is_refused(text: str) -> None:
    with pytest.raises(NoCertificate):
        expires_wall_s(text)


@pytest.mark.parametrize("length", range(0, 300, 7))
def test_cut_off_certificate_is_refused_or_read_right(length: int) -> None:
    der = base64.b64decode("".join(UTC_TIME.splitlines()[1:-1]))[:length]
    text = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----"
    with pytest.raises(NoCertificate):
        expires_wall_s(text)


@pytest.mark.parametrize("place", range(0, 160))
def test_damaged_certificate_raises_nothing_else(place: int) -> None:
    der = bytearray(base64.b64decode("".join(UTC_TIME.splitlines()[1:-1])))
    der[place] ^= 0xFF
    text = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(bytes(der)).decode()}\n-----END CERTIFICATE-----"
    with contextlib.suppress(NoCertificate):
        assert isinstance(expires_wall_s(text), float)
