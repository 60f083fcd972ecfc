"""Why a command waits for its host."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from doubles.api_server import command as command_row
from doubles.api_server import host as host_row

from processes.core.cli.waiting import why_waits
from processes.core.shown.views import CommandView, HostView

SINCE, LATER = "2026-01-02T03:04:05.000Z", "2026-01-02T03:05:00.000Z"


def command(command_id: str, state: str, **more: Any) -> CommandView:
    return msgspec.convert(command_row(command_id, "web1", state, **more), CommandView)


def host(**more: Any) -> HostView:
    return msgspec.json.decode(msgspec.json.encode(host_row("web1", **more)), type=HostView)


RUNNING = command("a" * 32, "running", op="forever", actor="ann", started_at=SINCE, sent_at=SINCE)
SENT = command("b" * 32, "sent", op="other", actor="bob", sent_at=LATER)
QUEUED = command("c" * 32, "queued")


@pytest.mark.parametrize(
    ("waiting", "its_host", "others", "wanted"),
    [
        (QUEUED, host(), [RUNNING], ("web1 runs forever (aaaaaaaa, given by ann)", SINCE)),
        (QUEUED, host(), [SENT, RUNNING], ("web1 runs forever, and 1 more (aaaaaaaa, given by ann)", SINCE)),
        (QUEUED, host(presence="offline", last_seen=SINCE), [RUNNING], ("web1 is offline", SINCE)),
        (QUEUED, host(presence="offline"), [], ("web1 is offline", None)),
        (QUEUED, host(suspended="it floods", suspended_at=SINCE), [], ("web1 is suspended: it floods", SINCE)),
        (QUEUED, host(), [], ("", None)),
        (QUEUED, None, [], ("", None)),
        (RUNNING, None, [RUNNING], ("", None)),
        (
            command("d", "running", unheard_since=SINCE), None, [],
            ("web1 is not connected: whether it still runs there is not known", SINCE),
        ),
        (command("d", "succeeded", unheard_since=SINCE), None, [RUNNING], ("", None)),
    ],
)  # fmt: skip
def test_why_a_command_waits(
    waiting: CommandView, its_host: HostView | None, others: list[CommandView], wanted: tuple[str, str | None]
) -> None:
    assert why_waits(waiting, its_host, others) == wanted
