"""What the command line loads for the verbs that are typed most: the time of a start is the time of its imports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from processes.adapters import proc
from processes.core.shown.status import CanaryReport, CommandsReport, FleetReport, IncidentsReport, Overall, Report

TERMINAL = {"rich", "pygments", "markdown_it"}
NETWORK = {"websockets", "httpx", "ssl", "http.client", "xmlrpc", "email", "asyncio", "multiprocessing"}
OURS = {
    "processes.client.api", "processes.client.feed", "processes.adapters.supervisor", "processes.adapters.queue_socket",
    "processes.adapters.state.fleet_db",
}  # fmt: skip
RARE = {"traceback", "difflib", "sqlite3"}
# what only other verbs, completions or settings that are not there need
UNASKED = {
    "importlib.metadata", "secrets", "tomllib", "processes.core.cli.drills", "processes.core.records.dead_letter",
    "processes.core.records.poison", "processes.adapters.state.incidents_db",
}  # fmt: skip
NOW_S = 1000.0
LOADED = """
import sys, time
stands_at_s = float(sys.argv.pop(1))
time.monotonic = lambda: stands_at_s  # so that nothing depends on how long the start itself takes
from processes.cli.__main__ import execute
code = execute(sys.argv[1:])
print("loaded:", *sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


def loaded(state: Path, *words: str, **settings: str) -> tuple[int, set[str]]:
    """The exit code of a verb, and every module that was loaded for it."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FLEETHUB_")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOADED, str(NOW_S), *words],
        env={**clean, "FLEETHUB_STATE": str(state), **settings},
        capture_output=True,
        text=True,
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("loaded:")]
    assert told, done.stderr
    return done.returncode, set(told[-1].split()[1:])


def of(modules: set[str], names: set[str]) -> set[str]:
    """Those names of which a module is loaded, or one that is in it."""
    return {name for name in names if any(each == name or each.startswith(f"{name}.") for each in modules)}


@pytest.fixture
def reported(tmp_path: Path) -> Path:
    """A state folder in which a watchdog that lives, this very process, has just said that all is well."""
    (tmp_path / "run").mkdir(mode=0o700)
    stat = proc.stat(os.getpid())
    assert stat is not None
    report = Report(
        Overall.OK, 1, [], CanaryReport(), FleetReport(), CommandsReport(), IncidentsReport(),
        at_mono_s=NOW_S, writer_pid=os.getpid(), writer_start_ticks=stat.start_ticks,
    )  # fmt: skip
    (tmp_path / "run" / "watchdog.json").write_bytes(msgspec.json.encode(report))
    return tmp_path


@pytest.mark.parametrize("words", [("status",), ("status", "--json")])
def test_status_loads_neither_a_network_client_nor_what_draws_on_a_terminal(
    reported: Path, words: tuple[str, ...]
) -> None:
    code, modules = loaded(reported, *words)
    assert code == 0
    assert of(modules, TERMINAL | NETWORK | OURS | RARE | UNASKED) == set()
    assert "processes.cli.verbs.status" in modules


def test_hosts_loads_an_http_client_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "operator.token").write_text("a-token\n")
    code, modules = loaded(tmp_path, "hosts", "--json", FLEETHUB_OPERATORS_LISTEN="127.0.0.1:1")  # where nobody listens
    assert code == 1  # and not a bug of ours
    assert of(modules, {"httpx", "processes.client.api"}) == {"httpx", "processes.client.api"}
    assert of(modules, {"rich", "pygments", "websockets", "multiprocessing", "xmlrpc"} | UNASKED | {"sqlite3"}) == set()
    assert "httpx._main" in modules  # in its place stands what has neither
