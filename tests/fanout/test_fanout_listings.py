"""Listings, filters and ETags; tokens; and the audit trail: a real fanout, a real hub."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from doubles.deadline import WAIT_S
from doubles.operator_wire import TOKEN, FanoutHouse


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
    assert boss.get("/api/v1/runs?state=failed").json()["runs"] == []
    assert len(boss.get(f"/api/v1/runs/{begun['id']}").json()["hosts"]) == 2
    assert boss.get(f"/api/v1/runs/{begun['id']}?hosts=0").json()["hosts"] == []
    boss.post("/api/v1/commands", json={"op": "pull", "hosts": ["a2"]})
    found = boss.get(f"/api/v1/commands?run={begun['id']}&open=1").json()["commands"]
    assert sorted(command["host"] for command in found) == ["a2", "b1"]


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
        ("queued", "cancelled", "admin"), (None, "queued", "admin"),
    ]  # fmt: skip
    assert [line["after"] for line in lines("subject=b1&kind=host")] == ["enrolled"]
    assert httpx.delete(f"{house.url}/api/v1/hosts/b1").status_code == 401
    assert boss.post("/api/v1/commands", json={"op": "pull", "hosts": ["nobody"]}).status_code == 404
    assert httpx.post(f"{house.url}/login", json={"token": TOKEN}).status_code == 200
    assert httpx.post(f"{house.url}/login", json={"token": "guessed"}).status_code == 401
    tried = {
        ("DELETE /api/v1/hosts/b1", "nobody", "not_signed_in"), ("POST /api/v1/commands", "admin", "unknown_host"),
        ("POST /login", "nobody", "not_signed_in"),
    }  # fmt: skip
    until(
        lambda: (
            tried
            <= {(line["subject"], line["actor"].partition(" ")[0], line["reason"]) for line in lines("kind=request")}
        )
    )
    until(lambda: lines("kind=session"))
    assert {(line["after"], line["actor"]) for line in lines("kind=session")} == {("signed_in", "admin")}
    assert "guessed" not in boss.get("/api/v1/audit?limit=1000").text
    everything = lines("limit=1000")
    assert [line["number"] for line in everything] == sorted((line["number"] for line in everything), reverse=True)
    page = boss.get("/api/v1/audit?limit=3").json()
    assert [line["number"] for line in lines(f"limit=3&before={page['next']}")] == [
        line["number"] for line in everything[3:6]
    ]


def test_a_flood_of_wrong_tokens_is_counted_and_not_written_line_by_line(
    house: FanoutHouse, boss: httpx.Client
) -> None:
    def refused() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = boss.get("/api/v1/audit?kind=request&limit=1000").json()["audit"]
        return [line for line in found if line["subject"] == "DELETE /api/v1/hosts/flood"]

    begun = time.monotonic()
    with httpx.Client(base_url=house.url, timeout=WAIT_S) as nobody:
        for _ in range(300):
            assert nobody.delete("/api/v1/hosts/flood").status_code == 401
    seconds = int(time.monotonic() - begun) + 2

    def skipped() -> list[dict[str, Any]]:
        boss.delete("/api/v1/hosts/none")
        found: list[dict[str, Any]] = boss.get("/api/v1/audit?kind=request&limit=1000").json()["audit"]
        return [line for line in found if line["after"] == "skipped"]

    until(skipped)
    assert 0 < len(refused()) <= 20 * seconds
