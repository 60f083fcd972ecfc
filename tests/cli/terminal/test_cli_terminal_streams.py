"""stdout that takes nothing: one line, an exit code, and never a traceback, whoever writes and however late it is
noticed.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.api_server import active, command, feeding, fleet_run, running
from doubles.deadline import WAIT_S

from processes.client.api import Api
from processes.client.feed import open_socket


def program(tmp_path: Path, redirection: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line as a shell runs it."""
    environ = {**os.environ, "FLEETHUB_STATE": str(tmp_path)}
    script = f'"$0" -m processes.cli "$@" {redirection}'
    return subprocess.run(
        ["/bin/sh", "-c", script, sys.executable, *words], env=environ, capture_output=True, text=True, timeout=WAIT_S
    )


@pytest.mark.parametrize("words", [("--help",), ("incidents", "--json"), ("incidents",), ("man",)], ids=" ".join)
def test_a_full_disk_under_stdout_is_one_line_and_exit_1(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = program(tmp_path, ">/dev/full", *words)
    assert (done.returncode, done.stderr) == (1, "fleethub: cannot write to stdout: No space left on device\n")


def test_a_closed_stdout_is_one_line_and_nothing_was_done(tmp_path: Path) -> None:
    done = program(tmp_path / "new", ">&-", "env")
    assert (done.returncode, done.stderr) == (1, "fleethub: cannot write to stdout: it is closed\n")
    assert not (tmp_path / "new").exists()


def test_a_closed_stderr_leaves_stdout_alone(tmp_path: Path) -> None:
    """The bug it would catch: print() without a stderr writes to stdout, into the JSON document."""
    done = program(tmp_path, "2>&-", "hosts", "--json")
    assert done.returncode == 1
    assert done.stdout.startswith("{")


def test_a_reader_that_is_gone_is_no_error_and_exits_as_by_sigpipe(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "processes.cli", "man"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=WAIT_S)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(("stream", "both"), [("stdout", False), ("stdout", True), ("stderr", True)])
def test_a_run_goes_on_without_its_reader_and_says_where(tmp_path: Path, stream: str, both: bool) -> None:
    """The bug it would catch: the closed pipe is taken for a lost connection to the hub, and asked about again and
    again.

    `both`: stderr goes the same way, as with 2>&1.
    """
    going = fleet_run(active("web1", "c1"))
    page = {"command_id": "c1", "records": [{"offset": 0, "stream": stream, "data": "hello"}], "next_offset": 1}
    (tmp_path / "token").write_text("secret")
    read, write = os.pipe()
    os.close(read)
    with running() as http:
        http.on("POST", "/api/v1/runs", (202, going))
        http.on("GET", "/api/v1/runs/r1", (200, going))
        http.on("GET", "/api/v1/commands/c1", (200, command("c1", "web1")))
        http.on("GET", "/api/v1/commands/c1/output", (200, {**page, "complete": False, "truncated": False}))
        words = ["run", "pull", "web1", "--hub", http.url, "--token-file", str(tmp_path / "token")]
        err = write if both else subprocess.PIPE
        done = subprocess.run(
            [sys.executable, "-m", "processes.cli", *words], stdout=write, stderr=err, text=True, timeout=WAIT_S
        )
    os.close(write)
    assert (done.returncode, done.stderr) == (
        141,
        None if both else "fleethub: the run goes on: fleethub runs r1 --follow\n",
    )


def test_the_library_of_websockets_writes_nothing_on_the_screen() -> None:
    """The bug it would catch: its keepalive thread's traceback over the question whether to leave or to cancel."""
    with running() as http, feeding([[]]) as feed:
        api = Api(http.url, "t")
        api.url = feed.url
        with open_socket(api) as socket:
            socket.send("{}")
            assert not socket.logger.isEnabledFor(logging.CRITICAL)
        api.close()
