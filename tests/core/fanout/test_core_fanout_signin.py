"""processes.core.fanout.signin and health: who may come in, and what /healthz says."""

from __future__ import annotations

import base64
import hmac
import time
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from processes.core.fanout import health
from processes.core.fanout.signin import (
    ATTEMPTS_ALL_MAX,
    ATTEMPTS_MAX,
    ATTEMPTS_S,
    IDLE_S_MAX,
    SESSION_S_MAX,
    SESSIONS_MAX,
    USE_TOLD_S,
    Attempts,
    Public,
    Uses,
    below,
    cookie,
    cookie_values,
    host_allowed,
    is_idle,
    origin_allowed,
    read_cookie,
    session_of,
)
from processes.core.shown.status import (
    CanaryReport,
    CommandsReport,
    FleetReport,
    IncidentsReport,
    Overall,
    PortReport,
    ProcessReport,
    Report,
    Verdict,
)
from processes.core.travels.pulse import Pulse
from processes.core.values import Role

KEY = b"k" * 32
ANN = session_of("sid", "hash of her token", Role.OPERATOR, "ann", 1000.0)
PLAIN = Public.of("", "127.0.0.1:7700", False)
PROXIED = Public.of("https://fleet.example:8443", "127.0.0.1:7700", False)


def test_a_cookie_speaks_for_whom_it_was_made_until_it_is_too_old() -> None:
    text = cookie(KEY, ANN)
    found = read_cookie(KEY, text, 1000.0 + SESSION_S_MAX)
    assert found is not None
    assert found == ANN
    assert read_cookie(KEY, text, 1001.0 + SESSION_S_MAX) is None
    assert read_cookie(b"x" * 32, text, 1000.0) is None


def test_a_cookie_of_a_version_before_names_no_token_and_is_not_good() -> None:
    body = base64.urlsafe_b64encode(b'{"id":"sid","role":"admin","actor":"ann","at":1000.0}').rstrip(b"=")
    signature = base64.urlsafe_b64encode(hmac.digest(KEY, body, "sha256")).rstrip(b"=")
    assert read_cookie(KEY, f"{body.decode()}.{signature.decode()}", 1000.0) is None


def test_a_session_that_nobody_uses_ends_after_two_hours() -> None:
    assert not is_idle(1000.0, 0.0, 1000.0 + IDLE_S_MAX), "its beginning is its first use"
    assert is_idle(1000.0, 0.0, 1001.0 + IDLE_S_MAX)
    assert not is_idle(1000.0, 2000.0, 2000.0 + IDLE_S_MAX)
    assert is_idle(1000.0, 2000.0, 2001.0 + IDLE_S_MAX)
    assert not is_idle(1000.0, 2000.0, 500.0), "a clock that was set back ends nothing"


def test_a_use_is_told_to_the_others_once_a_minute_and_so_is_one_after_the_clock_was_set_back() -> None:
    uses = Uses()
    assert uses.note("sid", 1000.0)
    assert not uses.note("sid", 999.0 + USE_TOLD_S)
    assert uses.note("other", 1000.0)
    assert uses.note("sid", 1000.0 + USE_TOLD_S)
    assert uses.last_wall_s("sid") == 1000.0 + USE_TOLD_S
    assert uses.note("sid", 500.0)
    assert uses.last_wall_s("nobody") == 0.0
    for number in range(SESSIONS_MAX):
        uses.note(f"sid{number}", 2000.0)
    assert uses.last_wall_s("sid") == 0.0, "no more are remembered than that"


def test_no_altered_cookie_is_good() -> None:
    text = cookie(KEY, ANN)
    body, _, signature = text.partition(".")
    for place in range(len(text)):
        altered = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        assert read_cookie(KEY, altered, 1000.0) is None, altered
    for altered in ("", ".", body, body + ".", "." + signature, text + "é", "x" * 10_000 + "." + signature):
        assert read_cookie(KEY, altered, 1000.0) is None


@pytest.mark.parametrize(
    ("host", "public", "allowed"),
    [
        ("127.0.0.1:7700", PLAIN, True), ("localhost:1", PLAIN, True), ("LOCALHOST", PLAIN, True), ("127.9.9.9", PLAIN,
        True),
        ("[::1]:7700", PLAIN, True), ("evil.example", PLAIN, False), ("127.0.0.1.evil.example", PLAIN, False),
        ("localhost.evil", PLAIN, False), ("", PLAIN, True), (" ", PLAIN, False),
        ("fleet.example.:8443", PROXIED, True), ("fleet.example..:8443", PROXIED, False), ("127.0.0.1:7700, evil", PLAIN, False),
        ("user@127.0.0.1", PLAIN, False), ("fleet.example:8443", PLAIN, False), ("fleet.example:8443", PROXIED, True),
        ("FLEET.example:8443", PROXIED, True), ("fleet.example", PROXIED, False), ("xfleet.example:8443", PROXIED,
        False),
        ("10.0.0.5:7700", Public.of("", "10.0.0.5:7700", True), True), ("10.0.0.5:7700", Public.of("", "0.0.0.0:7700",
        True), False),
    ],
)  # fmt: skip
def test_only_loopback_and_the_public_name_are_our_host(host: str, public: Public, allowed: bool) -> None:
    assert host_allowed(host, public) is allowed


@pytest.mark.parametrize(
    ("origin", "host", "public", "allowed"),
    [
        ("http://127.0.0.1:7700", "127.0.0.1:7700", PLAIN, True), ("http://localhost:7700", "localhost:7700", PLAIN,
        True),
        ("https://fleet.example:8443", "fleet.example:8443", PROXIED, True), ("null", "127.0.0.1:7700", PLAIN, False),
        ("", "127.0.0.1:7700", PLAIN, False), ("http://evil.example", "127.0.0.1:7700", PLAIN, False),
        ("http://127.0.0.1:7701", "127.0.0.1:7700", PLAIN, False), ("http://127.0.0.1", "127.0.0.1:7700", PLAIN, False),
        ("https://127.0.0.1:7700", "127.0.0.1:7700", PLAIN, False), ("http://localhost:7700", "127.0.0.1:7700", PLAIN,
        False),
        ("http://127.0.0.1:7700.evil.example", "127.0.0.1:7700", PLAIN, False),
        ("http://evil.example/127.0.0.1:7700", "127.0.0.1:7700", PLAIN, False),
        ("http://127.0.0.1:7700/", "127.0.0.1:7700", PLAIN, False), ("HTTP://127.0.0.1:7700", "127.0.0.1:7700", PLAIN,
        False),
        ("http://LOCALHOST:7700", "localhost:7700", PLAIN, False), ("file://", "127.0.0.1:7700", PLAIN, False),
        ("https://fleet.example:8443.evil", "fleet.example:8443", PROXIED, False),
        ("https://sub.fleet.example:8443", "fleet.example:8443", PROXIED, False),
        ("https://fleet.example", "fleet.example:8443", PROXIED, False),
        ("http://fleet.example:8443", "fleet.example:8443", PROXIED, False),
    ],
)  # fmt: skip
def test_only_a_page_of_our_own_is_no_foreign_origin(origin: str, host: str, public: Public, allowed: bool) -> None:
    assert origin_allowed(origin, host, public, tls=False) is allowed


def test_a_thousand_guesses_of_a_kind_from_one_network_are_ten() -> None:
    attempts = Attempts()
    assert sum(attempts.allow("10.0.0.1", "token", 0.0) for _ in range(1000)) == ATTEMPTS_MAX
    assert attempts.allow("10.0.0.2", "token", 0.0)
    assert attempts.allow("10.0.0.1", "bearer", 0.0), "a script's token is not a browser's"
    assert attempts.allow("10.0.0.1", "token", ATTEMPTS_S)


def test_guesses_from_everywhere_are_bounded_too() -> None:
    attempts = Attempts()
    assert sum(attempts.allow(f"10.0.{n // 250}.{n % 250}", "token", 0.0) for n in range(50_000)) == ATTEMPTS_ALL_MAX


NOW_S = 1000.0


def report(
    *, age_s: float = 0.5, round_age_s: float | None = 1.0, epoch: int = 3,
    ports: Mapping[str, float | None] = MappingProxyType({}), unwanted: str = "", **verdicts: Verdict,
) -> Report:  # fmt: skip
    given = {"hub": Verdict.ADVANCING, "gateway": Verdict.ADVANCING, "fanout": Verdict.ADVANCING, **verdicts}
    processes = [
        ProcessReport(name, "RUNNING", 1, 1.0, 0, 1, verdict, wanted=name != unwanted)
        for name, verdict in given.items()
    ]
    round_s = None if round_age_s is None else NOW_S - round_age_s
    knocks = [PortReport(name, "127.0.0.1:1", True, knock_age_s) for name, knock_age_s in ports.items()]
    canary = CanaryReport(True, round_age_s, 1.0, epoch, round_s, ports=knocks)
    return Report(
        Overall.OK, 3, processes, canary, FleetReport(), CommandsReport(), IncidentsReport(), at_mono_s=NOW_S - age_s
    )


def hub(age_s: float = 0.1) -> Pulse:
    return Pulse(epoch=3, written_ns=int((NOW_S - age_s) * 1e9))


@pytest.mark.parametrize(
    ("pulse", "alive", "seen", "reason"),
    [
        (hub(), True, report(), ""),
        (None, False, report(), "hub_not_running"),
        (hub(), False, report(), "hub_not_running"),
        (Pulse(epoch=3), True, report(), "hub_starting"),
        (hub(2.0), True, report(), "hub_frozen"),
        (hub(), True, None, "watchdog_silent"),
        (hub(), True, report(age_s=3.1), "watchdog_silent"),
        (hub(), True, report(age_s=-5.0), "watchdog_silent"),
        (hub(), True, report(hub=Verdict.STALLED), "hub_stalled"),
        (hub(), True, report(hub=Verdict.UNKILLABLE), "hub_unkillable"),
        (hub(), True, report(round_age_s=None), "canary_unknown"),
        (hub(), True, report(round_age_s=10.1), "canary_stale"),
        (hub(), True, report(epoch=2), "canary_epoch"),
        (hub(), True, report(gateway=Verdict.FROZEN), "gateway_frozen"),
        (hub(), True, report(fanout=Verdict.STALLED), "fanout_stalled"),
        (hub(), True, report(gateway=Verdict.DEAF), "gateway_deaf"),
        (hub(), True, report(fanout=Verdict.DEAF), "fanout_deaf"),
        (hub(), True, report(gateway=Verdict.LAGGING), ""),
        (hub(), True, report(ports={"agents": 9.4, "operators": 9.4}), ""),
        (hub(), True, report(ports={"agents": 9.6, "operators": 1.0}), "agents_port_closed"),
        (hub(), True, report(ports={"agents": 1.0, "operators": 9.6}), "operators_port_closed"),
        (hub(), True, report(ports={"agents": 20.0}, round_age_s=20.0), "agents_port_closed"),
        (hub(), True, report(ports={"agents": 20.0}, round_age_s=20.0, unwanted="gateway"), "canary_stale"),
        (hub(), True, report(ports={"agents": None, "operators": 1.0}), "canary_stale"),
    ],
)
def test_health_is_green_only_with_a_pulse_a_round_and_nobody_stuck(
    pulse: Pulse | None, alive: bool, seen: Report | None, reason: str
) -> None:
    assert health.judge(pulse, alive, seen, NOW_S, 2.0).reason == reason


def test_who_signs_in_well_does_not_use_up_the_tries_of_all_behind_the_same_proxy() -> None:
    attempts = Attempts()
    for _ in range(10 * ATTEMPTS_MAX):
        assert attempts.allow("10.0.0.1", "token", 0.0)
        attempts.succeeded("10.0.0.1", "token")
    attempts.succeeded("10.0.0.2", "token")
    assert sum(attempts.allow("10.0.0.1", "token", 0.0) for _ in range(1000)) == ATTEMPTS_MAX


FOREIGN_COOKIES = [
    'theme={"dark":true}', "a[b]=c", "foo=bar baz", "x=é", 'q="unterminated', "bare", "=x", "a@b=2", "name(1)=v",
    "path=/", "x=a\\b", "expires=Thu, 01 Jan 1970", "$Version=1", "", ";;", "a=b=c", "\t", "x=\x00", "ours2=z", "Ours=z",
]  # fmt: skip


@pytest.mark.parametrize("foreign", FOREIGN_COOKIES)
@pytest.mark.parametrize("shape", ["{0}; ours=v.1", "ours=v.1; {0}", "{0};ours=v.1;{0}", '{0}; ours="v.1" ; {0}'])
def test_cookies_of_other_programs_hide_ours_nowhere(foreign: str, shape: str) -> None:
    """The bug it would catch: one that Python's parser does not like ends the WebSocket of a signed-in browser."""
    assert cookie_values([shape.format(foreign)], "ours") == ["v.1"]
    assert cookie_values([foreign, "ours=v.1"], "ours") == ["v.1"]
    assert cookie_values([foreign], "ours") == []


def test_of_several_cookies_of_our_name_each_is_looked_at() -> None:
    assert cookie_values(["ours=old; ours=new", "ours="], "ours") == ["old", "new", ""]


@pytest.mark.parametrize(
    ("path", "prefix", "found"),
    [
        ("/fleet/api/v1/me", "/fleet", "/api/v1/me"), ("/api/v1/me", "/fleet", "/api/v1/me"), ("/fleet/", "/fleet", "/"),
        ("/fleet.js", "/fleet", "/fleet.js"), ("/fleet", "/fleet", "/fleet"), ("/fleet/fleet/", "/fleet", "/fleet/"),
        ("/a/b/ws", "/a/b", "/ws"), ("/a/ws", "/a/b", "/a/ws"), ("/ws", "", "/ws"), ("//ws", "", "//ws"),
    ],
)  # fmt: skip
def test_a_proxy_may_leave_the_prefix_or_take_it_away(path: str, prefix: str, found: str) -> None:
    assert below(path, prefix) == found


@pytest.mark.parametrize(
    ("url", "prefix"),
    [("https://x.example/fleet/", "/fleet"), ("https://x.example/a/b", "/a/b"), ("https://x.example/", ""), ("", "")],
)
def test_the_prefix_is_the_path_of_the_public_url_and_no_part_of_its_origin(url: str, prefix: str) -> None:
    public = Public.of(url, "127.0.0.1:7700", False)
    assert public.prefix == prefix
    assert public.origin == ("https://x.example" if url else "")


@pytest.mark.parametrize("text", ['a="' + "\\" * 32_000 + '"', 'a="' + '\\"' * 16_000, "a=b;" * 8_000, ";" * 32_000])
def test_no_cookie_keeps_a_fanout_busy(text: str) -> None:
    """The parser of the standard library took 14 s for a head full of backslashes, on every Python before 3.11.10."""
    begun_s = time.process_time()
    cookie_values([text], "fleethub-1")
    assert time.process_time() - begun_s < 2.0
