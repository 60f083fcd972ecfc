"""`fleethub alarms`: who is told and what stands, without a secret; `alarms test`: one alarm to each, and an exit
code.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from doubles.alarm_ends import webhook

from processes.adapters import settings
from processes.adapters.settings import SettingsError
from processes.adapters.state import audit_trail, fleet_db
from processes.cli.__main__ import execute
from processes.core.alarms.alarm import AlarmEvent, AlarmState, Condition, Phase, Standing, Told
from processes.core.travels.audit import Kind
from processes.core.values import Severity

SECRETS = ("s3cret", "T0KEN")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLEETHUB_STATE", str(tmp_path))
    return tmp_path


def write_config(state: Path, *urls: str, argv: list[str] | None = None) -> None:
    (state / "fleethub.toml").write_text(
        f"[alarms]\nurls = {json.dumps(list(urls))}\nexec = {json.dumps(argv or [])}\n"
    )


def test_targets_are_listed_with_how_they_fare_and_without_their_secrets(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(state, "slack://T0KEN/a/b", "json://u:s3cret@host/T0KEN", argv=["/bin/page"])
    event = AlarmEvent(5, "storage", Phase.BEGUN, Severity.CRITICAL, "storage is blocked", "", 0.0)
    told = {"slack": Told(5, sent=2, sent_wall_s=0.0), "json": Told(4, attempts=3, error="exit code 1: refused")}
    standing = {
        "storage": Standing(Condition("storage", Severity.CRITICAL, "storage is blocked", "look at the disk"), 0.0)
    }
    (state / "alarms.json").write_bytes(msgspec.json.encode(AlarmState(5, [event], standing, [], 0, told)))
    assert execute(["alarms", "--json"]) == 0
    shown = capsys.readouterr().out
    document = json.loads(shown)
    assert [(row["name"], row["state"], row["waiting"]) for row in document["targets"]] == [
        ("slack", "idle", 0), ("json", "failing", 1), ("exec", "new", 0),
    ]  # fmt: skip
    assert document["standing"][0]["title"] == "storage is blocked"
    assert execute(["alarms"]) == 0
    shown += capsys.readouterr().out
    assert "exit code 1: refused" in shown
    assert "critical since 1970-01-01T00:00:00.000Z: storage is blocked: look at the disk" in shown
    assert not any(secret in shown for secret in SECRETS)


def test_nobody_to_tell_is_said(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["alarms"]) == 0
    assert "nobody is told" in capsys.readouterr().out
    assert execute(["alarms", "test"]) == 1
    assert "nobody is told" in capsys.readouterr().err


def test_test_alarm_reaches_each_target_and_one_that_fails_is_named(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with webhook() as hook:
        write_config(state, hook.url, "json://u:s3cret@127.0.0.1:1/T0KEN", argv=["/bin/sh", "-c", f"cat > {state}/out"])
        assert execute(["alarms", "test", "--json"]) == 1
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["targets"]}
        assert (rows["json"]["ok"], rows["json:2"]["ok"], rows["exec"]["ok"]) == (True, False, True)
        assert hook.titles[0].endswith("] a test alarm")
        write_config(state, hook.url)
        assert execute(["alarms", "test"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [f"json (json://127.0.0.1:{hook.port}/…): sent"]
    told = json.loads((state / "out").read_text())
    assert told["events"][0]["phase"] == "test"
    assert told["audit_head"] == "", "nothing was ever started here"


def test_a_test_alarm_tells_the_head_of_the_audit_trail_as_every_alarm_does(state: Path) -> None:
    connection = fleet_db.open_for_writing(state / "fleet.db")
    audit_trail.add(connection, 1e9, Kind.HOST, "web1", "enrolled", actor="admin")
    head = audit_trail.head(connection)
    connection.close()
    write_config(state, argv=["/bin/sh", "-c", f"cat > {state}/out"])
    assert execute(["alarms", "test"]) == 0
    told = json.loads((state / "out").read_text())
    assert told["audit_head"] == str(head)
    assert f"audit head {head}" in told["body"]


def test_file_with_passwords_that_everybody_can_read_is_warned_of(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(state, "json://u:s3cret@host/T0KEN")
    for mode, folder_mode, warned in ((0o644, 0o755, True), (0o640, 0o755, False), (0o644, 0o700, False)):
        (state / "fleethub.toml").chmod(mode)
        state.chmod(folder_mode)
        assert execute(["alarms"]) == 0
        assert ("chmod o-r" in capsys.readouterr().err) is warned


def test_damaged_file_is_an_error_that_names_it(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (state / "alarms.json").write_text("{")
    assert execute(["alarms"]) == 1
    assert "alarms.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"FLEETHUB_ALARMS_URLS": "json://ok s3cret-T0KEN"}, "number 2 is not the URL"),
        ({"FLEETHUB_ALARMS_URLS": "'json://T0KEN"}, "quoted as in a shell"),
        ({"FLEETHUB_ALARMS_SEVERITY": "grave"}, "grave"),
        ({"FLEETHUB_ALARMS_EXEC": "''"}, "the program to run"),
        ({"FLEETHUB_ALARMS_URLS": " ".join(["json://T0KEN"] * 21)}, "more than 20"),
    ],
)
def test_wrong_setting_is_named_and_its_secret_is_not(tmp_path: Path, environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        settings.load({"FLEETHUB_STATE": str(tmp_path), **environ})
    assert not any(secret in str(caught.value) for secret in SECRETS)


def test_lists_in_the_environment_are_words(tmp_path: Path) -> None:
    found = settings.load({
        "FLEETHUB_STATE": str(tmp_path),
        "FLEETHUB_ALARMS_URLS": "json://a 'json://b c'",
        "FLEETHUB_ALARMS_EXEC": "/bin/page 'all of us'",
        "FLEETHUB_ALARMS_SEVERITY": "critical",
    })  # fmt: skip
    assert found.file.alarms.urls == ["json://a", "json://b c"]
    assert found.file.alarms.exec == ["/bin/page", "all of us"]
    assert found.file.alarms.severity is Severity.CRITICAL
