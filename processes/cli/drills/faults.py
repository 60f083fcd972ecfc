"""The faults of drills. Each breaks something, and on every way out mends what the installation cannot mend itself."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from processes.adapters import proc
from processes.adapters import settings as settings_of
from processes.adapters.state import deaf_file, status_file
from processes.adapters.supervisor import Supervisor, SupervisorFault
from processes.cli.drills import conditions
from processes.cli.drills.scene import FOUND_S_MAX, Scene, held
from processes.cli.drills.stage import LOOK_S, WELL_S_MAX, Late
from processes.cli.machine import own_processes
from processes.core.records.dead_letter import DeadLetterView

KILLS: Final = 6  # more than the 5 in 60 s that the watchdog's restart budget allows; that counts its own kills alone
SUPERVISED_S: Final = 1.2  # startsecs of supervisord.conf and a margin: a later death does not count as a failed start
POISON_DEATHS: Final = 2  # a message that has ended two hubs is put aside by the third


Fault = Callable[[Scene], Awaitable[None]]


async def inflict(scene: Scene) -> None:
    """Inflict the drill's fault. On return, only the damage is left that the installation itself must mend."""
    name = scene.drill.name
    process, _, how = name.rpartition("-")
    if name in FAULTS:
        await FAULTS[name](scene)
    elif how == "kill":
        scene.strike(process, signal.SIGKILL)
    elif how == "stop":
        scene.strike(process, signal.SIGSTOP)
    else:
        await _inside(scene, how)


async def _inside(scene: Scene, fault: str) -> None:
    """Cause a fault in the middle of a step of the hub.

    The request that causes it is answered only when the hub has been replaced, and nobody waits for that.
    """
    asking = asyncio.create_task(scene.stage.http.post("/api/v1/drill", json={"fault": fault}))
    scene.stack.push_async_callback(_dropped, asking)
    scene.begins()
    pid = scene.stage.pulse("hub").pid
    await scene.stage.until(lambda: _taken(scene, pid), f"the hub takes the fault {fault}", FOUND_S_MAX)
    await _health_tells(scene, pid)
    if asking.done() and asking.exception() is None and asking.result().status_code // 100 == 4:
        raise Late(f"the fault {fault} was answered {asking.result().status_code} {asking.result().text[:200]}")


def _taken(scene: Scene, pid: int) -> bool:
    """True once the hub has been in one step for longer than any real step takes, or has been replaced already."""
    pulse = scene.stage.pulse("hub")
    return pulse.pid != pid or time.monotonic() - pulse.written_ns / 1e9 > 0.5


async def _health_tells(scene: Scene, pid: int) -> None:
    """Check that /healthz tells of a hub that stands still, while /livez stays green as a naive check would.

    In the incident that this house was built after, nothing but a naive check looked.
    """
    lived, unwell = set[int](), set[int]()
    deadline_s = time.monotonic() + FOUND_S_MAX
    while scene.stage.pulse("hub").pid == pid and time.monotonic() < deadline_s:
        lived.add((await scene.stage.http.get("/livez")).status_code)
        unwell.add((await scene.stage.http.get("/healthz")).status_code)
        await asyncio.sleep(LOOK_S)
    if lived != {200} or 503 not in unwell:
        scene.trouble.append(f"while the hub stood still, /livez said {sorted(lived)} and /healthz {sorted(unwell)}")


async def _exception(scene: Scene) -> None:
    scene.begins()
    answer = await scene.stage.http.post("/api/v1/drill", json={"fault": "exception"})
    scene.found()
    if answer.status_code != 500:
        scene.trouble.append(f"the step that raised was answered {answer.status_code}, not 500")
    await _put_aside(scene, "raised")


async def _poison(scene: Scene) -> None:
    await _inside(scene, "poison")
    dead_letter = await _put_aside(scene, "poison")
    named = sum("take_a_lock_twice" in (death.stacks or "") for death in dead_letter.deaths)
    if named != POISON_DEATHS:
        scene.trouble.append(
            f"{named} of the dead letter's {len(dead_letter.deaths)} deaths name the function, "
            f"and it should be {POISON_DEATHS}"
        )


async def _put_aside(scene: Scene, why: str) -> DeadLetterView:
    """Wait until the drill's own message is a dead letter, discard it, and return it. Raises: Late."""
    stage, found = scene.stage, list[str]()

    async def kept() -> bool:
        found[:] = sorted(await stage.dead_letters() - scene.dead_letters)
        return bool(found)

    await stage.until(kept, "the drill's message is a dead letter", FOUND_S_MAX)
    dead_letter = msgspec.json.decode(await stage.ask("GET", f"/deadletters/{found[0]}"), type=DeadLetterView)
    if dead_letter.why != why:
        scene.trouble.append(f"the drill's message was put aside as {dead_letter.why}, not as {why}")
    await stage.ask("POST", f"/deadletters/{found[0]}/discard", gone=True)
    return dead_letter


async def _leak(scene: Scene) -> None:
    """Make the hub keep memory, 50 MiB at a time, until it holds more than it may; then it must be found."""
    stage, pid = scene.stage, scene.stage.pulse("hub").pid
    limit_bytes = stage.settings.file.memory.bytes_max("hub")
    if not limit_bytes:
        raise Late("memory.hub_mb is 0, so the hub has no limit to exceed")
    while (stat := proc.stat(pid)) is not None and stat.rss_bytes <= limit_bytes:
        await stage.ask("POST", "/drill", {"fault": "leak"})
    scene.begins()


async def _deaf(scene: Scene) -> None:
    """Let the process accept no more, then connect to its port until it says that a connection waits.

    Counted from the first connection that we make: before there is one, nobody misses anything.
    """
    stage, process = scene.stage, scene.drill.process
    file = stage.settings.file
    pid, listen = stage.pulse(process).pid, (file.agents if process == "gateway" else file.operators).listen
    deaf_file.ask(stage.settings, process)
    scene.stack.callback(stage.settings.deaf.unlink, missing_ok=True)
    await stage.until(lambda: deaf_file.is_taken(stage.settings), f"{process} takes the fault", FOUND_S_MAX)
    scene.begins()

    async def waits() -> bool:
        _, writer = await asyncio.open_connection(*settings_of.reachable(listen))
        scene.stack.callback(writer.transport.abort)
        pulse = stage.pulse(process)
        return pulse.waiting > 0 or pulse.pid != pid

    await stage.until(waits, f"a connection waits at the port of {process}", FOUND_S_MAX)


async def _watchdog_kill(scene: Scene) -> None:
    pid = scene.stage.pulse("watchdog").pid
    scene.strike("watchdog", signal.SIGKILL)
    await scene.stage.until(lambda: scene.stage.pulse("watchdog").pid not in (0, pid), "another watchdog", FOUND_S_MAX)


async def _watchdog_stop(scene: Scene) -> None:
    pulse = scene.stage.pulse("watchdog")
    with held({pulse.pid: pulse.start_ticks}):
        scene.begins()
        settings = scene.stage.settings
        await scene.stage.until(
            lambda: status_file.current_report(settings).watchdog_silent_s is not None,
            "status says that the watchdog is silent",
            FOUND_S_MAX,
        )
        scene.found()
        await scene.stream.more(3)  # while all is well, commands need no watchdog
        await scene.lasts()
    scene.mends()


async def _agent_kill(scene: Scene) -> None:
    stage = scene.stage
    own = stage.hosts[0]
    scene.strike("agent", signal.SIGKILL)
    stage.agent(own).kill()
    stage.agent(own).wait()
    stage.start_agent(own)


async def _crash_loop(scene: Scene) -> None:
    scene.strike("hub", signal.SIGKILL)
    began_s = scene.began_s
    for _ in range(KILLS - 1):
        pid = scene.stage.pulse("hub").pid
        await scene.stage.until(lambda: _runs(scene, pid), "the next hub runs", FOUND_S_MAX)  # noqa: B023
        scene.strike("hub", signal.SIGKILL)
    scene.began_s = began_s


def _runs(scene: Scene, before: int) -> bool:
    """True once another hub turns, and supervisord has counted its start as a success."""
    pulse = scene.stage.pulse("hub")
    if pulse.pid in (0, before) or not pulse.turn:
        return False
    return time.clock_gettime(time.CLOCK_BOOTTIME) - pulse.start_ticks / proc.TICKS_PER_S > SUPERVISED_S


async def _fatal(scene: Scene) -> None:
    stage = scene.stage
    supervisor = Supervisor(stage.settings.supervisor_socket)
    scene.strike("hub", signal.SIGKILL)
    deadline_s = time.monotonic() + WELL_S_MAX
    while (row := (await asyncio.to_thread(supervisor.processes))["hub"]).state != "FATAL":
        if row.pid:
            with contextlib.suppress(SupervisorFault):  # it has died of the signal before
                await asyncio.to_thread(supervisor.kill, "hub")
        if time.monotonic() > deadline_s:
            raise Late(f"supervisord did not give up the hub within {WELL_S_MAX:.0f} s")
        await asyncio.sleep(LOOK_S)
    scene.mends()


async def _supervisord_kill(scene: Scene) -> None:
    settings = scene.stage.settings
    supervisord = own_processes.supervisord_of(settings)
    if supervisord is None:
        raise Late("supervisord is gone")
    members = own_processes.members_of(settings)
    scene.begins()
    own_processes.send(supervisord, signal.SIGKILL)
    if still := await asyncio.to_thread(own_processes.wait_gone, members, 10.0):
        scene.trouble.append(f"{len(still)} children live on without supervisord")
    scene.found()
    wanted = [] if "agent" in scene.pids else ["--no-agent"]
    done = await asyncio.to_thread(up, {**supervisord.environ}, *wanted)
    if done.returncode:
        raise Late(f"up failed: {done.stderr.strip()}")
    scene.recovered_s = time.monotonic() - scene.since_s


def up(environ: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run `fleethub up` to its end, in the environment that the installation was started with."""
    return verb(environ, "up", *options)


def verb(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a verb of the command line to its end."""
    return subprocess.run(  # noqa: S603  # our own words
        [sys.executable, "-P", "-m", "processes.cli", *arguments],
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


# every other drill is a signal to a process, or a fault within a step of the hub
FAULTS: Final[dict[str, Fault]] = {
    "hub-exception": _exception,
    "hub-poison": _poison,
    "hub-leak": _leak,
    "watchdog-kill": _watchdog_kill,
    "watchdog-stop": _watchdog_stop,
    "agent-kill": _agent_kill,
    "fanout-deaf": _deaf,
    "gateway-deaf": _deaf,
    "database-locked": conditions.database_locked,
    "disk-full": conditions.disk_full,
    "log-disk-full": conditions.log_disk_full,
    "broadcast-flood": conditions.broadcast_flood,
    "slow-operator": conditions.slow_operator,
    "starvation": conditions.starvation,
    "suspend": conditions.suspend,
    "crash-loop": _crash_loop,
    "fatal": _fatal,
    "supervisord-kill": _supervisord_kill,
}


async def _dropped(task: asyncio.Task[object]) -> None:
    task.cancel()
    await asyncio.wait({task})
