"""One-time codes and secrets on disk."""

from __future__ import annotations

import hashlib
import stat
import time
from pathlib import Path

import pytest

from processes.adapters.settings import Settings, load
from processes.cli.machine import sign_in


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load({"FLEETHUB_STATE": str(tmp_path)})
    found.run.mkdir()
    return found


def test_a_code_is_kept_only_as_its_hash_with_expiry_and_role(settings: Settings) -> None:
    code = sign_in.new_code(settings)
    (path,) = (settings.run / "codes").iterdir()
    assert path.name == hashlib.sha256(code.encode()).hexdigest()
    expiry, role = path.read_text().split()
    assert 590 < float(expiry) - time.time() <= 601
    assert role == "admin"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert code not in path.read_text()


def test_expired_codes_are_forgotten_and_living_ones_stay(settings: Settings) -> None:
    first = sign_in.new_code(settings)
    old = settings.run / "codes" / ("0" * 64)
    old.write_text(f"{time.time() - 1} admin\n")
    second = sign_in.new_code(settings)
    kept = {path.name for path in (settings.run / "codes").iterdir()}
    assert kept == {hashlib.sha256(code.encode()).hexdigest() for code in (first, second)}


def test_the_operator_token_is_private_and_made_once(settings: Settings) -> None:
    sign_in.make_operator_token(settings)
    token = settings.operator_token.read_text()
    sign_in.make_operator_token(settings)
    assert settings.operator_token.read_text() == token
    assert len(token.strip()) >= 43
    assert stat.S_IMODE(settings.operator_token.stat().st_mode) == 0o600


def test_the_link_carries_the_code_in_the_fragment_only() -> None:
    assert sign_in.link("https://fleet.example/", "abc") == "https://fleet.example/#code=abc"
