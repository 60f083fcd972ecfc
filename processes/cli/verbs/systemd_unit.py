"""`systemd-unit`: the hub's unit, in which the watchdog answers for the whole; `--agent`: a unit for an agent, under
which the commands that it runs live on while it is restarted.
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

LIB: Final = Path("/var/lib")  # systemd's StateDirectory= is below it
STATE: Final = LIB / "fleethub"
HOMES: Final = ("/home/", "/root/", "/run/user/")  # what ProtectHome=yes takes away

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
{config}# without this machine's own agent: that is a unit of its own (systemd-unit --agent), whose commands none of this must confine
ExecStart={command}

# The watchdog, a grandchild of the main process, answers for the whole: ready once a command has gone all the way round, a ping each
# second while it can judge and supervisord answers. `all` is the least that lets it: `main` and `exec` mean other processes.
Type=notify
NotifyAccess=all
# `up` itself gives up after 60 s
TimeoutStartSec=90
# Pings stay away if the watchdog hangs, supervisord is mute for 30 s, or the hub is unwell for 10 min though remedies ran.
WatchdogSec=60
TimeoutAbortSec=10
Restart=always
RestartSec=1

# A stop asks `up` alone, which ends the others in order, within 21 s even if some are frozen; what is left then is killed.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec=30
# one process that is killed for want of memory is replaced by supervisord
OOMPolicy=continue

# a descriptor for each agent and each operator
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
# the watchdog reads the memory of what is frozen, by process_vm_readv: its own user's processes. Others' are not even seen.
ProtectProc=invisible
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RemoveIPC=yes
# netlink: by which the resolver and psutil look at the network's interfaces
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

# A stop, a restart or a crash ends the agent alone. Each command has a shim of its own in this unit's cgroup: they run on, and the
# next agent finds them, streams on and reports. With systemd's default, control-group, the restart that a `switch` makes of its
# own agent would kill that very switch. systemd will say "left-over process" when it starts the next agent: that is meant.
KillMode=process
# one command that is killed for want of memory ends by itself, and not the agent with all others
OOMPolicy=continue
KillSignal=SIGTERM
# the agent ends within 5 s of SIGTERM
TimeoutStopSec=10
Restart=always
RestartSec=1

# what commands get as their PATH; on NixOS nothing of the system is in a unit's own
Environment=PATH=/run/wrappers/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin

# Hardening, as far as commands do not feel it: they inherit all that stands here, and a `switch` must be able to change the system.
# Nothing here may take a folder away when the agent stops (PrivateTmp=, RuntimeDirectory=): its commands would lose it in the middle.
# Whatever systemd enforces with a system call filter (Restrict…=, SystemCall…=) is for commands as well, and so not set either.
UMask=0077
# Where commands only look, or are another user's, take these too:
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
_USER: Final = re.compile(r"[a-z_][a-z0-9_-]{0,31}", re.ASCII)  # as useradd(8) takes it
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"}  # systemd.service(5): quotes, specifiers, variables


@click.command("systemd-unit")
@click.option("--agent", "agent", is_flag=True, help="The unit of one server's agent, instead of the hub's.")
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), default=Path("/etc/fleethub/agent.toml"),
    show_default=True,
    help="The agent's file.",
)  # fmt: skip
@click.option("--user", default="fleethub", show_default=True, help="Whom the hub runs as.")
def systemd_unit(agent: bool, config: Path, user: str) -> None:
    """Print a unit for systemd, to be saved on the server that is meant."""
    python = Path(sys.executable).absolute()
    if agent:
        print(agent_unit(python, config.absolute()), end="")
        return
    settings = load()
    print(hub_unit(python, settings, user, os.environ), end="")
    if left := not_carried(settings, os.environ):
        output.note(f"fleethub: {left}")


def not_carried(settings: Settings, environ: Mapping[str, str]) -> str:
    """Which settings stand in the environment, which the unit does not have, and where to put them; empty if there are
    none.
    """
    left = sorted(name for name in environ if name.startswith("FLEETHUB_") and name not in RESERVED)
    if not left:
        return ""
    config = (
        settings.config if environ.get("FLEETHUB_STATE") or environ.get("FLEETHUB_CONFIG") else STATE / "fleethub.toml"
    )
    verb = "is set here, and is" if len(left) == 1 else "are set here, and are"
    return f"{', '.join(left)} {verb} not in the unit: put what they say into {config}"


def hub_unit(python: Path, settings: Settings, user: str, environ: Mapping[str, str]) -> str:
    """The unit's text for the installation of these settings; without FLEETHUB_STATE, of one in /var/lib/fleethub.

    Raises: Failure, if a path or the user's name cannot stand in it.
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
    """The unit's text. Raises: Failure, if a path cannot stand in it."""
    words = [str(python), "-P", "-m", "processes.agent", "--config", str(config)]
    return AGENT.format(command=" ".join(map(_word, words)))


def _word(word: str) -> str:
    """The word as systemd reads it back."""
    if any(ord(character) < 32 for character in word):
        raise Failure("bad_path", f"{word!r}: a unit cannot hold control characters", "Choose another place.")
    escaped = "".join(_ESCAPES.get(character, character) for character in word)
    return f'"{escaped}"' if escaped != word or " " in word or "'" in word or ";" in word else word
