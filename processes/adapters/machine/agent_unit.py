"""The systemd unit of a server's agent, whose commands live on while the agent is restarted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from processes.core.errors import Failure

UNIT: Final = "fleethub-agent.service"
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
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"}  # systemd.service(5): quotes, specifiers, variables


def agent_unit(program: Sequence[str], config: Path) -> str:
    """Return the text of an agent's unit. `program`: what runs the agent, before `--config`.

    Raises: Failure, if a path cannot stand in a unit.
    """
    return AGENT.format(command=" ".join(map(unit_word, [*program, "--config", str(config)])), path=PATH)


def unit_word(word: str) -> str:
    """Return the word, quoted so that systemd reads it back as it is."""
    if any(ord(character) < 32 for character in word):
        raise Failure("bad_path", f"{word!r}: a unit cannot hold control characters", "Choose another place.")
    escaped = "".join(_ESCAPES.get(character, character) for character in word)
    return f'"{escaped}"' if escaped != word or " " in word or "'" in word or ";" in word else word
