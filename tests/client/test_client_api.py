"""The API's client: what is asked again, what is not, and with which key."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.api_server import ApiServer, active, command, fleet_run, host, running

from processes.client import api as api_module
from processes.client.api import Api, open_remote
from processes.client.errors import HubAway, NotAnAddress, NoToken, Refused, Silence
from processes.client.patience import Patience
from processes.core.shown.pages import HostsPage

UNAVAILABLE = (503, {"error": "hub_unavailable", "message": "the hub is away"})
UNKNOWN = (504, {"error": "outcome_unknown", "message": "ask again"})
COMMANDS, RUNS, RUN = "/api/v1/commands", "/api/v1/runs", "/api/v1/runs/r1"
BODY = {"steps": ["pull"], "hosts": ["web1"], "key": "k1"}
ACCEPTED = fleet_run(active("web1", "c1"))


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with running() as found:
        yield found


@pytest.fixture
def api(server: ApiServer) -> Iterator[Api]:
    found = Api(server.url, "secret", patience=Patience(pause_s=0.01))
    yield found
    found.close()


def start(api: Api) -> str:
    return api.start_run(BODY).id


def test_a_run_is_asked_again_with_the_same_key_until_it_is_accepted(server: ApiServer, api: Api) -> None:
    """Refused, unknown and a connection that ends without a word: each time the very same request."""
    server.on("POST", RUNS, UNAVAILABLE, UNKNOWN, None, (202, ACCEPTED))
    assert start(api) == "r1"
    assert [each.body for each in server.asked_for("POST", RUNS)] == [BODY] * 4
    assert {each.token for each in server.asked} == {"Bearer secret"}


def test_the_readmes_example_does_what_it_says(
    server: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "ann.token").write_text("secret\n")
    server.on("POST", RUNS, (202, ACCEPTED))
    server.on("GET", "/api/v1/hosts", (200, {"hosts": [host("web9")]}))
    exec(example.replace("https://fleet.example.org", server.url).replace("ann.token", str(tmp_path / "ann.token")), {})
    assert capsys.readouterr().out == "running ['web9']\n"
    (asked,) = server.asked_for("POST", RUNS)
    assert (asked.token, asked.body["key"]) == ("Bearer secret", "release-42")


def test_a_run_of_which_the_hub_remembers_only_the_id_is_read(server: ApiServer, api: Api) -> None:
    server.on("POST", RUNS, (200, {"id": "r1"}))
    server.on("GET", RUN, (200, ACCEPTED))
    assert start(api) == "r1"


def test_a_cancel_is_asked_again_until_it_is_certain_and_not_after_a_refusal(server: ApiServer, api: Api) -> None:
    server.on(
        "POST",
        f"{RUN}/cancel",
        UNAVAILABLE,
        None,
        UNKNOWN,
        (202, ACCEPTED),
        (409, {"error": "final", "message": "over"}),
    )
    assert api.cancel_run("r1").id == "r1"
    with pytest.raises(Refused, match="over"):
        api.cancel_run("r1")
    assert len(server.asked_for("POST", f"{RUN}/cancel")) == 5


def test_the_commands_of_a_run_are_found_page_by_page_and_told_oldest_first(server: ApiServer, api: Api) -> None:
    """The bug it would catch: among many commands of the same host, those of the run are missed, or come in the wrong
    order.
    """
    first = {"commands": [command("c3", "web1", run="r1")], "next": "c3"}
    second = {"commands": [command("c2", "web1", run="r1")], "next": "c2"}
    server.on("GET", COMMANDS, (200, first), (200, second))
    assert [view.id for view in api.commands_of("r1", 2, "web1")] == ["c2", "c3"]
    assert [each.query for each in server.asked] == ["run=r1&host=web1&limit=2", "run=r1&host=web1&before=c3&limit=1"]


def test_commands_that_are_not_found_are_not_looked_for_without_end(server: ApiServer, api: Api) -> None:
    server.on("GET", COMMANDS, (200, {"commands": [], "next": "x"}))
    assert api.commands_of("r1", 1) == []
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 429, 500])
def test_a_refusal_that_will_not_pass_is_not_asked_again(server: ApiServer, api: Api, status: int) -> None:
    server.on("POST", RUNS, (status, {"error": "word", "message": "because"}), (202, ACCEPTED))
    with pytest.raises(Refused) as caught:
        start(api)
    assert (caught.value.status, caught.value.code, caught.value.message) == (status, "word", "because")
    assert len(server.asked_for("POST", RUNS)) == 1


def test_a_hub_that_stays_away_ends_the_asking(server: ApiServer) -> None:
    server.on("POST", RUNS, UNAVAILABLE)
    with (
        Api(server.url, "secret", patience=Patience(ask_again_s=1.0, pause_s=0.01)) as api,
        pytest.raises(HubAway, match="not accepted within 1 s, but a request that still waits may be") as caught,
    ):
        start(api)
    assert (caught.value.why, caught.value.url) == (Silence.NOT_ACCEPTED, server.url)
    assert len(server.asked_for("POST", RUNS)) > 1


def test_a_read_waits_for_a_hub_that_is_being_replaced(server: ApiServer, api: Api) -> None:
    server.on("GET", RUN, UNAVAILABLE, None, (200, ACCEPTED))
    assert api.run("r1").id == "r1"


def test_a_read_from_a_port_that_nobody_has_fails_at_once() -> None:
    with running() as gone:
        api = Api(gone.url, "secret")
    with pytest.raises(HubAway, match="does not answer"):
        api.read("/hosts", HostsPage)
    api.close()


def test_a_name_from_the_command_line_stays_one_segment_of_the_path(server: ApiServer, api: Api) -> None:
    """The bug it would catch: `remove ../commands/x` deletes something else."""
    for name in ("../tokens", "..", "a?b#c", "a/b"):
        assert api.host(name) is None
    assert {each.path for each in server.asked} == {
        "/api/v1/hosts/..%2Ftokens",
        "/api/v1/hosts/%2E.",
        "/api/v1/hosts/a%3Fb%23c",
        "/api/v1/hosts/a%2Fb",
    }


def test_an_answer_that_is_not_of_the_api_is_an_error_and_no_crash(server: ApiServer, api: Api) -> None:
    server.on("GET", RUN, (200, ["what"]))
    with pytest.raises(Refused, match="not of this API"):
        api.run("r1")


def test_a_hub_that_accepts_and_says_nothing_ends_the_asking_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:  # the kernel accepts, and nobody answers
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        api = Api(url, "secret", patience=Patience(ask_again_s=0.5, pause_s=0.01))
        with pytest.raises(HubAway, match="within"):
            start(api)
        api.close()


@pytest.mark.parametrize("left_s", [0.1, 0.5, 3.0, 13.9])
def test_a_try_ends_with_the_time_that_is_left(left_s: float) -> None:
    """The bug it would catch: the last try begins shortly before the end, and waits its whole 12 s."""
    deadline = api_module._within(left_s)
    assert deadline.connect_s + deadline.answer_s == pytest.approx(left_s)


def token_in(tmp_path: Path, content: bytes = b"t0k\n") -> Path:
    path = tmp_path / "token"
    path.write_bytes(content)
    return path


def test_a_token_that_is_not_good_there_is_named_by_its_file(server: ApiServer, tmp_path: Path) -> None:
    path = token_in(tmp_path)
    api = open_remote(server.url, path)
    server.on(
        "GET",
        RUN,
        (401, {"error": "unauthorized", "message": "sign in"}),
        (403, {"error": "forbidden", "message": "admins only"}),
    )
    with pytest.raises(Refused) as caught:
        api.run("r1")
    assert caught.value.message == f"{server.url} does not accept the token in {path}"
    with pytest.raises(Refused) as caught:
        api.run("r1")
    assert (caught.value.message, caught.value.token_file, caught.value.status) == ("admins only", path, 403)
    api.close()


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\x80\xff", "ключ".encode()], ids=["empty", "blank", "binary", "foreign"]
)
def test_a_file_that_holds_no_token_says_so(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(NoToken, match="does not hold a token"):
        open_remote("http://127.0.0.1:1", token_in(tmp_path, content))


def test_a_token_file_that_is_missing_or_anothers_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoToken, match="there is no token file at"):
        open_remote("http://127.0.0.1:1", tmp_path / "none")

    def closed(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", closed)
    with pytest.raises(NoToken, match="run this as that user"):
        open_remote("http://127.0.0.1:1", token_in(tmp_path))


@pytest.mark.parametrize("url", ["elsewhere:7700", "elsewhere", "ws://elsewhere:7701/ws", "https://"])
def test_a_url_without_its_scheme_is_refused_with_an_example(tmp_path: Path, url: str) -> None:
    with pytest.raises(NotAnAddress, match=r"it looks like https://fleet\.example\.org:7700"):
        open_remote(url, token_in(tmp_path))


def test_tls_to_a_plain_port_is_said_in_plain_words(server: ApiServer, tmp_path: Path) -> None:
    api = open_remote(server.url.replace("http", "https"), token_in(tmp_path))
    with pytest.raises(HubAway, match="does not speak TLS") as caught:
        api.once("GET", "/hosts", HostsPage)
    assert caught.value.why is Silence.NO_TLS
    api.close()
