"""A host's name is the same in capitals or not (RFC 4343), as its agent's word is taken."""

from __future__ import annotations

import msgspec
import pytest
from doubles.fleet_play import Play

from processes.core.travels.messages import EnrollHost, GiveCommand, LiftHost, MakeCode, RemoveHost, Request, RevokeHost


def refused(play: Play, request: Request) -> tuple[int, str, str]:
    reply = play.ask(request)
    said = msgspec.json.decode(reply.body)
    return reply.status, said["error"], said["message"]


@pytest.mark.parametrize(
    "request_",
    [EnrollHost("VM.example.org", "h2"), EnrollHost("vm.Example.org", "h2", True), MakeCode("VM.EXAMPLE.ORG", "c")],
)
def test_a_host_is_not_enrolled_a_second_time_in_other_letters(request_: Request) -> None:
    """CASE: `enroll VM` beside vm made a second host, and the agent of either could call itself both."""
    play = Play()
    play.enroll("vm.example.org")
    status, error, message = refused(play, request_)
    assert (status, error) == (409, "exists")
    assert "is enrolled already, as vm.example.org" in message
    assert play.ask(EnrollHost("vm.example.org", "h3", True)).status == 201
    assert play.ask(EnrollHost("vm2.example.org", "h4")).status == 201


@pytest.mark.parametrize(
    "request_", [GiveCommand("pull", ["Vm"], None, None), RevokeHost("Vm"), RemoveHost("VM"), LiftHost("VM")]
)
def test_who_names_a_host_in_other_letters_is_told_its_name(request_: Request) -> None:
    play = Play()
    play.enroll("vm")
    status, error, message = refused(play, request_)
    assert (status, error) == (404, "unknown_host")
    assert message.endswith("its name is vm")


def test_of_a_name_that_nobody_has_nothing_is_guessed() -> None:
    play = Play()
    play.enroll("vm")
    assert refused(play, GiveCommand("pull", ["wm"], None, None))[2] == "there is no host 'wm': see `fleethub hosts`"
