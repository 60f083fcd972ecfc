"""The units of this machine's systemd: one of ours is written, enabled and started."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from processes.adapters.state import durable
from processes.core.errors import Failure

SYSTEMCTL_S_MAX: Final = 60.0  # of one call


class SystemdUnits(NamedTuple):
    """Where they are. `booted` is there if systemd runs this machine (sd_booted(3))."""

    folder: Path = Path("/etc/systemd/system")
    booted: Path = Path("/run/systemd/system")

    def check(self) -> None:
        """Refuse a server without systemd, or a user who may not install units. Raises: Failure."""
        if not self.booted.is_dir():
            advice = (
                "With --init in place of --install the agent's file is made: "
                "let whatever starts things here run fleethub agent --config FILE"
            )
            raise Failure("no_systemd", "this server is not run by systemd", advice)
        if not os.access(self.folder, os.W_OK):
            message = f"{self.folder} is not writable: --install is root's"
            raise Failure("not_root", message, "Run it as root, or leave out --install.")

    def install(self, name: str, text: str) -> None:
        """Write the unit, enable it and start it anew. Raises: Failure."""
        import subprocess  # noqa: PLC0415  # each verb loads this module, and this is a tenth of the start of `status`

        try:
            durable.replace(self.folder / name, text.encode(), mode=0o644)
        except OSError as error:
            raise Failure("no_unit", f"{self.folder / name}: {error.strerror or error}") from None
        for words in (["daemon-reload"], ["enable", name], ["restart", name]):  # one that runs gets the new token
            command = ["systemctl", *words]
            done = subprocess.run(  # noqa: S603
                command, capture_output=True, text=True, errors="replace", check=False, timeout=SYSTEMCTL_S_MAX
            )
            if done.returncode:
                why = done.stderr.strip() or done.returncode
                raise Failure("systemctl", f"{' '.join(command)}: {why}", f"journalctl -u {name}")
