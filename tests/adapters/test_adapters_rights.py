"""What an exposed process gives up, and for whose sake it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from processes.adapters import rights
from processes.adapters.settings import Settings, load

GIVEN_UP = """
import subprocess, sys
from processes.adapters import rights
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


def settings_of(tmp_path: Path, key: Path) -> Settings:
    certificate = tmp_path / "certificate.pem"
    certificate.touch(mode=0o644)
    return load(
        {
            "FLEETHUB_STATE": str(tmp_path),
            "FLEETHUB_TLS_CERTIFICATE": str(certificate),
            "FLEETHUB_TLS_KEY": str(key),
        }
    )


@as_root
@pytest.mark.parametrize(
    ("rights_of_key", "folder", "kept"),
    [
        ((0, 0, 0o600), 0o700, False),
        ((65534, 65534, 0o644), 0o755, False),
        ((65534, 0, 0o640), 0o710, False),  # for root's group
        ((65534, 65534, 0o600), 0o755, True),
        ((65534, 65534, 0o640), 0o755, True),
        ((65534, 0, 0o604), 0o755, True),  # the group's bits count for its members, not the others'
        ((65534, 65534, 0o644), 0o700, True),  # nobody else may enter the folder
    ],
)
def test_capabilities_are_kept_only_for_a_file_that_root_could_not_read_without(
    tmp_path: Path, rights_of_key: tuple[int, int, int], folder: int, kept: bool
) -> None:
    owner, group, mode = rights_of_key
    place = tmp_path / "ssl"
    place.mkdir()
    key = place / "key.pem"
    key.touch()
    for path, bits in ((key, mode), (place, folder)):
        os.chown(path, owner, group)
        path.chmod(bits)
    assert rights.kept_for(settings_of(tmp_path, key)) == ((key,) if kept else ())


def test_without_tls_and_for_a_file_that_is_gone_nothing_is_kept(tmp_path: Path) -> None:
    assert rights.kept_for(load({"FLEETHUB_STATE": str(tmp_path)})) == ()
    key = tmp_path / "key.pem"
    key.touch(mode=0o600)
    settings = settings_of(tmp_path, key)
    key.unlink()
    assert rights.kept_for(settings) == ()
