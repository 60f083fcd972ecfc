"""Listings, filters and ETags; tokens; and the audit trail: a real fanout, a real hub."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from doubles.deadline import WAIT_S
from doubles.operator_wire import TOKEN, FanoutHouse
from websockets.sync.client import connect

from processes.adapters.settings import load
from processes.core.watchdog.incident import Incident
from processes.watchdog.incident_store import Store


@pytest.fixture(scope="module")
def house() -> Iterator[FanoutHouse]:
    with FanoutHouse() as found:
        found.start("hub")
        yield found


@pytest.fixture
def boss(house: FanoutHouse) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=house.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=WAIT_S) as client:
        for name in ("a1", "a2", "b1"):
            until(lambda name=name: client.post("/api/v1/hosts", json={"name": name}).status_code in (201, 409))  # type: ignore[misc]
            until(lambda name=name: client.get(f"/api/v1/hosts/{name}").status_code == 200)  # type: ignore[misc]
        yield client


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [host["name"] for host in answer.json()["hosts"]]


def test_hosts_come_in_pages_and_by_filters_and_an_unknown_filter_is_refused(boss: httpx.Client) -> None:
    assert names(boss.get("/api/v1/hosts")) == ["a1", "a2", "b1"]
    first = boss.get("/api/v1/hosts?limit=2")
    assert (names(first), first.json()["next"]) == (["a1", "a2"], "a2")
    rest = boss.get("/api/v1/hosts?limit=2&after=a2")
    assert (names(rest), rest.json()["next"]) == (["b1"], None)
    assert names(boss.get("/api/v1/hosts?search=B")) == ["b1"]
    assert names(boss.get("/api/v1/hosts?presence=online")) == []
    refused = boss.get("/api/v1/hosts?presense=online")
    assert (refused.status_code, refused.json()["field"]) == (400, "presense")
    refused = boss.get("/api/v1/hosts?search=a&search=b")
    assert (refused.status_code, refused.json()["field"]) == (400, "search")
    assert boss.get("/api/v1/incidents?before=nobodys").status_code == 404


def test_hosts_are_targets_for_prometheus_by_name_port_and_presence(boss: httpx.Client) -> None:
    """As a server of Prometheus wants it: 200, JSON, a list of objects with targets and labels of text."""
    answer = boss.get("/api/v1/sd/prometheus?by=name&port=9256")
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, "application/json")
    assert [group["targets"] for group in answer.json()] == [["a1:9256"], ["a2:9256"], ["b1:9256"]]
    assert answer.json()[0]["labels"]["__meta_fleethub_host"] == answer.json()[0]["labels"]["instance"] == "a1"
    assert boss.get("/api/v1/sd/prometheus").json() == [], "no agent was ever connected: none has an address"
    assert boss.get("/api/v1/sd/prometheus?by=name&presence=online").json() == []
    for wrong in ("port=0", "port=x", "by=ip", "presence=up", "ports=1"):
        refused = boss.get(f"/api/v1/sd/prometheus?{wrong}")
        assert (refused.status_code, refused.json()["field"]) == (400, wrong.partition("=")[0])


def test_an_etag_saves_the_body_until_something_changes(boss: httpx.Client) -> None:
    tag = boss.get("/api/v1/hosts").headers["etag"]
    again = boss.get("/api/v1/hosts", headers={"if-none-match": f'"x", {tag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (
        boss.get("/api/v1/hosts", headers=httpx.Headers([("if-none-match", '"x"'), ("if-none-match", tag)])).status_code
        == 304
    )
    assert boss.post("/api/v1/hosts/a1/revoke").status_code == 200
    until(lambda: boss.get("/api/v1/hosts", headers={"if-none-match": tag}).status_code == 200)


def test_runs_are_listed_without_their_hosts_and_commands_by_run(boss: httpx.Client) -> None:
    begun = boss.post("/api/v1/runs", json={"steps": ["pull"], "hosts": ["a2", "b1"]}).json()
    listed = boss.get("/api/v1/runs?state=running").json()["runs"]
    assert [(run["id"], run["hosts"], run["total"]) for run in listed] == [(begun["id"], [], 2)]
    assert [part["host"] for part in begun["hosts"]] == ["a2", "b1"], "the answer names them"
    assert boss.get("/api/v1/runs?state=failed").json()["runs"] == []
    assert len(boss.get(f"/api/v1/runs/{begun['id']}").json()["hosts"]) == 2
    assert boss.get(f"/api/v1/runs/{begun['id']}?hosts=0").json()["hosts"] == []
    given = boss.post("/api/v1/commands", json={"op": "pull", "hosts": ["a2"]}).json()["commands"][0]["id"]
    found = boss.get(f"/api/v1/commands?run={begun['id']}&open=1").json()["commands"]
    assert sorted(command["host"] for command in found) == ["a2", "b1"]
    for path, its_id in (("runs", begun["id"]), ("commands", given)):
        assert boss.get(f"/api/v1/{path}/{its_id[:-1]}").json()["id"] == its_id, "named by its beginning"
        assert boss.get(f"/api/v1/{path}/{its_id[:3]}").status_code == 404, "too short a beginning"
        assert boss.post(f"/api/v1/{path}/{its_id[:-1]}/cancel").status_code == 404, "what is changed is named whole"
    assert boss.get(f"/api/v1/commands/{given[:-1]}/output").json()["command_id"] == given
    over = boss.post(f"/api/v1/runs/{begun['id']}/cancel").json()
    assert [(part["host"], part["state"]) for part in over["hosts"]] == [("a2", "failed"), ("b1", "failed")]
    refused = boss.post(f"/api/v1/runs/{begun['id']}/cancel")
    assert (refused.status_code, refused.json()["error"], refused.json()["run"]) == (409, "final", over)


def test_an_id_that_several_begin_with_is_refused_with_those(house: FanoutHouse, boss: httpx.Client) -> None:
    settings = load({"FLEETHUB_STATE": str(house.state)})
    store = Store(settings.incidents_database, settings.evidence, 10, 1 << 20)
    for its_id in ("20260102T030405.678-aaaa", "20260102T030405.678-bbbb"):
        store.save(Incident(
            id=its_id, process="hub", verdict="dead", reason="", pid=7, epoch=1, boot_id="b", good_mono_s=1.0,
            found_mono_s=2.0, found_wall_s=1e9,
        ))  # fmt: skip
    store.close()
    assert boss.get("/api/v1/incidents/20260102T030405.678-b").json()["id"] == "20260102T030405.678-bbbb"
    refused = boss.get("/api/v1/incidents/20260102")
    assert (refused.status_code, refused.json()["error"]) == (409, "ambiguous_id")
    assert refused.json()["candidates"] == ["20260102T030405.678-aaaa", "20260102T030405.678-bbbb"]


def test_a_revoked_token_is_refused_at_once_and_its_hash_is_kept_beside_the_database(
    house: FanoutHouse, boss: httpx.Client
) -> None:
    made = boss.post("/api/v1/tokens", json={"role": "viewer", "label": "screen"}).json()
    (listed,) = boss.get("/api/v1/tokens").json()["tokens"]
    assert (listed["id"], listed["role"], listed["label"]) == (made["id"], "viewer", "screen")
    assert made["token"] not in boss.get("/api/v1/tokens").text
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert httpx.get(f"{house.url}/api/v1/me", headers=headers).json()["actor"] == "screen"
    assert httpx.get(f"{house.url}/api/v1/tokens", headers=headers).status_code == 403
    assert boss.delete(f"/api/v1/tokens/{made['id']}").json() == {"id": made["id"], "revoked": True}
    until(lambda: httpx.get(f"{house.url}/api/v1/me", headers=headers).status_code == 401)
    assert boss.delete(f"/api/v1/tokens/{made['id']}").status_code == 404
    kept = (house.state / "revoked").read_text().split()
    assert any(line.startswith(made["id"]) for line in kept)
    assert (house.state / "revoked").stat().st_mode & 0o777 == 0o600


def test_the_audit_trail_tells_who_did_and_who_tried_what(house: FanoutHouse, boss: httpx.Client) -> None:
    def lines(query: str) -> list[dict[str, Any]]:
        answer = boss.get(f"/api/v1/audit?{query}")
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["audit"]
        return found

    given = boss.post("/api/v1/commands", json={"op": "pull", "hosts": ["b1"]}).json()["commands"][0]["id"]
    assert boss.post(f"/api/v1/commands/{given}/cancel").status_code == 202
    assert [(line["before"], line["after"], line["actor"]) for line in lines(f"subject={given}")] == [
        ("queued", "cancelled", "admin"), (None, "asked", "admin"), (None, "queued", "admin"),
    ]  # fmt: skip
    assert [line["after"] for line in lines("subject=b1&kind=host")] == ["enrolled"]
    wrong = {"Authorization": "Bearer guessed"}
    assert httpx.delete(f"{house.url}/api/v1/hosts/b1").status_code == 401
    for _ in range(3):
        assert httpx.get(f"{house.url}/api/v1/me", headers=wrong).status_code == 401
        assert boss.post("/api/v1/commands", json={"op": "pull", "hosts": ["nobody"]}).status_code == 404
        assert httpx.post(f"{house.url}/login", json={"token": "guessed"}).status_code == 401
    viewer = boss.post("/api/v1/tokens", json={"role": "viewer", "label": "screen"}).json()["token"]
    looking = {"Authorization": f"Bearer {viewer}"}
    until(lambda: httpx.get(f"{house.url}/api/v1/tokens", headers=looking).status_code == 403)
    with httpx.Client(base_url=house.url, timeout=WAIT_S) as browser:
        assert browser.post("/login", json={"token": TOKEN}).status_code == 200
        (session,) = [each["id"] for each in boss.get("/api/v1/sessions").json()["sessions"]]
        assert boss.delete(f"/api/v1/sessions/{session}").status_code == 200
    for _ in range(2):
        with connect(f"ws://127.0.0.1:{house.port}/ws", additional_headers=looking, proxy=None):
            pass
    fanout = house.processes["fanout"]
    fanout.terminate()  # one that ends writes what it has counted
    assert fanout.wait(WAIT_S) == 0
    house.start("fanout")
    until(lambda: {line["after"] for line in lines("kind=session")} >= {"signed_in", "revoked", "connected"})
    seen = {(line["after"], line["actor"], line["reason"]) for line in lines("kind=session")}
    assert seen == {
        ("signed_in", "admin", "admin"), ("revoked", "admin", f"of admin, {session[:8]}"),
        ("connected", "screen", "viewer by its token"),
    }  # fmt: skip

    def refusals() -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for line in lines("kind=request"):
            reason, _, times = line["reason"].partition(", ")
            key = (line["actor"], reason)
            found[key] = found.get(key, 0) + int(times.partition(" ")[0] or 1)
        return found

    until(lambda: refusals().keys() >= {("screen", "forbidden"), ("nobody at 127.0.0.1", "not_signed_in")})
    least = {("admin", "unknown_host"): 3, ("screen", "forbidden"): 1, ("nobody at 127.0.0.1", "not_signed_in"): 6}
    assert all(refusals().get(key, 0) >= times for key, times in least.items()), lines("kind=request")
    assert len(lines("kind=request")) < 12, "a line for who and why, and not for each request"
    assert "guessed" not in boss.get("/api/v1/audit?limit=1000").text
    everything = lines("limit=1000")
    assert [line["number"] for line in everything] == sorted((line["number"] for line in everything), reverse=True)
    page = boss.get("/api/v1/audit?limit=3").json()
    assert [line["number"] for line in lines(f"limit=3&before={page['next']}")] == [
        line["number"] for line in everything[3:6]
    ]


def test_a_flood_of_wrong_tokens_is_counted_named_by_an_alarm_and_keeps_no_good_one_out(
    house: FanoutHouse, boss: httpx.Client
) -> None:
    """The bugs it would catch: a gigabyte of lines a day; all operators are kept out by anybody's guesses."""
    guessed, begun_s = house.state / "run" / "guessed", time.monotonic()
    house.code("good", role="viewer")
    with httpx.Client(base_url=house.url, timeout=WAIT_S) as nobody:
        statuses = [
            nobody.delete("/api/v1/hosts/flood", headers={"Authorization": f"Bearer x{number}"}).status_code
            if number % 2
            else nobody.post("/login", json={"code" if number % 4 else "token": f"x{number}"}).status_code
            for number in range(400)
        ]
        assert set(statuses) == {401, 429}
        assert statuses.count(429) >= 200 - 2 * 10 * (2 + (time.monotonic() - begun_s) // 60)
        assert nobody.delete("/api/v1/hosts/flood").status_code == 401
        for good in ({"token": TOKEN}, {"code": "good"}):
            assert nobody.post("/login", json=good).status_code == 200, "whatever others have guessed"
    fanout = house.processes["fanout"]
    fanout.terminate()
    assert fanout.wait(WAIT_S) == 0
    house.start("fanout")
    until(lambda: guessed.exists() and list(guessed.iterdir()))
    (told,) = [path.read_text() for path in guessed.iterdir()]
    assert "within a minute, most from 127.0.0.1 (" in told

    def counted() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = boss.get("/api/v1/audit?kind=request&limit=1000").json()["audit"]
        return [line for line in found if "flood" in line["subject"] or "login" in line["subject"]]

    until(counted)
    assert len(counted()) <= 3 * (2 + (time.monotonic() - begun_s) // 60)


def test_a_query_finds_hosts_to_list_to_label_and_to_run_on(house: FanoutHouse, boss: httpx.Client) -> None:
    """What the fanout found is what the hub gets: the names, and the text by which they were found."""

    def post(path: str, **body: object) -> httpx.Response:
        return boss.post(f"/api/v1/{path}", json=body)

    told = post("hosts/labels", query="name:a*", set={"role": "web", "env": "prod"}).json()
    assert told == {"hosts": ["a1", "a2"], "changed": 2, "query": "name:a*"}
    until(lambda: names(boss.get("/api/v1/hosts?query=role=web")) == ["a1", "a2"])
    assert names(boss.get("/api/v1/hosts?query=!role:* offline since<1h")) == ["b1"]
    assert names(boss.get("/api/v1/hosts?query=role=web&limit=1")) == ["a1"]
    assert post("hosts/labels", hosts=["a2"], query="role=web", remove=["env"]).json()["changed"] == 1
    until(lambda: names(boss.get("/api/v1/hosts?query=env=prod")) == ["a1"])
    assert boss.get("/api/v1/hosts/a2").json()["labels"] == {"role": "web"}
    lines = boss.get("/api/v1/audit?subject=a2&kind=host").json()["audit"]
    assert [(line["after"], line["reason"]) for line in lines[:2]] == [
        ("labelled", "env-"),
        ("labelled", "role=web env=prod"),
    ]

    wrong = boss.get("/api/v1/hosts?query=a1 role%3D")
    assert wrong.status_code == 400
    assert {**wrong.json(), "message": ""} == {
        "error": "bad_query",
        "message": "",
        "field": "query",
        "start": 3,
        "end": 8,
    }
    for body in ({"query": ""}, {"query": "a -"}, {}, {"query": " "}, {"query": "@none"}, {"query": "nobody"}):
        refused = post("hosts/labels", set={"x": "y"}, **body)
        assert (refused.status_code, body) == (404 if body.get("query") in ("@none", "nobody") else 400, body)

    assert post("queries", name="web", query="role=web").json()["query"] == "role=web"
    assert post("queries", name="web", query="role=").json()["error"] == "bad_query"
    assert post("queries", name="all", query=" ").status_code == 400
    assert [each["name"] for each in boss.get("/api/v1/queries").json()["queries"]] == ["web"]
    assert names(boss.get("/api/v1/hosts?query=@web")) == ["a1", "a2"]

    for host in ("a1", "b1"):
        assert post("commands", op="pull", hosts=[host]).status_code == 202

    def of(query: str) -> set[str]:
        return {each["host"] for each in boss.get(f"/api/v1/commands?query={query}").json()["commands"]}

    until(lambda: of("name:*") >= {"a1", "b1"})
    assert {"a1"} <= of("@web") <= {"a1", "a2"}
    assert boss.get("/api/v1/commands?query=role=none").json()["commands"] == []
    targets = [each["targets"] for each in boss.get("/api/v1/sd/prometheus?query=@web&by=name").json()]
    assert ["a2:9100"] in targets
    assert ["b1:9100"] not in targets
    for path in ("commands", "sd/prometheus", "conditions"):
        assert boss.get(f"/api/v1/{path}?query=role%3D").json()["error"] == "bad_query", path

    started = post("runs", steps=["pull"], query="@web", key="k1", ttl_s=0).json()
    assert (started["query"], [part["host"] for part in started["hosts"]]) == ("@web", ["a1", "a2"])
    assert post("hosts/labels", hosts=["b1"], set={"role": "web"}).status_code == 200
    again = post("runs", steps=["pull"], query="@web", key="k1", ttl_s=0)
    assert (again.status_code, again.json()["id"]) == (200, started["id"]), (
        "whom it finds has changed, and not its text"
    )
    shown = post("runs", steps=["pull"], query="role=web", hosts=["a1"], ttl_s=0).json()
    assert ([part["host"] for part in shown["hosts"]], shown["query"]) == (["a1"], "role=web")
    assert post("runs", steps=["pull"], query="role=web", where={}).status_code == 400
    assert post("runs", steps=["pull"], query="cpu>x", hosts=["a1"]).json()["error"] == "bad_query"
    silenced = post("silences", query="@web", why="new switch", for_s=3600)
    assert (silenced.status_code, silenced.json()["query"]) == (201, "role=web"), (
        "the name may stand for another one soon"
    )
    assert post("silences", query="@none", why="new switch", for_s=3600).status_code == 404
    assert post("silences", query="a -", why="new switch", for_s=3600).json()["error"] == "bad_query"
    assert boss.delete("/api/v1/queries/web").json() == {"name": "web", "removed": True}
    assert boss.delete("/api/v1/queries/web").status_code == 404
    assert post("hosts", name="c1", labels={"rack": "b4"}).status_code == 201
    until(lambda: names(boss.get("/api/v1/hosts?query=rack=b4")) == ["c1"])
    assert post("hosts", name="c2", labels={"OS": "x"}).status_code == 400
    boss.delete("/api/v1/hosts/c1")
    with httpx.Client(base_url=house.url, headers={"Authorization": f"Bearer {TOKEN}"}) as anonymous:
        del anonymous.headers["Authorization"]
        assert anonymous.get("/api/v1/queries").status_code == 401
