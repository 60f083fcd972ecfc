"""The tree: /usr/lib/fleethub, an environment for Python with fleethub and all that it needs, made without a network.

The libraries are the installed files of this checkout's .venv, each checked against the digest that pip noted when it
installed it: so the versions are the ones that the tests run with, and whoever changed an installed file is told. The
tree is for one version of Python, the .venv's, and for this machine's kind of processor.
"""

from __future__ import annotations

import base64
import compileall
import hashlib
import importlib.metadata
import py_compile
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

HOME: Final = Path(__file__).resolve().parents[1]
PLACE: Final = "usr/lib/fleethub"  # below the root of the system that it is for
PYTHON: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"
SITE: Final = f"{PLACE}/lib/python{PYTHON}/site-packages"
BUILD: Final = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
PROGRAM: Final = f"""\
#!/{PLACE}/bin/python -EP
import os
import sys

from processes.cli.__main__ import main

os.environ.pop("PYTHONPATH", None)  # what this starts is not to find the caller's modules in the place of ours either
sys.exit(main())
"""
ENVIRONMENT: Final = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {PYTHON}\n"


class NotPackable(Exception):
    """What is installed here cannot be put into a package."""


def make(root: Path) -> None:
    """Make the tree below this folder. Cost: some 10 s of CPU, most of it for bytecode. Raises: NotPackable, OSError."""
    site, programs = root / SITE, root / PLACE / "bin"
    for folder in (site, programs):
        folder.mkdir(parents=True)
    for library in needed("fleethub"):
        if library.name == "fleethub":
            _unpack_own(site)
        else:
            _copy(library, site, programs)
    (root / PLACE / "pyvenv.cfg").write_text(ENVIRONMENT)
    (programs / "python").symlink_to(f"/usr/bin/python{PYTHON}")
    (programs / "fleethub").write_text(PROGRAM)
    (programs / "fleethub").chmod(0o755)
    # its users may not write there; unchecked: what belongs to a package is changed only with its bytecode
    compileall.compile_dir(
        site, stripdir=root, prependdir="/", quiet=2, workers=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip


def needed(name: str) -> list[importlib.metadata.Distribution]:
    """Return the installed distribution of this name and all that it needs, by name. Raises: NotPackable."""
    from packaging.requirements import Requirement  # noqa: PLC0415  # it comes with the tests, not with fleethub

    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [name]
    while waiting:
        asked = waiting.pop()
        key = re.sub(r"[-_.]+", "-", asked).lower()
        if key in found:
            continue
        try:
            found[key] = importlib.metadata.distribution(asked)
        except importlib.metadata.PackageNotFoundError:
            raise NotPackable(f"{asked} is needed and not installed here: bin/venv test installs it") from None
        requirements = map(Requirement, found[key].requires or [])
        waiting += [each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [found[key] for key in sorted(found)]


def _unpack_own(site: Path) -> None:
    """Put fleethub itself there, from the wheel that its build backend makes. Raises: NotPackable."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", BUILD, folder], cwd=HOME, capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise NotPackable(f"fleethub's own wheel cannot be built: {last}; bin/venv test installs what it needs")
        with zipfile.ZipFile(Path(folder, done.stdout.split()[-1])) as wheel:
            wheel.extractall(site)


def _copy(library: importlib.metadata.Distribution, site: Path, programs: Path) -> None:
    """Put the library's files there, and those of its programs that are no scripts. Raises: NotPackable."""
    for name, path in files(library):
        target = programs / path.name if name.startswith("../") else site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        target.chmod(0o755 if path.stat().st_mode & 0o100 and name.startswith("../") else 0o644)


def files(library: importlib.metadata.Distribution) -> Iterator[tuple[str, Path]]:
    """Yield each of the library's files that belongs into the tree: its name from the site folder on, and where it is.

    Raises: NotPackable, for a file that is not what was installed.
    """
    scripts = {script.name for script in library.entry_points if script.group.endswith("_scripts")}
    for file in sorted(library.files or [], key=str):
        name, path = file.as_posix(), Path(str(file.locate()))
        is_script = name.startswith("../") and path.name in scripts  # it begins with a path of this machine
        if is_script or name.endswith(".pyc") or path.name == "direct_url.json":
            continue
        if file.hash is not None and (not path.is_file() or _digest(path.read_bytes()) != file.hash.value):
            mend = f"{sys.executable} -m pip install --force-reinstall {library.name}=={library.version}"
            raise NotPackable(f"{path} is not what was installed: {mend}")
        if path.is_file():
            yield name, path


def _digest(content: bytes) -> str:
    """Return the SHA-256 as RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
