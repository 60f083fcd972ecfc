"""The image of packages/Containerfile, built and run by podman without a network, as a user of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
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
            ours = ("--network=none", "--pull=never", "--layers=false", "--build-arg=BASE=localhost/base")
            podman.said("build", *ours, *build[2:-1], room)
        finally:
            shutil.rmtree(room)
        yield podman


def test_a_container_is_well_by_its_own_health_check_keeps_its_state_and_ends_in_order(podman: Podman) -> None:
    """The bugs it would catch: a library that is missing, a state that is not the volume's, zombies, a stop by SIGKILL."""
    with_state = "--volume=state:/var/lib/fleethub"
    name = podman.start(IMAGE, with_state, "--read-only", "--stop-timeout=30")
    until(lambda: podman.run("healthcheck", "run", name).returncode == 0, lambda: podman.run("logs", name).stderr)
    status = json.loads(podman.said("exec", name, "fleethub", "status", "--json"))
    assert status["verdict"] == "ok"
    assert podman.said("exec", name, "python3", "-c", "import os; print(os.getuid())") == "7700\n"
    podman.said("exec", name, "fleethub", "enroll", "web1")
    podman.said("exec", name, "setsid", "sh", "-c", "sleep 0.1 & exit")
    listed = "import psutil; print([p.pid for p in psutil.process_iter() if p.status() == psutil.STATUS_ZOMBIE])"
    until(lambda: podman.said("exec", name, "python3", "-c", listed) == "[]\n")
    podman.said("stop", name)
    assert podman.said("inspect", "--format={{.State.ExitCode}}", name) == "0\n", "not killed"
    other = podman.start(IMAGE, with_state)
    until(lambda: podman.run("healthcheck", "run", other).returncode == 0)
    hosts = json.loads(podman.said("exec", other, "fleethub", "hosts", "--json"))["hosts"]
    assert [host["name"] for host in hosts] == ["web1"]


def test_run_as_the_page_tells_it_prints_a_sign_in_link(podman: Podman) -> None:
    """(But for the ports: the machine's network is left alone.)"""
    run, link = PAGE[2:]
    assert run[:3] == ["podman", "run", "-d"]
    assert run[-1] == "fleethub"
    without = [at for at, word in enumerate(run) if "-p" in (word, run[at - 1])]
    options = [word for at, word in enumerate(run) if at not in without][3:-1]
    name = podman.start(IMAGE, *options)
    assert link[:3] == ["podman", "exec", "fleethub"]
    until(lambda: podman.run("exec", name, *link[3:]).returncode == 0, lambda: podman.run("logs", name).stderr)
    assert "https://fleet.example.org/#code=" in podman.said("exec", name, *link[3:])


def test_the_health_check_fails_of_a_hub_that_is_stopped(podman: Podman) -> None:
    name = podman.start(IMAGE)
    until(lambda: podman.run("healthcheck", "run", name).returncode == 0)
    podman.said("exec", name, "fleethub", "stop", "hub")
    until(lambda: podman.run("healthcheck", "run", name).returncode == 1)


def test_what_the_recipe_says_of_health_is_in_the_image(podman: Podman) -> None:
    found = json.loads(podman.said("inspect", "--type=image", IMAGE))[0]
    assert found["HealthCheck"]["Test"][0] == "CMD-SHELL"
    assert subprocess.run(["sh", "-n", "-c", found["HealthCheck"]["Test"][1]]).returncode == 0
