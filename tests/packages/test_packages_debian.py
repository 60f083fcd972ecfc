"""The Debian package, and the agent from the one file, on a copy of this machine that its own systemd has booted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S, until
from doubles.documented import commands
from doubles.system import Booted

from packages import program, tree

pytestmark = [
    pytest.mark.house,
    pytest.mark.skipif(
        not Path(f"/usr/bin/python{tree.PYTHON}").exists(), reason=f"no /usr/bin/python{tree.PYTHON} here"
    ),
]
STATE = "/var/lib/fleethub"
LONG = """
[commands.long]
argv = ["sh", "-c", "echo begun; until [ -e /run/go ]; do sleep 0.1; done; echo ended"]
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A machine on which the package has just been installed, as docs/packages.md has it."""
    dist = tmp_path_factory.mktemp("deb")
    make, install, *_ = commands("packages.md", "Debian")
    assert (make[0], make[-1], install[:2]) == ("bin/package", "dist", ["apt", "install"])
    assert program.main([*make[1:-1], "--compression=none", str(dist)]) == 0
    package = dist / Path(install[-1]).name  # of the name that the page tells
    with Booted() as booted:
        (booted.root / "root" / package.name).write_bytes(package.read_bytes())
        booted.said("dpkg", "--no-triggers", "--force-unsafe-io", "--install", f"/root/{package.name}")
        yield booted


def fleethub(system: Booted, *words: str) -> str:
    """Return what the command line says to the hub's own user."""
    return system.said("fleethub", *words, user="fleethub")


def test_the_package_runs_the_hub_under_systemd_as_a_user_of_its_own(system: Booted) -> None:
    """The bug it would catch: a file that is missing, a path of the builder's, a hardening that stops something."""
    assert system.said("systemctl", "is-active", "fleethub") == "active\n", "it notified that it is ready"
    assert system.said("systemctl", "is-enabled", "fleethub") == "enabled\n"
    assert json.loads(fleethub(system, "status", "--json"))["verdict"] == "ok"
    assert "fleethub is enabled" in system.run("fleethub", "doctor", user="fleethub").stdout.replace(".service", "")
    users = system.said("ps", "-o", "user=", "-C", "python").split()
    assert set(users) == {"fleethub"}
    modes = system.said("stat", "--format=%A %U %G", STATE, "/etc/fleethub", "/etc/fleethub/fleethub.toml")
    assert modes.splitlines() == [
        "drwx------ fleethub fleethub",
        "drwxr-x--- root fleethub",
        "-rw-r----- root fleethub",
    ]
    assert system.said("readlink", "--canonicalize", f"{STATE}/fleethub.toml") == "/etc/fleethub/fleethub.toml\n"
    written = system.run("sh", "-c", "echo x >> /usr/lib/fleethub/pyvenv.cfg", user="fleethub")
    assert "Permission denied" in written.stderr


def test_what_the_page_tells_to_type_next_says_how_it_is_and_prints_a_link(system: Booted) -> None:
    told = commands("packages.md", "Debian")[2:]
    assert [words[:3] for words in told] == [["sudo", "-u", "fleethub"]] * 2
    status, up = (system.said(*words[3:], user=words[2]) for words in told)
    assert status.startswith("ok")
    assert "http://127.0.0.1:7700/#code=" in up


@pytest.fixture(scope="module")
def host(system: Booted) -> str:
    """The machine's own agent, from the one file, as its user types it."""
    code = json.loads(fleethub(system, "enroll", "web1", "--code", "--json"))["code"]
    line = f"set -e; curl -fsS http://127.0.0.1:7700/agent > /root/agent; sh /root/agent --code {code}"
    assert "web1 runs, now and after each boot" in system.said("sh", "-c", line)
    return "web1"


def test_systemd_finds_no_fault_with_either_unit(system: Booted, host: str) -> None:
    done = system.run("systemd-analyze", "verify", "--man=no", "fleethub.service", "fleethub-agent.service")
    assert (done.returncode, [line for line in done.stderr.splitlines() if "fleethub" in line]) == (0, [])


def test_a_command_of_the_agent_outlives_systemctl_restart(system: Booted, host: str) -> None:
    """What the unit's KillMode is for, by systemd itself."""
    with (system.root / "var/lib/fleethub-agent/agent.toml").open("a") as file:
        file.write(LONG)
    system.said("systemctl", "restart", "fleethub-agent")
    until(lambda: "long" in fleethub(system, "host", host, "--json"))
    with subprocess.Popen(
        system.words("fleethub", "run", "long", host, user="fleethub"), stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == f"{host} | begun\n"
        before = system.said("systemctl", "show", "--property=MainPID", "fleethub-agent")
        system.said("systemctl", "restart", "fleethub-agent")
        assert system.said("systemctl", "show", "--property=MainPID", "fleethub-agent") != before
        (system.root / "run/go").touch()
        assert run.communicate(timeout=WAIT_S)[0].splitlines()[0] == f"{host} | ended"
    assert run.returncode == 0


@pytest.fixture(scope="module")
def newer(system: Booted, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path, on the machine, of a newer version of the package."""
    room = tmp_path_factory.mktemp("newer")
    (older,) = (system.root / "root").glob("fleethub_*.deb")
    subprocess.run(["dpkg-deb", "--raw-extract", older, room / "root"], check=True)
    control = room / "root/DEBIAN/control"
    text = control.read_text()
    assert "-1\n" in text
    control.write_text(text.replace("-1\n", "-2\n", 1))
    (room / "root/usr/share/doc/fleethub/README.md").write_text("newer\n")
    words = ["dpkg-deb", "-Znone", "--root-owner-group", "--build"]
    subprocess.run([*words, room / "root", system.root / "root/newer.deb"], check=True, stdout=subprocess.DEVNULL)
    return "/root/newer.deb"


def pids(system: Booted) -> set[str]:
    """The hub's processes."""
    return set(system.said("ps", "-u", "fleethub", "-o", "pid=").split())


def test_a_newer_version_replaces_the_processes_and_loses_neither_state_nor_agent_nor_command(
    system: Booted, host: str, newer: str
) -> None:
    """What `apt upgrade` does while the unit runs, a command is under way and an administrator has changed settings."""
    settings = system.root / "etc/fleethub/fleethub.toml"
    settings.write_text(settings.read_text() + "\n# ours\n")
    (system.root / "run/go").unlink(missing_ok=True)
    fleethub(system, "run", "uptime", host)
    commands = fleethub(system, "commands", "--json")
    begun = fleethub(system, "run", "long", host, "--no-wait", "--json")
    command = json.loads(begun)["commands"][0]["id"]
    until(lambda: json.loads(fleethub(system, "command", command, "--json"))["state"] == "running")
    agent, before = system.said("systemctl", "show", "--property=MainPID", "fleethub-agent"), pids(system)

    system.said("dpkg", "--no-triggers", "--force-unsafe-io", "--install", newer)

    assert system.said("dpkg-query", "--show", "--showformat=${Version}", "fleethub").endswith("-2")
    assert system.said("systemctl", "is-active", "fleethub") == "active\n"
    assert not pids(system) & before, "each of them is of the newer version"
    assert settings.read_text().endswith("# ours\n")
    until(lambda: json.loads(fleethub(system, "host", host, "--json"))["presence"] == "online")
    assert system.said("systemctl", "show", "--property=MainPID", "fleethub-agent") == agent, "it only connected again"
    (system.root / "run/go").touch()
    until(lambda: json.loads(fleethub(system, "command", command, "--json"))["state"] == "succeeded")
    for known in json.loads(commands)["commands"]:
        assert json.loads(fleethub(system, "command", known["id"], "--json"))["state"] == known["state"]
    assert json.loads(fleethub(system, "status", "--json"))["verdict"] == "ok"


def test_a_version_is_installed_where_an_administrator_has_removed_the_settings(system: Booted, newer: str) -> None:
    settings = system.root / "etc/fleethub/fleethub.toml"
    kept = settings.read_text()
    settings.unlink()
    system.said("dpkg", "--no-triggers", "--force-unsafe-io", "--install", newer)
    assert not settings.exists(), "what an administrator removes stays so"
    assert system.said("systemctl", "is-active", "fleethub") == "active\n", "it runs by its defaults"
    settings.write_text(kept)


def test_removed_it_leaves_settings_and_state_and_purged_nothing(system: Booted) -> None:
    assert "operators" in (system.root / "etc/fleethub/fleethub.toml").read_text()
    system.said("dpkg", "--no-triggers", "--force-unsafe-io", "--remove", "fleethub")
    assert system.run("ps", "-u", "fleethub", "-o", "args=").stdout == "", "the hub does not run without its files"
    assert not (system.root / "usr/lib/fleethub").exists()
    kept = ("etc/fleethub/fleethub.toml", "var/lib/fleethub/fleet.db")
    assert [name for name in kept if not (system.root / name).exists()] == []
    system.said("dpkg", "--no-triggers", "--purge", "fleethub")
    folders = (
        "etc",
        "etc/systemd/system/multi-user.target.wants",
        "usr/bin",
        "usr/lib",
        "var/lib",
        "usr/lib/systemd/system",
    )
    left = [path for name in folders for path in (system.root / name).glob("fleethub*")]
    assert [path.name for path in left if not path.name.startswith("fleethub-agent")] == []
    assert "no such user" in system.run("id", "fleethub").stderr
