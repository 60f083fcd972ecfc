"""The wheel, installed into an environment of its own, outside of any checkout: it brings all that it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from doubles.api_server import host, running
from doubles.house import free_port

HOME = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.house


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, by the build backend itself."""
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=HOME, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `fleethub` of a fresh environment: the wheel's files are its own, the dependencies are borrowed from ours."""
    place = tmp_path_factory.mktemp("venv")
    venv.create(place)
    python = place / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--disable-pip-version-check"]
    installed = [*pip, "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(installed, check=True, timeout=120)
    found = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], capture_output=True, text=True
    )
    (Path(found.stdout.strip()) / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return place / "bin" / "fleethub"


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}
    with tempfile.TemporaryDirectory(prefix="fh") as state:
        listens = {f"FLEETHUB_{name}_LISTEN": f"127.0.0.1:{free_port()}" for name in ("OPERATORS", "AGENTS")}
        yield {**clean, "FLEETHUB_STATE": f"{state}/st", **listens}


def test_the_wheel_holds_the_page_the_processes_file_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    page = {
        f"processes/fanout/page/{path.name}" for path in (HOME / "processes/fanout/page").iterdir() if path.is_file()
    }
    assert page
    assert page <= names
    assert "processes/supervisord.conf" in names
    assert not any(name.startswith(("tests/", "bin/")) for name in names)


def test_a_program_in_an_environment_of_its_own_uses_the_typed_client(program: Path, tmp_path: Path) -> None:
    """The bug it would catch: `import fleethub` fails, has no types, or loads what only the command line needs."""
    (tmp_path / "token").write_text("secret\n")
    code = """
import sys
import fleethub
from importlib.resources import files
heavy = {name for name in sys.modules if name.split(".")[0] in ("click", "rich", "uvloop", "httpx")}
ours = {".".join(name.split(".")[:2]) for name in sys.modules} & {"processes.fanout", "processes.cli", "processes.hub"}
assert (files("fleethub") / "py.typed").is_file()
assert (files("processes") / "py.typed").is_file()
assert not heavy | ours, heavy | ours
from pathlib import Path
with fleethub.open_remote(sys.argv[1], Path(sys.argv[2])) as api:
    try:
        api.host("web1")
        print([host.name for host in api.hosts({"presence": "online"})])
        api.run("r9")
    except fleethub.Refused as refused:
        print(refused.status, refused.code, refused.retry_after_s)
"""
    with running() as server:
        server.on("GET", "/api/v1/hosts", (200, {"hosts": [host("web9")]}))
        words = [str(program.with_name("python")), "-I", "-c", code, server.url, str(tmp_path / "token")]
        done = subprocess.run(words, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert (done.stdout, done.stderr) == ("['web9']\n404 not_found None\n", "")


def test_up_in_an_environment_of_its_own_runs_the_installed_package(program: Path, environ: dict[str, str]) -> None:
    def verb(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(program), *words], env=environ, cwd="/", capture_output=True, text=True, timeout=120)

    try:
        done = verb("up")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"http://{environ['FLEETHUB_OPERATORS_LISTEN']}/#code=")
        report = json.loads(verb("status", "--json").stdout)
        assert {process["verdict"] for process in report["processes"]} == {"advancing"}
        for process in report["processes"]:
            words = Path("/proc", str(process["pid"]), "cmdline").read_bytes().split(b"\0")
            assert words[0].decode() == str(program.with_name("python")), process["name"]
        for path in ("/", "/app.js", "/style.css"):
            assert httpx.get(f"http://{environ['FLEETHUB_OPERATORS_LISTEN']}{path}").status_code == 200
        assert verb("man").stdout.startswith(".TH FLEETHUB 1")
        assert json.loads(verb("hosts", "--json").stdout)["hosts"][0]["presence"] == "online"
    finally:
        assert verb("down").returncode == 0


def test_installed_the_state_is_below_var_lib_and_what_cannot_be_written_is_said(
    program: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    words = [
        str(program.with_name("python")),
        "-c",
        "from processes.adapters import settings; print(settings.default_state())",
    ]
    assert subprocess.run(words, cwd="/", capture_output=True, text=True, timeout=60).stdout == "/var/lib/fleethub\n"
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [str(program), "up"],
        env={**environ, "FLEETHUB_STATE": str(tmp_path / "file" / "st")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (1, 78)
    assert "Not a directory" in done.stderr
    assert "Set FLEETHUB_STATE" in done.stderr
    assert "Traceback" not in done.stderr
