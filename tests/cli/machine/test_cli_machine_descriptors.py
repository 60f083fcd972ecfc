"""Too few open files are told before supervisord, whose own words name another number."""

from __future__ import annotations

import resource
import socket
from pathlib import Path

import pytest

from processes.adapters.settings import load
from processes.cli.__main__ import execute
from processes.cli.machine import descriptors
from processes.cli.machine.own_processes import supervisord_of
from processes.cli.terminal.failure import Failure


@pytest.mark.parametrize("hard", [descriptors.FILES_MIN, 1 << 20, resource.RLIM_INFINITY])
def test_enough_passes(hard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    descriptors.check()


@pytest.mark.parametrize("hard", [64, descriptors.FILES_MIN - 1])
def test_too_few_are_named_with_what_to_do(hard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, hard))
    with pytest.raises(Failure, match=f"is {hard}; at least 4096") as caught:
        descriptors.check()
    assert "LimitNOFILE" in caught.value.advice


def test_up_begins_nothing_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path / "state"))
    for setting in ("OPERATORS", "AGENTS"):
        with socket.create_server(("127.0.0.1", 0)) as server:
            monkeypatch.setenv(f"FLEETHUB_{setting}_LISTEN", f"127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert execute(["up"]) == 1
    assert "the hard limit of open files is 64" in capsys.readouterr().err
    assert supervisord_of(load()) is None
