"""The listing of conditions: of the hosts that a query finds, and then without the installation's own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from starlette.requests import Request

from processes.core.shown.replica import Replica
from processes.core.shown.status import CanaryReport, CommandsReport, FleetReport, IncidentsReport, Overall, Report
from processes.core.travels.messages import Change, Json
from processes.fanout.condition_api import ConditionApi
from processes.fanout.host_finder import HostFinder


def test_conditions_are_listed_of_the_hosts_that_a_query_finds() -> None:
    shown = Replica()
    for name, rack in (("web1", "b4"), ("web2", "c1")):
        shown.apply(Change("host", name, Json(msgspec.json.encode({"name": name, "labels": {"rack": rack}}))))
        row = {"id": f"of-{name}", "host": name, "kind": "disk", "severity": "warning", "state": "open", "title": name}
        shown.apply(Change("condition", row["id"], Json(msgspec.json.encode({**row, "text": "", "since": None}))))
    mirror = cast(Any, SimpleNamespace(shown=shown, live=True))
    nothing = cast(Any, None)
    report = Report(Overall.OK, 1, [], CanaryReport(), FleetReport(), CommandsReport(), IncidentsReport())
    api = ConditionApi(mirror, nothing, nothing, HostFinder(mirror, nothing), lambda: report)

    def listed(query: str) -> list[str]:
        request = Request({"type": "http", "method": "GET", "query_string": query.encode(), "headers": []})
        body = msgspec.json.decode(asyncio.run(api.listed(request)).body)
        return [each["id"] for each in body["conditions"]]

    assert sorted(listed("")) == ["of-web1", "of-web2"]
    assert listed("query=rack%3Db4") == ["of-web1"]
    assert listed("query=condition:disk+rack%3Dc1") == ["of-web2"]
    assert listed("query=rack%3Dnone") == []
