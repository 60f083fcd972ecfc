"""The Debian package of the hub: the tree, its systemd unit, a user of its own and a file of settings. By dpkg-deb."""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Final

from packages import tree
from packages.tree import HOME, PLACE, NotPackable

SOURCES: Final = Path(__file__).with_name("debian")
UNIT: Final = "usr/lib/systemd/system/fleethub.service"
SETTINGS: Final = "etc/fleethub/fleethub.toml"
SCRIPTS: Final = ("postinst", "prerm", "postrm")
LIBC: Final = "2.28"  # the newest that a library's wheel asks for (manylinux_2_28)
SYSUSERS: Final = 'u fleethub - "fleethub hub" /var/lib/fleethub /usr/sbin/nologin\n'
CONTROL: Final = """\
Package: fleethub
Version: {version}
Architecture: {architecture}
Maintainer: the fleethub authors <fleethub@localhost>
Installed-Size: {size_kib}
Depends: python3 (>= {python}), python3 (<< {python_after}), libc6 (>= {libc}), init-system-helpers, passwd,
 systemd | systemd-standalone-sysusers
Section: admin
Priority: optional
Description: hub for fleets of bare-metal servers
{description}
"""
DESCRIPTION: Final = (
    "An agent on each server holds a WebSocket to the hub, sends heartbeats and runs commands; operators use a web page"
    " and a command line. A loop that stops is found within seconds and replaced, and no accepted command is lost."
)
# what the verbs print, so that nothing is written down twice; run by the tree's own modules, which are no checkout
UNIT_OF: Final = """
from pathlib import Path
from processes.adapters.settings import load
from processes.cli.verbs.systemd_unit import hub_unit
text = hub_unit(Path({python!r}), load({{}}), "fleethub", {{}})
print("# Of the package fleethub. To change it: systemctl edit fleethub\\n\\n" + text[text.index("[Unit]"):], end="")
"""
VERB: Final = "import sys; from processes.cli.__main__ import execute; sys.exit(execute({words!r}))"


def make(folder: Path, revision: str = "1", compression: str = "xz") -> Path:
    """Make the package in the folder and return its path. Raises: NotPackable, OSError."""
    if shutil.which("dpkg-deb") is None:
        raise NotPackable("there is no dpkg-deb here: a Debian package is made on Debian or one of its kind")
    version = f"{importlib.metadata.version('fleethub')}-{revision}"
    architecture = _output(["dpkg", "--print-architecture"]).strip()
    path = folder / f"fleethub_{version}_{architecture}.deb"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        root = Path(room, "root")
        root.mkdir(mode=0o755)
        tree.make(root)
        _add_system_files(root)
        _add_control(root, version, architecture)
        # the same sources give the same package: no file is younger than the last change
        environ = {**os.environ, "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH") or str(_changed_wall_s())}
        words = ["dpkg-deb", f"-Z{compression}", "--root-owner-group", "--build", str(root), str(path)]
        _output(words, environ)
    return path


def _add_system_files(root: Path) -> None:
    """Put there what is not the tree: unit, user, settings, the program's name, its manual page and completion."""
    _write(root, UNIT, _by_tree(root, UNIT_OF.format(python=f"/{PLACE}/bin/python")).encode())
    _write(root, "usr/lib/sysusers.d/fleethub.conf", SYSUSERS.encode())
    _write(root, SETTINGS, (SOURCES / "fleethub.toml").read_bytes())
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/fleethub").symlink_to("../lib/fleethub/bin/fleethub")
    manual = _by_tree(root, VERB.format(words=["man"])).encode()
    _write(root, "usr/share/man/man1/fleethub.1.gz", _packed(manual))
    completion = _by_tree(root, VERB.format(words=["completion", "bash"])).encode()
    _write(root, "usr/share/bash-completion/completions/fleethub", completion)
    documents = "usr/share/doc/fleethub"
    _write(root, f"{documents}/copyright", (HOME / "LICENSE").read_bytes())
    _write(root, f"{documents}/changelog.gz", _packed((HOME / "CHANGELOG.md").read_bytes()))
    _write(root, f"{documents}/README.md", (HOME / "README.md").read_bytes())


def _add_control(root: Path, version: str, architecture: str) -> None:
    """Put there what dpkg reads: fields, scripts, and which file is the administrator's."""
    size_kib = sum(path.lstat().st_size for path in root.rglob("*") if not path.is_dir()) // 1024
    major, minor = sys.version_info[:2]
    fields = CONTROL.format(
        version=version, architecture=architecture, size_kib=size_kib, libc=LIBC, python=f"{major}.{minor}",
        python_after=f"{major}.{minor + 1}",
        description=textwrap.fill(DESCRIPTION, 76, initial_indent=" ", subsequent_indent=" "),
    )  # fmt: skip
    _write(root, "DEBIAN/control", fields.encode())
    _write(root, "DEBIAN/conffiles", f"/{SETTINGS}\n".encode())
    for name in SCRIPTS:
        _write(root, f"DEBIAN/{name}", (SOURCES / name).read_bytes(), 0o755)


def _write(root: Path, name: str, content: bytes, mode: int = 0o644) -> None:
    path = root / name
    for folder in reversed(path.relative_to(root).parents[:-1]):
        if not (root / folder).exists():
            (root / folder).mkdir(mode=0o755)
            (root / folder).chmod(0o755)  # whatever the caller's umask is
    path.write_bytes(content)
    path.chmod(mode)


def _packed(content: bytes) -> bytes:
    """Return it compressed; the same content gives the same bytes."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        file.write(content)
    return packed.getvalue()


def _by_tree(root: Path, code: str) -> str:
    """Return what the code prints, run by this Python with the tree's modules alone. Raises: NotPackable."""
    begin = f"import sys; sys.path.append({str(root / tree.SITE)!r})\n"
    return _output([sys.executable, "-I", "-S", "-c", begin + code], {"PATH": os.defpath, "HOME": "/"})


def _changed_wall_s() -> int:
    """Return when the sources were last changed: the time of the last commit, or now, outside of a repository."""
    words = ["git", "-C", str(HOME), "log", "-1", "--format=%ct"]
    done = subprocess.run(words, capture_output=True, text=True, check=False) if shutil.which("git") else None  # noqa: S603
    return int(done.stdout) if done is not None and done.returncode == 0 and done.stdout.strip() else int(time.time())


def _output(words: list[str], environ: dict[str, str] | None = None) -> str:
    """Return what a program prints. Raises: NotPackable, if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environ)  # noqa: S603
    if done.returncode:
        raise NotPackable(f"{words[0]} failed ({done.returncode}): {done.stderr.strip()[-2000:]}")
    return done.stdout
