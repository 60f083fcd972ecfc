"""`audit verify`, of a database file and of a hub: it says the first broken line, and never calls whole what is not."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doubles import old_installation
from doubles.api_server import ApiServer, running

from processes.adapters.settings import load
from processes.adapters.state import audit_trail, fleet_db
from processes.cli.__main__ import execute
from processes.cli.verbs import audit as verb
from processes.core.travels.audit import AuditView, Kind

LINES = 2500  # more than two pages


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "fleet.db"
    with contextlib.closing(fleet_db.open_for_writing(path)) as sqlite:
        sqlite.execute("BEGIN")
        for number in range(LINES):
            audit_trail.add(sqlite, 1.7e9 + number / 8, Kind.HOST, f"web{number}", "enrolled", actor="ann")
        sqlite.execute("COMMIT")
    return path


@pytest.fixture
def copied(database: Path, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A database of one's own to do something to."""
    with contextlib.closing(sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)) as own:
        with contextlib.closing(fleet_db.open_for_reading(database)) as source:
            source.backup(own)
        yield own


def verified(*arguments: str, capsys: pytest.CaptureFixture[str], code: int) -> dict[str, Any]:
    assert execute(["audit", "verify", *arguments, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_whole_file_is_whole_and_its_head_is_told(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verified("--file", str(database), capsys=capsys, code=0)
    head = fleet_db.reading(database, audit_trail.head)
    assert (found["whole"], found["lines"], found["head"]) == (True, LINES, msgspec.to_builtins(head))
    assert verified("--file", str(database), "--head", str(head), capsys=capsys, code=0)["whole"]
    assert execute(["audit", "verify", "--file", str(database)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines() == [f"whole: {LINES} lines checked", f"head: {head}"]


@pytest.mark.parametrize(
    ("statement", "first", "says"),
    [
        ("UPDATE audit SET actor = 'bob' WHERE number = 1400", 1400, "one of the two was changed"),
        ("UPDATE audit SET at_wall_s = at_wall_s + 1 WHERE number = 1", 1, "one of the two was changed"),
        ("DELETE FROM audit WHERE number BETWEEN 995 AND 1005", 994, "lines 995 to 1005 are missing"),
        ("DELETE FROM audit WHERE number = 1", 0, "line 1 is missing"),
        ("UPDATE audit SET hash = NULL WHERE number > 2400", 2401, "it has no hash"),
        ("INSERT INTO audit SELECT number + 1, at_wall_s, kind, subject, before, after, reason, actor, hash FROM audit "
         "ORDER BY number DESC LIMIT 1", LINES + 1, "one of the two was changed"),
    ],
)  # fmt: skip
def test_what_was_done_to_a_file_is_found(
    copied: sqlite3.Connection, tmp_path: Path, statement: str, *, first: int, says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    copied.execute(statement)
    found = verified("--file", str(tmp_path / "fleet.db"), capsys=capsys, code=1)
    assert not found["whole"]
    assert (found["breaks"][0]["number"], says in found["breaks"][0]["why"]) == (first, True), found["breaks"]
    assert execute(["audit", "verify", "--file", str(tmp_path / "fleet.db")]) == 1
    assert capsys.readouterr().out.startswith(f"broken at line {first}: ")


def test_lines_that_went_by_their_age_leave_a_checkpoint_from_which_the_rest_is_whole(
    copied: sqlite3.Connection, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Down to the last line, and numbers are never used again."""
    young_s = 1.7e9 + 2000 / 8
    gone = 0
    while more := audit_trail.prune(copied, young_s + 90.0, 90.0, 700):
        gone += more
    assert gone == 2000
    found = verified("--file", str(tmp_path / "fleet.db"), capsys=capsys, code=0)
    assert (found["lines"], found["since"]["number"]) == (LINES - 2000, 2000)
    copied.execute("DELETE FROM audit WHERE number = 2001")
    assert not verified("--file", str(tmp_path / "fleet.db"), capsys=capsys, code=1)["whole"]
    while audit_trail.prune(copied, 2e9, 90.0, 700):
        pass
    head = audit_trail.head(copied)
    assert (head, head.number) == (audit_trail.checkpoint(copied), LINES)
    audit_trail.add(copied, 2e9, Kind.HOST, "web", "enrolled", actor="ann")
    found = verified("--file", str(tmp_path / "fleet.db"), capsys=capsys, code=0)
    assert (found["lines"], found["head"]["number"]) == (1, LINES + 1)


@pytest.mark.parametrize("digest", ["NULL", "'text'", "1", "x'00'"])
def test_a_line_that_somebody_put_in_by_hand_breaks_the_chain_and_does_not_stop_it(
    copied: sqlite3.Connection, tmp_path: Path, digest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bug it would catch: the hub can add no line any more, and with it no command."""
    copied.execute(f"INSERT INTO audit VALUES ({LINES + 1}, 2e9, 'host', 'a', NULL, 'enrolled', '', 'eve', {digest})")
    for number in range(3):
        audit_trail.add(copied, 2e9 + number, Kind.HOST, "b", "enrolled", actor="ann")
    found = verified("--file", str(tmp_path / "fleet.db"), capsys=capsys, code=1)
    assert (found["broken"], found["breaks"][0]["number"], found["head"]["number"]) == (1, LINES + 1, LINES + 4)
    copied.execute("DELETE FROM audit")
    copied.execute('UPDATE meta SET value = \'{"number": 3, "hash": "xy"}\' WHERE key = \'audit_checkpoint\'')
    audit_trail.add(copied, 2e9, Kind.HOST, "b", "enrolled", actor="ann")


def test_a_file_of_before_the_chain_and_one_that_is_none_cannot_be_checked_and_are_never_called_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old_installation.unpack(tmp_path)
    for path, error in ((tmp_path / "fleet.db", "not_chained"), (tmp_path / "none.db", "unreadable")):
        assert verified("--file", str(path), capsys=capsys, code=3)["error"] == error


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    with running() as found:
        load().operator_token.write_text("secret\n")
        monkeypatch.setenv("FLEETHUB_OPERATORS_LISTEN", found.url.removeprefix("http://"))
        yield found


def test_a_hub_is_asked_page_by_page_and_its_answers_are_not_taken_on_trust(
    server: ApiServer, database: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "TOLD_EVERY", 1)

    def serve(lines: list[AuditView], checkpoint: object) -> None:
        half = len(lines) // 2
        pages = [
            {"audit": msgspec.to_builtins(part), "next": following, "checkpoint": checkpoint}
            for part, following in ((lines[:half], lines[half - 1].number), (lines[half:], None))
        ]
        server.on("GET", "/api/v1/audit", *((200, page) for page in pages))

    lines = fleet_db.reading(database, lambda sqlite: fleet_db.audit(sqlite, limit=LINES))
    serve(lines, {"number": 0, "hash": ""})
    assert verified(capsys=capsys, code=0)["lines"] == LINES
    assert f"before={lines[LINES // 2 - 1].number}" in server.asked_for("GET", "/api/v1/audit")[-1].query
    lines[700] = msgspec.structs.replace(lines[700], reason="nothing")
    serve(lines, {"number": 0, "hash": ""})
    assert verified(capsys=capsys, code=1)["breaks"][0]["number"] == lines[700].number
    serve(lines, None)
    assert verified(capsys=capsys, code=3)["error"] == "not_chained"
    assert execute(["audit", "verify", "--head", "7:abc"]) == 2
    assert execute(["audit", "--limit", "7", "verify"]) == 2
