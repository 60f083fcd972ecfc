"""The real process, with real queues, on a socket that it is given."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from doubles import forked
from doubles.agent_process import AgentProcess, until
from doubles.agent_wire import AgentWire, NotLetIn
from doubles.authority import Authority
from doubles.deadline import WAIT_S
from doubles.forked import Started
from doubles.hub_side import HubSide

from processes.adapters.queue_link import QueueLink
from processes.adapters.queues import QueuesAway
from processes.adapters.state import pulse_file
from processes.core.travels.messages import (
    AgentDisconnected,
    AgentRegistered,
    DeliverRegistered,
    HeartbeatReceived,
)

T = TypeVar("T")


@contextlib.contextmanager
def many_descriptors() -> Iterator[list[socket.socket]]:
    """A list of sockets that may be long; they are closed at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    found: list[socket.socket] = []
    yield found
    for each in found:
        each.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Installation:
    """queues and a gateway, without supervisord; the test holds the listening socket as supervisord would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self.sock.getsockname()[1]
        self.environ = {**os.environ, "FLEETHUB_STATE": str(folder)}
        self.children: list[Started] = []
        self.links: list[QueueLink] = []

    def play(self, scenario: Callable[[], Awaitable[None]]) -> None:
        """Runs it, and closes the links to the queues that it has opened."""

        async def whole() -> None:
            try:
                await scenario()
            finally:
                for link in self.links:
                    await link.close()
                self.links.clear()

        asyncio.run(whole())

    def start(self, *arguments: str, stdin: int | None = None, descriptors_max: int | None = None) -> Started:
        """python -m ARGUMENTS."""
        limit = ["prlimit", f"--nofile={descriptors_max}:{descriptors_max}"] if descriptors_max else []
        child: Started
        with (self.folder / "stderr").open("ab") as stderr:
            if limit:
                child = subprocess.Popen(
                    [*limit, sys.executable, "-m", *arguments],
                    stdin=subprocess.DEVNULL if stdin is None else stdin,
                    stdout=stderr,
                    stderr=stderr,
                    env=self.environ,
                )
            else:
                kind = arguments[0].removeprefix("processes.")
                child = forked.start(kind, arguments[1:], environment=self.environ, stdin=stdin, log=stderr)
        self.children.append(child)
        return child

    def start_queues(self) -> Started:
        return self.start("processes.queues")

    def start_gateway(self, descriptors_max: int | None = None) -> Started:
        return self.start("processes.gateway", "1", stdin=self.sock.fileno(), descriptors_max=descriptors_max)

    def close(self) -> None:
        """Nothing of it is left."""
        self.sock.close()
        for child in self.children:
            child.kill()
            child.wait()
        shutil.rmtree(self.folder)


@pytest.fixture
def installed() -> Iterator[Installation]:
    found = Installation(Path(tempfile.mkdtemp(prefix="fh")))
    yield found
    found.close()


async def eventually(attempt: Callable[[], Awaitable[T]], wait_s: float = 15.0) -> T:
    """The result of the first attempt that neither meets a refusal nor an absence."""
    async with asyncio.timeout(wait_s):
        while True:
            try:
                return await attempt()
            except (NotLetIn, OSError, QueuesAway, AssertionError):
                await asyncio.sleep(0.02)


async def open_hub(installed: Installation, *hosts: str, epoch: int = 1) -> HubSide:
    link = QueueLink(installed.folder / "run" / "queues.sock", "hub")
    installed.links.append(link)
    hub = HubSide(link, epoch=epoch)
    await eventually(lambda: hub.start(*hosts))
    return hub


async def register(installed: Installation, hub: HubSide, host: str) -> AgentWire:
    wire = await eventually(lambda: AgentWire.dial(installed.port, host))
    wire.register(host)
    event = await hub.event(AgentRegistered, host=host)
    await hub.deliver(DeliverRegistered(hub.epoch, event.connection, host, f"id-of-{host}"))
    await wire.hear("registered")
    return wire


def test_sigterm_closes_every_agent_with_1012_tells_the_hub_and_exits_0(installed: Installation) -> None:
    async def scenario() -> None:
        installed.start_queues()
        gateway = installed.start_gateway()
        hub = await open_hub(installed, "web1", "web2")
        wires = [await register(installed, hub, host) for host in ("web1", "web2")]
        wires[0].say("heartbeat")
        await hub.event(HeartbeatReceived, host="web1")
        gateway.send_signal(signal.SIGTERM)
        assert [await wire.ended() for wire in wires] == [1012, 1012]
        assert await asyncio.to_thread(gateway.wait, WAIT_S) == 0
        assert [(await hub.event(AgentDisconnected, host=host)).code for host in ("web1", "web2")] == [1012, 1012]
        pulse = pulse_file.read(installed.folder / "run" / "pulse", "gateway")
        assert pulse is not None
        assert (pulse.epoch, pulse.connections, pulse.delivered) == (1, 0, 4)

    installed.play(scenario)


def test_sigterm_ends_within_5_s_with_agents_that_do_not_answer_and_queues_frozen(installed: Installation) -> None:
    async def scenario() -> None:
        queues = installed.start_queues()
        gateway = installed.start_gateway()
        hub = await open_hub(installed, "web1", "web2")
        mute, deaf = [await register(installed, hub, host) for host in ("web1", "web2")]
        mute.mute = True
        deaf.stop_reading()
        stranger = await asyncio.open_connection("127.0.0.1", installed.port)
        queues.send_signal(signal.SIGSTOP)
        gateway.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(gateway.wait, WAIT_S) == 0
        stranger[1].close()
        await mute.hang_up()
        await deaf.hang_up()

    installed.play(scenario)


def test_whoever_connects_while_the_gateway_is_replaced_waits_and_is_served(installed: Installation) -> None:
    async def scenario() -> None:
        installed.start_queues()
        gateway = installed.start_gateway()
        hub = await open_hub(installed, "web1")
        wire = await register(installed, hub, "web1")
        gateway.kill()
        await wire.ended()
        gateway.wait()
        waiting = asyncio.create_task(AgentWire.dial(installed.port, "web1"))
        installed.start_gateway()
        (answer,) = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(answer, NotLetIn):  # served all the same: only the token table is not there yet
            assert answer.status == 503
        else:
            assert isinstance(answer, AgentWire), answer
            await answer.hang_up()
        await hub.start("web1")
        wire = await eventually(lambda: AgentWire.dial(installed.port, "web1"))
        wire.register("web1")
        await hub.event(AgentRegistered, host="web1")
        await wire.hang_up()

    installed.play(scenario)


def test_agents_stay_connected_while_queues_is_killed_and_the_hub_gets_a_census(installed: Installation) -> None:
    async def scenario() -> None:
        queues = installed.start_queues()
        installed.start_gateway()
        hub = await open_hub(installed, "web1")
        wire = await register(installed, hub, "web1")
        queues.kill()
        queues.wait()
        wire.say("heartbeat", metrics={"load": 7})
        installed.start_queues()
        successor = await open_hub(installed, "web1", epoch=2)
        async with asyncio.timeout(WAIT_S):
            while [c.connection for c in await successor.census()] != [f"{wire_boot(hub)}.1"]:
                pass
        assert (await successor.event(HeartbeatReceived, host="web1")).heartbeat.metrics is not None
        await wire.hang_up()

    def wire_boot(hub: HubSide) -> str:
        return next(event.boot for event in hub.seen if hasattr(event, "boot"))

    installed.play(scenario)


def test_tls_from_the_settings_is_served(installed: Installation) -> None:
    authority = Authority(installed.folder)
    certificate, key = authority.issue()
    installed.environ |= {"FLEETHUB_TLS_CERTIFICATE": str(certificate), "FLEETHUB_TLS_KEY": str(key)}
    url = f"wss://127.0.0.1:{installed.port}/ws"
    agent = AgentProcess(installed.folder / "host", url, "web1")
    agent.write(url, {}, ca_file=str(authority.ca))

    async def scenario() -> None:
        installed.start_queues()
        gateway = installed.start_gateway()
        hub = await open_hub(installed, "web1")
        agent.start()
        try:
            event = await hub.event(AgentRegistered, host="web1")
            await hub.deliver(DeliverRegistered(hub.epoch, event.connection, "web1", "id-of-web1"))
            await hub.event(HeartbeatReceived, host="web1")
            gateway.send_signal(signal.SIGTERM)
            await until(lambda: "code=1012" in agent.logged(), "the goodbye")
        finally:
            agent.end_all()
        assert await asyncio.to_thread(gateway.wait, WAIT_S) == 0

    installed.play(scenario)


def test_silent_connections_by_the_thousand_keep_no_agent_out_of_a_port_with_tls_and_few_descriptors(
    installed: Installation,
) -> None:
    """They stay as long as they may. Then the port is as it was: nothing of it is wedged."""
    authority = Authority(installed.folder)
    certificate, key = authority.issue()
    installed.environ |= {"FLEETHUB_TLS_CERTIFICATE": str(certificate), "FLEETHUB_TLS_KEY": str(key)}
    trust = ssl.create_default_context(cafile=authority.ca)

    async def scenario(silent: list[socket.socket]) -> None:
        installed.start_queues()
        gateway = installed.start_gateway(descriptors_max=600)
        hub = await open_hub(installed, "web1")
        wires = [await eventually(lambda: AgentWire.dial(installed.port, "web1", tls=trust))]
        for _ in range(3):
            for _ in range(500):
                silent.append(socket.create_connection(("127.0.0.1", installed.port), WAIT_S))
            wires.append(await AgentWire.dial(installed.port, "web1", tls=trust))
        wires[-1].register("web1")
        await hub.event(AgentRegistered, host="web1")
        assert len(os.listdir(f"/proc/{gateway.pid}/fd")) < 600
        assert gateway.poll() is None
        for wire in wires:
            await wire.hang_up()
        pulse = pulse_file.read(installed.folder / "run" / "pulse", "gateway")
        assert pulse is not None
        assert pulse.turned_away >= 1000

    with many_descriptors() as silent:
        installed.play(lambda: scenario(silent))


def test_without_a_listening_socket_or_a_member_it_says_so(installed: Installation) -> None:
    assert installed.start("processes.gateway", "1").wait(WAIT_S) == 70
    assert installed.start("processes.gateway", "0").wait(WAIT_S) == 64
    with socket.socket() as unbound:
        assert installed.start("processes.gateway", "1", stdin=unbound.fileno()).wait(WAIT_S) == 70
    said = (installed.folder / "stderr").read_text()
    assert "descriptor 0 is no socket" in said
    assert "descriptor 0 is a socket that does not listen" in said
    assert "usage: python -m processes.gateway MEMBER" in said
