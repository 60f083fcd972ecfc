"""What the environment says of proxies and certificates is followed as curl does, or named; it ends no verb."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles.authority import Authority

from processes.client.api import Api, open_remote
from processes.client.errors import BadVariable, HubAway, NotAnAddress
from processes.client.way import Proxy, proxy_to, trust

PROXY = "http://proxy.example.org:3128"


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("http://hub:7700", "http_proxy"), ("http://hub:7700", "HTTP_PROXY"), ("https://hub", "HTTPS_PROXY"),
        ("https://hub", "https_proxy"), ("https://hub", "ALL_PROXY"), ("http://hub", "all_proxy"),
    ],
)  # fmt: skip
def test_a_proxy_is_found_under_all_its_names(url: str, variable: str) -> None:
    assert proxy_to(url, {variable: PROXY}) == Proxy(PROXY, variable)


def test_a_proxy_of_the_other_scheme_or_an_empty_one_or_a_header_of_a_web_server_is_none() -> None:
    assert proxy_to("https://hub", {"HTTP_PROXY": PROXY, "https_proxy": ""}) is None
    assert proxy_to("http://hub", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}) is None
    assert proxy_to("http://hub", {"http_proxy": "proxy:3128", "HTTP_PROXY": PROXY}) == Proxy(
        "http://proxy:3128", "http_proxy"
    )


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("localhost,[::1]", "[::1]:7700", True), ("localhost,::1", "[::1]", True), ("localhost,[::1]", "hub", False),
        ("fe80::/10", "[fe80::1%25eth0]", True), ("[fe80::]/10", "[fe80::1]", True), ("fe80::/10", "127.0.0.1", False),
        ("fd07:b51a::/64", "[fd07:b51a::7]", True), ("fd07:b51a::/64", "[fd07:b51b::7]", False),
        ("10.0.0.0/8", "10.1.2.3:7700", True), ("10.0.0.0/8", "11.1.2.3", False), ("10.1.2.3", "10.1.2.3", True),
        ("10.0.0.0/8", "hub", False), ("10.1.2.3/8", "10.9.9.9", True), ("::ffff:0:0/96", "10.1.2.3", False),
        ("*", "anything", True), ("a b *", "anything", True), ("", "hub", False), (",, ,", "hub", False),
        ("example.org", "fleet.example.org", True), (".example.org", "fleet.example.org", True),
        ("*.example.org", "fleet.example.org", True), ("example.org", "example.org", True),
        (".example.org", "example.org", True), ("example.org", "badexample.org", False),
        ("EXAMPLE.ORG", "Fleet.Example.Org", True), ("example.org", "fleet.example.org.", True),
        ("example.org:7700", "example.org:7700", True), ("example.org:7700", "example.org:7701", False),
        ("example.org:80", "example.org", True), ("[::1]:7700", "[::1]:7700", True), ("[::1]:1", "[::1]:7700", False),
        ("http://example.org", "example.org", True), ("/,:,[,]:,[::1,fe80::/999,é", "hub", False),
    ],
)  # fmt: skip
def test_what_no_proxy_names_is_reached_directly(no_proxy: str, host: str, direct: bool) -> None:
    for variable in ("NO_PROXY", "no_proxy"):
        found = proxy_to(f"http://{host}", {"http_proxy": PROXY, variable: no_proxy})
        assert (found is None) == direct


@pytest.mark.parametrize("bad", [":::", "http://", "foo bar", "http://[::1", "http://h:99999", "http://h:0", "//h"])
def test_a_proxy_that_is_none_is_named_and_only_if_it_is_needed(bad: str) -> None:
    with pytest.raises(BadVariable, match=r"HTTP_PROXY is not the URL of a proxy: .* NO_PROXY=hub goes past it"):
        proxy_to("http://hub", {"HTTP_PROXY": bad})
    assert proxy_to("http://hub", {"HTTP_PROXY": bad, "NO_PROXY": "hub"}) is None
    assert proxy_to("http://hub", {"HTTPS_PROXY": bad}) is None


@pytest.mark.parametrize("kind", ["socks5", "socks5h", "socks4", "ftp"])
def test_a_proxy_of_another_kind_is_named(kind: str) -> None:
    with pytest.raises(BadVariable, match=f"ALL_PROXY names a proxy of the kind {kind}"):
        proxy_to("http://hub", {"ALL_PROXY": f"{kind}://127.0.0.1:1080"})


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate\n")
    for name in ("missing.pem", "empty.pem", ""):
        with pytest.raises(BadVariable, match="SSL_CERT_FILE names "):
            trust({"SSL_CERT_FILE": str(tmp_path / name)})
    assert trust({"SSL_CERT_FILE": str(Authority(tmp_path).ca)}).cert_store_stats()["x509_ca"] == 1
    assert trust({"SSL_CERT_DIR": str(tmp_path)}).cert_store_stats()["x509_ca"] == 0
    assert trust({}).cert_store_stats()["x509_ca"] > 1


def test_plain_urls_need_no_certificates_and_ones_own_port_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    with pytest.raises(BadVariable, match="ALL_PROXY"):
        Api("http://127.0.0.1:1", "t0k")
    with pytest.raises(BadVariable, match="SSL_CERT_FILE"):
        Api("https://127.0.0.1:1", "t0k")
    Api("http://127.0.0.1:1", "t0k", own=True).close()


def test_who_does_not_answer_by_way_of_a_proxy_is_told_with_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:1")
    with Api("http://hub.invalid", "t0k") as api, pytest.raises(HubAway) as caught:
        api.hosts()
    assert "by way of the proxy http://127.0.0.1:1 of HTTP_PROXY" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["https://:99", "http://h:99999", "http://[::1", "ftp://h", "h:7700", "http://"])
def test_what_is_no_url_of_a_port_is_said_to_be_none(url: str, tmp_path: Path) -> None:
    with pytest.raises(NotAnAddress):
        open_remote(url, tmp_path / "token")


@pytest.mark.parametrize("host", [".hub.invalid", "a" * 70 + ".invalid", "h o", "a_b.invalid"])
def test_a_name_that_no_resolver_takes_does_not_answer(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with Api(f"http://{host}:7700", "t0k") as api, pytest.raises(HubAway):
        api.hosts()
