"""`python -m processes.agent --config FILE`: the agent of one server, by itself or under the hub's own supervisord.

By itself it needs no installation: log to stderr, lock and pulse in its own state folder. Under fleethub's supervisord
(which names the program `agent` and gives FLEETHUB_STATE) it is one of the installation's processes: its log, pulse and
lock are there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import sys
import threading
import traceback
from importlib import metadata
from pathlib import Path
from typing import NoReturn

from processes.adapters import clock, failpoint, logs, own_process
from processes.adapters.state import agent_state, lock
from processes.adapters.state.pulse_file import PulseFile
from processes.agent import facts
from processes.agent.config import Config, ConfigError, load
from processes.agent.journal import Journal
from processes.agent.link import Link
from processes.agent.loop import JournalGone, Loop
from processes.agent.metrics import Gauge
from processes.agent.runner import Runner, absent
from processes.core.agent.step import Identity
from processes.core.errors import EXIT_BROKEN, EXIT_OK, EXIT_SETTINGS, FleethubError, ResourceError
from processes.core.travels.agent_frames import CommandOptions
from processes.core.values import is_plain_elsewhere

NAME = "agent"
UNKNOWN_BOOT = "unknown"
LOCK_WAIT_S = 5.0  # a predecessor that was killed or is stopping


def main(arguments: list[str]) -> int:
    """Serves until SIGTERM. Returns 0 after a stop, 70 after a failure, 78 with a wrong file."""
    parser = argparse.ArgumentParser(prog="fleethub agent", description="The agent of one fleet server.")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the agent's file (TOML)")
    try:
        config = load(parser.parse_args(arguments).config)
    except ConfigError as error:
        print(f"fleethub agent: {error}", file=sys.stderr, flush=True)
        return EXIT_SETTINGS
    try:
        # kept open until the end: two agents must not share a journal
        lock.hold(agent_state.lock(config.state), LOCK_WAIT_S)
    except (ResourceError, OSError) as error:
        hint = ": this agent runs already" if isinstance(error, ResourceError) else ""
        print(f"fleethub agent: {error}{hint}", file=sys.stderr, flush=True)
        return EXIT_BROKEN
    if _is_installed():
        from processes.adapters import bootstrap  # noqa: PLC0415  # only an installation has it

        bootstrap.run(NAME, lambda process: _serve(config, process.log, process.pulse, process.stop))
    _run_alone(config)


def _is_installed() -> bool:
    environ = os.environ
    return bool(
        environ.get("SUPERVISOR_ENABLED")
        and environ.get("SUPERVISOR_GROUP_NAME") == NAME
        and environ.get("FLEETHUB_STATE")
    )


async def _serve(config: Config, log: logs.Log, pulse: PulseFile, stop: asyncio.Event) -> None:
    if os.environ.get("FLEETHUB_DRILLS_ENABLED", "").lower() in ("1", "true"):
        failpoint.allow(agent_state.failpoint(config.state))
    if is_plain_elsewhere(config.hub):
        log.warning("the hub is reached without TLS: the token can be read on the way", hub=config.hub)
    for op, program in absent(config):
        log.warning("no such program to run: commands of this operation will fail", op=op, program=program)
    identity = _identity(config)
    loop = Loop(
        identity,
        journal=Journal(config.state / "journal.db"),
        runner=Runner(config, identity.boot_id),
        link=Link(config, identity.agent_version, log),
        gauge=Gauge(config.heartbeat_s),
        log=log,
        pulse=pulse,
        stop=stop,
    )
    await loop.run()


def _identity(config: Config) -> Identity:
    """Return what `register` will say, but for the journal's id: the journal is not open yet."""
    system, boot_id = platform.uname(), _boot_id()
    return Identity(
        config.name,
        boot_id=boot_id,
        journal_id="",
        heartbeat_s=config.heartbeat_s,
        offers={
            op: CommandOptions(offer.timeout_s, offer.concurrent, offer.back_s)
            for op, offer in config.commands.items()
            if offer.back_s is None or boot_id != UNKNOWN_BOOT
        },
        agent_version=metadata.version("fleethub"),
        os_version=facts.readable(facts.os_name())[:1024],
        kernel=facts.readable(system.release),
        machine=facts.readable(system.machine),
        labels=config.labels,
    )


def _boot_id() -> str:
    """Return the id of this boot; where /proc does not tell it, a fixed word: no reboot is then noticed or offered."""
    try:
        return clock.boot_id()
    except (OSError, UnicodeDecodeError):
        return UNKNOWN_BOOT


def _run_alone(config: Config) -> NoReturn:
    os.umask(0o077)
    sys.setswitchinterval(own_process.SWITCH_INTERVAL_S)
    log = logs.open_log(None, NAME)
    code = EXIT_BROKEN
    try:
        own_process.open_stacks(agent_state.stacks(config.state), NAME)
        pulse = PulseFile(agent_state.pulses(config.state), NAME)
        log.info("started", pid=os.getpid(), name=config.name)
        asyncio.run(_until_stopped(config, log, pulse))
        code = EXIT_OK
        log.info("stopped")
    except JournalGone as error:  # under supervisord a death is enough; here nobody may be there to start the next one
        log.error("begins anew", error=str(error))
        _begin_anew()
    except FleethubError as error:
        log.error("gave up", error=str(error))
    except BaseException as error:
        log.error("died of an exception", error=str(error), exc_info=True)
        traceback.print_exc()
    own_process.leave(code)


def _begin_anew() -> NoReturn:
    """Replace this process by the same program: lock, pulse and journal are made anew where they were removed."""
    own_process.flush()
    words = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]  # the very words of our own start
    os.execv(sys.executable, words)  # noqa: S606


async def _until_stopped(config: Config, log: logs.Log, pulse: PulseFile) -> None:
    stop = asyncio.Event()

    def stopping() -> None:
        log.info("stopping")
        stop.set()
        overdue = threading.Timer(
            own_process.STOP_S_MAX, own_process.leave, (EXIT_BROKEN,)
        )  # a thread: the loop may be what hangs
        overdue.daemon = True
        overdue.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping)
    await _serve(config, log, pulse, stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
