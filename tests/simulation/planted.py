"""Known bugs, each as one small change of the source, and what must catch it. Used by bin/plant, on a copy.

The place of a bug is a tag in the source: a line `# plant: slug` above a statement. Nothing reads the tags but this
module, and whoever rewrites the statement keeps the tag above what now does its work (or changes the bug here).
"""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Final, NamedTuple

TAG: Final = re.compile(r"^ *# plant: ([a-z][a-z-]*)$", re.MULTILINE)


class Bug(NamedTuple):
    """`becomes` replaces the statement below the tag `slug`; if it ends with a colon, only the statement's head (its
    `if …:`). Several bugs may have one slug. `caught_by`: simulation, or the path of tests.
    """

    name: str
    slug: str
    becomes: str
    caught_by: str = "simulation"


class BadTag(Exception):
    """A tag stands nowhere, more than once, or not above a statement."""


def tags(package: Path) -> list[tuple[str, Path]]:
    """Every tag in the package's modules: (slug, file), in no order that matters."""
    return [(slug, path) for path in sorted(package.rglob("*.py")) for slug in TAG.findall(path.read_text())]


def place(package: Path, slug: str) -> Path:
    """The one file in which the tag stands. Raises: BadTag."""
    places = [path for found, path in tags(package) if found == slug]
    if len(places) != 1:
        raise BadTag(
            f"the tag {slug!r} stands {len(places)} times in {package}: tests/simulation/planted.py names it once"
        )
    return places[0]


def planted(text: str, bug: Bug) -> str:
    """The text of a module with the bug in it. Raises: BadTag."""
    lines = text.splitlines(keepends=True)
    tagged = next(number for number, line in enumerate(lines, 1) if TAG.findall(line) == [bug.slug])
    statement = _statement_below(text, tagged)
    if statement is None or any(
        line.strip() for line in lines[tagged : statement.lineno - 1] if line.lstrip()[:1] != "#"
    ):
        raise BadTag(f"the tag {bug.slug!r} does not stand above a statement")
    assert statement.end_lineno is not None
    last = statement.end_lineno
    if bug.becomes.endswith(":"):
        if not isinstance(statement, ast.If | ast.While | ast.For | ast.With | ast.AsyncWith):
            raise BadTag(f"the statement below the tag {bug.slug!r} has no head that {bug.becomes!r} could replace")
        last = statement.body[0].lineno - 1
        while lines[last - 1].lstrip()[:1] in ("#", ""):  # comments above the body belong to it
            last -= 1
    new = textwrap.indent(bug.becomes, " " * statement.col_offset) + "\n"
    return "".join([*lines[: statement.lineno - 1], new, *lines[last:]])


def _statement_below(text: str, line: int) -> ast.stmt | None:
    """The first statement that begins after the line: an outer one before those in it. An `elif` is an `if` of its own
    in the tree, and begins at its `elif`.
    """
    below = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt) and node.lineno > line]
    return min(below, key=lambda node: (node.lineno, node.col_offset), default=None)


BUGS: Final = (
    Bug(
        "a refusal for the storage is known to this hub alone",
        "refused-for-the-next-hub",
        "pass",
    ),
    Bug(
        "a copy of a refused request is carried out",
        "refused-copies",
        "pass",
        "tests/core/hub/test_core_hub_turn.py",
    ),
    Bug(
        "a refusal for the storage is not on disk",
        "refused-on-disk",
        "pass",
        "tests/hub/test_hub_process.py",
    ),
    Bug(
        "what is volatile waits for the commit of its step",
        "volatile-at-once",
        "if False:",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "told before the commit",
        "commit-first",
        "self._tell(then)\nthen = Effects()\nawait self._store.commit(batch, self._blocked)",
    ),
    Bug(
        "a foreign agent's words are not tied to their command",
        "foreign-words",
        "if False:",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "a command never written is not sent to the foreign agent that came back",
        "never-written",
        "if False:",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "a foreign agent is sent a command before it says that it runs nothing",
        "foreign-idle",
        "ready = True",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "a word without an id is taken for one of the next command",
        "word-without-id",
        "if True:",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "a heartbeat overtakes the status before it",
        "heartbeat-order",
        "self._beats[host] = old._replace(item=item)",
        "tests/core/gateway/test_core_gateway_outbox.py",
    ),
    Bug(
        "an append that was given up is carried out behind its retry",
        "append-once",
        "if False:",
        "tests/core/queues/test_core_queues_bounded_queue.py tests/queues/test_queues_server.py",
    ),
    Bug(
        "silence is measured by wall time",
        "silence-clock",
        "unheard_s = draft.now.wall_s - (command.unheard_wall_s or 0.0) if unheard else 0.0",
    ),
    Bug(
        "presence is measured by wall time",
        "presence-clock",
        "if draft.now.wall_s - (host.seen_wall_s or 0.0) < pace.patience_s(draft, host, link):",
        "tests/core/test_core_clock_jumps.py",
    ),
    Bug(
        "deadlines of the boot before are taken for this one's",
        "rebooted",
        "if True:",
    ),
    Bug(
        "a report of what is still queued is an error",
        "reported-while-queued",
        "if True:",
        "tests/core/test_core_words.py",
    ),
    Bug(
        "a run is on more hosts at once than was asked",
        "run-room",
        "return min(max(1, run.parallel - run.active), run.total - run.begun)",
    ),
    Bug(
        "a run goes on past its failures",
        "run-failures",
        "return self.cancel_wall_s is not None",
    ),
    Bug(
        "a hub that starts does not look at its runs",
        "restored-runs",
        "pass",
        "tests/core/hub/test_core_hub_runs.py",
    ),
    Bug(
        "a foreign agent's lost report is waited for without an end",
        "foreign-unreported",
        "elif False:",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "a question asked again overtakes the commit of its answer",
        "asked-again",
        "if self._storage is not Storage.IDLE and draft.effects.durable:",
        "tests/core/hub/test_core_hub_turn.py",
    ),
    Bug(
        "the agent's journal does not know its ids",
        "known-to-journal",
        "if known is not None and known.state is JournalState.REJECTED:",
        "tests/core/agent/test_core_agent_step.py",
    ),
    Bug(
        "the agent answers before its journal is durable",
        "journal-first",
        "self._send(agent_frames.CommandAck(frame.command_id), effects)\neffects.append(RecordRow(row))",
    ),
    Bug(
        "a shim is started while the journal says that nothing was",
        "launch-durable",
        "pass",
    ),
    Bug(
        "a run folder that is gone is taken for never started",
        "proof-of-no-run",
        "if False:",
    ),
    Bug(
        "an end without a run is told before the journal knows it",
        "end-first",
        "self.updated(ended)\nreturn []",
        "tests/core/agent/test_core_agent_step.py",
    ),
    Bug(
        "a report waits for output that nobody has any more",
        "spool-cut",
        "if False:",
    ),
    Bug(
        "a cancel is lost with its run folder",
        "cancel-by-signal",
        "pass",
        "tests/agent/test_agent_shim.py",
    ),
    Bug(
        "a cancel ends only the process group of the program",
        "all-sessions",
        "for pid in (self._pid,):",
        "tests/agent/test_agent_shim.py",
    ),
    Bug(
        "started, then a free lock, is taken for never started",
        "started",
        "if folder.started is not None:\n    return FolderVerdict.UNSTARTED, None",
    ),
    Bug(
        "a reboot has happened because its agent began anew",
        "another-boot",
        "return row.back_s is not None",
    ),
    Bug(
        "reading the queue removes",
        "read-keeps",
        "batch = Batch(self._items[first:last], Position(self.epoch, self._sequences[last - 1]), gap)\nself.acknowledge(batch.position)\nreturn batch",
        "tests/core/queues/test_core_queues_bounded_queue.py tests/properties/test_properties_bounded_queue.py",
    ),
    Bug(
        "an emptied queue is no gap",
        "emptied-is-gap",
        "return oldest, False",
        "tests/core/queues/test_core_queues_bounded_queue.py",
    ),
    Bug(
        "the gateway ignores epochs",
        "gateway-epoch",
        "if message.epoch < 0:",
        "tests/gateway/test_gateway_events.py::test_deliveries_of_an_older_hub_are_dropped",
    ),
    Bug(
        "the queues do not fence an older hub",
        "fence",
        "if role == HUB and hub_epoch < 0:",
        "tests/core/queues/test_core_queues_bounded_queue.py",
    ),
    Bug(
        "the mirror follows an older hub",
        "mirror-epoch",
        "if message.epoch < 0:",
        "tests/core/fanout/test_core_fanout_feed.py",
    ),
    Bug(
        "the mirror keeps its rows over a new hub",
        "mirror-new-hub",
        "self.shown_epoch = message.epoch",
    ),
    Bug(
        "a report is said once on a connection, and dropped with its queue",
        "report-again",
        "elif command.reported and now.boot_s < 0:",
    ),
    Bug(
        "the offset of the spool is ignored",
        "spool-offset",
        "if self._registered:",
        "tests/core/agent/test_core_agent_step.py",
    ),
    Bug(
        "output is kept whatever its offset",
        "output-duplicate",
        "pass",
    ),
    Bug(
        "a registration is no evidence",
        "registration-evidence",
        "if False:",
    ),
    Bug(
        "a new journal is taken for the old one",
        "new-journal",
        "elif info.register.journal_id:",
        "tests/core/hub/test_core_hub_step.py",
    ),
    Bug(
        "a foreign agent is sent again what it may have got",
        "foreign-redelivery",
        "if host is None or not link.connection or link.connection != command.connection:",
        "tests/core/hub/test_core_hub_step.py",
    ),
    Bug(
        "a gateway calls never written what the one before it wrote",
        "gateway-before",
        "pass",
        "tests/core/gateway/test_core_gateway_delivery_log.py",
    ),
    Bug(
        "a name enrolled anew gets what its predecessor had",
        "own-command",
        "mine = command is not None and command.host == host.name",
        "tests/core/hub/test_core_hub_step.py",
    ),
    Bug(
        "any host may report for any other",
        "own-command",
        "mine = command is not None",
    ),
    Bug(
        "a key is not looked for",
        "known-key",
        "entry = None",
    ),
    Bug(
        "two commands at a time",
        "one-at-a-time",
        "elif not waiting:",
    ),
    Bug(
        "lost commands are not in the ledger",
        "ledger-lost",
        "self.ledger = self.ledger if after is State.LOST else self.ledger.moved(before, after)",
    ),
    Bug(
        "sent expires",
        "only-queued-expires",
        "if command is None or not command.open:",
    ),
    Bug(
        "who registers while a batch fails is forgotten by the gateway",
        "registered-meanwhile",
        "self._drop(under_way=True), self._drop(under_way=False)",
        "tests/core/gateway/test_core_gateway_outbox_census.py",
    ),
    Bug(
        "a census forgets whoever registered meanwhile",
        "census-names",
        "pass",
        "tests/core/hub/test_core_hub_step.py",
    ),
)
