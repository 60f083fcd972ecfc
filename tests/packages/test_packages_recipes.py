"""The recipes beside the package: the image's steps, the NixOS module, and what the tree takes of installed libraries."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from doubles.deadline import WAIT_S
from doubles.documented import commands

from packages import tree
from processes.cli.__main__ import cli

PACKAGES = Path(tree.__file__).parent
STEPS = [
    (words[0], words[1])
    for line in (PACKAGES / "Containerfile").read_text().splitlines()
    if line and not line.startswith("#") and len(words := line.split(" ", 1)) == 2
]


def test_the_image_runs_our_verb_as_a_user_of_its_own_and_keeps_the_state_in_a_volume() -> None:
    given = dict(STEPS)
    assert given["USER"] == "fleethub"
    assert [name for name, _ in STEPS].index("USER") > max(at for at, (name, _) in enumerate(STEPS) if name == "RUN")
    assert f"FLEETHUB_STATE={given['VOLUME']}" in [text for name, text in STEPS if name == "ENV"]
    words = re.findall(r'"([^"]+)"', given["ENTRYPOINT"] + given["CMD"])
    verb = cli.get_command(click.Context(cli), words[1])
    assert words[0] == "fleethub"
    assert verb is not None
    assert set(words[2:]) <= {option for parameter in verb.params for option in parameter.opts}
    checked = re.search(r"CMD fleethub (\w+)", given["HEALTHCHECK"])
    assert checked is not None
    assert cli.get_command(click.Context(cli), checked[1]) is not None


def test_no_step_of_the_image_fetches_anything() -> None:
    programs = {text.split()[0] for name, text in STEPS if name == "RUN"}
    assert programs == {"python3", "groupadd", "useradd", "install"}
    assert all(text.startswith("tree/") for name, text in STEPS if name in ("COPY", "ADD"))


@pytest.mark.skipif(shutil.which("nix-instantiate") is None, reason="Nix is not installed here")
@pytest.mark.parametrize("name", ["module", "package"])
def test_nix_can_parse_it(name: str, tmp_path: Path) -> None:
    words = ["nix-instantiate", "--parse", str(PACKAGES / "nixos" / f"{name}.nix")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr


def test_a_library_that_somebody_has_changed_is_not_packed(tmp_path: Path) -> None:
    info = tmp_path / "thing-1.dist-info"
    info.mkdir()
    (tmp_path / "thing.py").write_bytes(b"")
    (info / "METADATA").write_text("Name: thing\nVersion: 1\n")
    (info / "RECORD").write_text(
        "thing.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n__pycache__/thing.pyc,,\n"
    )
    thing = importlib.metadata.Distribution.at(info)
    assert dict(tree.files(thing)) == {"thing.py": tmp_path / "thing.py"}
    (tmp_path / "thing.py").write_text("changed")
    with pytest.raises(tree.NotPackable, match=r"thing\.py is not what was installed: .* thing==1"):
        list(tree.files(thing))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a namespace for processes")
def test_as_process_1_what_others_leave_behind_is_reaped() -> None:
    """The bug it would catch: in a container, each orphan that ends stays a zombie for ever."""
    orphan = "sh -c 'sleep 0.05 & echo $!' | { read p; i=0; while [ -e /proc/$p ]; do i=$((i+1)); [ $i -lt 99 ] || exit 9; sleep 0.1; done; exit 7; }"
    code = f"""
import subprocess, sys
from processes.cli.machine import supervision
sys.exit(supervision.wait_end(subprocess.Popen(["sh", "-c", {orphan!r}])))
"""
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c", code]
    assert subprocess.run(words, timeout=WAIT_S).returncode == 7


def test_no_command_of_the_page_is_without_a_test() -> None:
    """What test_packages_debian.py takes from the page, it runs. Of the container's, test_packages_container.py does what
    podman would do for these options.
    """
    text = (PACKAGES.parent / "docs/packages.md").read_text()
    assert text.count("```sh\n") == 2
    assert [words[:2] for words in commands("packages.md", "Debian")] == [
        ["bin/package", "deb"], ["apt", "install"], ["sudo", "-u"], ["sudo", "-u"],
    ]  # fmt: skip
    assert [words[:2] for words in commands("packages.md", "A container")] == [
        ["bin/package", "tree"], ["podman", "build"], ["podman", "run"], ["podman", "exec"],
    ]  # fmt: skip
