"""What others can get at is found by the modes and owners that count, and not by those that do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from processes.adapters import ownership
from processes.adapters.ownership import CHANGEABLE, PRIVATE, TLS_KEY, NotPrivate
from processes.adapters.settings import SettingsError, load

OURS = ownership.owners()


def made(path: Path, mode: int, text: str = "x") -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("mode", "forbidden", "mend"),
    [
        (0o600, PRIVATE, ""), (0o400, PRIVATE, ""), (0o644, PRIVATE, "chmod go-rwx"), (0o640, PRIVATE, "chmod g-rwx"),
        (0o644, CHANGEABLE, ""), (0o664, CHANGEABLE, "chmod g-w"), (0o666, CHANGEABLE, "chmod go-w"),
        (0o640, TLS_KEY, ""), (0o644, TLS_KEY, "chmod go-rwx"), (0o660, TLS_KEY, "chmod g-rwx"),
    ],
)  # fmt: skip
def test_a_mode_is_judged_by_what_the_file_is(tmp_path: Path, mode: int, forbidden: int, mend: str) -> None:
    path = made(tmp_path / "a file", mode)
    found = ownership.file_fault(path, forbidden, OURS)
    assert (found is None) == (not mend)
    if found is not None:
        assert found.mend.startswith(f"{mend} ")
        assert os.system(found.mend) == 0
        assert ownership.file_fault(path, forbidden, OURS) is None, "what is said mends it"


def test_what_a_folder_keeps_others_from_does_not_count(tmp_path: Path) -> None:
    """The bug it would catch: an editor's 0664 in a folder of mode 0700 keeps everything from starting."""
    folder = tmp_path / "st"
    folder.mkdir(mode=0o700)
    path = made(folder / "fleethub.toml", 0o666)
    assert ownership.file_fault(path, CHANGEABLE, OURS, behind_folder=True) is None
    folder.chmod(0o711)
    assert ownership.file_fault(path, CHANGEABLE, OURS, behind_folder=True) is not None
    folder.chmod(0o701)
    path.chmod(0o660)
    assert ownership.file_fault(path, CHANGEABLE, OURS, behind_folder=True) is None
    assert ownership.file_fault(folder / "none", CHANGEABLE, OURS, behind_folder=True) is None


def test_another_users_file_is_not_trusted_and_roots_is(tmp_path: Path) -> None:
    path = made(tmp_path / "secret", 0o600)
    assert ownership.file_fault(path, PRIVATE, {os.geteuid()}) is None
    found = ownership.file_fault(path, PRIVATE, {os.geteuid() + 1})
    assert found is not None
    assert found.mend == f"chown {os.geteuid()} {path}"


def test_a_secret_is_read_only_if_it_is_private(tmp_path: Path) -> None:
    path = made(tmp_path / "secret", 0o600, "word")
    assert ownership.read_private(path, 100) == b"word"
    path.chmod(0o604)
    with pytest.raises(NotPrivate, match="read by others"):
        ownership.read_private(path, 100)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(NotPrivate, match="no regular file"):
        ownership.read_private(tmp_path / "pipe", 100)


def test_a_folder_above_that_others_may_change_is_found_unless_it_is_sticky(tmp_path: Path) -> None:
    above = tmp_path / "above"
    state = above / "st"
    state.mkdir(parents=True)
    assert [each.path for each in ownership.faults_above(state)] == []
    above.chmod(0o777)
    assert [each.path for each in ownership.faults_above(state)] == [above]
    above.chmod(0o1777)
    assert [each.path for each in ownership.faults_above(state)] == []


def test_settings_that_others_may_change_are_not_believed(tmp_path: Path) -> None:
    """The bug it would catch: anybody writes a program to run into it."""
    tmp_path.chmod(0o755)
    made(tmp_path / "fleethub.toml", 0o666, '[alarms]\nexec = ["/bin/sh", "-c", "id > /tmp/pwned"]\n')
    with pytest.raises(SettingsError, match=r"can be changed by others.*chmod go-w"):
        load({"FLEETHUB_STATE": str(tmp_path)})
    (tmp_path / "fleethub.toml").chmod(0o644)
    assert load({"FLEETHUB_STATE": str(tmp_path)}).file.alarms.exec != []
