"""Finding hosts by queries: however many ask, and whatever a host says of itself, the loop has its passes."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from doubles.query_cases import FOUND, HOST, random_cases

from processes.core.shown.query import QueryError, parse
from processes.core.shown.replica import Replica
from processes.core.travels.messages import Change, Json
from processes.fanout import host_finder
from processes.fanout.host_finder import HostFinder

HOSTS, ASKED = 5, 40


def encoded(row: Any) -> Json:
    return Json(msgspec.json.encode(row))


def finder_of(shown: Replica) -> HostFinder:
    return HostFinder(cast(Any, SimpleNamespace(shown=shown)), cast(Any, None))


def replica(hosts: dict[str, Any]) -> Replica:
    shown = Replica()
    for name, row in hosts.items():
        shown.apply(Change("host", name, encoded(row)))
    return shown


def test_a_pass_of_the_loop_has_a_part_of_one_query_however_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_finder, "AT_ONCE_S", 0.0)  # each part takes as long as is looked without a pause
    monkeypatch.setattr(host_finder, "PART_BYTES", 1)  # and is one host
    decoded, looks = host_finder._decoded, 0

    def counted(wanted: Any, rows: list[Json]) -> list[dict[str, Any]]:
        nonlocal looks
        looks += len(rows)
        return decoded(wanted, rows)

    monkeypatch.setattr(host_finder, "_decoded", counted)
    names = [f"web{number}" for number in range(HOSTS)]
    finder = finder_of(replica({name: {"presence": "online"} for name in names}))
    passes: list[int] = []

    async def ask() -> None:
        asked = asyncio.gather(*(finder.find("online") for _ in range(ASKED)))
        while not asked.done():
            before = looks
            await asyncio.sleep(0)
            passes.append(looks - before)
        assert await asked == [names] * ASKED

    asyncio.run(ask())
    assert looks == HOSTS * ASKED
    assert max(passes) <= 2, "one that ends, and the next one that begins"


def test_what_was_heard_counts_and_is_merged_only_into_rows_that_are_asked_for() -> None:
    shown = replica({name: {"presence": "online", "metrics": {"cpu": 1}, "labels": {"a": "b"}} for name in "cab"})
    for name, cpu in (("a", 90), ("c", 95)):
        assert shown.hear(name, encoded({"metrics": {"cpu": cpu}, "last_seen": "2025-11-30T10:53:15.000Z"}))
    finder = finder_of(shown)
    assert asyncio.run(finder.find("cpu>80 a=b")) == ["a", "c"]
    assert asyncio.run(finder.find("cpu<80")) == ["b"]
    assert [heard is None for _, _, heard in shown.hosts_apart()] == [False, False, True]
    rows = asyncio.run(finder.rows("cpu>92"))
    assert [(row.id, msgspec.json.decode(row.fields)["metrics"]["cpu"]) for row in rows] == [("c", 95)]
    assert [heard is None for _, _, heard in shown.hosts_apart()] == [True, False, True]


def test_hosts_are_found_in_encoded_rows_as_in_decoded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the decoder of a query skips is never what the query asks for: also in rows of which nobody has seen the
    like, where a text stands for labels and a number for facts.
    """
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)
    cases = random_cases(11, 400)
    odd = [{**HOST, key: value} for key in ("labels", "facts", "metrics") for value in ("role", 7, [1], None)]
    hosts = {f"h{number:03}": row for number, row in enumerate([*odd, *(case.host for case in cases[:60])])}
    shown = replica(hosts)
    for name in list(hosts)[::3]:
        fields = {"metrics": {"cpu": 3}, "heartbeat_facts": {"role": "web"}}
        shown.hear(name, encoded(fields))
        hosts[name] = {**hosts[name], **fields}
    finder, read, found = finder_of(shown), 0, 0
    for text in [*(case.query for case in cases), *(text for text, _ in FOUND)]:
        try:
            query = parse(text)
        except QueryError:
            continue
        if "conditions" in query.keys or text.startswith("@"):
            continue  # they are not in the row
        names = [name for name, row in sorted(hosts.items()) if query.matches(row, now_s)]
        assert asyncio.run(finder.find(text)) == names, text
        read, found = read + 1, found + len(names)
    assert read > 200
    assert found > read
