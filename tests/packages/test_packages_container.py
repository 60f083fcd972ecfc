"""The image of packages/Containerfile, built and run by podman without a network, as a user of its own."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.deadline import until
from doubles.documented import commands
from doubles.image import Podman

from packages import program, tree

pytestmark = [
    pytest.mark.house,
    pytest.mark.skipif(
        not Path(f"/usr/bin/python{tree.PYTHON}").exists(), reason=f"no /usr/bin/python{tree.PYTHON} here"
    ),
]
PAGE = commands("packages.md", "A container")
IMAGE = "localhost/fleethub"


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """A storage in which the image was built as docs/packages.md has it."""
    with Podman() as podman:
        podman.base("localhost/base")
        room = tmp_path_factory.mktemp("dist")
        make, build, *_ = PAGE
        assert (make[0], make[-1], build[:2], build[-1]) == ("bin/package", "dist/tree", ["podman", "build"], "dist")
        try:
            assert program.main([*make[1:-1], str(room / "tree")]) == 0
            recipe = build.index("-f") + 1
            build[recipe] = str(tree.HOME / build[recipe])
            ours = ("--isolation=chroot", "--pull=never", "--layers=false", "--build-arg=BASE=localhost/base")
            podman.said("build", *ours, *build[2:-1], room)
        finally:
            shutil.rmtree(room)
        yield podman


def is_well(podman: Podman, name: str) -> bool:
    """The image's health check, as podman runs it."""
    return podman.run("healthcheck", "run", name).returncode == 0


@pytest.fixture(scope="module")
def container(podman: Podman) -> str:
    """One that was started as the page tells it (but for the ports: the machine's network is left alone)."""
    run = PAGE[2]
    assert run[:3] == ["podman", "run", "-d"]
    options = [word for before, word in itertools.pairwise(run) if "-p" not in (before, word)][2:-1]
    name = podman.start(IMAGE, *options)
    until(lambda: is_well(podman, name), lambda: podman.run("logs", name).stderr)
    return name


def test_run_as_the_page_tells_it_is_well_as_a_user_of_its_own_and_prints_a_sign_in_link(
    podman: Podman, container: str
) -> None:
    """The bug it would catch: a library that is missing, a folder that is not the user's."""
    assert json.loads(podman.said("exec", container, "fleethub", "status", "--json"))["verdict"] == "ok"
    assert podman.said("exec", container, "python3", "-c", "import os; print(os.getuid())") == "7700\n"
    link = PAGE[3]
    assert link[:3] == ["podman", "exec", "fleethub"]
    assert "https://fleet.example.org/#code=" in podman.said("exec", container, *link[3:])


def test_a_container_reaps_what_others_leave_ends_in_order_and_its_state_is_the_volumes(
    podman: Podman, container: str
) -> None:
    podman.said("exec", container, "fleethub", "enroll", "web1")
    podman.said("exec", container, "setsid", "sh", "-c", "sleep 0.1 & exit")
    listed = "import psutil; print([p.pid for p in psutil.process_iter() if p.status() == psutil.STATUS_ZOMBIE])"
    until(lambda: podman.said("exec", container, "python3", "-c", listed) == "[]\n")
    podman.said("stop", container)
    assert podman.said("inspect", "--format={{.State.ExitCode}}", container) == "0\n", "not killed"
    other = podman.start(IMAGE, "--volume=fleethub:/var/lib/fleethub", "--read-only", "--tmpfs=/tmp")
    until(lambda: is_well(podman, other), lambda: podman.run("logs", other).stderr)
    hosts = json.loads(podman.said("exec", other, "fleethub", "hosts", "--json"))["hosts"]
    assert "web1" in [host["name"] for host in hosts], "beside the container itself"
    podman.said("exec", other, "fleethub", "stop", "hub")
    until(lambda: not is_well(podman, other))
