"""An agent that claimed to be another host: a line of the audit trail, which no hub drops, and nobody's guilt."""

from __future__ import annotations

from doubles.fleet_play import Play

from processes.core.hub import flood, step
from processes.core.hub.effects import AddAudit
from processes.core.travels.audit import Kind
from processes.core.travels.messages import AckReceived, HostFlooded, HostImpersonated


def test_it_is_a_line_that_names_the_host_of_the_token_the_claimed_name_and_the_address() -> None:
    play = Play()
    play.enroll("web1")
    event = HostImpersonated("b.1", "gateway", "web1", "web2" + "x" * 300, "10.0.0.1:5", 7)
    (write,) = play.do(event).writes
    assert isinstance(write, AddAudit)
    line = write.line
    assert (line.kind, line.subject, line.after, line.actor) == (
        Kind.HOST, "web1", "impersonated", "web1 at 10.0.0.1:5",
    )  # fmt: skip
    assert line.reason.startswith("registered as web2x")
    assert line.reason.endswith(", 7 times")
    (once,) = play.do(HostImpersonated("b.1", "gateway", "web1", "web2", "10.0.0.1:5")).writes
    assert isinstance(once, AddAudit)
    assert once.line.reason == "registered as web2"


def test_it_is_never_dropped_while_the_disk_is_blocked_nor_for_a_suspended_host_and_blames_nobody() -> None:
    play = Play()
    play.enroll("web1")
    event = HostImpersonated("b.1", "gateway", "web1", "web2")
    assert step.said_once(play.memory, event)
    assert flood.to_blame(event) == ""
    play.do(HostFlooded("b.1", "gateway", "web1"))
    assert flood.suspended(play.memory, AckReceived("b.1", "gateway", "web1", "c", "accepted"))
    assert not flood.suspended(play.memory, event)
