"""An agent's next token beside the one in use: killed anywhere, this machine keeps one that is good."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from processes.adapters.ownership import NotPrivate
from processes.adapters.state import agent_token


def digest(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()


def test_the_next_token_is_the_same_until_it_is_in_use_and_then_another(tmp_path: Path) -> None:
    file = tmp_path / "agent.token"
    file.write_text("old\n")
    first = agent_token.make(file)
    assert agent_token.make(file) == first, "killed before the hub heard of it, and begun anew"
    assert file.read_text() == "old\n"
    agent_token.promote(file)
    assert digest(file.read_text()) == first
    assert file.stat().st_mode & 0o777 == 0o600
    agent_token.promote(file)
    assert digest(file.read_text()) == first
    assert agent_token.make(file) != first


def test_many_at_once_make_one(tmp_path: Path) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(agent_token.make(tmp_path / "t"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1


def test_a_next_token_that_others_could_have_read_is_not_used(tmp_path: Path) -> None:
    agent_token.make(tmp_path / "t")
    agent_token.pending(tmp_path / "t").chmod(0o644)
    for call in (agent_token.make, agent_token.promote):
        with pytest.raises(NotPrivate):
            call(tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_the_code_that_gave_a_file_its_token_is_known_again_and_no_other_is(tmp_path: Path) -> None:
    file = tmp_path / "t"
    assert not agent_token.came_of(file, "web1:a"), "nothing is there"
    token_hash = agent_token.make(file)
    agent_token.note_code(file, "web1:a", token_hash)
    assert not agent_token.came_of(file, "web1:a"), "killed before the token was in its place: it is offered again"
    assert agent_token.make(file) == token_hash
    agent_token.promote(file)
    assert agent_token.came_of(file, "web1:a")
    assert not agent_token.came_of(file, "web1:b")
    agent_token.make(file)
    assert agent_token.came_of(file, "web1:a"), "a rotation is under way"
    agent_token.promote(file)
    assert agent_token.came_of(file, "web1:a"), "a rotation is over"
    file.unlink()
    assert not agent_token.came_of(file, "web1:a"), "the token was removed"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"abc"])
def test_a_note_of_a_code_that_says_nothing_counts_as_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "t"
    file.write_text("secret\n")
    (tmp_path / "t.code").write_bytes(content)
    (tmp_path / "t.code").chmod(0o600)
    assert not agent_token.came_of(file, "web1:a")
