"""incidents and incident: the same from the state folder and from another machine's API."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from doubles.api_server import ApiServer, running

from processes.adapters.settings import Settings, load
from processes.cli.__main__ import execute
from processes.core.watchdog.incident import Incident
from processes.watchdog.incident_store import Store

STACK = 'Thread 0x1:\n  File "\x1b]0;owned\x07.py", line 1 in take_twice\n'


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path / "state"))
    settings = load()
    settings.state.mkdir()
    store = Store(settings.incidents_database, settings.evidence, 10, 1 << 20)
    for number in (1, 2):
        store.save(Incident(
            id=f"i{number}", process="hub", verdict="frozen", reason="no turn", pid=7, epoch=3, boot_id="b",
            good_mono_s=1.0,
            found_mono_s=3.1, found_wall_s=1e9, stuck_at="processes/hub/loop.py:9 take_twice",
            remedy="killed and replaced",
            evidence=["stacks.txt", "gone.txt"], events=["+0.100 s evidence collected"],
            drill=number == 2,
        ))  # fmt: skip
    store.close()
    (settings.evidence / "i2").mkdir(parents=True)
    (settings.evidence / "i2" / "stacks.txt").write_text(STACK)
    return settings


@pytest.fixture
def elsewhere(tmp_path: Path) -> tuple[str, ...]:
    token = tmp_path / "token"
    token.write_text("secret\n")
    return "--token-file", str(token)


def test_the_story_and_the_evidence_are_shown_without_control_characters(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["incident", "i2", "--evidence"]) == 0
    out = capsys.readouterr().out
    for wanted in (
        "killed and replaced",
        "take_twice",
        "+0.100 s evidence collected",
        f"{settings.evidence}/i2/stacks.txt",
    ):
        assert wanted in out
    assert "\x1b" not in out
    assert "cannot be read: No such file" in out
    assert execute(["incident", "i9"]) == 1
    assert "there is no incident 'i9'" in capsys.readouterr().err


def test_a_drill_is_marked_in_the_list(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["incidents"]) == 0
    drill, other = capsys.readouterr().out.splitlines()[1:]
    assert "drill" in drill.split()
    assert "drill" not in other.split()


def test_another_machine_is_asked_and_the_answer_looks_the_same(
    settings: Settings, elsewhere: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["incidents"]) == 0
    listed = capsys.readouterr().out
    assert execute(["incident", "i2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document["evidence_text"]) == {"stacks.txt", "gone.txt"}
    assert execute(["incidents", "--json"]) == 0
    page = json.loads(capsys.readouterr().out)
    assert [view["id"] for view in page["incidents"]] == ["i2", "i1"]
    with running() as server:
        _serve(server, page, document)
        assert execute(["incidents", "--limit", "7", "--hub", server.url, *elsewhere]) == 0
        assert capsys.readouterr().out == listed
        assert execute(["incident", "i2", "--json", "--hub", server.url, *elsewhere]) == 0
        assert json.loads(capsys.readouterr().out) == document
        assert execute(["incident", "i2", "--evidence", "--hub", server.url, *elsewhere]) == 0
        assert "── stacks.txt" in capsys.readouterr().out
        assert execute(["incident", "i9", "--hub", server.url, *elsewhere]) == 1
        assert "there is no incident 'i9'" in capsys.readouterr().err
        assert server.asked[0].query == "limit=7"


def _serve(server: ApiServer, page: object, document: object) -> None:
    server.on("GET", "/api/v1/incidents", (200, page))
    server.on("GET", "/api/v1/incidents/i2", (200, document))
    server.on(
        "GET", "/api/v1/incidents/i9", (404, {"error": "unknown_incident", "message": "there is no incident 'i9'"})
    )


def test_an_incident_may_be_named_by_its_beginning(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(settings.incidents_database, settings.evidence, 10, 1 << 20)
    for its_id in ("20260102T03-a", "20260102T04-b"):
        store.save(Incident(
            id=its_id, process="hub", verdict="dead", reason="", pid=7, epoch=1, boot_id="b", good_mono_s=1.0,
            found_mono_s=2.0, found_wall_s=1e9,
        ))  # fmt: skip
    store.close()
    assert execute(["incident", "20260102T04"]) == 0
    assert "20260102T04-b" in capsys.readouterr().out
    assert execute(["incident", "2026", "--json"]) == 1
    refused = capsys.readouterr()
    assert json.loads(refused.out)["error"] == "ambiguous_id"
    assert "several incidents begin with '2026': 20260102T03-a, 20260102T04-b" in refused.err
    assert execute(["incident", "202"]) == 1, "too short"


def test_a_long_file_is_shown_in_part_and_says_so(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    (settings.evidence / "i2" / "stacks.txt").write_text("x" * 80 * 1024)
    assert execute(["incident", "i2"]) == 0
    assert len(capsys.readouterr().out) < 2000, "a summary is on one screen"
    assert execute(["incident", "i2", "--evidence"]) == 0
    out = capsys.readouterr().out
    assert 64 * 1024 <= out.count("x") < 65 * 1024
    assert "… and more, in" in out
