"""The verb `systemd-unit`: prints a unit for the hub, in which the watchdog answers to systemd for the whole.

With --agent: a unit for an agent, whose commands live on while the agent is restarted.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

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
AGENT: Final = """\
# A fleethub agent. Install: save as /etc/systemd/system/fleethub-agent.service, then
#   systemctl daemon-reload && systemctl enable --now fleethub-agent

[Unit]
Description=fleethub agent
Wants=network-online.target
After=network-online.target
# it comes back however often it dies: a server whose agent has given up cannot be repaired from afar
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={command}

# A stop, a restart or a crash ends the agent alone. Its commands run on, each in a shim in this unit's cgroup, and the
# next agent finds them, sends on their output and reports their ends. With systemd's default, control-group, a `switch`
# that restarts the agent would be killed by that restart. systemd logs "left-over process" when it starts the next
# agent: that is intended.
KillMode=process
# if the kernel kills a command for want of memory, the agent and the other commands go on
OOMPolicy=continue
KillSignal=SIGTERM
# the agent ends within 5 s of SIGTERM
TimeoutStopSec=10
Restart=always
RestartSec=1

# the PATH of commands; the PATH of a unit on NixOS would hold none of the system's programs
Environment=PATH={path}

# There is little hardening: commands inherit everything set here, and a `switch` must be able to change the system.
# Nothing may remove a folder when the agent stops (PrivateTmp=, RuntimeDirectory=), since running commands lose it.
# Nothing may filter system calls (Restrict…=, SystemCall…=), since the filter would bind commands too.
UMask=0077
# If commands only read, or run as another user, set these too:
#User=fleethub-agent
#NoNewPrivileges=yes
#ProtectSystem=full
#ProtectHome=read-only
#ProtectKernelTunables=yes
#ProtectKernelModules=yes
#RestrictSUIDSGID=yes

[Install]
WantedBy=multi-user.target
"""
PATH: Final = ":".join((
    "/run/wrappers/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin",
    "/run/current-system/sw/bin",
))  # fmt: skip
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)  # as useradd(8) takes it
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"}  # systemd.service(5): quotes, specifiers, variables


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
    if left := not_carried(settings, os.environ):
        output.note(f"fleethub: {left}")


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


def hub_unit(python: Path, settings: Settings, user: str, environ: Mapping[str, str]) -> str:
    """The text of the hub's unit, for the installation of these settings.

    Without FLEETHUB_STATE it is for an installation in /var/lib/fleethub. Raises: Failure, if a path or the user's name
    cannot stand in a unit.
    """
    if not _USER.fullmatch(user):
        raise Failure("bad_user", f"{user!r} is not the name of a user", exit_code=EXIT_USAGE)
    state = settings.state if environ.get("FLEETHUB_STATE") else STATE
    config = f"Environment={_word(f'FLEETHUB_CONFIG={settings.config}')}\n" if environ.get("FLEETHUB_CONFIG") else ""
    at_home = any(str(path).startswith(HOMES) for path in (python, python.resolve(), state, checkout() or state))
    below = state.relative_to(LIB) if state.is_relative_to(LIB) and state != LIB else None
    ports = [address(listen)[1] for listen in (settings.file.operators.listen, settings.file.agents.listen)]
    low = "CAP_NET_BIND_SERVICE" if any(0 < port < 1024 for port in ports) else ""
    folder = (
        f"StateDirectory={_word(str(below))}\nStateDirectoryMode=0700\n"
        if below
        else f"ReadWritePaths={_word(str(state))}\n"
    )
    return HUB.format(
        user=user,
        state=state,
        environment="" if state == STATE and checkout() is None else f"FLEETHUB_STATE={shlex.quote(str(state))} ",
        fleethub=python.with_name("fleethub"),
        state_variable=_word(f"FLEETHUB_STATE={state}"),
        config=config,
        command=" ".join(map(_word, [str(python), "-P", "-m", "processes.cli", "up", "--foreground", "--no-agent"])),
        folder=folder,
        capabilities=f"CapabilityBoundingSet={low}\n" + (f"AmbientCapabilities={low}\n" if low else ""),
        home="read-only" if at_home else "yes",
    )


def agent_unit(python: Path, config: Path) -> str:
    """The text of an agent's unit. Raises: Failure, if a path cannot stand in a unit."""
    words = [str(python), "-P", "-m", "processes.agent", "--config", str(config)]
    return AGENT.format(command=" ".join(map(_word, words)), path=PATH)


def _word(word: str) -> str:
    """The word, quoted so that systemd reads it back as it is."""
    if any(ord(character) < 32 for character in word):
        raise Failure("bad_path", f"{word!r}: a unit cannot hold control characters", "Choose another place.")
    escaped = "".join(_ESCAPES.get(character, character) for character in word)
    return f'"{escaped}"' if escaped != word or " " in word or "'" in word or ";" in word else word
