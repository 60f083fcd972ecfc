"""Labels of hosts, saved queries, and runs whose hosts a query found: what the hub keeps, notes and refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from doubles.fleet_play import Play

from processes.core import labels
from processes.core.hub.effects import AddAudit
from processes.core.hub.saved_queries import QUERIES_MAX
from processes.core.labels import LABELS_MAX
from processes.core.shown.views import host_view
from processes.core.travels.messages import (
    EnrollHost,
    LabelHosts,
    MakeCode,
    RemoveQuery,
    Request,
    SaveQuery,
    StartRun,
)
from processes.core.values import CANARY_HOST


@pytest.fixture
def play() -> Play:
    found = Play()
    found.enroll("a", "b", "c")
    return found


def asked(play: Play, request: Request) -> tuple[int, dict[str, Any]]:
    reply = play.ask(request)
    return reply.status, msgspec.json.decode(reply.body)


def labels_of(play: Play, name: str) -> dict[str, str]:
    return play.memory.hosts[name].labels


def audited(play: Play) -> list[tuple[str, str, str, str]]:
    lines = [write.line for write in play.effects.writes if isinstance(write, AddAudit)]
    return [(line.subject, line.after, line.actor, line.reason) for line in lines]


def test_labels_are_set_and_removed_durably_and_each_change_is_noted(play: Play) -> None:
    assert asked(play, LabelHosts(["a", "b"], {"role": "web", "env": "prod"})) == (
        200, {"hosts": ["a", "b"], "changed": 2, "query": ""},
    )  # fmt: skip
    assert ("b", "labelled", "ann", "role=web env=prod") in audited(play)
    status, told = asked(play, LabelHosts(["a", "b"], {"env": "prod"}, ["role", "none"], "role=web"))
    assert (status, told["changed"], told["query"]) == (200, 2, "role=web")
    assert ("a", "labelled", "ann", "env=prod role- none-") in audited(play)
    play.restart()
    assert labels_of(play, "a") == labels_of(play, "b") == {"env": "prod"}
    assert labels_of(play, "c") == {}


def test_what_is_so_already_is_not_noted(play: Play) -> None:
    asked(play, LabelHosts(["a"], {"role": "web"}))
    before = len(audited(play))
    assert asked(play, LabelHosts(["a"], {"role": "web"}, ["x"]))[1] == {"hosts": ["a"], "changed": 0, "query": ""}
    assert len(audited(play)) == before


@pytest.mark.parametrize(
    ("request_", "status", "word"),
    [
        (LabelHosts(["a"], {"Role": "web"}), 400, "'Role' is no key"),
        (LabelHosts(["a"], {"role": "a b"}), 400, "'a b' is no value of the label role"),
        (LabelHosts(["a"], {"os": "x"}), 400, "os is something that every host has"),
        (LabelHosts(["a"], {"role": "web"}, ["role"]), 400, "both set and removed"),
        (LabelHosts(["a"], {}, ["-"]), 400, "'-' is no key"),
        (LabelHosts(["a"]), 400, "name a label"),
        (LabelHosts(["a"], {f"k{n}": "" for n in range(LABELS_MAX + 1)}), 400, "at most 64"),
        (LabelHosts(["a"], {"one": "more"}), 400, "host b would have"),
        (LabelHosts(["a", "z"], {"role": "web"}), 404, "no host 'z'"),
        (LabelHosts([CANARY_HOST], {"role": "web"}), 404, "no host"),
        (LabelHosts(["a", "a"], {"role": "web"}), 400, "named twice"),
        (EnrollHost("new", "h", labels={"name": "x"}), 400, "name is something"),
        (MakeCode("new", "h", labels={"A": "x"}), 400, "'A' is no key"),
        (EnrollHost("b", "h", again=True, labels={"one": "more"}), 400, "host b would have"),
        (MakeCode("b", "h", again=True, labels={"one": "more"}), 400, "host b would have"),
    ],
)  # fmt: skip
def test_what_is_refused_changes_nothing(play: Play, request_: Request, status: int, word: str) -> None:
    asked(play, LabelHosts(["b"], {f"k{n}": "" for n in range(LABELS_MAX)}))
    if isinstance(request_, LabelHosts) and request_.set == {"one": "more"}:
        request_ = msgspec.structs.replace(request_, hosts=["a", "b"])
    before, noted = dict(play.memory.hosts), len(audited(play))
    found, told = asked(play, request_)
    assert (found, word in told["message"]) == (status, True), told
    assert (play.memory.hosts, len(audited(play))) == (before, noted)


def test_a_host_is_enrolled_with_its_labels_by_token_and_by_code(play: Play) -> None:
    assert asked(play, EnrollHost("x", "hx", labels={"role": "web"}))[0] == 201
    assert asked(play, MakeCode("y", "hy", labels={"role": "db"}))[0] == 201
    assert (labels_of(play, "x"), labels_of(play, "y")) == ({"role": "web"}, {"role": "db"})
    assert asked(play, EnrollHost("x", "hz", again=True, labels={"env": "prod"}))[0] == 201
    assert labels_of(play, "x") == {"env": "prod", "role": "web"}, "enrolled again it keeps the others"


def test_what_an_agent_says_of_itself_is_shown_apart(play: Play) -> None:
    asked(play, LabelHosts(["a"], {"role": "web"}))
    play.connect("a", "c1", labels={"role": "db", "site": "graz"})
    view = host_view(play.memory.hosts["a"], play.memory.links["a"])
    assert (view.labels, view.agent_labels) == ({"role": "web"}, {"role": "db", "site": "graz"})
    assert labels_of(play, "a") == {"role": "web"}


@pytest.mark.parametrize(
    ("key", "value", "good"),
    [
        ("role", "web", True), ("role", "", True), ("a", "B_2.c-d", True), ("example.com/role", "x", True),
        ("a" * 63, "v" * 63, True), ("a" * 64, "x", False), ("a", "v" * 64, False), ("role-", "x", False), ("1a", "x", False),
        ("a/b/c", "x", False), ("/a", "x", False), ("a.b_c-d", "x", True), ("a b", "x", False), ("", "x", False),
        ("a", "-x", False), ("a", "x\n", False), ("a\n", "x", False), ("ä", "x", False), ("a", "ä", False),
        (f"{'p' * 253}/{'n' * 63}", "x", True), (f"{'p' * 254}/n", "x", False),
    ],
)  # fmt: skip
def test_keys_and_values_are_those_of_kubernetes_in_lower_case(key: str, value: str, good: bool) -> None:
    assert (labels.complaint(key, value) == "") is good


def test_queries_are_saved_replaced_and_removed(play: Play) -> None:
    status, told = asked(play, SaveQuery("web", "role=web"))
    assert (status, told["name"], told["query"], told["actor"]) == (200, "web", "role=web", "ann")
    asked(play, SaveQuery("web", "role=web env=prod"))
    play.restart()
    assert [(saved.name, saved.query) for saved in play.memory.queries.values()] == [("web", "role=web env=prod")]
    assert ("web", "saved", "ann", "role=web env=prod") in audited(play)
    assert asked(play, RemoveQuery("web")) == (200, {"name": "web", "removed": True})
    assert asked(play, RemoveQuery("web"))[0] == 404
    assert not play.memory.queries
    assert ("web", "removed", "ann", "") in audited(play)


def test_saved_queries_are_bounded(play: Play) -> None:
    for number in range(QUERIES_MAX):
        assert asked(play, SaveQuery(f"q{number}", "web"))[0] == 200
    assert asked(play, SaveQuery("more", "web"))[0] == 429
    assert asked(play, SaveQuery("q1", "db"))[0] == 200, "one that is there is replaced"


def test_a_run_keeps_the_query_and_a_key_compares_its_text(play: Play) -> None:
    """Whom a query finds may change between two tries of one request: that is still the same request."""
    status, told = asked(play, StartRun(["pull"], ["a", "b"], key="k", query="role=web"))
    assert (status, told["query"], told["total"]) == (202, "role=web", 2)
    again = asked(play, StartRun(["pull"], ["a", "b", "c"], key="k", query="role=web"))
    assert (again[0], again[1]["id"], again[1]["total"]) == (200, told["id"], 2), "exactly the first ones"
    assert asked(play, StartRun(["pull"], ["a", "b"], key="k", query="role=db"))[0] == 409
    assert asked(play, StartRun(["pull"], ["a", "b"], key="k"))[0] == 409
    play.restart()
    assert play.memory.runs[told["id"]].query == "role=web"
