"""The faults that last: a locked database, a full disk, a flood, a busy machine, a suspended one. All end with us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import msgspec
import websockets

from processes.adapters.state import pulse_file, status_file
from processes.cli.drills.scene import FOUND_S_MAX, Scene, held
from processes.cli.drills.stage import FLOOD, FLOOD_LINES, WELL_S_MAX, Late, Stage
from processes.cli.machine import own_processes
from processes.core.shown.views import OutputPage
from processes.core.travels import operator_frames
from processes.core.travels.operator_frames import GetState, OutputFrame, Subscribe
from processes.core.travels.pulse import Blocked

HOGS: Final = 16  # processes that burn the CPU
SLOW: Final = 5  # operators that read nothing
SLOW_ASKS: Final = 50  # requests of each for the whole state
FLOODS: Final = 3
BALLAST_BYTES: Final = 4096  # a page of tmpfs


async def database_locked(scene: Scene) -> None:
    """Lock the database as another program would: it begins a transaction and does not end it."""
    connection = sqlite3.connect(scene.stage.settings.database, timeout=5.0, isolation_level=None)
    scene.stack.callback(connection.close)  # which also ends the transaction
    connection.execute("BEGIN EXCLUSIVE")
    scene.begins()
    await _blocked(scene, f"process {os.getpid()} ")
    connection.execute("ROLLBACK")
    scene.mends()


async def _blocked(scene: Scene, hindrance: str) -> None:
    """Check that the hub tells that storage is blocked, refuses requests, and goes on turning, and that the status,
    which calls no watchdog silent, says what blocks it. Raises: Late.
    """
    stage, before = scene.stage, scene.stream.refusals["storage_blocked"]
    await stage.until(
        lambda: stage.pulse("hub").blocked_on == Blocked.STORAGE, "the hub says that storage is blocked", FOUND_S_MAX
    )
    scene.found()
    await stage.until(
        lambda: scene.stream.refusals["storage_blocked"] > before, "a request is refused: storage_blocked", FOUND_S_MAX
    )
    await stage.until(
        lambda: (
            hindrance in (told := status_file.current_report(stage.settings)).hindrance
            and told.watchdog_silent_s is None
        ),
        f"status says what blocks it:{hindrance}",
        FOUND_S_MAX,
    )
    await scene.lasts()
    pulse = stage.pulse("hub")
    await stage.until(
        lambda: stage.pulse("hub").turn > pulse.turn or stage.pulse("hub").pid != pulse.pid,
        "the hub turns",
        FOUND_S_MAX,
    )


async def disk_full(scene: Scene) -> None:
    """Fill the state folder's disk: the hub cannot commit, and the watchdog cannot write its status."""
    with _full(scene):
        await _blocked(scene, " is full ")
    scene.mends()


async def log_disk_full(scene: Scene) -> None:
    """Fill the logs' disk. No process may wait for it."""
    with _full(scene):
        await scene.stream.more(3)
        await scene.lasts()
        await scene.stream.more(3)
    scene.mends()


@contextlib.contextmanager
def _full(scene: Scene) -> Iterator[None]:
    """Fill the stage's own disk to the last byte, and make room at the end. Raises: Late, if it has none."""
    if scene.stage.disk is None:
        raise Late("this stage has no disk of its own to fill")
    ballast = scene.stage.disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            scene.begins()
            while True:
                file.write(bytes(BALLAST_BYTES))
        yield
    finally:
        ballast.unlink()


async def broadcast_flood(scene: Scene) -> None:
    """Run a command that floods the hub with output, FLOODS times, while three operators read all of it."""
    stage = scene.stage
    scene.begins()
    for _ in range(FLOODS):
        given = msgspec.json.decode(await stage.ask("POST", "/commands", {"op": FLOOD, "hosts": [stage.hosts[1]]}))
        command_id = given["commands"][0]["id"]
        await asyncio.gather(*(_reads_output(stage, command_id) for _ in range(3)))
        command = await stage.ended(command_id, WELL_S_MAX)
        page = msgspec.json.decode(
            await stage.ask("GET", f"/commands/{command_id}/output?from={FLOOD_LINES - 1}"), type=OutputPage
        )
        if (command.state, command.output_next, page.complete) != ("succeeded", FLOOD_LINES, True):
            scene.trouble.append(
                f"the flood {command_id} is {command.state} with {command.output_next} of {FLOOD_LINES} lines"
            )
    scene.mends()


async def _reads_output(stage: Stage, command_id: str) -> None:
    """Read a command's output as an operator until all of it has come. Raises: Late, if a line is missing."""
    address, last = f"ws{stage.url.removeprefix('http')}/ws", 0
    async with asyncio.timeout(WELL_S_MAX), websockets.connect(
        address, additional_headers=stage.headers, ssl=stage.trust, max_size=None, proxy=None, ping_interval=None
    ) as socket:  # fmt: skip
        await socket.send(operator_frames.encode_text(Subscribe(command_id)))
        async for text in socket:
            frame = operator_frames.decode(text)
            if isinstance(frame, OutputFrame) and frame.command_id == command_id:
                if frame.offset > last:
                    raise Late(f"an operator missed lines {last} to {frame.offset} of the flood {command_id}")
                last = frame.offset + 1
                if last == FLOOD_LINES:
                    return


async def slow_operator(scene: Scene) -> None:
    """Connect operators who ask for the whole state again and again, and read nothing from their sockets."""
    stage = scene.stage
    address = f"ws{stage.url.removeprefix('http')}/ws"
    for _ in range(SLOW):
        connecting = websockets.connect(
            address,
            additional_headers=stage.headers,
            ssl=stage.trust,
            max_size=None,
            proxy=None,
            ping_interval=None,
            max_queue=1,
        )
        socket = await connecting.__aenter__()
        scene.stack.callback(socket.transport.abort)
        socket.transport.pause_reading()  # from now on nothing is taken from the socket
        for _ in range(SLOW_ASKS):
            await socket.send(operator_frames.encode_text(GetState()))
    scene.begins()
    await scene.lasts()
    await scene.stream.more(3)
    scene.mends()


async def starvation(scene: Scene) -> None:
    """Let HOGS processes compete for the CPU with the installation's, at the same priority."""
    with _hogs():
        scene.begins()
        await scene.lasts()
        await scene.stream.more(3)
    scene.mends()


async def suspend(scene: Scene) -> None:
    """Stop all processes at once, as when a machine is suspended, and the drill's own agents with them."""
    settings = scene.stage.settings
    supervisord = own_processes.supervisord_of(settings)
    if supervisord is None:
        raise Late("supervisord is gone")
    group = {found.pid: found.start_ticks for found in (supervisord, *own_processes.members_of(settings))}
    for name in scene.stage.hosts:
        pid = scene.stage.agent(name).pid
        group[pid] = pulse_file.start_ticks(pid) or 0
    with held(group):
        scene.begins()
        await scene.lasts()
    scene.mends()


@contextlib.contextmanager
def _hogs() -> Iterator[None]:
    """Run HOGS processes that burn the CPU. Each ends as soon as its pipe is closed, so also if we are killed."""
    program = "import os,select,sys\nwhile not select.select([0],[],[],0)[0]:\n    for _ in range(1000000): pass"
    hogs: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(HOGS):
            command = [sys.executable, "-ISc", program]
            hogs.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))  # noqa: S603  # ours
        yield
    finally:
        for hog in hogs:
            hog.kill()
        for hog in hogs:
            hog.communicate()
