"""`systemd-unit --agent`: a unit for an agent, under which the commands that it runs live on while it is restarted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from processes.cli.failure import Failure

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

# Hardening, as far as commands do not feel it: they inherit all that stands here, and a `switch` must be able to change the system.
# Nothing here may take a folder away when the agent stops (PrivateTmp=, RuntimeDirectory=): its commands would lose it in the middle.
UMask=0077
LimitCORE=0
RestrictRealtime=yes
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
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"}  # systemd.service(5): quotes, specifiers, variables


@click.command("systemd-unit")
@click.option("--agent", "agent", is_flag=True, required=True, help="The unit of one server's agent.")
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), default=Path("/etc/fleethub/agent.toml"), show_default=True,
    help="The agent's file.",
)  # fmt: skip
def systemd_unit(agent: bool, config: Path) -> None:
    """Print a unit for systemd, to be saved on the server that is meant."""
    print(agent_unit(Path(sys.executable).absolute(), config.absolute()), end="")


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
