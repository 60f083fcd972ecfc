"""Puts an agent's program on a server: the first step of the file that a hub serves as /agent.

That file holds this module's text and calls `main` with what it carries: the agent's modules, a hub's own libraries,
and a list of pinned ones. So here is the standard library alone, and no import of ours. The program is made beside what
runs, tried, and only then given its name; whatever dies before leaves a folder that the next try removes. What follows
(the code's exchange, the agent's file, the unit) is install.py, out of the program that was put there.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

PIP_S_MAX = 600.0  # for the libraries; guess: a slow index
CHECK_S_MAX = 120.0
START = """\
\"\"\"Runs the agent that is beside this file: start.py --config FILE. Made by the file of a fleethub.\"\"\"

import os
import sys

made_for = {python!r}
if sys.version_info[:2] != made_for:
    sys.exit("fleethub agent: its libraries are for Python %d.%d, and this is %d.%d: install it again, with the line "
             "that `fleethub enroll NAME --code` prints" % (made_for + sys.version_info[:2]))
here = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [here, os.path.join(here, "lib")]
if sys.argv[1:2] == ["install"]:
    from processes.agent.install import main
else:
    from processes.agent.__main__ import main
sys.exit(main(sys.argv[2 if sys.argv[1:2] == ["install"] else 1:]))
"""


def main(arguments: list[str], *, payload: str, hub: str, version: str) -> None:
    """Put the program there and go on with its own install. `payload`: a zip in base64; `hub`: what agents dial."""
    os.umask(0o077)
    options = parsed(arguments, hub, version)
    if not options.code and not (options.folder / "agent.toml").exists():
        sys.exit(
            f"fleethub agent: {options.folder} holds no agent yet: give --code CODE; "
            "`fleethub enroll NAME --code` on the hub prints one"
        )
    archive = base64.b64decode(payload)
    try:
        program = put(options.folder, archive, options.wheels)
    except (OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
        sys.exit(f"fleethub agent: {options.folder}: {error}")
    words = ["--folder", str(options.folder), "--hub-of-file", hub]
    for name in ("hub", "code", "ca_file"):
        words += ["--" + name.replace("_", "-"), getattr(options, name)] if getattr(options, name) else []
    words += ["--insecure"] * options.insecure + ["--no-service"] * options.no_service
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-I", str(program / "start.py"), "install", *words])  # noqa: S606


def parsed(arguments: list[str], hub: str, version: str) -> argparse.Namespace:
    """Return the options, with the folder made absolute. Exits, with a wrong one or for --help."""
    own = Path("/var/lib/fleethub-agent") if os.geteuid() == 0 else Path("~/.local/share/fleethub-agent")
    parser = argparse.ArgumentParser(
        prog="sh agent",
        description=f"Installs the agent of fleethub {version} on this server, or brings the one that is there up to "
        f"date: its file, its token, its journal and what runs stay. It writes into its own folder alone, and, as root "
        f"under systemd, one unit. Needs Python 3.9 or newer; this is {sys.version.split()[0]}, {sys.executable}. Its "
        "libraries (websockets, psutil, msgspec, structlog) come from this file if the hub's Python is of this version "
        "and machine, else pip brings them from the index that it is set up for, pinned by their hashes.",
    )
    parser.add_argument("--code", help="the one-time code of `fleethub enroll NAME --code`; - asks for it")
    parser.add_argument("--hub", metavar="URL", help=f"the agents' port, if not {hub}")
    parser.add_argument("--ca-file", metavar="FILE", help="trust this authority (PEM) instead of the system's")
    parser.add_argument("--folder", type=Path, default=own, help=f"the agent's folder, if not {own}")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="take the libraries from here, not from an index")
    parser.add_argument(
        "--insecure", action="store_true", help="dial ws:// of another machine: something else encrypts"
    )
    parser.add_argument("--no-service", action="store_true", help="make no systemd unit, only say how to start it")
    options = parser.parse_args(arguments)
    try:
        options.folder = options.folder.expanduser().absolute()
        for name in ("ca_file", "wheels"):
            if getattr(options, name):
                setattr(options, name, os.path.abspath(getattr(options, name)))
    except RuntimeError:
        parser.error(f"user {os.geteuid()} has no home folder: give --folder")
    return options


def put(folder: Path, archive: bytes, wheels: str | None) -> Path:
    """Return the folder of the program that is in the archive, made whole or found whole. Raises: OSError,
    subprocess.SubprocessError, zipfile.BadZipFile. Exits, if there are no libraries.
    """
    programs = folder / "programs"
    programs.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "install.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # held until exec or exit
    fcntl.flock(lock, fcntl.LOCK_EX)
    for left in programs.glob(".new-*"):
        shutil.rmtree(left, ignore_errors=True)
    digest = hashlib.sha256(archive).hexdigest()[:16]
    program = programs / f"{digest}-python{sys.version_info[0]}.{sys.version_info[1]}"
    if not program.exists():
        fresh = programs / f".new-{os.getpid()}"
        _unpack(archive, fresh)
        (fresh / "start.py").write_text(START.format(python=tuple(sys.version_info[:2])))
        _bring_libraries(fresh, wheels)
        for path in sorted(fresh.rglob("*")):
            if path.is_file():
                _sync(path)
        fresh.rename(program)
        _sync(programs)
    return program


def _unpack(archive: bytes, fresh: Path) -> None:
    tag = f"lib{sysconfig.get_config_var('EXT_SUFFIX')}/"
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        for name in members.namelist():
            if not name.startswith("lib.") or name.startswith(tag):
                path = fresh / ("lib/" + name[len(tag) :] if name.startswith(tag) else name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(members.read(name))


def _bring_libraries(fresh: Path, wheels: str | None) -> None:
    """Make `lib`: what was carried, if it works here, else what pip brings. Exits, if there is none that works."""
    lib = fresh / "lib"
    if lib.is_dir() and wheels is None and not _trouble(fresh):
        print("fleethub agent: its libraries came with the file", flush=True)
        return
    shutil.rmtree(lib, ignore_errors=True)
    pip = _pip(fresh)
    source = ["--no-index", "--find-links", wheels] if wheels else []
    print(f"fleethub agent: pip brings its libraries, from {wheels or 'the index it is set up for'}", flush=True)
    done = subprocess.run(  # noqa: S603  # no words but our own
        [*pip, "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps", "--require-hashes",
         "--only-binary", ":all:", *source, "--target", str(lib), "-r", str(fresh / "requirements.txt")],
        check=False, timeout=PIP_S_MAX, stdin=subprocess.DEVNULL,
        env={**os.environ, "PIP_ROOT_USER_ACTION": "ignore"},  # it warns of a system's folders, and this is our own
    )  # fmt: skip
    shutil.rmtree(fresh / "pip", ignore_errors=True)
    if done.returncode:
        sys.exit(
            "fleethub agent: the libraries could not be installed, see above. Without an index, give --wheels FOLDER "
            f"with what `pip download --only-binary :all: -r requirements.txt` brings for Python "
            f"{sys.version_info[0]}.{sys.version_info[1]}. Nothing was changed."
        )
    if trouble := _trouble(fresh):
        sys.exit(f"fleethub agent: the program does not run here:\n{trouble}\nNothing was changed.")


def _pip(fresh: Path) -> list[str]:
    """Return the words that run pip: this Python's own, or that of an environment made for it. Exits without one."""
    pip = [sys.executable, "-I", "-m", "pip"]
    if _runs([*pip, "--version"]):
        return pip
    if _runs([sys.executable, "-I", "-m", "venv", str(fresh / "pip")]):
        return [str(fresh / "pip" / "bin" / "python"), "-I", "-m", "pip"]
    sys.exit(
        f"fleethub agent: {sys.executable} has no pip, and this file carries no libraries for it: "
        "apt install python3-pip (or python3-venv), or dnf install python3-pip, and type the same again"
    )


def _runs(words: list[str]) -> bool:
    try:
        done = subprocess.run(words, check=False, capture_output=True, timeout=CHECK_S_MAX)  # noqa: S603
        return done.returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _trouble(fresh: Path) -> str:
    """Return why the program does not run here; empty: it does."""
    words = [sys.executable, "-I", "-B", str(fresh / "start.py"), "install", "--check"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=CHECK_S_MAX)  # noqa: S603
    return "" if done.returncode == 0 else done.stderr.strip() or f"it ends with {done.returncode}"


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
