"""/metrics as Prometheus reads it, and the dashboard and the alert rules that are made of its names."""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import msgspec
import pytest
from doubles.authority import Authority
from doubles.deadline import WAIT_S
from doubles.operator_wire import TOKEN, FanoutHouse
from prometheus_client.parser import text_string_to_metric_families

from processes.adapters.settings import load
from processes.adapters.state import fleet_db
from processes.core.records.command import State
from processes.core.records.ledger import Ledger
from processes.core.travels.messages import Json
from processes.fanout import metrics
from processes.fanout.read_api import ReadApi

HOME = Path(__file__).resolve().parents[2]
MONITORING, PROCESSES = HOME / "monitoring", HOME / "processes"
promtool = shutil.which(
    "promtool", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
)  # bin/test fetches it where it may
UNITS = ("_seconds", "_bytes", "_ratio", "_items", "_total")
PLAIN = {  # numbers without a unit: a state, a count of things that are now, an average of runnable tasks
    "fleethub_verdict", "fleethub_hub_epoch", "fleethub_canary_ok", "fleethub_hosts", "fleethub_hosts_agent_old",
    "fleethub_commands", "fleethub_conditions",
    "fleethub_process_verdict",
    "fleethub_process_wanted", "fleethub_process_connections",
    "fleethub_process_connections_waiting", "fleethub_process_blocked",
    "fleethub_port_ok",
    "fleethub_process_dead_letters",
    "fleethub_process_suspended", "fleethub_host_online", "fleethub_host_load", "fleethub_build_info",
}  # fmt: skip


@pytest.fixture(scope="module")
def scraped() -> tuple[str, str]:
    """What a real fanout says by default, and with metrics.hosts."""
    texts = []
    for switch in ("false", "true"):
        with FanoutHouse(FLEETHUB_METRICS_HOSTS=switch) as house:
            house.start("hub")
            with httpx.Client(
                base_url=house.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=WAIT_S
            ) as client:
                deadline = time.monotonic() + WAIT_S
                while client.post("/api/v1/hosts", json={"name": "web1"}).status_code not in (201, 409):
                    assert time.monotonic() < deadline
                while client.get("/api/v1/hosts/web1").status_code != 200:
                    assert time.monotonic() < deadline
                answer = client.get("/metrics")
                assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
                texts.append(answer.text)
    return texts[0], texts[1]


def test_promtool_looks_at_all_this_where_the_suite_decides() -> None:
    assert promtool is not None or os.environ.get("CI") != "true"


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_every_metric_has_a_type_a_help_and_a_unit(scraped: tuple[str, str]) -> None:
    for name, family in families(scraped[1]).items():
        assert name.startswith("fleethub_")
        assert family.type in ("gauge", "counter"), name
        assert len(family.documentation) > 4, name
        full = f"{name}_total" if family.type == "counter" else name
        assert full.endswith(UNITS) or name in PLAIN, name
        assert family.type == "counter" or not name.endswith("_total"), name
    helps = re.findall(r"^# HELP (\S+)", scraped[1], re.M)
    assert len(helps) == len(set(helps))
    if promtool is not None:
        done = subprocess.run(
            [promtool, "check", "metrics"], input=scraped[1], capture_output=True, text=True, timeout=WAIT_S
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_there_are_no_series_of_hosts_unless_they_are_asked_for(scraped: tuple[str, str]) -> None:
    assert "fleethub_host_" not in scraped[0]
    assert "web1" not in scraped[0]
    (sample,) = families(scraped[1])["fleethub_host_online"].samples
    assert (sample.labels, sample.value) == ({"host": "web1"}, 0.0)


def test_the_build_the_databases_and_the_disk_are_told(scraped: tuple[str, str]) -> None:
    plain = families(scraped[0])
    (build,) = plain["fleethub_build_info"].samples
    assert (build.labels, build.value) == ({"version": importlib.metadata.version("fleethub")}, 1.0)
    sizes = {sample.labels["database"]: sample.value for sample in plain["fleethub_database_bytes"].samples}
    assert sizes["fleet"] > 4096
    assert plain["fleethub_state_free_bytes"].samples[0].value > 0
    assert plain["fleethub_certificate_expiry_timestamp_seconds"].samples == []  # no TLS


def test_what_nobody_has_read_yet_has_no_series(tmp_path: Path) -> None:
    """A 0 would read as a counter that begins anew, and as a fleet whose hosts have all gone."""

    def values(text: str) -> dict[str, list[float]]:
        names = ("hub_epoch", "incidents", "hosts", "commands_accepted", "commands")
        return {name: [s.value for s in families(text)[f"fleethub_{name}"].samples] for name in names}

    settings = load({"FLEETHUB_STATE": str(tmp_path)})
    exporter = metrics.Metrics(settings)
    assert not any(values(exporter.export([], each=False).decode()).values())
    connection = fleet_db.open_for_writing(settings.database)
    ledger = msgspec.json.encode(Ledger(1, lost=1)).decode()
    connection.execute("INSERT INTO meta VALUES ('epoch', '8'), ('ledger', ?)", (ledger,))
    connection.close()
    read = values(exporter.export([], each=False).decode())
    assert (read["hub_epoch"], read["commands_accepted"], len(read["commands"])) == ([8.0], [1.0], len(State))


def test_hosts_with_an_old_agent_are_counted_whether_each_is_shown_or_not(tmp_path: Path) -> None:
    exporter = metrics.Metrics(load({"FLEETHUB_STATE": str(tmp_path)}))
    said = [("0.0.9", 1), ("0.0.9", 0), (importlib.metadata.version("fleethub"), 1), ("", 0)]
    rows = [
        Json(msgspec.json.encode({"name": f"web{number}", "agent_version": version, "protocol": protocol}))
        for number, (version, protocol) in enumerate(said)
    ]
    for each in (False, True):
        text = exporter.export(rows, each=each).decode()
        assert [sample.value for sample in families(text)["fleethub_hosts_agent_old"].samples] == [1.0]
        assert ("web0" in text) is each


def test_the_certificate_tells_when_it_expires_and_one_that_cannot_be_read_has_no_series(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue(days=2)
    environment = {
        "FLEETHUB_STATE": str(tmp_path),
        "FLEETHUB_TLS_CERTIFICATE": str(certificate),
        "FLEETHUB_TLS_KEY": str(key),
    }
    exporter = metrics.Metrics(load(environment))
    (sample,) = families(exporter.export([], each=False).decode())[
        "fleethub_certificate_expiry_timestamp_seconds"
    ].samples
    assert sample.value == pytest.approx(time.time() + 2 * 86400, abs=60)
    certificate.write_text("half of it")
    assert (
        families(exporter.export([], each=False).decode())["fleethub_certificate_expiry_timestamp_seconds"].samples
        == []
    )


def fields_written(kind: str) -> set[str]:
    """The fields of its pulse that the source of this process assigns, itself or through adapters/accepts.py."""
    found = set()
    for path in (PROCESSES / kind).glob("*.py"):
        found |= {"accepted", "waiting"} if "accepts.enter(pulse" in path.read_text() else set()
        for statement in ast.walk(ast.parse(path.read_text())):
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            targets = [statement.target] if isinstance(statement, ast.AugAssign) else targets
            for place in (node for target in targets for node in ast.walk(target) if isinstance(node, ast.Attribute)):
                if "pulse" in ast.unparse(place.value):
                    found.add(place.attr)
    return found


def test_what_a_process_does_not_count_has_no_series(scraped: tuple[str, str]) -> None:
    found = families(scraped[0])
    by_metric = {
        name: {sample.labels["process"] for sample in found[f"fleethub_process_{name}"].samples}
        for name in ("turns", "committed")
    }
    assert by_metric == {"turns": {"queues", "hub", "fanout"}, "committed": {"hub"}}
    blocked = {(sample.labels["process"], sample.labels["on"]) for sample in found["fleethub_process_blocked"].samples}
    assert blocked == {("hub", "storage"), ("hub", "queues"), ("fanout", "queues")}


@pytest.mark.parametrize("kind", ["queues", "hub", "gateway", "fanout", "watchdog", "agent"])
def test_a_process_has_series_of_exactly_what_it_counts(kind: str) -> None:
    """A stage that a process does not have is no constant 0."""
    mine = {each.field for each in (*metrics.GAUGES, *metrics.COUNTERS) if kind in each.kinds} - {"age_s", "turn"}
    told = {"oldest_ns": "oldest_s"}
    every = {each.field for each in (*metrics.GAUGES, *metrics.COUNTERS)}
    assert mine == {told.get(field, field) for field in fields_written(kind)} & every


def named(text: str) -> set[str]:
    """The metrics of ours that an expression names."""
    return set(re.findall(r"\bfleethub_\w+", text))


def known(text: str) -> set[str]:
    return {line.split()[2] for line in text.splitlines() if line.startswith("# HELP ")}


def test_the_dashboard_and_the_rules_name_metrics_that_are_there(scraped: tuple[str, str]) -> None:
    board = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    rules = re.findall(r"expr: (?:>-\n)?(.*(?:\n {10}.*)*)", (MONITORING / "prometheus-alerts.yml").read_text())
    assert len(expressions) > 20
    assert len(rules) >= 17
    for expression in (*expressions, *rules):
        assert named(expression) or "up{" in expression, expression
        assert named(expression) <= known(scraped[0]), expression


def test_the_dashboard_shows_the_chosen_installations_each_by_its_name(tmp_path: Path) -> None:
    board = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["instance"]["definition"] == "label_values(fleethub_verdict, instance)"
    assert variables["instance"]["multi"]
    rules = []
    for panel in board["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            assert len(named(expression)) == expression.count('instance=~"$instance"'), expression
            assert target["legendFormat"].startswith("{{instance}}"), panel["title"]
            assert target.get("instant", False) is (panel["type"] == "stat"), panel[
                "title"
            ]  # a range would show what was, too
            rules.append(
                {"record": f"panel:{panel['id']}:{target['refId']}", "expr": expression.replace("$instance", ".*")}
            )
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(places) == len(set(places)) == len({panel["id"] for panel in board["panels"]})
    if promtool is not None:
        queries = tmp_path / "queries.json"  # which is YAML too
        queries.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        done = subprocess.run(
            [promtool, "check", "rules", str(queries)], capture_output=True, text=True, timeout=WAIT_S
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_tried_on_scripted_series() -> None:
    rules = set(re.findall(r"- alert: (\w+)", (MONITORING / "prometheus-alerts.yml").read_text()))
    tried = re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", (Path(__file__).parent / "alerts.yml").read_text())
    assert rules == set(tried)


def test_the_labels_that_they_choose_by_are_there(scraped: tuple[str, str]) -> None:
    text = (MONITORING / "grafana-dashboard.json").read_text() + (MONITORING / "prometheus-alerts.yml").read_text()
    labels = {key for family in families(scraped[0]).values() for sample in family.samples for key in sample.labels}
    chosen = {label for label in re.findall(r"(\w+)!?=~?\\?\"", text) if label not in ("job", "instance")}
    assert chosen
    assert chosen <= labels | {"on", "severity"}  # of what is blocked, and of conditions: here is none
    offline = {sample.labels["presence"] for sample in families(scraped[0])["fleethub_hosts"].samples}
    assert offline == {"online", "stale", "offline"}


def test_the_rules_and_the_example_are_good_for_prometheus() -> None:
    """By promtool where there is one; here by the shape that it wants."""
    text = (MONITORING / "prometheus-alerts.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", text)
    assert len(alerts) == len(set(alerts)) == text.count("expr:") == text.count("severity:") == text.count("summary:")
    if promtool is not None:
        for words in (["rules", "prometheus-alerts.yml"], ["config", "--syntax-only", "prometheus.yml"]):
            assert subprocess.run([promtool, "check", *words], cwd=MONITORING, timeout=WAIT_S).returncode == 0
        done = subprocess.run(
            [promtool, "test", "rules", "alerts.yml"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_one_export_serves_all_who_ask_meanwhile_and_the_next_one_who_asks_later() -> None:
    """The bug it would catch: a viewer asks for hundreds at once, and Prometheus waits until all of them are made."""
    may_end, exports = threading.Event(), []

    class Metrics:
        def export(self, hosts: list[Json], *, each: bool, conditions: list[Json]) -> bytes:
            exports.append(each)
            assert may_end.wait(WAIT_S)
            return b"%d" % len(exports)

    async def scene() -> None:
        settings: Any = SimpleNamespace(file=SimpleNamespace(metrics=SimpleNamespace(hosts=False)))
        unused: Any = None
        api = ReadApi(settings, unused, unused, cast(Any, Metrics()), unused)
        api._own_rows = list  # type: ignore[method-assign]
        api._standing_rows = list  # type: ignore[method-assign]
        asking = [asyncio.create_task(api.metrics(unused)) for _ in range(20)]
        asking[3].cancel()  # a client that goes away takes nobody's answer with it
        async with asyncio.timeout(WAIT_S):
            while not exports:
                await asyncio.sleep(0.001)
        may_end.set()
        told = await asyncio.wait_for(asyncio.gather(*asking[:3], *asking[4:]), WAIT_S)
        assert {bytes(each.body) for each in told} == {b"1"}
        assert bytes((await api.metrics(unused)).body) == b"2"

    asyncio.run(scene())
