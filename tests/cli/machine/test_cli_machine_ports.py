"""The two ports are checked before supervisord meets them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from processes.adapters.settings import Agents, File, Operators
from processes.cli.machine import ports
from processes.cli.terminal.failure import Failure


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def of(operators: str, agents: str) -> File:
    return msgspec.structs.replace(File(), operators=Operators(operators), agents=Agents(agents))


def test_free_ports_pass() -> None:
    ports.check(of(f"127.0.0.1:{free()}", f"localhost:{free()}"))


def test_a_taken_port_is_named_with_its_setting_and_its_holder(taken: int) -> None:
    with pytest.raises(Failure) as caught:
        ports.check(of(f"127.0.0.1:{free()}", f"127.0.0.1:{taken}"))
    assert f"port {taken} (agents.listen" in caught.value.message
    assert str(os.getpid()) in caught.value.message
    assert "FLEETHUB_AGENTS_LISTEN" in caught.value.advice


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "no-such-name.invalid:9", "192.0.2.1:9"])
def test_an_address_that_cannot_be_listened_on_is_named(listen: str) -> None:
    with pytest.raises(Failure, match=r"operators\.listen"):
        ports.check(of(listen, f"127.0.0.1:{free()}"))


def test_one_port_for_both_is_refused() -> None:
    with pytest.raises(Failure, match="both say port 7"):
        ports.check(of("127.0.0.1:7", "localhost:7"))
