"""The verb `systemd-unit`: prints a unit for the hub, in which the watchdog answers to systemd for the whole.

With --agent: a unit for an agent, whose commands live on while the agent is restarted.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from processes.adapters import own_user, ownership
from processes.adapters.machine import agent_unit as agent_units
from processes.adapters.machine.agent_unit import unit_word
from processes.adapters.settings import RESERVED, Settings, address, checkout, load
from processes.cli.terminal import output
from processes.cli.terminal.failure import EXIT_USAGE, Failure

LIB: Final = Path("/var/lib")  # systemd makes StateDirectory= in here
STATE: Final = LIB / "fleethub"
HOMES: Final = ("/home/", "/root/", "/run/user/")  # places that ProtectHome=yes hides

HUB: Final = """\
# A fleethub hub. Install: save as /etc/systemd/system/fleethub.service, then
#   useradd --system --home-dir {state} --shell /usr/sbin/nologin {user}
#   systemctl daemon-reload && systemctl enable --now fleethub
# Ask it as that user: sudo -u {user} {environment}{fleethub} status

[Unit]
Description=fleethub hub
Wants=network-online.target
After=network-online.target
# it comes back however often it dies
StartLimitIntervalSec=0

[Service]
User={user}
Environment={state_variable}
{config}# without this machine's agent: its commands must stay unconfined, in a unit of their own (systemd-unit --agent)
ExecStart={command}

# The watchdog, a grandchild of the main process, answers for the whole. It says "ready" once a command has gone all the
# way round, and pings each second while it can judge and supervisord answers. Only `all` lets a grandchild answer.
Type=notify
NotifyAccess=all
# `up` itself gives up after 60 s
TimeoutStartSec=90
# Pings stop if the watchdog hangs, if supervisord does not answer for 30 s, or if the hub is unwell for 10 min in spite
# of remedies.
WatchdogSec=60
TimeoutAbortSec=10
Restart=always
RestartSec=1

# A stop signals `up` alone. It ends the others in order, within 21 s even if some are frozen; systemd kills the rest.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=30
# supervisord replaces a process that the kernel kills for want of memory
OOMPolicy=continue

# each agent and each operator takes a descriptor
LimitNOFILE=65536
LimitCORE=0

{folder}UMask=0077
{capabilities}NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
# the watchdog reads the memory of frozen processes of its own user (process_vm_readv); it need not see those of others
ProtectProc=invisible
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RemoveIPC=yes
# netlink: the resolver and psutil read the network's interfaces by it
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)  # as useradd(8) takes it


@click.command("systemd-unit")
@click.option("--agent", "agent", is_flag=True, help="Print the unit of a server's agent instead of the hub's.")
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), default=Path("/etc/fleethub/agent.toml"),
    show_default=True,
    help="With --agent: the agent's file.",
)  # fmt: skip
@click.option("--user", default="fleethub", show_default=True, help="The user whom the hub runs as.")
def systemd_unit(agent: bool, config: Path, user: str) -> None:
    """Print a unit for systemd, to be saved on the server that it is for."""
    python = Path(sys.executable).absolute()
    if agent:
        print(agent_unit(python, config.absolute()), end="")
        return
    settings = load()
    print(hub_unit(python, settings, user, os.environ), end="")
    for warning in (not_carried(settings, os.environ), closed_to(user)):
        if warning:
            output.note(f"fleethub: {warning}")


def not_carried(settings: Settings, environ: Mapping[str, str]) -> str:
    """A line that names the settings in the environment, which the unit does not take over; empty if there are none."""
    left = sorted(name for name in environ if name.startswith("FLEETHUB_") and name not in RESERVED)
    if not left:
        return ""
    config = (
        settings.config if environ.get("FLEETHUB_STATE") or environ.get("FLEETHUB_CONFIG") else STATE / "fleethub.toml"
    )
    verb, it = ("is", "it") if len(left) == 1 else ("are", "them")
    return f"{', '.join(left)} {verb} set here, but {verb} not in the unit: put {it} into {config}"


def closed_to(user: str) -> str:
    """A line that names what the unit's user cannot read of fleethub itself, so that the unit would not start; else
    empty. A user who is not there yet is one who owns nothing.
    """
    number, groups = ownership.LESSER[0], {ownership.LESSER[0]}
    with contextlib.suppress(KeyError):
        known = pwd.getpwnam(user)
        number, groups = known.pw_uid, {*os.getgrouplist(user, known.pw_gid)}
    place = own_user.unreadable(number, groups) if number else None
    if place is None:
        return ""
    return (
        f"the user {user} cannot read {place}, so this unit will not start: put fleethub where everybody may read "
        "it (in /opt, or by the package of docs/packages.md), or let that user pass the folders above"
    )


def hub_unit(python: Path, settings: Settings, user: str, environ: Mapping[str, str]) -> str:
    """The text of the hub's unit, for the installation of these settings.

    Without FLEETHUB_STATE it is for an installation in /var/lib/fleethub. Raises: Failure, if a path or the user's name
    cannot stand in a unit.
    """
    if not _USER.fullmatch(user):
        raise Failure("bad_user", f"{user!r} is not the name of a user", exit_code=EXIT_USAGE)
    state = settings.state if environ.get("FLEETHUB_STATE") else STATE
    config = (
        f"Environment={unit_word(f'FLEETHUB_CONFIG={settings.config}')}\n" if environ.get("FLEETHUB_CONFIG") else ""
    )
    at_home = any(str(path).startswith(HOMES) for path in (python, python.resolve(), state, checkout() or state))
    below = state.relative_to(LIB) if state.is_relative_to(LIB) and state != LIB else None
    ports = [address(listen)[1] for listen in (settings.file.operators.listen, settings.file.agents.listen)]
    low = "CAP_NET_BIND_SERVICE" if any(0 < port < 1024 for port in ports) else ""
    folder = (
        f"StateDirectory={unit_word(str(below))}\nStateDirectoryMode=0700\n"
        if below
        else f"ReadWritePaths={unit_word(str(state))}\n"
    )
    return HUB.format(
        user=user,
        state=state,
        environment="" if state == STATE and checkout() is None else f"FLEETHUB_STATE={shlex.quote(str(state))} ",
        fleethub=python.with_name("fleethub"),
        state_variable=unit_word(f"FLEETHUB_STATE={state}"),
        config=config,
        command=" ".join(
            map(unit_word, [str(python), "-P", "-m", "processes.cli", "up", "--foreground", "--no-agent"])
        ),
        folder=folder,
        capabilities=f"CapabilityBoundingSet={low}\n" + (f"AmbientCapabilities={low}\n" if low else ""),
        home="read-only" if at_home else "yes",
    )


def agent_unit(python: Path, config: Path) -> str:
    """The text of the unit of an agent that this installation runs.

    Raises: Failure, if a path cannot stand in a unit.
    """
    return agent_units.agent_unit([str(python), "-P", "-m", "processes.agent"], config)
