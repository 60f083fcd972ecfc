"""A target's URL is a secret: what is shown of it, and what is taken out of what others say of it."""

from __future__ import annotations

import pytest

from processes.core.alarms import target

SECRETS = ("s3cret", "T0KEN", "hidden-room", "user1")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mailto://user1:s3cret@mail.example.org:587?to=hidden-room", "mailto://mail.example.org:587/…"),
        ("json://user1:s3cret@10.0.0.1:8080/T0KEN?x=s3cret", "json://10.0.0.1:8080/…"),
        ("JSONS://Host/T0KEN", "jsons://host/…"),
        ("slack://T0KEN/s3cret/hidden-room", "slack://…"),
        ("tgram://s3cret/T0KEN", "tgram://…"),
        ("json://[s3cret/T0KEN", "json://…"),
        ("json://host:s3cret/", "json://…"),
        ("s3cret", "?://…"),
    ],
)
def test_only_the_scheme_is_shown_and_the_host_where_it_is_one(url: str, shown: str) -> None:
    assert target.masked(url) == shown


@pytest.mark.parametrize(
    "said",
    [
        "cannot reach {url}",
        "user1 was refused with s3cret",
        "GET /T0KEN?x=s3cret: 404 \x1b[31m\nand more of hidden-room",
        "password s3cr%C3%A9t and s3crét",
    ],
)
def test_no_piece_of_a_url_is_left_in_what_is_said(said: str) -> None:
    url = "mailto://user1:s3cret@mail.example.org/T0KEN?to=hidden-room&p=s3cr%C3%A9t"
    line = target.scrubbed(said.format(url=url), url, [])
    assert not any(secret in line for secret in (*SECRETS, "s3crét", "s3cr%C3%A9t"))
    assert line.isprintable()


def test_what_is_no_secret_is_left() -> None:
    url = "json://user1:s3cret@host.example/T0KEN"
    said = "A connection error occurred sending to host.example."
    assert target.scrubbed(said, url, []) == said


def test_arguments_of_a_program_are_taken_out() -> None:
    assert target.scrubbed("curl: T0KEN is wrong", "", ["--key", "T0KEN"]) == "curl: … is wrong"


def test_names_are_schemes_numbered_where_several_are_alike() -> None:
    assert target.names(["slack://a", "json://b", "Slack://c"], True) == ["slack", "json", "slack:2", "exec"]


@pytest.mark.parametrize("text", ["", "mail", "://x", "json://", "json://a\nb", "1x://y"])
def test_what_is_no_url_is_refused(text: str) -> None:
    assert not target.is_url(text)


def test_a_url_is_one() -> None:
    assert target.is_url("mailto://user:password@host")
