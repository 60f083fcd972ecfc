"""Settings: the file, then the environment; a mistake is named with what to do."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from processes.adapters.settings import (
    File,
    NotOurs,
    Settings,
    SettingsError,
    address,
    load,
    load_anyway,
    reachable,
)


def settings(tmp_path: Path, text: str = "", **environment: str) -> Settings:
    (tmp_path / "fleethub.toml").write_text(text)
    return load({"FLEETHUB_STATE": str(tmp_path), **environment})


def test_the_environment_counts_more_than_the_file_and_the_file_more_than_the_default(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        '[watchdog]\nstall_s = 3\n[operators]\nlisten = "127.0.0.1:1"',
        FLEETHUB_OPERATORS_LISTEN="127.0.0.1:2",
    )
    assert (found.file.watchdog.stall_s, found.file.operators.listen, found.file.agents.listen) == (
        3.0,
        "127.0.0.1:2",
        "127.0.0.1:7701",
    )


@pytest.mark.parametrize(
    ("text", "environment", "says"),
    [
        ("[operator]\n", {}, "did you mean operators"),
        ("[operators]\nlisten_on = 1", {}, "did you mean operators.listen?"),
        ("", {"FLEETHUB_OPERATORS_LISTN": "x"}, "did you mean FLEETHUB_OPERATORS_LISTEN?"),
        ("[gateway]\nprocesses = 0", {}, "gateway.processes"),
        ("not toml", {}, "cannot be read"),
        ("", {"FLEETHUB_AGENTS_LISTEN": "7701"}, "agents.listen: '7701' is not HOST:PORT"),
        ("", {"FLEETHUB_AGENTS_LISTEN": "::1:7701"}, "'::1:7701' is not [IPV6]:PORT"),
        ("", {"FLEETHUB_AGENTS_LISTEN": "[::g]:7701"}, "is not [IPV6]:PORT"),
        ("", {"FLEETHUB_AGENTS_LISTEN": "[127.0.0.1]:7701"}, "is not [IPV6]:PORT"),
        ("", {"FLEETHUB_AGENTS_LISTEN": "[fe80::1%eth0]:7701"}, "is not [IPV6]:PORT"),
        ("", {"FLEETHUB_AGENTS_LISTEN": "[::]:7701"}, "agents.listen = '[::]:7701' is reachable from elsewhere"),
        ("", {"FLEETHUB_OPERATORS_LISTEN": "[2001:db8::7]:7700"}, "is reachable from elsewhere"),
        ("", {"FLEETHUB_OPERATORS_LISTEN": "0.0.0.0:7701"}, "operators.listen = '0.0.0.0:7701' is reachable"),
        ("", {"FLEETHUB_TLS_KEY": "/key.pem"}, "belong together"),
        ("", {"FLEETHUB_OPERATORS_URL": "fleet.example.org"}, "https://fleet.example.org"),
        ("", {"FLEETHUB_AGENTS_URL": "https://fleet.example.org"}, "wss://"),
        ("", {"FLEETHUB_OPERATORS_URL": "http://[::1"}, "is not a URL"),
        ("", {"FLEETHUB_AGENTS_URL": "ws://[::1"}, "is not a URL"),
        ("", {"FLEETHUB_OPERATORS_URL": "https://user@fleet.example.org"}, "a user's name has no place in it"),
        ("", {"FLEETHUB_OPERATORS_URL": "https://x.example/a b"}, "its path is not made of"),
        ("", {"FLEETHUB_OPERATORS_URL": "https://x.example/../a"}, "its path is not made of"),
        ("", {"FLEETHUB_OPERATORS_URL": "https://x.example//a"}, "its path is not made of"),
        ("", {"FLEETHUB_OPERATORS_URL": "https://x.example/flöte"}, "its path is not made of"),
        ("", {"FLEETHUB_OPERATORS_URL": "https://x.example/?a=b"}, "it ends with the path"),
        ("", {"FLEETHUB_OPERATORS_URL": "https://x.example/#code"}, "it ends with the path"),
        ("", {"FLEETHUB_OPERATORS_URL": "https://x.example:99999"}, "is not a URL"),
        ("", {"FLEETHUB_OPERATORS_URL": "https://-ö.example"}, "-ö.example"),
        ("", {"FLEETHUB_PORT": "here"}, "unknown setting FLEETHUB_PORT"),
        ('[operators]\nfresh_for = ["re boot"]', {}, "'re boot' is not the name of an operation"),
        ("[operators]\nfresh_s = 1", {}, "operators.fresh_s"),
        ("", {"FLEETHUB_OPERATORS_TRUSTED_PROXIES": "10.0.0.7,10.0.0.8"}, "addresses and networks: 10.0.0.7"),
        (
            '[operators]\ntrusted_proxies = ["10.0.0.7/8"]',
            {},
            "operators.trusted_proxies: 10.0.0.7/8 has host bits set",
        ),
        ("", {"FLEETHUB_CONFIG": "/no/such/file"}, "does not exist"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as raised:
        settings(tmp_path, text, **environment)
    assert says in str(raised.value)


def test_trusted_proxies_are_addresses_and_networks(tmp_path: Path) -> None:
    found = settings(tmp_path, FLEETHUB_OPERATORS_TRUSTED_PROXIES="10.0.0.7 10.1.0.0/16 'fd00::/8'").file.operators
    assert [str(network) for network in found.proxies()] == ["10.0.0.7/32", "10.1.0.0/16", "fd00::/8"]
    assert settings(tmp_path).file.operators.proxies() == []


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "ws://127.0.0.1:7701/ws"),
        ({"FLEETHUB_AGENTS_URL": "wss://fleet.example.org/agents"}, "wss://fleet.example.org/agents"),
        (
            {"FLEETHUB_AGENTS_LISTEN": "0.0.0.0:7801", "FLEETHUB_OPERATORS_URL": "https://fleet.example.org:8443"},
            "ws://fleet.example.org:7801/ws",
        ),
        ({"FLEETHUB_AGENTS_LISTEN": "hub.example.org:7701"}, "ws://hub.example.org:7701/ws"),
    ],
)
def test_what_agents_dial(tmp_path: Path, environment: dict[str, str], url: str) -> None:
    assert settings(tmp_path, FLEETHUB_INSECURE="true", **environment).agents_url == url


def test_with_a_certificate_agents_dial_by_tls(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("pem")
    tls = {"FLEETHUB_TLS_CERTIFICATE": str(tmp_path / "cert.pem"), "FLEETHUB_TLS_KEY": str(tmp_path / "key.pem")}
    assert (
        settings(tmp_path, FLEETHUB_AGENTS_LISTEN="hub.example.org:7701", **tls).agents_url
        == "wss://hub.example.org:7701/ws"
    )


def test_with_a_mistake_the_defaults_of_the_same_folder_are_had_anyway(tmp_path: Path) -> None:
    (tmp_path / "fleethub.toml").write_text("nonsense = 1")
    found, mistake = load_anyway({"FLEETHUB_STATE": str(tmp_path)})
    assert (found, "unknown setting nonsense" in mistake) == (
        Settings(tmp_path, tmp_path / "fleethub.toml", File()),
        True,
    )
    (tmp_path / "fleethub.toml").write_text("[watchdog]\nstall_s = 3")
    found, mistake = load_anyway({"FLEETHUB_STATE": str(tmp_path)})
    assert (found.file.watchdog.stall_s, mistake) == (3.0, "")


def test_a_folder_of_another_user_is_no_mistake_and_says_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", closed)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(
        NotOurs, match=f"^{tmp_path} cannot be read by .*: it belongs to .*; run this as that user: sudo -u "
    ):
        load_anyway({"FLEETHUB_STATE": str(tmp_path)})


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://flöte.example.org", "https://xn--flte-6qa.example.org"),
        ("https://FLÖTE.example.org:8443/fleet/", "https://xn--flte-6qa.example.org:8443/fleet/"),
        ("https://straße.example", "https://xn--strae-oqa.example"),
        ("https://例え.example", "https://xn--r8jz45g.example"),
        ("https://Fleet.example.org/", "https://Fleet.example.org/"),
        ("http://[2001:db8::1]:7700", "http://[2001:db8::1]:7700"),
        ("", ""),
    ],
)
def test_an_international_name_is_had_as_browsers_send_it(tmp_path: Path, given: str, url: str) -> None:
    assert settings(tmp_path, FLEETHUB_OPERATORS_URL=given).file.operators.url == url


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_the_file_is_utf8_in_every_locale(tmp_path: Path, start: bytes, locale: str) -> None:
    """The bug it would catch: a comment with an umlaut keeps everything from starting where the locale is not UTF-8."""
    (tmp_path / "fleethub.toml").write_bytes(start + "# für „Halle 3“\r\n[watchdog]\r\nstall_s = 3\r\n".encode())
    environ = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "FLEETHUB_STATE": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", "from processes.adapters.settings import load; print(load().file.watchdog.stall_s)"],
        env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (told.stdout, told.returncode) == ("3.0\n", 0), told.stderr


@pytest.mark.parametrize("text", [b"\xff\xfe[\x00", b"# f\xfcr\n"])
def test_what_is_not_utf8_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "fleethub.toml").write_bytes(text)
    with pytest.raises(SettingsError, match=r"fleethub\.toml cannot be read: 'utf-8' codec"):
        load({"FLEETHUB_STATE": str(tmp_path)})


def test_what_kubernetes_and_docker_set_for_a_service_called_fleethub_is_no_setting(tmp_path: Path) -> None:
    links = {
        "FLEETHUB_SERVICE_HOST": "10.0.0.7", "FLEETHUB_SERVICE_PORT": "7700", "FLEETHUB_SERVICE_PORT_OPERATORS": "7700",
        "FLEETHUB_PORT": "tcp://10.0.0.7:7700", "FLEETHUB_PORT_7700_TCP": "tcp://10.0.0.7:7700",
        "FLEETHUB_PORT_7700_TCP_ADDR": "10.0.0.7", "FLEETHUB_PORT_7700_TCP_PORT": "7700",
        "FLEETHUB_PORT_7700_TCP_PROTO": "tcp", "FLEETHUB_AGENTS_SERVICE_HOST": "10.0.0.8",
        "FLEETHUB_AGENTS_PORT": "tcp://10.0.0.8:7701", "FLEETHUB_AGENTS_PORT_7701_TCP_ADDR": "10.0.0.8",
    }  # fmt: skip
    assert settings(tmp_path, **links).file == settings(tmp_path).file
    for name in ("FLEETHUB_SERVICES_HOST", "FLEETHUB_PORTS", "FLEETHUB_PORT_TCP"):
        with pytest.raises(SettingsError, match=f"unknown setting {name}"):
            settings(tmp_path, **{name: "10.0.0.7"})


@pytest.mark.parametrize(
    ("listen", "host", "reached", "url"),
    [
        ("[::]:7701", "::", "127.0.0.1", None), ("[::1]:7701", "::1", "::1", "ws://[::1]:7701/ws"),
        ("[2001:DB8:0::7]:7701", "2001:db8::7", "2001:db8::7", "ws://[2001:db8::7]:7701/ws"),
        ("0.0.0.0:7701", "0.0.0.0", "127.0.0.1", None), ("hub.invalid:7701", "hub.invalid", "hub.invalid",
        "ws://hub.invalid:7701/ws"),
    ],
)  # fmt: skip
def test_where_ipv6_listens_and_how_it_is_reached(
    tmp_path: Path, listen: str, host: str, reached: str, url: str | None
) -> None:
    found = settings(tmp_path, FLEETHUB_AGENTS_LISTEN=listen, FLEETHUB_INSECURE="true")
    assert address(listen) == (host, 7701)
    assert reachable(listen) == (reached, 7701)
    assert found.agents_url == (url or f"ws://{socket.gethostname()}:7701/ws")


@pytest.mark.parametrize(
    "text", ['[alarms]\nseverity = "loud"\n', '[[alarms.targets]]\nurl = "mailto://a:b@c"\nseverity = "loud"\n']
)
def test_a_wrong_word_names_the_right_ones(tmp_path: Path, text: str) -> None:
    (tmp_path / "fleethub.toml").write_text(text)
    with pytest.raises(SettingsError, match="severity; it is one of info, warning, critical"):
        load({"FLEETHUB_STATE": str(tmp_path)})


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("nats://db1", "looks like postgresql://"), ("postgresql:/db1", "looks like postgresql://"),
        ("db1", "looks like postgresql://"), ("postgresql://db 1/x", "looks like postgresql://"),
        ("postgresql://me:secret@db1/x", "a password has no place"),
        ("postgresql://me@db1/x?sslmode=require&password=secret", "a password has no place"),
    ],
)  # fmt: skip
def test_a_url_of_a_database_that_cannot_be_is_refused_without_its_secret(tmp_path: Path, url: str, wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"queues\.url") as refused:
        settings(tmp_path, FLEETHUB_QUEUES_URL=url)
    assert wrong in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["postgresql://me@db1,db2:5433/x?sslmode=verify-full", "postgres:///x", ""])
def test_there_is_no_process_queues_where_postgresql_has_them(tmp_path: Path, url: str) -> None:
    found = settings(tmp_path, FLEETHUB_QUEUES_URL=url)
    assert found.names("queues") == ([] if url else ["queues"])
    assert ("queues" in found.all_names()) is not bool(url)
