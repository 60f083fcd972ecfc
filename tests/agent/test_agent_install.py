"""What the file of GET /agent does on a server once it has its Python: the program is put there, and named last."""

from __future__ import annotations

import argparse
import io
import os
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S

from processes.adapters.machine.systemd_units import SystemdUnits
from processes.agent import __main__ as agent
from processes.agent import install, unpack

HUB = "wss://fleet.example.org:7701/ws"
NOBODYS = SystemdUnits(Path("/nowhere"), Path("/nowhere"))  # a server without systemd
LIB = f"lib{sysconfig.get_config_var('EXT_SUFFIX')}"
RUNS = "def main(arguments):\n    import its_library\n    return 0\n"


def archive(program: str = RUNS, **more: str) -> bytes:
    """What a file carries: a program that can be tried, and its library."""
    members = {
        "processes/__init__.py": "", "processes/agent/__init__.py": "", "processes/agent/install.py": program,
        f"{LIB}/its_library.py": "", "lib.another-python.so/its_library.py": "1 / 0", "requirements.txt": "none==1",
    }  # fmt: skip
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in (members | more).items():
            file.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def put(folder: Path, content: bytes, wheels: Path | None = None) -> Path:
    """Puts the program there in a process of its own, as the file does: it holds a lock until its end.

    Raises: SystemExit, with what it said.
    """
    code = (
        "import os, sys; from pathlib import Path; from processes.agent import unpack; os.umask(int(sys.argv[3]))\n"
        "print('put:', unpack.put(Path(sys.argv[1]), sys.stdin.buffer.read(), sys.argv[2] or None))"
    )
    words = [sys.executable, "-c", code, str(folder), str(wheels or ""), "0"]
    environ = {**os.environ, "PYTHONPATH": str(Path(install.__file__).resolve().parents[2]), "PIP_NO_INDEX": "1"}
    done = subprocess.run(words, input=content, capture_output=True, check=False, env=environ, timeout=WAIT_S)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    return Path(done.stdout.decode().partition("put: ")[2].strip())


def named(folder: Path) -> list[str]:
    """The programs, whole or not."""
    return sorted(path.name for path in (folder / "programs").iterdir())


def test_a_program_is_put_there_whole_with_the_library_of_this_python_and_found_again(tmp_path: Path) -> None:
    program = put(tmp_path, archive())
    assert named(tmp_path) == [program.name]
    assert program.name.endswith(f"-python{sys.version_info[0]}.{sys.version_info[1]}")
    assert (program / "lib" / "its_library.py").read_text() == ""
    assert not list(program.glob("lib.*")), "what was carried for another Python is not unpacked"
    words = [sys.executable, "-I", "-B", str(program / "start.py"), "install"]
    assert subprocess.run(words, check=False).returncode == 0
    (program / "mark").touch()
    assert put(tmp_path, archive()) == program
    assert (program / "mark").exists(), "it is not made a second time"
    assert put(tmp_path, archive(mark="another version")) != program
    assert len(named(tmp_path)) == 2, "what runs stays beside it"


def test_what_died_while_it_was_unpacked_is_removed_and_never_named(tmp_path: Path) -> None:
    left = tmp_path / "programs" / ".new-1"
    left.mkdir(parents=True)
    (left / "start.py").touch()
    program = put(tmp_path, archive())
    assert named(tmp_path) == [program.name]


def test_a_program_that_does_not_run_here_is_not_named_and_says_why(tmp_path: Path) -> None:
    """Its own library fails, so pip is asked; without an index it has none."""
    before = put(tmp_path, archive())
    with pytest.raises(SystemExit, match="Nothing was changed") as ended:
        put(tmp_path, archive("import nothing_of_the_kind"))
    assert "--wheels FOLDER" in str(ended.value)
    assert [name for name in named(tmp_path) if not name.startswith(".")] == [before.name]


def test_a_program_that_was_made_for_another_python_says_so(tmp_path: Path) -> None:
    text = unpack.START.format(python=(3, 8))
    (tmp_path / "start.py").write_text(text)
    done = subprocess.run([sys.executable, tmp_path / "start.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "its libraries are for Python 3.8" in done.stderr
    assert "install it again" in done.stderr


def test_without_a_code_a_folder_that_holds_no_agent_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    with pytest.raises(SystemExit, match="give --code CODE"):
        unpack.main(["--folder", str(folder)], payload="", hub=HUB, version="1")
    assert not folder.exists()


def test_the_folder_and_what_is_named_are_absolute_wherever_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = unpack.parsed(["--folder", "here", "--ca-file", "ca.pem", "--wheels", "w"], HUB, "1")
    assert (found.folder, found.ca_file, found.wheels) == (
        tmp_path / "here", str(tmp_path / "ca.pem"), str(tmp_path / "w")
    )  # fmt: skip
    usual: argparse.Namespace = unpack.parsed([], HUB, "1")
    assert usual.folder.is_absolute()
    assert (usual.insecure, usual.no_service, usual.code) == (False, False, None)


class Server:
    """A server whose agent is there, or not yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "programs" / "newest"
        for name in (self.program.name, "older", "oldest", ".new-7"):
            (folder / "programs" / name).mkdir(parents=True)

    def enrolled(self) -> None:
        """It has a file, to which its operator has added something, and a token."""
        self.file.write_text(f'# mine\nhub = "{HUB}"\nname = "web1"\nheartbeat_s = 7\n')
        (self.folder / "agent.token").write_text("t0k\n")
        (self.folder / "agent.token").chmod(0o600)

    @property
    def file(self) -> Path:
        return self.folder / "agent.toml"

    def install(self, *words: str, units: SystemdUnits = NOBODYS) -> int:
        return install.main(["--folder", str(self.folder), "--hub-of-file", HUB, *words], units)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """What runs here is the program that was just put there."""
    found = Server(tmp_path)
    monkeypatch.setattr(agent, "__file__", str(found.program / "processes" / "agent" / "__main__.py"))
    return found


def test_a_new_program_is_named_by_one_link_and_the_one_before_it_stays(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.enrolled()
    before = server.file.read_bytes()
    (server.folder / "program").symlink_to("programs/older")
    assert server.install() == 0
    assert os.readlink(server.folder / "program") == f"programs/{server.program.name}"
    assert named(server.folder) == sorted([".new-7", server.program.name, "older"])
    assert server.file.read_bytes() == before
    told = capsys.readouterr().out
    assert "web1 is ready" in told
    assert f"-I {server.folder}/program/start.py --config {server.file}" in told


def test_another_hub_changes_its_line_of_the_file_alone(server: Server) -> None:
    server.enrolled()
    assert server.install("--hub", "wss://new.example.org:7701") == 0
    assert server.file.read_text() == '# mine\nhub = "wss://new.example.org:7701/ws"\nname = "web1"\nheartbeat_s = 7\n'


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ([], "holds no agent yet", 2),
        (["--code", "other:secret"], "is the file of web1, not of other", 2),
        (["--hub", "http://fleet.example.org"], "looks like wss://", 2),
        (["--hub", "ws://fleet.example.org:7701/ws"], "has no TLS", 2),
        (["--code", "nonsense"], "code", 2),
    ],
)
def test_what_cannot_be_is_refused_and_no_program_is_named(
    server: Server, words: list[str], said: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    if words:
        server.enrolled()
    assert server.install(*words) == code
    assert said in capsys.readouterr().err
    assert not (server.folder / "program").exists()
    assert len(named(server.folder)) == 4, "nothing is removed before the new one is named"


def test_a_plain_hub_elsewhere_is_dialled_by_whoever_says_that_something_else_encrypts(server: Server) -> None:
    server.enrolled()
    assert server.install("--hub", "ws://fleet.example.org:7701/ws", "--insecure") == 0
    assert 'hub = "ws://fleet.example.org:7701/ws"' in server.file.read_text()


def test_a_file_that_the_agent_would_not_take_keeps_the_program_that_runs(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.enrolled()
    server.file.write_text(server.file.read_text() + "heartbeat = 3\n")
    assert server.install() != 0
    assert "Mend it" in capsys.readouterr().err
    assert not (server.folder / "program").exists()


def test_as_root_under_systemd_it_becomes_a_unit_that_runs_what_the_link_names(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.enrolled()
    units = SystemdUnits(tmp_path / "units", tmp_path / "booted")
    for folder in units:
        folder.mkdir()
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert server.install("--no-service", units=units) == 0
    assert not list(units.folder.iterdir())
    assert server.install(units=units) == 0
    (unit,) = units.folder.iterdir()
    assert f"{server.folder}/program/start.py --config {server.file}" in unit.read_text()
    assert (tmp_path / "asked").read_text().splitlines()[-1] == f"restart {unit.name}"


def test_to_try_a_program_changes_nothing(tmp_path: Path) -> None:
    assert install.main(["--check"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_programs_is_this_users_alone_under_whatever_umask(tmp_path: Path) -> None:
    put(tmp_path, archive())
    assert stat.S_IMODE((tmp_path / "programs").stat().st_mode) == 0o700
