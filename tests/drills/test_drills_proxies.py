"""A whole installation behind the proxies of docs/servers.md, each by the file that the page tells, with their own time limits."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
import websockets.sync.client
from doubles.authority import Authority
from doubles.deadline import WAIT_S, until
from doubles.documented import DOCS
from doubles.house import House, free_port

pytestmark = pytest.mark.house
# nginx's own folders are made by its package, and its access log is kept there
KEPT = "access_log off;" + "".join(
    f"{name}_temp_path {{room}}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)
# what runs each with the page's block, {block}, in the file {file}
WHOLE = {
    "Caddy": ("{{\n admin off\n auto_https disable_redirects\n}}\n{block}", ["caddy", "run", "--adapter", "caddyfile", "--config", "{file}"]),
    "nginx": (f"daemon off;\nuser root;\npid {{room}}/pid;\nerror_log stderr;\nevents {{{{}}}}\nhttp {{{{\n{KEPT}\n{{block}}}}}}\n", ["nginx", "-p", "{room}", "-c", "{file}"]),
    "HAProxy": ("defaults\n timeout connect 5s\n timeout client 50s\n timeout server 50s\n{block}", ["haproxy", "-db", "-f", "{file}"]),
}  # fmt: skip


def block(proxy: str) -> str:
    """Return what the page tells to put into the file of this proxy, without the list's indent."""
    found = re.search(rf"For {proxy}[^\n]*:\n\n   ```\n(.*?)   ```", (DOCS / "servers.md").read_text(), re.DOTALL)
    assert found is not None, proxy
    return re.sub(r"^   ", "", found[1], flags=re.MULTILINE)


class Behind(House):
    """An installation whose public name is that of a proxy, which runs beside it."""

    def __init__(self, proxy: str, path: str, room: Path) -> None:
        self.front = f"localhost:{free_port()}"
        self.url = f"https://{self.front}{path}"
        super().__init__(
            FLEETHUB_OPERATORS_URL=self.url, FLEETHUB_OPERATORS_TRUSTED_PROXIES="127.0.0.1",
            FLEETHUB_AGENTS_URL=f"wss://{self.front}/ws-agents",
        )  # fmt: skip
        authority = Authority(room)
        self.ca = authority.ca
        given, key = authority.issue("DNS:localhost")
        pair = room / "pair.pem"
        pair.write_bytes(given.read_bytes() + key.read_bytes())
        port = self.front.rpartition(":")[2]
        text = block(proxy).replace("127.0.0.1:7700", self.operators).replace("127.0.0.1:7701", self.agents)
        text = re.sub(r"(listen |bind :|fleet\.example\.org)443\b", rf"\g<1>{port}", text)
        for before, after in (
            ("fleet.example.org {", f"https://{self.front} {{\n tls {given} {key}"),
            ("fleet.example.org;", "localhost;"),
            ("/etc/ssl/fleet.pem", str(pair)), ("/etc/ssl/fleet.key", str(key)),
        ):  # fmt: skip
            text = text.replace(before, after)
        whole, words = WHOLE[proxy]
        file = room / "proxy.conf"
        file.write_text(whole.format(block=text, room=room))
        self.words = [word.format(file=file, room=room) for word in words]

    def fleethub(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a verb as an operator of another machine does, by way of the proxy."""
        environ = {"PATH": os.environ["PATH"], "HOME": "/", "SSL_CERT_FILE": str(self.ca)}
        remote = ["--hub", self.url, "--token-file", str(self.settings.operator_token)]
        program = str(Path(__file__).resolve().parents[2] / "bin/fleethub")
        return subprocess.run([program, *words, *remote], env=environ, capture_output=True, text=True, timeout=WAIT_S)


@pytest.mark.parametrize("path", ["", "/fleet"])
@pytest.mark.parametrize("proxy", sorted(WHOLE))
def test_page_api_websockets_command_line_and_agents_work_through_it(proxy: str, path: str, tmp_path: Path) -> None:
    """The bugs it would catch: an upgrade that is not passed on, a Host or a path that is another behind the proxy."""
    found = shutil.which(WHOLE[proxy][1][0], path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{proxy} is not installed here")
    house = Behind(proxy, path, tmp_path)
    with house:
        environ = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        with subprocess.Popen([found, *house.words[1:]], stdin=subprocess.DEVNULL, env=environ) as running:
            try:
                goes_through(house, running)
            finally:
                running.terminate()
                assert running.wait(WAIT_S) is not None


def goes_through(house: Behind, running: subprocess.Popen[bytes]) -> None:
    """All that operators and agents do, by the public name."""
    trust = ssl.create_default_context(cafile=house.ca)

    def answers() -> bool:
        assert running.poll() is None, "the proxy has ended"
        try:
            return httpx.get(f"{house.url}/livez", verify=trust, timeout=WAIT_S).status_code == 200
        except httpx.TransportError:
            return False

    until(answers)
    token = {"Authorization": f"Bearer {house.settings.operator_token.read_text().strip()}"}
    with httpx.Client(verify=trust, timeout=WAIT_S) as browser:
        page = browser.get(f"{house.url}/")
        assert page.status_code == 200
        parts = re.findall(r'(?:src|href)="(/[^"]*)"', page.text)
        assert {browser.get(f"https://{house.front}{part}").status_code for part in parts} == {200}
        agent = browser.get(f"{house.url}/agent").content
        assert agent.startswith(b"#!/bin/sh"), "megabytes in one answer"
    folder = house.host("web1", {"greet": ["sh", "-c", "echo hello"]})
    file = folder / "agent.toml"
    text = file.read_text().replace(f"ws://{house.agents}/ws", f"wss://{house.front}/ws-agents")
    file.write_text(f'ca_file = "{house.ca}"\n{text}')
    with websockets.sync.client.connect(
        f"{house.url.replace('https', 'wss')}/ws", ssl=trust, additional_headers=token, proxy=None, max_size=None
    ) as socket:
        assert "full_state" in str(socket.recv(WAIT_S))
        house.start_agent(folder)
        until(lambda: house.row("web1").get("presence") == "online", (folder / "agent.log").read_text)
        run = house.fleethub("run", "greet", "web1")
        assert (run.returncode, "web1 | hello" in run.stdout) == (0, True), run.stdout + run.stderr
        while '"web1"' not in str(socket.recv(WAIT_S)):
            pass
