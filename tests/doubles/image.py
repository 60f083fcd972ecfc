"""Images and containers by podman, in a storage of the test's own, without a network. For tests by root."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

import pytest
from doubles.deadline import WAIT_S

PROGRAMS = ("sh", "env", "cat", "sleep", "install", "python3", "groupadd", "useradd", "setsid")
OF_WHEELS = ("libpthread", "libdl", "librt", "libm", "libutil", "libgcc_s", "libstdc++")  # what wheels may ask for
LIBRARY = re.compile(r"(/\S+) \(0x")
RUN_S_MAX = 10 * WAIT_S  # of one call: a build copies 4,000 files


class Podman:
    """One storage, with what was made in it; nothing is left of it afterwards."""

    def __init__(self) -> None:
        if shutil.which("podman") is None or os.geteuid() != 0:
            pytest.skip("there is no podman here, or nobody who may use it")
        self._room = Path(tempfile.mkdtemp(prefix="fh-podman"))
        self._names: list[str] = []

    def __enter__(self) -> Podman:
        return self

    def words(self, *words: str | Path) -> list[str]:
        """Return the words of a call."""
        places = [f"--root={self._room}/storage", f"--runroot={self._room}/run", "--cgroup-manager=cgroupfs"]
        # crun cannot run beside both kinds of control groups; runc can
        runtime = [f"--runtime={found}"] if (found := shutil.which("runc")) else []
        return ["podman", *places, *runtime, *map(str, words)]

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Call podman, to its end."""
        return subprocess.run(
            self.words(*words), capture_output=True, text=True, timeout=RUN_S_MAX, stdin=subprocess.DEVNULL
        )

    def said(self, *words: str | Path) -> str:
        """Return what podman prints; it must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def base(self, name: str) -> None:
        """Make an image of this machine's own Python and what the recipe's steps run; skip if podman cannot here."""
        archive = self._room / "base.tar"
        with tarfile.open(archive, "w") as tar:
            for path in sorted(_needed()):
                tar.add(path, recursive=False)
        done = self.run("import", archive, name)
        archive.unlink()
        if done.returncode:
            pytest.skip(f"podman cannot make an image here: {done.stderr.strip()[-300:]}")

    def start(self, image: str, *options: str) -> str:
        """Start a container without a network and return its name; skip if podman cannot here."""
        name = f"fh{len(self._names)}"  # podman takes the last of several
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # no more than this root may give
        ours = ("--network=none", f"--name={name}", f"--ulimit=nofile={files}:{files}", "--ulimit=nproc=4000:4000")
        done = self.run("run", "--detach", *options, *ours, image)
        if done.returncode == 126:  # podman's own, before the image's program begins
            pytest.skip(f"podman cannot run a container here: {done.stderr.strip()[-300:]}")
        assert done.returncode == 0, done.stderr
        self._names.append(name)
        return name

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for name in self._names:
            self.run("rm", "--force", "--volumes", "--time=0", name)
        for mount in ("storage/overlay", "storage"):
            subprocess.run(["umount", "--quiet", self._room / mount], check=False)
        shutil.rmtree(self._room)


def _needed() -> set[Path]:
    """Every file, link and folder of the image."""
    programs = [Path(there) for name in PROGRAMS if (there := shutil.which(name, path="/usr/sbin:/usr/bin"))]
    python = next(path for path in programs if path.name == "python3").resolve()
    standard = Path("/usr/lib", python.name)
    modules = {path for path in standard.rglob("*") if not {"test", "config"} & set(path.parts)}
    loaded = [path for path in modules if path.suffix == ".so"]
    found = {*programs, *(path.resolve() for path in programs), standard, *modules}
    found |= set(_libraries([*(path.resolve() for path in programs), *loaded]))
    found |= {Path("/etc", name) for name in ("passwd", "group", "shadow", "gshadow", "login.defs", "nsswitch.conf")}
    found |= {Path("/", name) for name in ("bin", "sbin", "lib", "lib64", "tmp", "var", "etc", "usr")}
    found |= {parent for path in list(found) for parent in path.parents if parent != Path("/")}
    return {path for path in found if path.exists()}


def _libraries(files: Iterable[Path]) -> Iterator[Path]:
    said = subprocess.run(["ldd", *files], capture_output=True, text=True, check=False).stdout
    libraries = Path("/lib", sysconfig.get_config_var("MULTIARCH"))
    of_wheels = {str(path) for name in OF_WHEELS for path in libraries.glob(f"{name}.so.?")}
    for name in set(LIBRARY.findall(said)) | of_wheels:
        path = Path(name)
        yield path.resolve()
        yield path.parent.resolve() / path.name  # the link by which it is found
