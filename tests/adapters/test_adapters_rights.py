"""What an exposed process gives up, and who reads for it what it then cannot read."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles.deadline import until

from processes.adapters import tls_keeper
from processes.adapters.settings import Tls

GIVEN_UP = """
import subprocess, sys
from processes.adapters import rights
rights.let_none_in()
rights.give_up()
print(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout)
try:
    open(sys.argv[1]).read()
except PermissionError:
    print("closed")
else:
    print("open")
"""
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's file, and has capabilities")


def run(tmp_path: Path, *before: str) -> str:
    """What a child says that gave its rights up, and what a program says that it then executes."""
    foreign = tmp_path / "foreign"
    foreign.touch(mode=0o600)
    if os.getuid() == 0:
        os.chown(foreign, 65534, 65534)
    return subprocess.run(
        [*before, sys.executable, "-c", GIVEN_UP, str(foreign)], capture_output=True, text=True, check=True
    ).stdout


@as_root
def test_root_has_no_capability_any_more_nor_has_what_it_executes(tmp_path: Path) -> None:
    told = run(tmp_path)
    assert "NoNewPrivs:\t1" in told
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert f"{name}:\t0000000000000000" in told
    assert told.endswith("closed\n")


@as_root
def test_a_user_who_may_not_shrink_the_bounding_set_goes_on(tmp_path: Path) -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("there is no setpriv to become such a user")
    told = run(tmp_path, setpriv, "--bounding-set=-setpcap", "--inh-caps=-all")
    assert "NoNewPrivs:\t1" in told
    assert "CapEff:\t0000000000000000" in told


def certificate_of(folder: Path, name: str) -> Tls:
    """A certificate and its key, made with the openssl that is there."""
    files = Tls(str(folder / "certificate.pem"), str(folder / "key.pem"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-keyout", files.key, "-out", files.certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


@as_root
@pytest.mark.parametrize(
    ("rights_of_key", "folder", "user", "needed"),
    [
        ((0, 0, 0o600), 0o700, 0, False),
        ((0, 0, 0o600), 0o755, 60706, True),
        ((0, 60706, 0o640), 0o711, 60706, False),
        ((65534, 65534, 0o644), 0o755, 0, False),
        ((65534, 0, 0o640), 0o710, 0, False),  # for root's group
        ((65534, 65534, 0o600), 0o755, 0, True),
        ((65534, 65534, 0o640), 0o755, 0, True),
        ((65534, 0, 0o604), 0o755, 0, True),  # the group's bits count for its members, not the others'
        ((65534, 65534, 0o644), 0o700, 0, True),  # nobody else may enter the folder
    ],
)
def test_key_is_kept_for_a_user_who_could_not_read_it_without_capabilities(
    rights_of_key: tuple[int, int, int], folder: int, user: int, needed: bool
) -> None:
    with tempfile.TemporaryDirectory() as above:
        os.chmod(above, 0o755)
        place = Path(above) / "ssl"
        place.mkdir()
        files = Tls(str(Path(above) / "certificate.pem"), str(place / "key.pem"))
        Path(files.certificate).touch()
        Path(files.certificate).chmod(0o644)
        owner, group, mode = rights_of_key
        Path(files.key).touch()
        for path, bits in ((Path(files.key), mode), (place, folder)):
            os.chown(path, owner, group)
            path.chmod(bits)
        assert tls_keeper.is_needed(files, user) is needed
        Path(files.key).unlink()
        assert not tls_keeper.is_needed(files, user)  # whoever opens it says that it is gone
    assert not tls_keeper.is_needed(Tls(), user)


KEEPER = """
import os, sys
from doubles.deadline import until
from processes.core.errors import ResourceError
from processes.adapters import own_user, rights, tls, tls_keeper
from processes.adapters.settings import Tls
files = Tls(sys.argv[1], sys.argv[2])
kept = tls_keeper.keep(files, 0.05)
rights.let_none_in()
own_user.become(60706)
try:
    open(files.key)
except PermissionError:
    print("closed", flush=True)
def is_pair():
    try:
        return tls.context_of(kept)
    except ResourceError:  # one of the two is renewed, the other not yet
        return None
while True:
    until(is_pair)
    print(hash(open(kept.key).read() + open(kept.certificate).read()), flush=True)
    sys.stdin.readline()
"""


@as_root
def test_a_user_who_cannot_read_the_key_shows_it_and_its_renewal_and_leaves_nobody_behind(tmp_path: Path) -> None:
    files = certificate_of(tmp_path, "first")
    os.chmod(files.key, 0o600)
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPER, files.certificate, files.key],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    with process, contextlib.ExitStack() as stack:
        stack.callback(process.kill)
        child = shows_the_renewed(process, lambda: certificate_of(tmp_path, "second"))
        assert len(list(Path(f"/proc/{child}/fd").iterdir())) == 3, "the two files and the pipe; no port, no socket"
    until(lambda: not Path(f"/proc/{child}").exists() or proc_state(child) == "Z")


def shows_the_renewed(process: subprocess.Popen[bytes], renew: Callable[[], object]) -> int:
    """The pid of the keeper, after the process has shown what became of the files."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"closed\n"
    first = process.stdout.readline()
    (child,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    renew()

    def renewed() -> bool:
        process.stdin.write(b"\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        return process.stdout.readline() not in (first, b"")  # type: ignore[union-attr]

    until(renewed)
    return child


def proc_state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"
