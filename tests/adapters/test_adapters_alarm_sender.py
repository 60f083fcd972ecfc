"""One alarm to one target, whatever that does: it arrives, or it is said why not, in time, without a secret, and
nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.header
import json
import time
import zlib
from pathlib import Path

import psutil
import pytest
from doubles.alarm_ends import mail_server, silent_port, webhook
from doubles.deadline import WAIT_S

from processes.adapters import alarm_sender
from processes.adapters.alarm_sender import Heartbeat, Target
from processes.core.alarms import outbox
from processes.core.alarms import webhook as alarm_webhook
from processes.core.alarms.alarm import AlarmEvent, Phase
from processes.core.alarms.outbox import AlarmMessage
from processes.core.values import Severity

EVENT = AlarmEvent(
    1, "incident:1", Phase.BEGUN, Severity.CRITICAL, "hub frozen", "stuck at <b>loop.py:7</b> & more", 0.0
)
MESSAGE = outbox.message("box", [EVENT])
LONG_S = 3000.0  # no test waits for it


def deliver(target: Target, deadline_s: float = LONG_S, message: AlarmMessage = MESSAGE) -> str:
    return asyncio.run(alarm_sender.deliver(target, message, deadline_s))


def program(script: str, *arguments: str) -> Target:
    return Target("exec", argv=["/bin/sh", "-c", script, "sh", *arguments])


def gone(pid: int) -> bool:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.01)
                continue
        return True
    return False


def test_webhook_gets_title_and_body() -> None:
    with webhook() as hook:
        assert deliver(Target("json", hook.url)) == ""
    assert hook.got[0]["title"] == "[box] hub frozen"
    assert hook.got[0]["message"] == "00:00:00 UTC BEGUN hub frozen: stuck at <b>loop.py:7</b> & more"
    assert hook.got[0]["type"] == "failure"


def test_what_is_over_is_sent_as_good_news() -> None:
    over = outbox.message("box", [AlarmEvent(1, "a", Phase.OVER, Severity.CRITICAL, "hub frozen", "well again", 0.0)])
    with webhook() as hook:
        assert deliver(Target("json", hook.url), message=over) == ""
    assert hook.got[0]["type"] == "success"


def test_mail_arrives_with_its_subject_and_nothing_of_it_is_taken_for_markup() -> None:
    with mail_server() as (port, got):
        error = deliver(
            Target(
                "mailto", f"mailto://127.0.0.1:{port}?from=hub@box.example&to=ops@box.example&mode=insecure&format=text"
            )
        )
    assert error == ""
    mail = email.message_from_string(got[0])
    assert str(email.header.make_header(email.header.decode_header(mail["Subject"]))) == "[box] hub frozen"
    text = next(part for part in mail.walk() if part.get_content_type() == "text/plain")
    payload = text.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert b"stuck at <b>loop.py:7</b> & more" in payload


@pytest.mark.parametrize("status", [403, 500])
def test_refusal_is_told_without_a_secret(status: int) -> None:
    with webhook() as hook:
        hook.answer = status
        error = deliver(Target("json", hook.url))
    assert str(status) in error
    assert not any(secret in error for secret in ("s3cret", "T0KEN", "user1"))


@pytest.mark.parametrize("kind", ["webhook", "heartbeat", "apprise"])
def test_whoever_is_called_cannot_send_the_call_elsewhere(kind: str) -> None:
    """The bug it would catch: an outside service has this machine call what only this machine can reach."""
    with webhook() as hook, webhook() as inside:
        hook.answer, hook.elsewhere = 307, f"http://127.0.0.1:{inside.port}/admin"
        url = f"http://127.0.0.1:{hook.port}/T0KEN"
        if kind == "apprise":
            error = deliver(Target("json", hook.url))
        elif kind == "heartbeat":
            error = asyncio.run(alarm_sender.call(Heartbeat(url=url), "box", "ok", 3, LONG_S))
        else:
            error = deliver(Target("webhook", webhook=url, secret="whsec_" + "QUJD" * 8))
    assert "307" in error
    assert len(hook.raw) == 1
    assert inside.raw == []


def test_nobody_there_and_no_such_target_are_told() -> None:
    assert "onnection" in deliver(Target("json", "json://user1:s3cret@127.0.0.1:1/T0KEN"))
    assert "no such target" in deliver(Target("nosuch", "nosuch://T0KEN"))


def test_target_that_hangs_costs_its_deadline_and_no_more() -> None:
    with silent_port() as port:
        assert deliver(Target("json", f"json://127.0.0.1:{port}/?rto=6000&cto=6000"), 1.0) == "no answer within 1 s"


def test_program_gets_the_alarm_as_json_and_no_shell_reads_its_words(tmp_path: Path) -> None:
    hostile = "$(touch pwned); `x` | y > z"
    assert deliver(program('cat > "$1"; printf %s "$2" > "$1.word"', str(tmp_path / "out"), hostile)) == ""
    got = json.loads((tmp_path / "out").read_text())
    assert (got["installation"], got["severity"], got["over"]) == ("box", "critical", False)
    assert got["events"][0]["title"] == "hub frozen"
    assert (tmp_path / "out.word").read_text() == hostile
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.word"]


def test_program_gets_nothing_of_our_environment_but_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "FLEETHUB_ALARMS_URLS", "SUPERVISOR_SERVER_URL", "SECRET"):
        monkeypatch.setenv(name, "x")
    assert deliver(program("env > $1", str(tmp_path / "env"))) == ""
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} <= alarm_sender.KEPT
    assert "PATH" in names


def test_program_that_fails_is_quoted_without_its_arguments_or_control_characters() -> None:
    assert (
        deliver(program('echo "$1 is bad\n\033[31mtruly" >&2; exit 3', "T0KEN-x")) == "exit code 3: … is bad [31mtruly"
    )
    assert deliver(program("kill -9 $$")) == "ended by signal 9"
    assert "cannot be run: No such file" in deliver(Target("exec", argv=["/does/not/exist"]))


def test_program_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = "sleep 300 & echo $! > $1; echo $$ >> $1; sleep 300"
    assert deliver(program(script, str(tmp_path / "pids")), 2.0) == "no answer within 2 s"
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_program_that_leaves_something_behind_is_not_waited_for(tmp_path: Path) -> None:
    assert deliver(program("sleep 300 & echo $! > $1; exit 0", str(tmp_path / "pid"))) == ""
    assert gone(int((tmp_path / "pid").read_text()))


def test_program_that_never_stops_complaining_is_cut_and_ends_all_the_same() -> None:
    error = deliver(program("yes oh | head -c 5000000 >&2; echo last >&2; exit 1"))
    assert error.startswith("exit code 1: ")
    assert len(error) <= outbox.ERROR_CHARS_MAX


def test_cancelled_delivery_leaves_no_process(tmp_path: Path) -> None:
    async def scene() -> None:
        task = asyncio.create_task(
            alarm_sender.deliver(
                program("echo $$ > $1.new; mv $1.new $1; sleep 300", str(tmp_path / "pid")), MESSAGE, LONG_S
            )
        )
        while not (tmp_path / "pid").exists():
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(scene())
    assert gone(int((tmp_path / "pid").read_text()))


def test_targets_show_no_secret() -> None:
    found = alarm_sender.targets(
        ["slack://T0KEN/x/y", "json://u:s3cret@host/T0KEN"], ["/usr/bin/page", "--key", "T0KEN"]
    )
    assert [(target.name, target.shown) for target in found] == [
        ("slack", "slack://…"), ("json", "json://host/…"), ("exec", "/usr/bin/page"),
    ]  # fmt: skip
    assert alarm_sender.targets([], []) == []


def test_a_webhook_of_our_own_gets_the_events_signed() -> None:
    with webhook() as hook:
        url = f"http://127.0.0.1:{hook.port}/x"
        assert deliver(Target("webhook", webhook=url, secret="0123456789abcdef")) == ""
    (raw, headers), (body,) = hook.raw[-1], hook.got
    assert body["events"][0]["title"] == "hub frozen"
    at_wall_s = float(headers["webhook-timestamp"])
    assert abs(time.time() - at_wall_s) < WAIT_S
    signed = alarm_webhook.headers("0123456789abcdef", headers["webhook-id"], at_wall_s, raw)
    assert headers["webhook-signature"] == signed["webhook-signature"]


def test_a_webhook_that_refuses_is_said_without_its_path_and_secret() -> None:
    with webhook() as hook:
        hook.answer = 503
        url = f"http://127.0.0.1:{hook.port}/hidden-path"
        told = deliver(Target("webhook", webhook=url, secret="0123456789abcdef"))
    assert "HTTP 503" in told
    assert "hidden-path" not in told


def test_an_answer_that_unpacks_to_more_than_a_sender_may_have_costs_no_memory() -> None:
    packer = zlib.compressobj(1, wbits=-15)
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)  # each is unpacked alone
    with webhook() as hook:
        hook.deflated = megabyte * (2 * alarm_sender.DATA_BYTES_MAX >> 20) + packer.flush()
        url = f"http://127.0.0.1:{hook.port}/x"
        assert deliver(Target("webhook", webhook=url)) == ""  # it was taken: only the head of the answer is read
        assert deliver(Target("json", hook.url)) != ""  # apprise reads all of it, as far as it may


def test_the_dead_mans_switch_says_the_verdict_by_post_and_to_a_program(tmp_path: Path) -> None:
    with webhook() as hook:
        beat = Heartbeat(url=f"http://127.0.0.1:{hook.port}/ping")
        assert asyncio.run(alarm_sender.call(beat, "box", "degraded", 3, LONG_S)) == ""
    assert hook.got == [{"installation": "box", "verdict": "degraded", "epoch": 3}]
    out = tmp_path / "beat"
    beat = Heartbeat(argv=["/bin/sh", "-c", f"cat > {out}"])
    assert asyncio.run(alarm_sender.call(beat, "box", "ok", 3, LONG_S)) == ""
    assert json.loads(out.read_text())["verdict"] == "ok"
    assert "exit code 7" in asyncio.run(
        alarm_sender.call(Heartbeat(argv=["/bin/sh", "-c", "exit 7"]), "b", "ok", 1, LONG_S)
    )
