"""Listening sockets for IPv4 and IPv6, made by ourselves and by supervisord."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.house import free_port

from processes.adapters.listening_socket import bound


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except ConnectionRefusedError:
        return False
    return True


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "ipv4", "ipv6"), [("::", True, True), ("::1", False, True), ("127.0.0.1", True, False)]
)
def test_every_address_of_ipv6_is_every_address_of_ipv4_too_and_no_other_is(host: str, ipv4: bool, ipv6: bool) -> None:
    with bound(host, 0) as sock:
        sock.listen()
        port = sock.getsockname()[1]
        assert (answers("127.0.0.1", port), answers("::1", port)) == (ipv4, ipv6)


def test_without_ipv6_every_address_is_every_one_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    make = socket.socket

    def without_ipv6(family: int = -1, *more: int, **named: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(family, *more, **named)

    monkeypatch.setattr("socket.socket", without_ipv6)
    with bound("::", 0) as sock:
        assert sock.family is socket.AF_INET
    with pytest.raises(OSError, match="not supported"):
        bound("::1", 0)


def test_a_port_that_is_taken_is_an_error() -> None:
    with bound("127.0.0.1", 0) as sock:
        sock.listen()
        with pytest.raises(OSError, match="in use"):
            bound("127.0.0.1", sock.getsockname()[1])


@needs_ipv6
def test_supervisord_makes_the_sockets_that_its_file_names(tmp_path: Path) -> None:
    """In a process of its own: the module changes supervisord's parser."""
    script = """
import sys
from supervisor.options import ServerOptions
from processes.adapters import supervisord_plugin
from supervisor.rpcinterface import make_main_rpcinterface
assert supervisord_plugin.make_main_rpcinterface is make_main_rpcinterface
for text in ("tcp://[::1]:7700", "tcp://127.0.0.1:7700", "unix:///x.sock"):
    print(ServerOptions().parse_fcgi_socket(text, None, None, None, 64), end=" ")
made = ServerOptions().parse_fcgi_socket(f"tcp://[::1]:{sys.argv[1]}", None, None, None, 64)
print(made.create_and_bind().getsockname()[0], made.get_backlog())
try:
    ServerOptions().parse_fcgi_socket("tcp://[::1%eth0]:7700", None, None, None, 64)
except ValueError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(free_port())], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.splitlines()
    assert found[0] == "tcp://::1:7700 tcp://127.0.0.1:7700 unix:///x.sock ::1 64"
    assert "Bad socket format" in found[1]
