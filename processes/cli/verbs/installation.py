"""The verbs of the installation: env, up, down, restart, stop, start."""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from typing import Final

import click
import msgspec

from processes.adapters import own_user, ownership, queue_engine
from processes.adapters.settings import Settings, load
from processes.adapters.state import desired_state, fleet_db, lock, pulse_file
from processes.adapters.supervisor import SupervisorAway
from processes.cli.machine import (
    descriptors,
    enrolment,
    environment,
    own_hub,
    own_processes,
    ports,
    replacement,
    sign_in,
    supervision,
)
from processes.cli.terminal import completion, output
from processes.cli.terminal.client_failure import failure_of
from processes.cli.terminal.failure import EXIT_OK, EXIT_USAGE, Failure
from processes.cli.terminal.options import settings_anyway
from processes.client.api import Api
from processes.client.errors import HubAway
from processes.core.records import beginning
from processes.core.shown.status import is_wanted

HEALTHY_S_MAX: Final = 60.0
OTHER_UP_S_MAX: Final = 120.0  # another `up` gives up by itself before that
POLL_S: Final = 0.1
RESTART_ORDER: Final = (
    "queues",
    "hub",
    "fanout",
    "watchdog",
    "agent",
)  # the gateway is left out: so agents stay connected


@click.command("env")
def env() -> None:
    """Print the variables that supervisord.conf expands, for a shell to eval."""
    settings = load()
    found = environment.variables(settings)
    environment.make_folders(settings)
    sign_in.make_operator_token(settings)
    print(environment.exports(found | {"PATH": environment.path()}), end="")


@click.command()
@click.option("--foreground", is_flag=True, help="Stay in the foreground; Ctrl-C and SIGTERM end everything.")
@click.option("--no-agent", is_flag=True, help="Do not start the agent of this machine.")
@click.option("--new", is_flag=True, help="Begin empty: without hosts and commands. What was there is kept aside.")
def up(foreground: bool, no_agent: bool, new: bool) -> int:
    """Start everything, and print the sign-in link."""
    settings = load()
    environment.variables(settings)
    environment.make_folders(settings)
    for above in ownership.faults_above(settings.state):
        output.note(f"warning: above the state folder {above}")
    for why, kinds in _who_stay_root(settings).items():
        output.note(f"warning: {' and '.join(kinds)} run as root, because {why}: fleethub doctor")
    # its own lock: two `up`s at once, and the second finds it running
    held = lock.hold(lock.place(settings.run, "up"), wait_s=OTHER_UP_S_MAX)
    try:
        if new:
            environment.refuse_elsewhere(settings, "up --new")
            _begin_anew(settings)
        last = pulse_file.last(settings.pulses, "hub")
        here = not settings.file.store.url  # else PostgreSQL has it, and the hub looks at it
        if here and (refusal := fleet_db.refusal(settings.database, settings.epoch_file, last)):
            raise Failure("database_refused", f"no hub begins here: {refusal}", beginning.ADVICE)
        running = own_processes.supervisord_of(settings)
        if running is not None:
            settings = _as_running(settings, running)
            _refuse_what_cannot_get_well(settings)
            _bring_up(settings, no_agent, fresh=False)
            output.say("ok: already running")
            _tell(settings)
            return EXIT_OK
        supervision.kill_leftovers(settings)
        ports.check(settings.file)
        queue_engine.check(settings)
        descriptors.check()
        sign_in.make_operator_token(settings)
        desired_state.replace(settings, {})  # `up` starts everything, also what was stopped before
        if not foreground:
            supervision.launch(settings)
            _bring_up(settings, no_agent, fresh=True)
            _tell(settings)
            return EXIT_OK
        with _ending_with_us(settings) as child:
            _bring_up(settings, no_agent, fresh=True)
            _tell(settings)
            free, held = held, -1  # in this order: a signal between the two must not close it twice
            os.close(free)
            if code := supervision.wait_end(child):
                raise Failure("ended", f"supervisord ended with {code}", f"Its log: {settings.log / 'supervisord.log'}")
        return EXIT_OK
    finally:
        if held >= 0:
            os.close(held)


def _who_stay_root(settings: Settings) -> dict[str, list[str]]:
    """Return the kinds of processes that root cannot make another user, in the plural, by the reason."""
    found: dict[str, list[str]] = {}
    for kind in own_user.KINDS:
        for why in own_user.hindrances(settings, kind) if own_user.is_wanted(settings, kind) else ():
            found.setdefault(why, []).append(f"{kind}s")
    return found


@click.command()
def down() -> None:
    """End everything. Commands that are running on hosts go on."""
    settings = settings_anyway()
    if not settings.run.exists() or not supervision.end_all(settings):
        output.say("nothing was running")
    else:
        output.say("down: no process of this installation is left")
    if count := len(own_processes.shims_of(settings)):
        output.say(f"{count} command{'s' * (count != 1)} of this machine's agent still running")
        output.say("they end by themselves and are reported after the next up")


@click.command()
@click.argument("process", required=False, shell_complete=completion.processes)
def restart(process: str | None) -> None:
    """Restart the processes one after the other, each when the one before turns again. The gateway only if named."""
    settings = load()
    supervision.supervisor_of(settings)
    asked = desired_state.read(settings)
    ordered = [name for kind in RESTART_ORDER for name in settings.names(kind)]
    names = _named(settings, process) if process else [name for name in ordered if is_wanted(name, asked)]
    for name in names:
        output.progress(f"restarting {name} …")
        _restart(settings, name)
        output.say(f"{name}: restarted")
    supervision.wait_told(settings, names)


@click.command()
@click.argument("process", shell_complete=completion.processes)
def stop(process: str) -> None:
    """Stop a process. It stays stopped until `start`."""
    settings = load()
    names = _named(settings, process)
    for name in names:
        supervision.supervisor_of(settings)
        _stop(settings, name)
        output.say(output.as_typed(f"{name}: stopped, until: fleethub start {name}"))
    supervision.wait_told(settings, names)


@click.command()
@click.argument("process", shell_complete=completion.processes)
def start(process: str) -> None:
    """Start a stopped process."""
    settings = load()
    names = _named(settings, process)
    for name in names:
        if name == "agent" and not settings.agent_file.exists():
            raise Failure("not_enrolled", "this machine has no agent yet", "fleethub up enrols it and starts it.")
        supervision.supervisor_of(settings)
        desired_state.change(settings, {name: desired_state.RUNNING})
        supervision.start(settings, name)
        output.say(f"{name}: running")
    supervision.wait_told(settings, names)


def _begin_anew(settings: Settings) -> None:
    """An empty database stands in the place of the fleet's, and what was there is named. Raises: Failure."""
    if not settings.epoch_file.exists() and not settings.database.exists():
        return  # nothing ever began here
    try:
        with replacement.standing_still(settings, up_is_ours=True):
            kept = replacement.begin_anew(settings)
    except (OSError, sqlite3.Error) as error:
        raise Failure(
            "not_begun", f"nothing was begun anew: {error}", "Make room or mend it, then try again."
        ) from None
    output.say("begun anew: without hosts, tokens, commands and runs; incidents and settings stay")
    for path in kept:
        output.say(f"what was there is kept: {path}")


def _refuse_what_cannot_get_well(settings: Settings) -> None:
    """Refuse to wait for an installation of which the operator has stopped a part that it needs. Raises: Failure."""
    asked = desired_state.read(settings)
    kinds = [kind for kind in RESTART_ORDER if kind != "agent"] + ["gateway"]
    names = {kind: settings.names(kind) for kind in kinds}
    stopped = [kind for kind in kinds if names[kind] and not any(is_wanted(name, asked) for name in names[kind])]
    if stopped:
        verb, what = ("is", stopped[0]) if len(stopped) == 1 else ("are", ", ".join(stopped))
        advice = "; ".join(f"fleethub start {kind}" for kind in stopped)
        raise Failure("stopped", f"it runs, but {what} {verb} stopped, as you asked, and so it cannot get well", advice)


def _bring_up(settings: Settings, no_agent: bool, fresh: bool) -> None:
    """Wait until the installation is healthy, and enrol and start this machine's agent unless it is not wanted.

    `fresh`: this `up` has started the installation itself. Raises: Failure.
    """
    api = own_hub.open_own(settings)
    try:
        _wait_healthy(settings, api)
        stopped = desired_state.read(settings).get("agent") == desired_state.STOPPED
        if no_agent or (stopped and not fresh):
            return
        output.progress("starting this machine's agent …")
        name, changed = enrolment.prepare_agent(settings, api, own_hub.agents_url(settings))
        if changed and not fresh:
            _restart(settings, "agent")  # it may have failed because of the old file
        else:
            supervision.start(settings, "agent")
            # only now: the watchdog must not take a slow start for an agent that stopped by itself
            desired_state.change(settings, {"agent": desired_state.RUNNING})
        enrolment.wait_online(api, name)
        supervision.wait_told(settings, ["agent"])
    except HubAway as error:
        advice = "It runs nevertheless: fleethub status shows it, fleethub down ends it."
        raise Failure("hub_away", failure_of(error).message, advice) from None
    finally:
        api.close()


def _wait_healthy(settings: Settings, api: Api) -> None:
    supervisor = supervision.supervisor_of(settings)
    deadline_mono_s = time.monotonic() + HEALTHY_S_MAX
    told = ""
    while not api.healthy():
        state = own_processes.supervisord_of(settings)
        fatal: list[str] = []
        try:
            rows = supervisor.processes()  # this also wakes supervisord, so that it starts its children now
            own = [name for name in settings.all_names() if name in rows]
            fatal = [name for name, row in rows.items() if row.state == "FATAL"]
            waiting = ", ".join(
                name for name in own if name != "agent" and not supervision.turns(settings, supervisor, name)
            )
        except SupervisorAway:
            waiting = "supervisord"
        if (line := f"waiting for {waiting or 'the first round of the canary'} …") != told:
            told = line
            output.progress(line)
        if state is None:
            raise Failure(
                "not_healthy", "supervisord ended while it was starting", f"Its log: {settings.log / 'supervisord.log'}"
            )
        if fatal or time.monotonic() > deadline_mono_s:
            for line in supervision.unwell(settings):
                output.note(line)
            why = (
                f"{', '.join(fatal)} cannot be started" if fatal else f"it was not healthy within {HEALTHY_S_MAX:.0f} s"
            )
            raise Failure(
                "not_healthy",
                f"{why}: see above",
                "It runs nevertheless: fleethub status shows it, fleethub down ends it.",
            )
        time.sleep(POLL_S)


def _tell(settings: Settings) -> None:
    url = settings.file.operators.url or own_hub.own_url(settings)
    output.note(
        f"sign in (once, within {sign_in.SIGN_IN_CODE_S // 60} minutes; another `fleethub up` prints a new link):"
    )
    print(sign_in.link(url, sign_in.new_code(settings)), flush=True)  # on stdout, alone on its line: scripts read it
    output.say(f"agents connect to {settings.agents_url}")
    output.say(f"stop it with: {environment.program()} down")


def _as_running(settings: Settings, running: own_processes.OwnProcess) -> Settings:
    """The settings with the addresses that the running installation was started with."""
    file = settings.file
    operators = running.environ.get("FLEETHUB_OPERATORS_LISTEN", file.operators.listen)
    agents = running.environ.get("FLEETHUB_AGENTS_LISTEN", file.agents.listen)
    if (operators, agents) != (file.operators.listen, file.agents.listen):
        output.note(f"it runs on {operators} and {agents}: to use other addresses, fleethub down, then fleethub up")
    replace = msgspec.structs.replace
    return replace(
        settings,
        file=replace(
            file, operators=replace(file.operators, listen=operators), agents=replace(file.agents, listen=agents)
        ),
    )


@contextlib.contextmanager
def _ending_with_us(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run supervisord in the foreground, and end the whole installation on every way out."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield supervision.launch_in_foreground(settings)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave half of it running
        output.progress("ending …")
    finally:
        supervision.end_all(settings)
        signal.signal(signal.SIGTERM, before)


def _stop(settings: Settings, name: str) -> None:
    """Stop the process and record that it is meant to be stopped.

    Raises: Failure; then the recorded state is as before.
    """
    wanted = is_wanted(name, desired_state.read(settings))
    desired_state.change(settings, {name: desired_state.STOPPED})  # first, or else the watchdog would start it again
    try:
        supervision.stop(settings, name)
    except BaseException as error:
        desired_state.change(settings, {name: desired_state.RUNNING if wanted else desired_state.STOPPED})
        if isinstance(error, SupervisorAway):
            advice = (
                f"Try again; if supervisord still does not answer: fleethub down, fleethub up, fleethub stop {name}"
            )
            raise Failure("not_stopped", f"{name} is not stopped: {error}", advice) from None
        raise


def _restart(settings: Settings, name: str) -> None:
    desired_state.change(settings, {name: desired_state.STOPPED})  # so that the watchdog leaves it alone meanwhile
    try:
        supervision.stop(settings, name)
        supervision.start(settings, name)
    finally:
        # only now: the watchdog must not take a slow start for a process that stopped by itself
        desired_state.change(settings, {name: desired_state.RUNNING})


def _named(settings: Settings, process: str) -> list[str]:
    """The processes of that name or of that kind. Raises: Failure, which suggests the nearest name."""
    known = settings.all_names()
    found = [name for name in known if process in (name, name.partition(":")[0])]
    if not found:
        close = difflib.get_close_matches(process, known, 1)
        raise Failure(
            "unknown_process",
            f"there is no process {process!r}{f'; did you mean {close[0]}?' if close else ''}",
            f"There are: {', '.join(known)}.",
            EXIT_USAGE,
        )
    return found
