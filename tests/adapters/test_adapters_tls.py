"""A renewed certificate is shown to whoever connects next; half of a pair, or none, changes nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import structlog
from doubles.authority import NEW_KEY, NEW_RSA_KEY, Authority
from doubles.deadline import WAIT_S

from processes.adapters import tls
from processes.adapters.settings import Tls
from processes.core.errors import ResourceError
from processes.fanout.server import make_server
from processes.fanout.subscribers import Subscriber

LOG = structlog.stdlib.get_logger("fleethub.test")


def shown(port: int, ca: Path) -> bytes:
    """The certificate that a client meets."""
    trust = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        trust.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


def put(source: Path, place: Path) -> None:
    """As certbot does: the name is another file now."""
    fresh = place.with_name("fresh")
    shutil.copy(source, fresh)
    os.replace(fresh, place)


@pytest.mark.parametrize("new_key", [NEW_KEY, NEW_RSA_KEY])
def test_a_renewed_certificate_is_shown_without_a_restart_and_half_of_one_is_not(
    new_key: list[str], tmp_path: Path
) -> None:
    """The bug it would catch: OpenSSL keeps one pair of each kind of key, and shows the old one."""
    authority = Authority(tmp_path)
    place = Tls(str(tmp_path / "in-use.crt"), str(tmp_path / "in-use.key"))
    names = (Path(place.certificate), Path(place.key))

    async def scene() -> None:
        for source, name in zip(authority.issue(days=2), names, strict=True):
            put(source, name)
        context = tls.context_of(place)
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        following = asyncio.create_task(tls.follow(context, place, LOG, look_s=0.02))
        first = await asyncio.to_thread(shown, port, authority.ca)
        renewed = authority.issue(days=3, new_key=new_key)
        put(renewed[0], names[0])
        names[1].unlink()
        await asyncio.sleep(0.2)  # it has looked at the half
        assert await asyncio.to_thread(shown, port, authority.ca) == first
        put(renewed[1], names[1])
        deadline = time.monotonic() + WAIT_S
        while await asyncio.to_thread(shown, port, authority.ca) == first:
            assert time.monotonic() < deadline
        assert not following.done()
        following.cancel()
        server.close()

    asyncio.run(scene())


def test_a_pair_that_does_not_fit_is_refused_at_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.issue(days=2), authority.issue(days=3)
    with pytest.raises(ResourceError, match="cannot be used"):
        tls.context_of(Tls(str(one[0]), str(other[1])))


def test_without_a_certificate_nothing_is_followed() -> None:
    assert tls.context_of(Tls()) is None
    asyncio.run(asyncio.wait_for(tls.follow(None, Tls(), LOG), WAIT_S))


@pytest.mark.parametrize("port", ["agents", "operators"])
def test_an_older_tls_than_1_2_is_refused(tmp_path: Path, port: str) -> None:
    """By both ports' contexts, to a client that insists on 1.1."""
    certificate, key = Authority(tmp_path).issue()
    settings = Tls(str(certificate), str(key))
    context = tls.context_of(settings)
    if port == "operators":
        nothing: Any = lambda *_: None  # noqa: E731
        context = make_server(
            nothing, settings, Subscriber, LOG, on_accepted=nothing, on_turned_away=nothing
        ).config.ssl
    assert context is not None
    for version, lets_in in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        asks = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        asks.check_hostname, asks.verify_mode = False, ssl.CERT_NONE
        asks.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asks.minimum_version = asks.maximum_version = version
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = asks.wrap_bio(to_client, to_server)
        server = context.wrap_bio(to_server, to_client, server_side=True)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        with pytest.raises(ssl.SSLWantReadError if lets_in else ssl.SSLError) as refused:
            server.do_handshake()
        assert isinstance(refused.value, ssl.SSLWantReadError) is lets_in
