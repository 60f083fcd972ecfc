"""What is in bin/: each program helps when it is asked to, and does nothing else then."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from doubles.deadline import WAIT_S

BIN = Path(__file__).resolve().parents[2] / "bin"
PROGRAMS = sorted(path.name for path in BIN.iterdir() if path.is_file())
OF_SHELL = {"fleethub", "package", "test", "venv"}


def said(program: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=WAIT_S)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_helps_and_only_helps(name: str) -> None:
    code, out, err = said(BIN / name, "--help")
    assert (code, err) == (0, "")
    assert out.lower().startswith("usage: ")
    assert name in out.splitlines()[0]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A checkout of which nothing was made yet."""
    shutil.copytree(BIN, tmp_path / "bin")
    shutil.copy(BIN.parent / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - {"fleethub"}))
def test_in_a_fresh_checkout_a_program_says_what_to_do_and_makes_nothing(fresh: Path, name: str) -> None:
    """The bugs it would catch: `bin/venv --help` installs, `bin/screenshots` ends in a traceback."""
    code, out, err = said(fresh / "bin" / name, "--help")
    if name in ("venv", "test"):
        assert (code, err) == (0, "")
    else:
        assert (code, out) == (1, "")
        assert err == "fleethub: what this program needs is not there yet: bin/venv test installs it\n"
    assert sorted(path.name for path in fresh.iterdir()) == ["bin", "pyproject.toml"]


@pytest.mark.parametrize("words", [["--nonsense"], ["tset"], ["test", "--quiet"], ["-x"]], ids=" ".join)
def test_a_wrong_word_to_venv_is_named_and_makes_nothing(fresh: Path, words: list[str]) -> None:
    code, _, err = said(fresh / "bin" / "venv", *words)
    assert code == 2
    assert err.startswith(f"fleethub: there is no extra '{' '.join(words)}'\nusage: bin/venv")
    assert sorted(path.name for path in fresh.iterdir()) == ["bin", "pyproject.toml"]


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - OF_SHELL))
def test_a_word_that_no_program_knows_is_refused_before_anything_is_done(name: str) -> None:
    """(Each start of one costs a second, so this is read: argparse refuses what it does not know.)"""
    text = (BIN / name).read_text()
    assert "parse_known_args" not in text
    assert "ArgumentParser(" in text or "import main" in text
