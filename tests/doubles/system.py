"""This machine's own system as a copy that may be changed: an overlay, on which nothing is kept. For tests by root.

`Copy` runs single programs in it, as a container does: with processes, a network and mounts of their own. `Booted` boots
it with its own systemd, as a container of systemd-nspawn.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil
import pytest
from doubles.deadline import WAIT_S, until

ENVIRON = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb", "LC_ALL": "C.UTF-8"}
SIZE = "1g"
RUN_S_MAX = 5 * WAIT_S  # of one program: dpkg writes 4,000 files and starts a hub
# the machine's /tmp may be huge, and what stands in its units is not to be started
OVERLAY = """
set -e
mount --make-rprivate /
mount -t tmpfs -o size={size},mode=755 system {room}
mkdir -p {room}/upper/etc/systemd {room}/work {room}/root
mount -t overlay overlay -o lowerdir=/,upperdir={room}/upper,workdir={room}/work {room}/root
rm -rf {room}/root/etc/systemd/system {room}/root/usr/sbin/policy-rc.d {room}/root/var/lib/fleethub*
mkdir {room}/root/etc/systemd/system
"""
HOLD = "mount --rbind /dev {room}/root/dev; mount -t tmpfs tmpfs {room}/root/tmp; ip link set lo up; exec chroot {room}/root sleep infinity"
# a reboot clears that folder away, and nspawn refuses that on what is no tmpfs. 133: it is to be booted again
BOOT = (
    "mkdir -p /run/systemd/nspawn; mount -t tmpfs tmpfs /run/systemd/nspawn; code=133;"
    " while [ $code = 133 ]; do code=0; systemd-nspawn --quiet --directory={room}/root --private-network --register=no --keep-unit --settings=no"
    " --console=pipe --machine={name} --resolv-conf=off --timezone=off --link-journal=no --boot"
    " systemd.mask=systemd-timesyncd.service systemd.mask=systemd-networkd-wait-online.service"
    " || code=$?; done"
)


class System:
    """A copy that runs: its first process is known, and programs are started beside it."""

    def __init__(self, rest: str, own: Sequence[str]) -> None:
        """`rest`: what the script does after the overlay; `own`: unshare's options, beside --mount."""
        if os.geteuid() != 0:
            pytest.skip("only root can make an overlay of this machine's system")
        self._room = Path(tempfile.mkdtemp(prefix="fh"))
        self._log = Path(tempfile.mkstemp(prefix="fh-system")[1])
        script = (OVERLAY + rest).format(size=SIZE, room=self._room, name=self._room.name.replace("_", "-"))
        with self._log.open("wb") as log:
            self._started = subprocess.Popen(
                ["unshare", "--mount", *own, "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pid = 0

    @property
    def root(self) -> Path:
        """The copy's root, as it is seen from outside."""
        return Path(f"/proc/{self.pid}/root")

    @property
    def log(self) -> str:
        """What the copy's first process has printed."""
        return self._log.read_text(errors="replace")

    def ended(self) -> bool:
        """Fail if what was started has ended."""
        assert self._started.poll() is None, self.log
        return False

    def find(self, name: str) -> int:
        """Return the pid of the process of this name that was started, or that it has started; 0: none yet."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._started.pid)
            for each in (process, *process.children(recursive=True)):
                if each.name() == name:
                    return int(each.pid)
        return 0

    def words(self, *words: str, user: str = "root", environ: Mapping[str, str] = ENVIRON) -> list[str]:
        """Return the words that run a program in the copy."""
        pairs = [f"{name}={value}" for name, value in environ.items()]
        become = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        return ["nsenter", "--target", str(self.pid), "--all", "--root", *become, "env", "-i", *pairs, *words]

    def run(
        self, *words: str, user: str = "root", environ: Mapping[str, str] = ENVIRON
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the copy to its end."""
        return subprocess.run(
            self.words(*words, user=user, environ=environ), capture_output=True, text=True, timeout=RUN_S_MAX,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def said(self, *words: str, user: str = "root") -> str:
        """Return what a program of the copy prints; it must succeed."""
        done = self.run(*words, user=user)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)  # its process 1: the kernel ends all others with it
        if self._started.poll() is None and not self.pid:
            for each in (*psutil.Process(self._started.pid).children(recursive=True), self._started):
                each.kill()
        self._started.wait(WAIT_S)
        shutil.rmtree(self._room)
        self._log.unlink()


class Copy(System):
    """A copy in which nothing runs but what the test starts."""

    def __init__(self) -> None:
        super().__init__(HOLD, ["--net", "--uts", "--ipc"])

    def __enter__(self) -> Copy:
        until(lambda: self.find("sleep") or self.ended())
        self.pid = self.find("sleep")
        return self


class Booted(System):
    """A copy that its own systemd has booted."""

    def __init__(self) -> None:
        if shutil.which("systemd-nspawn") is None:
            pytest.skip("systemd-nspawn is not installed: apt-get install systemd-container")
        super().__init__(BOOT, [])

    def __enter__(self) -> Booted:
        try:
            self._boots()
        except AssertionError as error:  # nothing of ours runs yet: this machine lets no system be booted
            self.__exit__()
            pytest.skip(f"no copy of this machine can be booted here: {error}")
        return self

    def _boots(self) -> None:
        until(lambda: self.find("systemd") or self.ended())
        self.pid = self.find("systemd")
        until(
            lambda: self.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"),
            lambda: self.log,
        )
