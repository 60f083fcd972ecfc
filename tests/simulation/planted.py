"""Known bugs, each as one small change of the source, and what must catch it. Used by bin/plant, on a copy."""

from __future__ import annotations

from typing import Final, NamedTuple


class Bug(NamedTuple):
    """`old` stands exactly once in `file` and becomes `new`. `caught_by`: simulation, or the path of tests."""

    name: str
    file: str
    old: str
    new: str
    caught_by: str = "simulation"


BUGS: Final = (
    Bug(
        "a refusal for the storage is known to this hub alone",
        "processes/hub/loop.py",
        "            self._process.pulse.refuse(place.epoch, place.sequence)\n",
        "            pass\n",
    ),
    Bug(
        "a copy of a refused request is carried out",
        "processes/hub/loop.py",
        "        self._refused[taken.event.request_id] = taken.event.deadline_boot_s\n",
        "",
    ),
    Bug(
        "a refusal for the storage is not on disk",
        "processes/hub/loop.py",
        "        self._held.writes += self._unwritten.values()\n",
        "",
        "tests/hub/test_hub_process.py",
    ),
    Bug(
        "what is volatile waits for the commit of its step",
        "processes/core/hub/memory.py",
        "            if before is not None and self.effects.durable:\n",
        "            if False:\n",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "told before the commit",
        "processes/hub/loop.py",
        "        await self._journal.commit(batch, self._told_blocked)\n",
        "        self._carry_out(held)\n        held = Effects()\n        await self._journal.commit(batch, self._told_blocked)\n",
    ),
    Bug(
        "a foreign agent's words are not tied to their command",
        "processes/core/gateway/agent_connection.py",
        "                if self.is_foreign and not command_id:\n",
        "                if False:\n",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "a command never written is not sent to the foreign agent that came back",
        "processes/core/hub/delivery.py",
        "            if ready and host.foreign and not command.connection:\n",
        "            if False:\n",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "a foreign agent is sent a command before it says that it runs nothing",
        "processes/core/hub/delivery.py",
        "    ready = not host.foreign or link.idle\n",
        "    ready = True\n",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "a word without an id is taken for one of the next command",
        "processes/core/hub/delivery.py",
        "        if earlier.adopted if earlier.connection == event.connection else current:\n",
        "        if True:\n",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "a heartbeat overtakes the status before it",
        "processes/core/gateway/outbox.py",
        "            self._beats[host] = old._replace(item=item, after=after)\n",
        "            self._beats[host] = old._replace(item=item)\n",
        "tests/core/gateway/test_core_gateway_outbox.py",
    ),
    Bug(
        "an append that was given up is carried out behind its retry",
        "processes/core/queues/bounded_queue.py",
        "        if number <= newest:\n",
        "        if False:\n",
        "tests/core/queues/test_core_queues_bounded_queue.py tests/queues/test_queues_server.py",
    ),
    Bug(
        "silence is measured by wall time",
        "processes/core/hub/delivery.py",
        "    unheard_s = draft.now.boot_s - command.unheard_boot_s if unheard else 0.0\n",
        "    unheard_s = draft.now.wall_s - (command.unheard_wall_s or 0.0) if unheard else 0.0\n",
    ),
    Bug(
        "presence is measured by wall time",
        "processes/core/hub/presence.py",
        "        if draft.now.boot_s - link.heard_boot_s < _patience_s(draft, host):\n",
        "        if draft.now.wall_s - (host.seen_wall_s or 0.0) < _patience_s(draft, host):\n",
        "tests/core/test_core_clock_jumps.py",
    ),
    Bug(
        "deadlines of the boot before are taken for this one's",
        "processes/core/hub/step.py",
        "    if not command.open or command.boot == boot:\n",
        "    if True:\n",
    ),
    Bug(
        "a report of what is still queued is an error",
        "processes/core/hub/delivery.py",
        "    if command is None or command.state is not State.QUEUED:\n        return command\n",
        "    if True:\n        return command\n",
        "tests/core/test_core_words.py",
    ),
    Bug(
        "a run is on more hosts at once than was asked",
        "processes/core/records/run.py",
        "    return pending[: max(0, room)]\n",
        "    return pending[: max(1, room)]\n",
    ),
    Bug(
        "a run goes on past its failures",
        "processes/core/records/run.py",
        "        return too_many or self.cancel_wall_s is not None\n",
        "        return self.cancel_wall_s is not None\n",
    ),
    Bug(
        "a hub that starts does not look at its runs",
        "processes/core/hub/step.py",
        "        if run.open:\n            memory.due_runs[run.id] = None\n",
        "",
    ),
    Bug(
        "a foreign agent's lost report is waited for without an end",
        "processes/core/hub/foreign.py",
        "            elif pending is None and command.sent_boot_s + UNREPORTED_S < draft.now.boot_s:\n",
        "            elif False:\n",
        "tests/core/hub/test_core_hub_foreign.py",
    ),
    Bug(
        "a question asked again overtakes the commit of its answer",
        "processes/hub/loop.py",
        "if self._commit is not None and (draft.effects.durable or draft.effects.promises):",
        "if self._commit is not None and draft.effects.durable:",
    ),
    Bug(
        "the agent's journal does not know its ids",
        "processes/core/agent/step.py",
        "        if known is not None:\n            del self._open",
        "        if known is not None and known.state is RowState.REJECTED:\n            del self._open",
        "tests/core/agent/test_core_agent_step.py",
    ),
    Bug(
        "the agent answers before its journal is durable",
        "processes/core/agent/step.py",
        "        effects.append(RecordRow(row))\n\n    def _refusal",
        "        self._send(wire.CommandAck(frame.command_id), effects)\n        effects.append(RecordRow(row))\n\n    def _refusal",
    ),
    Bug(
        "started, then a free lock, is taken for never started",
        "processes/core/agent/remembered.py",
        "    if folder.started is not None:\n        if folder.started.boot_id",
        "    if folder.started is not None and folder.launching:\n        if folder.started.boot_id",
    ),
    Bug(
        "reading the queue removes",
        "processes/core/queues/bounded_queue.py",
        "        return Batch(self._items[first:last], Position(self.epoch, self._sequences[last - 1]), gap)",
        "        batch = Batch(self._items[first:last], Position(self.epoch, self._sequences[last - 1]), gap)\n"
        "        self.acknowledge(batch.position)\n        return batch",
        "tests/core/queues/test_core_queues_bounded_queue.py tests/properties/test_properties_bounded_queue.py",
    ),
    Bug(
        "an emptied queue is no gap",
        "processes/core/queues/bounded_queue.py",
        "        return oldest, after.epoch != 0\n",
        "        return oldest, False\n",
        "tests/core/queues/test_core_queues_bounded_queue.py",
    ),
    Bug(
        "the gateway ignores epochs",
        "processes/gateway/gate.py",
        "        if message.epoch < self.epoch:\n",
        "        if message.epoch < 0:\n",
        "tests/gateway/test_gateway_events.py::test_deliveries_of_an_older_hub_are_dropped",
    ),
    Bug(
        "the queues do not fence an older hub",
        "processes/core/queues/bounded_queue.py",
        "        if role == HUB and hub_epoch < self.hub_epoch:",
        "        if role == HUB and hub_epoch < 0:",
        "tests/core/queues/test_core_queues_bounded_queue.py",
    ),
    Bug(
        "the mirror follows an older hub",
        "processes/core/fanout/mirror.py",
        "        if message.epoch < self.epoch:\n",
        "        if message.epoch < 0:\n",
        "tests/core/fanout/test_core_fanout_feed.py",
    ),
    Bug(
        "the mirror keeps its rows over a new hub",
        "processes/core/fanout/mirror.py",
        "            self.epoch = message.epoch\n            self.gap()\n",
        "            self.epoch = self.shown_epoch = message.epoch\n",
    ),
    Bug(
        "a report is said once on a connection, and dropped with its queue",
        "processes/core/agent/step.py",
        "elif command.reported and now.boot_s >= command.report_boot_s:",
        "elif command.reported and now.boot_s < 0:",
    ),
    Bug(
        "the offset of the spool is ignored",
        "processes/core/agent/step.py",
        "        if self._registered and seen.first == command.flow.next:",
        "        if self._registered:",
        "tests/core/agent/test_core_agent_step.py",
    ),
    Bug(
        "output is kept whatever its offset",
        "processes/core/hub/delivery.py",
        "        if offset < next_offset:\n            continue  # a duplicate\n",
        "",
    ),
    Bug(
        "a registration is no evidence",
        "processes/core/hub/delivery.py",
        "        if command.connection != info.connection:\n            _reconcile_one",
        "        if False:\n            _reconcile_one",
    ),
    Bug(
        "a new journal is taken for the old one",
        "processes/core/hub/delivery.py",
        "    elif info.register.journal_id == command.journal:\n",
        "    elif info.register.journal_id:\n",
        "tests/core/hub/test_core_hub_step.py",
    ),
    Bug(
        "a foreign agent is sent again what it may have got",
        "processes/core/hub/delivery.py",
        "    if host is None or host.foreign or not link.connection or link.connection != command.connection:",
        "    if host is None or not link.connection or link.connection != command.connection:",
        "tests/core/hub/test_core_hub_step.py",
    ),
    Bug(
        "a gateway vouches for what the one before it wrote",
        "processes/core/gateway/delivery_log.py",
        "        if not connection.startswith(self._prefix) or self._number(connection) <= self._forgotten:\n            return False\n",
        "",
        "tests/core/gateway/test_core_gateway_delivery_log.py",
    ),
    Bug(
        "a name enrolled anew gets what its predecessor had",
        "processes/core/hub/delivery.py",
        "command is not None and command.host == host.name and command.enrolment == host.enrolment",
        "command is not None and command.host == host.name",
        "tests/core/hub/test_core_hub_step.py",
    ),
    Bug(
        "any host may report for any other",
        "processes/core/hub/delivery.py",
        "command is not None and command.host == host.name and command.enrolment == host.enrolment",
        "command is not None",
    ),
    Bug(
        "a key is not looked for",
        "processes/core/hub/requests.py",
        "    entry = draft.key(key) if key is not None else None\n",
        "    entry = None\n",
    ),
    Bug(
        "two commands at a time",
        "processes/core/hub/delivery.py",
        "        elif not exclusive and not waiting:\n",
        "        elif not waiting:\n",
    ),
    Bug(
        "lost commands are not in the ledger",
        "processes/core/hub/memory.py",
        "        self.ledger = self.ledger.moved(before, after)\n",
        "        self.ledger = self.ledger if after is State.LOST else self.ledger.moved(before, after)\n",
    ),
    Bug(
        "sent expires",
        "processes/core/hub/delivery.py",
        "    if command is None or command.state is not State.QUEUED:\n        return\n    if command.expires_boot_s",
        "    if command is None or not command.open:\n        return\n    if command.expires_boot_s",
    ),
    Bug(
        "who registers while a batch fails is forgotten by the gateway",
        "processes/core/gateway/outbox.py",
        "            self._let_presence_go(0, under_way)\n",
        "            self._let_presence_go(0, len(self._ordered))\n",
        "tests/core/gateway/test_core_gateway_outbox_census.py",
    ),
    Bug(
        "a census forgets whoever registered meanwhile",
        "processes/core/hub/presence.py",
        "    connect(draft, event.info)\n    _name(draft, event.gateway, event.connection)\n",
        "    connect(draft, event.info)\n",
        "tests/core/hub/test_core_hub_step.py",
    ),
)
