"""Fleet runs: steps on many hosts, so many at a time, stopped when too many failed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from doubles.fleet_play import Play, sent
from hypothesis import given
from hypothesis import strategies as st

from processes.core.hub import step
from processes.core.hub.effects import AddAudit, Effects, Put
from processes.core.hub.rules import Rules
from processes.core.hub.runs import facts_of
from processes.core.records.command import State
from processes.core.records.run import Part, PartView, Run, RunState, run_view
from processes.core.travels import messages
from processes.core.travels.audit import Kind
from processes.core.travels.messages import CancelRun, Json, StartRun
from processes.core.travels.operator_requests import PARALLEL


class Fleet:
    """Connected hosts and one run."""

    def __init__(self, count: int = 5, rules: Rules = Rules()) -> None:  # noqa: B008  # no state
        self.play = Play(rules)
        self.names = [f"h{number}" for number in range(count)]
        self.play.enroll(*self.names)
        for name in self.names:
            self.play.connect(name, f"c-{name}")
        self.run_id = ""

    def start(self, *steps: str, **fields: Any) -> Effects:
        fields = {"hosts": None if "where" in fields else self.names, **fields}
        event = messages.RequestReceived("r", "fanout", "ann", self.play.at_s + 5, StartRun(list(steps), **fields))
        effects = self.play.do(event)
        (reply,) = [reply for _, reply in effects.replies]
        assert reply.status == 202, reply.body
        self.run_id = msgspec.json.decode(reply.body)["id"]
        return effects

    @property
    def run(self) -> Run:
        return self.play.memory.runs[self.run_id]

    @property
    def hosts(self) -> list[PartView]:
        """The run's hosts as the database would show them."""
        puts = [write for write in self.play.effects.writes if isinstance(write, Put)]
        names = {put.key: put.row for put in puts if put.table == "run_hosts"}
        parts = {put.row.host: put.row for put in puts if put.table == "run_parts" and self.run_id in put.key}
        view = run_view(self.run, names[self.run_id], parts)
        counts = Counter(str(part.state) for part in view.hosts)
        assert {state: getattr(view, state) for state in map(str, Part)} == {s: counts[s] for s in map(str, Part)}
        return view.hosts

    def command(self, host: str) -> str:
        (part,) = [part for part in self.hosts if part.host == host]
        assert part.command_id is not None
        return part.command_id

    def end(self, host: str, status: str = "ok") -> Effects:
        """The host's agent reports the command that it is at."""
        return self.play.report(host, f"c-{host}", self.command(host), status)

    def parts(self) -> dict[str, str]:
        return {part.host: str(part.state) for part in self.hosts}


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_a_host_gets_its_steps_one_after_the_other_and_the_run_succeeds(fleet: Fleet) -> None:
    assert len(sent(fleet.start("pull", "switch"))) == 5
    for name in fleet.names:
        pull = fleet.command(name)
        (switch,) = sent(fleet.end(name))
        assert fleet.play.command(pull).op == "pull"
        assert fleet.play.command(switch).op == "switch"
        fleet.end(name)
    assert fleet.run.state is RunState.SUCCEEDED
    assert set(fleet.parts().values()) == {"succeeded"}


def test_a_failed_host_leaves_and_the_others_go_on(fleet: Fleet) -> None:
    fleet.start("pull", "switch")
    assert sent(fleet.end("h0", "error")) == []
    for name in fleet.names[1:]:
        fleet.end(name)
        fleet.end(name)
    assert fleet.run.state is RunState.FAILED
    assert fleet.parts() == {"h0": "failed", "h1": "succeeded", "h2": "succeeded", "h3": "succeeded", "h4": "succeeded"}


def test_no_more_than_parallel_hosts_are_under_way(fleet: Fleet) -> None:
    assert len(sent(fleet.start("pull", parallel=2))) == 2
    assert fleet.parts() == {"h0": "active", "h1": "active", "h2": "pending", "h3": "pending", "h4": "pending"}
    assert len(sent(fleet.end("h1"))) == 1
    assert list(fleet.parts().values()).count("active") == 2


def test_after_too_many_failures_no_further_host_is_begun_and_the_rest_is_not_attempted(fleet: Fleet) -> None:
    fleet.start("pull", parallel=1, max_failures=1)
    fleet.end("h0", "error")
    assert fleet.parts()["h1"] == "active"
    fleet.end("h1", "error")
    assert fleet.parts() == {
        "h0": "failed",
        "h1": "failed",
        "h2": "not_attempted",
        "h3": "not_attempted",
        "h4": "not_attempted",
    }
    assert fleet.run.state is RunState.FAILED
    assert fleet.play.memory.ledger.accepted == 2, "hosts not attempted are in no ledger"


def test_max_failures_0_stops_at_the_first_and_lets_the_ones_under_way_end(fleet: Fleet) -> None:
    fleet.start("pull", "switch", parallel=2, max_failures=0)
    fleet.end("h0", "error")
    assert fleet.run.open
    fleet.end("h1")
    fleet.end("h1")
    assert fleet.parts() == {
        "h0": "failed",
        "h1": "succeeded",
        "h2": "not_attempted",
        "h3": "not_attempted",
        "h4": "not_attempted",
    }
    assert not fleet.run.open


def test_cancel_ends_what_is_under_way_and_begins_nothing_more(fleet: Fleet) -> None:
    fleet.start("pull", "switch", parallel=2)
    assert fleet.play.ask(CancelRun(fleet.run_id)).status == 202
    assert fleet.run.open, "its commands end by their agents' word"
    fleet.end("h0", "cancelled")
    assert sent(fleet.end("h1", "ok")) == [], "a completed exit wins, but its next step is not given"
    assert fleet.run.state is RunState.CANCELLED
    assert fleet.parts() == {
        "h0": "failed",
        "h1": "failed",
        "h2": "not_attempted",
        "h3": "not_attempted",
        "h4": "not_attempted",
    }
    assert (fleet.run.failed, fleet.run.cancelled) == (2, 2), "who was between two steps was ended too"
    assert fleet.play.ask(CancelRun(fleet.run_id)).status == 409


def test_a_host_that_failed_by_itself_is_not_counted_as_cancelled(fleet: Fleet) -> None:
    fleet.start("pull", hosts=["h0", "h1"])
    fleet.end("h0", "error")
    fleet.play.ask(CancelRun(fleet.run_id))
    fleet.end("h1", "cancelled")
    view = run_view(fleet.run)
    assert (view.failed, view.cancelled, view.cancel_requested_by) == (2, 1, "ann")
    assert [part.cancelled for part in fleet.hosts] == [False, True]


def test_ten_hosts_at_a_time_if_nothing_is_said() -> None:
    """The bug it would catch: whoever names no limit reboots the whole fleet at once."""
    fleet = Fleet(12)
    fleet.start("pull")
    assert (fleet.run.parallel, fleet.run.active) == (PARALLEL, 10)


@pytest.mark.parametrize("what", ["command", "run"])
def test_who_asked_first_is_kept_and_each_who_asked_is_in_the_audit(fleet: Fleet, what: str) -> None:
    """The bug it would catch: whoever asks last is said to have cancelled it, and the audit names nobody."""
    fleet.start("pull", hosts=["h0"])
    command_id = fleet.command("h0")
    request: messages.Request = CancelRun(fleet.run_id) if what == "run" else messages.CancelCommand(command_id)
    asked_at = []
    for actor in ("bob", "admin", "bob"):
        fleet.play.at_s += 1
        done = fleet.play.do(messages.RequestReceived(f"r-{fleet.play.at_s}", "fanout", actor, 1e12, request))
        asked_at.append(fleet.play.now.wall_s)
        (line,) = [write.line for write in done.writes if isinstance(write, AddAudit)]
        assert (line.kind, line.subject, line.after, line.actor) == (
            Kind.CANCEL, fleet.run_id if what == "run" else command_id, "asked", actor,
        )  # fmt: skip
        command = fleet.play.command(command_id)
        assert (command.cancel_actor, command.cancel_wall_s) == ("bob", asked_at[0])
        if what == "run":
            assert (fleet.run.cancel_actor, fleet.run.cancel_wall_s) == ("bob", asked_at[0])


def test_a_choice_that_finds_no_host_says_why(fleet: Fleet) -> None:
    def said(where: dict[str, str]) -> str:
        return str(msgspec.json.decode(fleet.play.ask(StartRun(["pull"], where=where)).body)["message"])

    assert said({"nonsense": "1"}).startswith("no host has a field 'nonsense'")
    assert said({"host_type": "beos"}).startswith("no host is chosen by where")
    fleet = Fleet(0)
    assert said({}).startswith("no host is enrolled yet: `fleethub enroll NAME`")
    assert said({"nonsense": "1"}).startswith("no host is enrolled yet")


def test_a_run_goes_on_under_the_next_hub(fleet: Fleet) -> None:
    fleet.start("pull", "switch")
    infos = list(fleet.play.memory.connections.values())
    fleet.play.at_s += 1
    fleet.play.restart()
    fleet.play.do(messages.CensusTaken("gateway", 1, "boot", 0, True, infos))
    for name in fleet.names:
        fleet.end(name)
        fleet.end(name)
    assert fleet.run.state is RunState.SUCCEEDED


def test_a_run_whose_hub_died_between_a_steps_end_and_the_next_goes_on(fleet: Fleet) -> None:
    """The end of a command is durable before the run has looked at it: its successor looks at every open run."""
    fleet.start("pull", "switch", hosts=["h0"])
    command = fleet.play.command(fleet.command("h0"))
    fleet.play.memory.commands[command.id] = msgspec.structs.replace(command, state=State.SUCCEEDED)
    fleet.play.memory.queues.pop("h0")
    fleet.play.restart()
    fleet.play.settle()
    assert fleet.hosts[0].step == 1


def test_a_removed_host_is_a_failed_one_and_the_run_ends(fleet: Fleet) -> None:
    fleet.start("pull", parallel=1, hosts=["h0", "h1"])
    fleet.play.ask(messages.RemoveHost("h0"))
    fleet.play.ask(messages.RemoveHost("h1"))
    assert fleet.parts() == {"h0": "failed", "h1": "failed"}
    assert fleet.run.state is RunState.FAILED


def test_where_chooses_by_fields_and_facts_and_an_empty_one_everything(fleet: Fleet) -> None:
    fleet.play.at_s += 1
    fleet.play.connect("h3", "c-h3x", host_type="nixos")
    fleet.start("pull", where={"host_type": "nixos"})
    assert list(fleet.parts()) == ["h3"]
    reply = fleet.play.ask(StartRun(["pull"], where={}))
    assert msgspec.json.decode(reply.body)["total"] == 5


def test_the_same_key_is_the_same_run_and_another_request_is_refused(fleet: Fleet) -> None:
    first = fleet.play.ask(StartRun(["pull"], ["h0"], key="k"))
    again = fleet.play.ask(StartRun(["pull"], ["h0"], key="k"))
    assert (again.status, msgspec.json.decode(again.body)["id"]) == (200, msgspec.json.decode(first.body)["id"])
    assert fleet.play.ask(StartRun(["pull"], ["h1"], key="k")).status == 409
    assert fleet.play.ask(messages.GiveCommand("pull", ["h0"], "k")).status == 409


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (StartRun([], ["h0"]), 400),
        (StartRun(["pull"] * 21, ["h0"]), 400),
        (StartRun(["p q"], ["h0"]), 400),
        (StartRun(["pull"]), 400),
        (StartRun(["pull"], ["h0"], where={}), 400),
        (StartRun(["pull"], ["h0"], parallel=0), 400),
        (StartRun(["pull"], ["h0"], max_failures=-1), 400),
        (StartRun(["pull"], []), 400),
        (StartRun(["pull"], ["h0", "h0"]), 400),
        (StartRun(["pull"], ["nobody"]), 404),
        (StartRun(["noop"], ["_canary"]), 404),
        (StartRun(["pull"], where={"host_type": "none"}), 404),
        (StartRun(["pull", "reboot"], ["h0"]), 422),
        (CancelRun("nothing"), 404),
    ],
)
def test_a_bad_run_is_refused_whole(fleet: Fleet, request_: messages.Request, status: int) -> None:
    assert fleet.play.ask(request_).status == status
    assert fleet.play.memory.ledger.accepted == 0
    assert not fleet.play.memory.runs


@pytest.mark.parametrize(
    ("rules", "reason"),
    [(Rules(open_max=3), "too_many_in_all"), (Rules(queued_per_host_max=0), "too_many_of_host")],
)
def test_a_run_makes_no_command_past_the_limits_and_says_which_hosts_had_none(
    fleet: Fleet, rules: Rules, reason: str
) -> None:
    """The limits hold for runs too; whoever has no room leaves with the limit that was met, and is told apart from who
    was not attempted.
    """
    fleet.play.rules = fleet.play.memory.rules = rules
    fleet.start("pull")
    room = rules.open_max if rules.queued_per_host_max else 0
    assert fleet.play.memory.ledger.accepted == room
    assert [part.reason for part in fleet.hosts] == [""] * room + [reason] * (5 - room)
    for name in fleet.names[:room]:
        fleet.end(name)
    assert fleet.run.state is RunState.FAILED


@pytest.mark.parametrize("text", [b'{"a":' * 3000 + b"1" + b"}" * 3000, b"", b"[]", b'{"a":'])
def test_facts_that_cannot_be_read_choose_nobody_and_break_no_run(text: bytes) -> None:
    """The bug it would catch: facts that one host left in the database end every run that chooses by facts, for ever."""
    assert facts_of(Json(text)) == {}
    assert facts_of(Json(b'{"cpu":"arm"}')) == {"cpu": "arm"}


def written(effects: Effects) -> int:
    """How many bytes the rows of runs take among these effects."""
    puts = [write for write in effects.writes if isinstance(write, Put) and write.table.startswith("run")]
    assert puts
    return sum(len(msgspec.json.encode(put.row)) for put in puts)


def test_the_end_of_a_command_writes_and_answers_no_more_in_a_run_over_many_hosts() -> None:
    """The bug it would catch: a megabyte is written whenever one of ten thousand hosts is done."""
    sizes, answers = [], []
    for count in (6, 100):
        fleet = Fleet(count)
        ((_, reply),) = fleet.start("pull", "switch", parallel=4).replies
        sizes.append([written(fleet.end("h1")), written(fleet.end("h1", "error")), written(fleet.end("h2", "error"))])
        answers.append(len(reply.body))
        assert set(fleet.play.memory.run_parts) == {f"{fleet.run_id}/h{number}" for number in (0, 3, 4, 5)}
    few, many = sizes
    assert all(more <= less + 10 for less, more in zip(few, many, strict=True)), sizes
    assert answers[1] <= answers[0] + 20


def test_a_step_begins_and_cancels_so_many_hosts_at_most_and_all_in_the_end() -> None:
    fleet = Fleet(19, Rules(run_parts_max=7))
    event = messages.RequestReceived("r", "fanout", "ann", 1e12, StartRun(["pull", "switch"], fleet.names, parallel=19))
    made: list[int] = []

    def turns(effects: Effects) -> None:
        """As the hub's loop turns: what is due is stepped once in each turn."""
        while True:
            fleet.play.effects.extend(effects)
            commands = {w.key for w in effects.writes if isinstance(w, Put) and w.table == "commands"}
            made.append(len(commands))
            due = [each for each in step.due(fleet.play.memory) if isinstance(each, step.RunDue)]
            if not due:
                return
            effects = step.step(fleet.play.memory, due[0], fleet.play.now).apply()

    first = step.step(fleet.play.memory, event, fleet.play.now).apply()
    fleet.run_id = msgspec.json.decode(first.replies[0][1].body)["id"]
    turns(first)
    assert made == [7, 7, 5]
    assert fleet.run.active == len(fleet.names)
    made.clear()
    cancel = messages.RequestReceived("c", "fanout", "ann", 1e12, CancelRun(fleet.run_id))
    turns(step.step(fleet.play.memory, cancel, fleet.play.now).apply())
    assert max(made) <= 7
    assert set(fleet.parts().values()) == {"failed"}, "all were queued"
    assert (fleet.run.state, fleet.run.failed) == (RunState.CANCELLED, len(fleet.names))
    assert not fleet.play.memory.run_parts
    assert not fleet.play.memory.run_hosts
    assert not fleet.play.memory.due_runs


def test_a_hub_that_dies_between_two_bites_of_a_start_or_a_cancel_leaves_them_to_its_successor() -> None:
    fleet = Fleet(9, Rules(run_parts_max=7))
    event = messages.RequestReceived("r", "fanout", "ann", 1e12, StartRun(["pull"], fleet.names))
    effects = step.step(fleet.play.memory, event, fleet.play.now).apply()
    fleet.play.effects.extend(effects)
    fleet.run_id = msgspec.json.decode(effects.replies[0][1].body)["id"]
    fleet.play.restart()
    fleet.play.settle()
    assert fleet.run.active == len(fleet.names)
    cancel = messages.RequestReceived("c", "fanout", "ann", 1e12, CancelRun(fleet.run_id))
    fleet.play.effects.extend(step.step(fleet.play.memory, cancel, fleet.play.now).apply())
    assert fleet.run.open
    fleet.play.restart()
    fleet.play.settle()
    assert (fleet.run.state, set(fleet.parts().values())) == (RunState.CANCELLED, {"failed"})


@given(
    st.integers(1, 6), st.integers(1, 4), st.none() | st.integers(0, 3), st.integers(1, 3),
    st.sampled_from([1, 2, 100]),
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["ok", "error", "remove", "cancel", "restart"])), max_size=25),
)  # fmt: skip
def test_whatever_befalls_a_run_it_counts_its_hosts_rightly_and_ends_when_they_have(  # noqa: PLR0917  # as drawn
    count: int, parallel: int, max_failures: int | None, steps: int, bite: int, moves: list[tuple[int, str]]
) -> None:
    """Beside a slow count over all hosts, which `hosts` makes. The bugs it would catch: a host is counted twice, or
    never; a run waits for nobody.
    """
    fleet = Fleet(count, Rules(run_parts_max=bite))
    fleet.start(*["pull"] * steps, parallel=parallel, max_failures=max_failures)
    for place, move in moves:
        name = fleet.names[place % count]
        part = fleet.play.memory.run_parts.get(f"{fleet.run_id}/{name}")
        if move == "remove":
            fleet.play.ask(messages.RemoveHost(name))
        elif move == "cancel":
            fleet.play.ask(CancelRun(fleet.run_id))
        elif move == "restart":
            infos = list(fleet.play.memory.connections.values())
            fleet.play.at_s += 1
            fleet.play.restart()
            fleet.play.do(messages.CensusTaken("gateway", fleet.play.memory.epoch, "boot", 0, True, infos))
        elif part is not None and name in fleet.play.memory.hosts:
            fleet.end(name, move)
        states = Counter(each.state for each in fleet.hosts)
        assert states[Part.ACTIVE] <= parallel
        assert fleet.run.cancelled == sum(each.cancelled for each in fleet.hosts) <= states[Part.FAILED]
        waits = states[Part.PENDING] and not fleet.run.stopped
        assert fleet.run.open == bool(states[Part.ACTIVE] or waits), states
        if fleet.run.open and waits:
            assert states[Part.ACTIVE] == min(parallel, states[Part.ACTIVE] + states[Part.PENDING])
