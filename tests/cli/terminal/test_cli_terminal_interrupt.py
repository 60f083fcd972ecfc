"""Ctrl-C during `run`: on a real terminal it asks, elsewhere it leaves the run to the hub; neither loses the run's
id.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles.api_server import ApiServer, active, command, fleet_run, part, running
from doubles.deadline import WAIT_S

RUN, CANCEL, COMMAND = "/api/v1/runs/r1", "/api/v1/runs/r1/cancel", "/api/v1/commands/c1"
GOING = fleet_run(active("web1", "c1"), part("db", "pending"))
OVER = fleet_run(part("web1", "failed", 0, "c1", "cancelled"), part("db", "not_attempted"), state="cancelled")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Children take SIGINT, even where this suite runs in the background of a shell, which ignores it for all that it
    starts.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def page(*lines: str, first: int = 0, complete: bool = False) -> tuple[int, dict[str, object]]:
    records = [{"offset": first + number, "stream": "stdout", "data": line} for number, line in enumerate(lines)]
    return 200, {
        "command_id": "c1",
        "records": records,
        "next_offset": first + len(lines),
        "complete": complete,
        "truncated": False,
    }


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """A run that goes on until it is cancelled."""
    with running() as found:
        found.on("POST", "/api/v1/runs", (202, GOING))
        found.on("GET", RUN, (200, GOING))
        found.on("GET", COMMAND, (200, command("c1", "web1")))
        found.on("GET", f"{COMMAND}/output", page("hello"), page(first=1))
        found.on("POST", CANCEL, (202, GOING))
        yield found


def end(server: ApiServer) -> None:
    """The agents have done what they were asked to."""
    server.on("GET", COMMAND, (200, command("c1", "web1", "cancelled", reason="cancelled")))
    server.on("GET", f"{COMMAND}/output", page("bye", first=1, complete=True))
    server.on("GET", RUN, (200, OVER))


def environment(server: ApiServer, folder: Path) -> dict[str, str]:
    (folder / "token").write_text("secret\n")
    ours = {"FLEETHUB_STATE": str(folder), "FLEETHUB_HUB": server.url, "FLEETHUB_TOKEN_FILE": str(folder / "token")}
    return {**os.environ, **ours, "TERM": "xterm"}


COMMAND_LINE = [sys.executable, "-m", "processes.cli", "run", "--yes", "pull,switch", "web1", "db"]


def until(condition: Callable[[], bool]) -> None:
    deadline_mono_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_mono_s
        time.sleep(0.01)


class Terminal:
    """A person at a terminal, at which the command line runs."""

    def __init__(self, server: ApiServer, folder: Path, *more: str) -> None:
        self._own, theirs = pty.openpty()

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.cli = subprocess.Popen(
            [*COMMAND_LINE, *more], env=environment(server, folder), stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
            preexec_fn=take_terminal,  # noqa: PLW1509  # one system call, which takes no lock
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def types(self, text: str) -> None:
        os.write(self._own, text.encode())

    def sees(self, text: str, times: int = 1) -> None:
        """Waits until the text is on the screen."""
        until(lambda: self._read() or self.shown.count(text) >= times)

    def ends(self) -> int:
        until(lambda: self._read() or self.cli.poll() is not None)
        return self.cli.wait()

    def close(self) -> None:
        self.cli.kill()
        self.cli.wait()
        os.close(self._own)

    def _read(self) -> bool:
        while select.select([self._own], [], [], 0)[0]:
            try:
                self.shown += os.read(self._own, 65536).decode(errors="replace")
            except OSError:  # nobody is at the other end any more
                break
        return False


@pytest.fixture
def terminal(server: ApiServer, tmp_path: Path) -> Iterator[Terminal]:
    found = Terminal(server, tmp_path)
    yield found
    found.close()


def test_cancel_ends_the_run_and_follows_it_to_its_end(server: ApiServer, terminal: Terminal) -> None:
    terminal.sees("web1 | hello")
    terminal.types("\x03")
    terminal.sees("leave running or cancel? [l/c]")
    assert server.asked_for("POST", CANCEL) == []
    terminal.types("what\n")
    terminal.sees("leave running or cancel? [l/c]", times=2)
    terminal.types("c\n")
    until(lambda: len(server.asked_for("POST", CANCEL)) == 1)
    assert terminal.cli.poll() is None
    end(server)
    assert terminal.ends() == 1
    terminal.sees("web1 | bye")
    terminal.sees("db: not attempted")
    assert terminal.shown.count("web1 | hello") == 1


@pytest.mark.parametrize(
    "answer", ["l\n", "\x03", "\x04", "x\nx\nx\n"], ids=["leave", "second Ctrl-C", "end of input", "no answer in three"]
)
def test_leave_says_how_to_go_on_and_cancels_nothing(server: ApiServer, terminal: Terminal, answer: str) -> None:
    terminal.sees("web1 | hello")
    terminal.types("\x03")
    terminal.sees("leave running or cancel? [l/c]")
    terminal.types(answer)
    assert terminal.ends() == 130
    terminal.sees("fleethub runs r1 --follow shows it, fleethub cancel r1 ends it")
    assert server.asked_for("POST", CANCEL) == []


def test_a_run_that_cannot_be_cancelled_any_more_is_followed_to_its_end(server: ApiServer, terminal: Terminal) -> None:
    terminal.sees("web1 | hello")
    terminal.types("\x03")
    terminal.sees("[l/c]")
    server.on("POST", CANCEL, (409, {"error": "final", "message": "run r1 has ended already"}))
    end(server)
    terminal.types("c\n")
    assert terminal.ends() == 1
    terminal.sees("not cancelled: run r1 has ended already")


def test_without_a_terminal_the_run_is_left_and_json_stays_one_document(server: ApiServer, tmp_path: Path) -> None:
    cli = subprocess.Popen(
        [*COMMAND_LINE, "--json"], env=environment(server, tmp_path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until(lambda: len(server.asked_for("GET", RUN)) > 2)
        cli.send_signal(signal.SIGINT)
        out, err = cli.communicate(timeout=WAIT_S)
    finally:
        cli.kill()
        cli.wait()
    assert cli.returncode == 130
    assert json.loads(out)["run"]["id"] == "r1"
    assert [each["id"] for each in json.loads(out)["commands"]] == ["c1"]
    assert err == "fleethub: the run goes on: fleethub runs r1 --follow shows it, fleethub cancel r1 ends it\n"
    assert server.asked_for("POST", CANCEL) == []


def test_interrupted_before_the_hub_answered_names_the_key(server: ApiServer, tmp_path: Path) -> None:
    server.on("POST", "/api/v1/runs", (503, {"error": "hub_unavailable", "message": "away"}))
    cli = subprocess.Popen(
        COMMAND_LINE, env=environment(server, tmp_path), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: bool(server.asked_for("POST", "/api/v1/runs")))
        cli.send_signal(signal.SIGINT)
        _, err = cli.communicate(timeout=WAIT_S)
    finally:
        cli.kill()
        cli.wait()
    assert cli.returncode == 130
    assert server.asked[0].body["key"] in err
