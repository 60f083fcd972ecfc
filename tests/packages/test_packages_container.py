"""The steps of packages/Containerfile on a copy of this machine, and what they start as process 1: no engine is needed."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from doubles.deadline import WAIT_S, until
from doubles.documented import commands
from doubles.system import ENVIRON, Copy

from packages import program, tree

pytestmark = [
    pytest.mark.house,
    pytest.mark.skipif(
        not Path(f"/usr/bin/python{tree.PYTHON}").exists(), reason=f"no /usr/bin/python{tree.PYTHON} here"
    ),
]
PAGE = commands("packages.md", "A container")
STEPS = [
    (name, text)
    for line in (tree.HOME / "packages/Containerfile").read_text().splitlines()
    if line and not line.startswith("#")
    for name, _, text in [line.partition(" ")]
]
GIVEN = dict(STEPS)
# what an engine does with --read-only and a volume; $1: the volume
READ_ONLY = 'set -e; mount --bind "$1" "$1"; mount -t tmpfs tmpfs /tmp; mount -o remount,bind,ro /; shift; exec "$@"'


@pytest.fixture(scope="module")
def image() -> Iterator[Copy]:
    """A machine on which each step of the Containerfile was done, in order, by root as a build does."""
    make = PAGE[0]
    assert (make[0], make[-1]) == ("bin/package", "dist/tree")
    with Copy() as copy:
        for name, text in STEPS:
            if name == "COPY":
                assert text == "tree/ /"
                assert program.main([*make[1:-1], str(copy.root / "root/tree")]) == 0
                copy.said("cp", "--recursive", "--no-dereference", "/root/tree/.", "/")
            elif name == "RUN":
                copy.said("sh", "-c", text)
        yield copy


class Container:
    """Runs ENTRYPOINT and CMD as the image's user and as process 1, with the options of `podman run` on the page."""

    def __init__(self, image: Copy, *before: str) -> None:
        pairs = [text.split("=", 1) for name, text in STEPS if name == "ENV"]
        run = PAGE[2]
        given = [word.split("=", 1) for option, word in itertools.pairwise(run) if option == "-e"]
        self._image = image
        self._environ = {**ENVIRON, **dict(pairs), **dict(given)}
        self._become = ["setpriv", "--reuid", GIVEN["USER"], "--regid", GIVEN["USER"], "--init-groups"]
        own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        program = json.loads(GIVEN["ENTRYPOINT"]) + json.loads(GIVEN["CMD"])
        words = image.words(*own, *before, *self._become, *program, environ=self._environ)
        self.started = subprocess.Popen(words, stdin=subprocess.DEVNULL)

    def __enter__(self) -> Container:
        until(self.is_well, lambda: f"{self.exec('fleethub', 'status')}")
        return self

    def __exit__(self, *_: object) -> None:
        for each in psutil.Process(self.started.pid).children(recursive=True) if self.started.poll() is None else ():
            each.kill()
        self.started.wait(WAIT_S)

    @property
    def pid(self) -> int:
        """Process 1, as it is called outside; 0: it has not begun."""
        assert self.started.poll() is None, "the container has ended"
        for each in psutil.Process(self.started.pid).children(recursive=True):
            try:
                status = Path(f"/proc/{each.pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            if re.search(r"^NSpid:.*\t1$", status, re.MULTILINE):
                return int(each.pid)
        return 0

    def exec(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the container, as the image's user."""
        if not (pid := self.pid):
            return subprocess.CompletedProcess(words, 125, "", "it has not begun")
        pairs = [f"{name}={value}" for name, value in self._environ.items()]
        enter = ["nsenter", "--target", str(pid), "--all", "--root", *self._become, "env", "-i", *pairs]
        return subprocess.run([*enter, *words], capture_output=True, text=True, timeout=WAIT_S)

    def said(self, *words: str) -> str:
        """Return what a program of the container prints; it must succeed."""
        done = self.exec(*words)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def is_well(self) -> bool:
        """The image's health check, as an engine has it run."""
        return self.exec("sh", "-c", GIVEN["HEALTHCHECK"].partition(" CMD ")[2]).returncode == 0

    def zombies(self) -> list[int]:
        """The processes of the container that have ended and that nobody has waited for."""
        inside = psutil.Process(self.pid).children(recursive=True)
        return [each.pid for each in inside if each.is_running() and each.status() == psutil.STATUS_ZOMBIE]


def test_a_container_runs_as_a_user_of_its_own_reaps_ends_in_order_and_leaves_its_state_in_the_volume(
    image: Copy,
) -> None:
    """The bugs it would catch: a library or right that is missing, a zombie for each orphan, a kill in place of an end."""
    with Container(image) as first:
        until(lambda: json.loads(first.exec("fleethub", "status", "--json").stdout)["verdict"] == "ok")
        inside = [psutil.Process(first.pid), *psutil.Process(first.pid).children(recursive=True)]
        assert {each.uids().real for each in inside} == {7700}
        told = PAGE[3]
        assert told[:3] == ["podman", "exec", "fleethub"]
        assert "https://fleet.example.org/#code=" in first.said(*told[3:])
        first.said("fleethub", "enroll", "web1")
        first.said("setsid", "sh", "-c", "sleep 0.1 & exit")
        until(lambda: not [each for each in psutil.Process(first.pid).children() if each.name() == "sleep"])
        until(lambda: not first.zombies(), lambda: f"nobody waited for {first.zombies()}")
        os.kill(first.pid, signal.SIGTERM)
        assert first.started.wait(WAIT_S) == 0, "not ended by a signal"
    state = GIVEN["VOLUME"]
    assert shlex.quote(state) == state
    with Container(image, "sh", "-c", READ_ONLY, "sh", state) as other:
        assert "Read-only" in other.exec("touch", "/var/tmp/x").stderr
        hosts = json.loads(other.said("fleethub", "hosts", "--json"))["hosts"]
        assert [host["name"] for host in hosts] == ["web1"], "no agent of the container's own"
        other.said("fleethub", "stop", "hub")
        until(lambda: not other.is_well(), "its health check does not tell that nothing decides")
