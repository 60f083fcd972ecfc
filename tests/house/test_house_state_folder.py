"""The map of the state folder (adapters/state/__init__.py) against what a running installation has in its folder."""

from __future__ import annotations

import contextlib
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from doubles.deadline import WAIT_S, until
from doubles.house import House

from processes.adapters import state

# what stands for what in a row's path
WORDS = {
    "NAME": r"(?!supervisord)[a-z]+(?:[:_-][0-9]+)?",
    "HASH": r"[0-9a-f]{32,64}",
    "ID": r"(?!until$)[0-9A-Za-z_.-]+",
    "HOST": r"[A-Za-z0-9][A-Za-z0-9.-]*",
    "EVIDENCE": r"[a-z]+\.(?:txt|json)",
    "N": r"[0-9]+",
    "ANY": r"(?:[^/]+/)*",
    "TEMPORARY": r"[^/]+\.[0-9a-f]{16}\.new",
}
# rows that the scene does not bring about, and why
RARE = {
    "fleethub.toml": "an operator's",
    "rules.toml": "an operator's",
    "agent.token.pending": "a moment, while a token is made anew",
    "agent.token.code": "a host that was enrolled by a code",
    "fleet.db.restoring": "restore",
    "fleet.db.restoring-journal": "restore",
    "fleet.db.restored": "restore",
    "replaced/": "restore",
    "replaced/fleet-ID": "restore",
    "log/NAME.log.N": "much log",
    "log/supervisord.log.N": "much log",
    "log/NAME.out.N": "much output",
    "run/supervisor.sock.N": "a moment",
    "run/pulse/.NAME.N": "a moment",
    "run/gave_up/": "a process that cannot go on",
    "run/gave_up/NAME": "a process that cannot go on",
    "run/contested/": "two agents of one name",
    "run/contested/HOST": "two agents of one name",
    "run/impersonated/": "an agent that claims another name",
    "run/impersonated/HOST": "an agent that claims another name",
    "run/guessed/": "a hundred guesses within a minute",
    "run/guessed/NAME": "a hundred guesses within a minute",
    "run/signed_out/until": "a hundred thousand sign-outs",
    "run/signed_out_until": "the same, in a version before",
    "run/failpoint": "a drill",
    "run/failpoint-watchdog": "a test",
    "run/deaf": "a drill",
    "run/poison_row": "a test",
    "agent-state/failpoint": "a drill",
    "ANY.TEMPORARY": "a moment",
    "agent-state/journal.db-journal": "a moment",
    "agent-state/journal.db.damaged-ID": "a damaged journal",
    "agent-state/runs/HASH/unstarted": "a moment, until the program begins",
    "agent-state/runs/HASH/exit": "a moment, once the command is over",
    "agent-state/runs/HASH/cancel": "a cancel",
}


class Row(NamedTuple):
    """One row of the map."""

    path: str
    mode: int | None  # None: any
    writer: str
    reader: str
    durable: str
    lifetime: str

    def fits(self, path: str) -> bool:
        """True if the path is of this row."""
        return re.fullmatch(re.sub(r"[A-Z]+|[^A-Z]+", _word, self.path), path) is not None


def _word(match: re.Match[str]) -> str:
    return WORDS[match[0]] if match[0].isupper() else re.escape(match[0])


def rows(text: str) -> list[Row]:
    """The map's rows."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if line.startswith("    ") and len(cells) == 6 and cells[0] != "path" and set(cells[0]) != {"-"}:
            path, mode, writer, reader, durable, lifetime = cells
            found.append(Row(path, None if mode == "any" else int(mode, 8), writer, reader, durable, lifetime))
    return found


MAP = rows(state.__doc__ or "")


def found_in(folder: Path) -> dict[str, int]:
    """Every path in the folder (a folder's ends with /) with its mode."""
    found = {}
    for path in folder.rglob("*"):
        try:
            entry = path.lstat()
        except FileNotFoundError:
            continue  # a temporary file
        name = str(path.relative_to(folder)) + "/" * stat.S_ISDIR(entry.st_mode)
        found[name] = stat.S_IMODE(entry.st_mode)
    return found


def wrong(found: dict[str, int]) -> list[str]:
    """What is in the folder and not as the map has it."""
    problems = []
    for path, mode in sorted(found.items()):
        fitting = [row for row in MAP if row.path == path] or [row for row in MAP if row.fits(path)]
        if len(fitting) != 1:
            problems.append(f"{path} is in {len(fitting)} rows of the map: {[row.path for row in fitting]}")
        elif fitting[0].mode not in (None, mode):
            problems.append(f"{path} has mode {mode:04o}, the map says {fitting[0].mode:04o}")
    return problems


@pytest.fixture(scope="module")
def used() -> Iterator[House]:
    """A house after a command, a revocation, a sign-in and a sign-out, an alarm, a frozen process, a stop and a start."""
    with House(FLEETHUB_ALARMS_EXEC="/bin/true") as house:
        (name,) = (host["name"] for host in house.json("hosts")["hosts"])
        file = house.settings.agent_file
        file.write_text(file.read_text() + '\n[commands.sleep]\nargv = ["/bin/sleep", "300"]\n')
        assert house.cli("restart", "agent").returncode == 0
        until(lambda: house.cli("run", "sleep", name, "--no-wait").returncode == 0, house.logs)
        house.enroll("gone")
        assert house.cli("revoke", "gone").returncode == 0, house.cli("revoke", "gone").stderr
        token = house.settings.operator_token.read_text().strip()
        with httpx.Client(base_url=f"http://{house.operators}", timeout=WAIT_S) as browser:
            assert browser.post("/login", json={"token": token}).is_success
            assert browser.post("/logout", headers={"Origin": f"http://{house.operators}"}).is_success
            assert browser.post("/login", json={"token": token}).is_success
        assert house.cli("stop", "gateway").returncode == 0
        assert house.cli("start", "gateway").returncode == 0
        assert house.cli("restart", "fanout").returncode == 0
        headers = {"Authorization": f"Bearer {token}"}
        with contextlib.suppress(httpx.ReadTimeout):  # the hub takes a lock twice: nobody answers
            httpx.post(f"http://{house.operators}/api/v1/drill", json={"fault": "deadlock"}, headers=headers, timeout=2)
        until(lambda: house.settings.evidence.exists() and list(house.settings.evidence.glob("*/*.json")), house.logs)
        until(lambda: house.cli("status").returncode == 0, house.logs)
        until(house.settings.alarms.exists, house.logs)
        yield house


def test_every_file_of_a_running_house_is_in_the_map_with_its_mode(used: House) -> None:
    assert wrong(found_in(used.state)) == []


def test_every_row_of_the_map_is_found_in_a_running_house(used: House) -> None:
    """But those that such a scene does not bring about."""
    found = found_in(used.state)
    for _ in range(20):
        found |= found_in(used.state)
    missing = [row.path for row in MAP if not any(map(row.fits, found))]
    assert set(missing) <= set(RARE), sorted(set(missing) - set(RARE))


def test_the_map_is_whole() -> None:
    """Each row once, each cell filled; what is called rare is in it."""
    assert len(MAP) > 60
    assert len({row.path for row in MAP}) == len(MAP)
    assert all(cell for row in MAP for cell in (row.writer, row.reader, row.durable, row.lifetime))
    assert {row.durable for row in MAP} == {"yes", "no", "sql", "-"}
    assert set(RARE) <= {row.path for row in MAP}


def test_a_file_that_nobody_knows_and_a_mode_that_is_too_wide_are_found() -> None:
    assert wrong({"run/letter": 0o600}) == ["run/letter is in 0 rows of the map: []"]
    assert wrong({"operator.token": 0o644}) == ["operator.token has mode 0644, the map says 0600"]
    assert wrong({"run/lock/gateway-1": 0o600, "run/.wanted.json.0123456789abcdef.new": 0o600}) == []
