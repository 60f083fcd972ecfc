"""Mutated messages at a real gateway and a real fanout: deep, wide, long, of wrong types, cut, in pieces, not UTF-8.

The house must not notice: no process is replaced, memory and descriptors stay where they were, and an honest agent and
an honest operator are served meanwhile. The seed fixes the messages, not what the machine makes of them.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import psutil
from doubles.agent_wire import AgentWire, NotLetIn
from doubles.deadline import WAIT_S
from doubles.house import House, Operator
from websockets.frames import Frame, Opcode

PROCESSES: Final = ("queues", "hub", "gateway", "fanout")
HOSTS: Final = 12  # hostile ones; each keeps within what a host may send, for a flood is another campaign's
TOKENS: Final = 12  # of hostile operators
BATCH_MAX: Final = 40  # messages on one connection, unless it is closed before
HOST_PER_S: Final = 700.0  # messages of one host; more than 1,000 would be a flood
OPERATOR_PER_S: Final = 40.0
OPERATORS_SHARE: Final = 0.2  # of all messages
RSS_MORE_BYTES_MAX: Final = 64 << 20  # guess: caches that fill; a leak of 1 KB a message would be 1 GB
FDS_MORE_MAX: Final = 40
LARGE: Final = 0.01  # of all messages are deep, wide or long: one of them takes as long as a thousand small ones

AGENTS: Final[list[dict[str, Any]]] = [
    {"type": "register", "payload": {"hostname": "x", "heartbeat_interval": 5, "protocol": 1, "commands": ["pull"],
     "known": [{"command_id": "c", "state": "accepted"}], "command_options": {"pull": {"timeout_s": 1.0}}}},
    {"type": "heartbeat", "payload": {"metrics": {"cpu": 1, "load": 0.5, "temperatures": {"a": 1.0}},
     "pending_command": None, "command_pid": 1, "update_status": {"git": {"status": "ok"}}, "generation": "917d"}},
    {"type": "command_ack", "payload": {"command_id": "c", "state": "accepted"}},
    {"type": "command_rejected", "payload": {"reason": "busy", "command_id": "c", "current_command": "pull"}},
    {"type": "output", "payload": {"command_id": "c", "line": "a line", "stream": "stdout", "offset": 0}},
    {"type": "operation_progress", "payload": {"progress": {"pull": {"current": 1, "total": 4, "status": "ok"}}}},
    {"type": "command_complete", "payload": {}},
    {"type": "weather", "payload": {"sun": [1, 2, {"a": None}]}},
]  # fmt: skip
OPERATORS: Final[list[dict[str, Any]]] = [
    {"type": "get_state"},
    {"type": "subscribe", "command_id": "0" * 32, "offset": 0},
    {"type": "unsubscribe", "command_id": "0" * 32},
    {"type": "weather", "sun": [1, {"a": 2}]},
]
ODD: Final[tuple[Any, ...]] = (
    None, True, -1, 0, 2**31, 2**53 + 1, 2**64, -(2**63) - 1, 10**40, 1e308, -0.0, "", "\u0000", "\u202e\x1b[2J", "x" * 2000,
    "😀" * 300, [], {}, [[]], {"": {}}, {"toString": 1, "valueOf": 1}, ["a"] * 300,
)  # fmt: skip


def messages(chance: random.Random, samples: list[dict[str, Any]]) -> bytes:
    """Return one mutated message as it goes onto the wire: one or several frames."""
    if chance.random() < LARGE:
        return _framed(chance, _large(chance, chance.choice(samples)["type"]))
    kind = chance.random()
    text = json.dumps(_odd(chance, chance.choice(samples)), ensure_ascii=chance.random() < 0.5).encode()
    if kind < 0.3:
        text = _bytes_changed(chance, text)
    elif kind < 0.32:
        return Frame(chance.choice((Opcode.PING, Opcode.PONG)), chance.randbytes(chance.randrange(126))).serialize(
            mask=True
        )
    elif kind < 0.33:
        return Frame(Opcode.BINARY, text).serialize(mask=True)
    elif kind < 0.335:
        return chance.randbytes(chance.randrange(1, 40))  # not even a frame
    return _framed(chance, text)


def _odd(chance: random.Random, sample: dict[str, Any]) -> dict[str, Any]:
    """Return the sample with some values replaced, fields added or taken away."""
    found: dict[str, Any] = json.loads(json.dumps(sample))
    for _ in range(chance.randrange(4)):
        place: Any = found
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.8:
                place = place[key]
                continue
            if chance.random() < 0.2 and isinstance(place, dict):
                del place[key]
            else:
                place[key] = copy.deepcopy(chance.choice(ODD))
            break
        if isinstance(place, dict) and chance.random() < 0.3:
            place[chance.choice(("facts", "__proto__", "command_id", "x" * 300, "\u2028"))] = copy.deepcopy(
                chance.choice(ODD)
            )
    return found


def _bytes_changed(chance: random.Random, text: bytes) -> bytes:
    changed = bytearray(text)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(changed) + 1)
        piece = chance.choice(
            (b"\xff", b"\xed\xa0\x80", b'"', b"\\", b"{", b"]", b"\x00", b"1e999", b"NaN", chance.randbytes(3))
        )
        changed[at : at + chance.randrange(4)] = piece
    return bytes(changed)


def _large(chance: random.Random, kind: str) -> bytes:
    """Return a message that is deep, wide or long, some just past a bound and some far past it."""
    size = chance.choice((33, 40, 990, 5000, 60_000))
    inner = chance.choice((
        b"[" * size + b"]" * size, b'{"a":' * size + b"0" + b"}" * size, b"[" * size, b"[" + b"0," * size + b"0]",
        b"{" + b",".join(b'"k%d":0' % number for number in range(size)) + b"}", b'"' + b"y" * size * 8 + b'"',
        b'"' + b'\\"' * size, b"[" * 40 + b'"' + b'\\"' * size, b"9" * size, b"0." + b"1" * size, b'["' + b'","' * size + b'"]',
    ))  # fmt: skip
    where = chance.choice(
        (b'{"type":"%s","payload":{"hostname":"a","line":"","facts":%s}}', b'{"type":"%s","payload":%s}')
    )
    return (where % (kind.encode(), inner))[: 600 * 1024]


def _framed(chance: random.Random, text: bytes) -> bytes:
    """Return the text as one frame, or in fragments with pings between them."""
    if chance.random() < 0.9:
        return Frame(Opcode.TEXT, text).serialize(mask=True)
    cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(1, 6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found = b""
    for number, piece in enumerate(pieces):
        opcode = Opcode.TEXT if number == 0 else Opcode.CONT
        found += Frame(opcode, piece, fin=number == len(pieces) - 1).serialize(mask=True)
        if chance.random() < 0.2:
            found += Frame(Opcode.PING, b"between").serialize(mask=True)
    return found


@dataclass
class Fuzzed:
    """What was sent, and what is wrong afterwards."""

    seed: int
    sent: Counter[str] = field(default_factory=Counter)
    connections: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)
    served_s: list[float] = field(default_factory=list)  # of each command of the honest host
    usage: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> str:
        """All of it for a person."""
        told = [
            f"seed {self.seed}: {self.sent.total():,} messages ({dict(self.sent)}) on {dict(self.connections)} connections"
        ]
        told += [f"ends of connections: {dict(self.closes.most_common(12))}"]
        if self.served_s:
            ordered = sorted(self.served_s)
            told += [
                f"{len(ordered)} commands of the honest host: median {ordered[len(ordered) // 2]:.2f} s, worst {ordered[-1]:.2f} s"
            ]
        told += [f"{name}: {text}" for name, text in self.usage.items()]
        told += [f"PROBLEM {problem}" for problem in self.problems]
        return "\n".join([*told, "the house did not notice" if not self.problems else f"{len(self.problems)} problems"])


class Fuzz:
    """One campaign over a fresh house."""

    def __init__(self, house: House, seed: int, *, say: Callable[[str], None]) -> None:
        self.house, self._say, self.result = house, say, Fuzzed(seed)
        self._left = 0
        self._over = asyncio.Event()

    async def run(self, count: int) -> Fuzzed:
        """Send so many messages, and look at the house afterwards."""
        house, result = self.house, self.result
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(house.agent, "honest", {"show": ["true"]})
            operator = await stack.enter_async_context(Operator(house))
            await operator.healthy()
            await operator.until(lambda: operator.hosts.get("honest", {}).get("presence") == "online")
            enrolled = [await operator.http.post("/api/v1/hosts", json={"name": f"fuzz{n}"}) for n in range(HOSTS)]
            made = [await operator.http.post("/api/v1/tokens", json={"role": "viewer"}) for _ in range(TOKENS)]
            hosts, tokens = ([each.json()["token"] for each in answers] for answers in (enrolled, made))
            before = {name: house.pulse(name).pid for name in PROCESSES}
            for_operators = round(count * OPERATORS_SHARE)
            serving = asyncio.create_task(self._serve(operator))
            warm = max(1, count // 10)  # what is used after the first tenth is what is usual
            usual: dict[str, tuple[int, int]] = {}
            for part in (warm, count - warm):
                shares = (part - part * for_operators // count, part * for_operators // count)
                work = [self._hostile("agents", token, n, shares[0]) for n, token in enumerate(hosts)]
                work += [self._hostile("operators", token, n, shares[1]) for n, token in enumerate(tokens)]
                await asyncio.gather(*work, self._tell(count))
                usual = usual or self._usage()
            self._over.set()
            await serving
            self._judge(before, usual, operator)
        return result

    async def _hostile(self, who: str, token: str, number: int, share: int) -> None:
        """Send a client's share of the messages, at the pace that a client may have."""
        result, house = self.result, self.house
        listen, samples, of, per_s = {
            "agents": (house.agents, AGENTS, HOSTS, HOST_PER_S),
            "operators": (house.operators, OPERATORS, TOKENS, OPERATOR_PER_S),
        }[who]
        port = int(listen.rpartition(":")[2])
        chance = random.Random(f"{result.seed} {who} {number} {share}")
        left = share // of + (number < share % of)
        self._left += left
        free_s = time.monotonic()
        while left:
            try:
                wire = await AgentWire.dial(port, token)
            except (NotLetIn, OSError, EOFError, TimeoutError) as error:
                result.closes[f"not let in: {error}"[:60]] += 1
                await asyncio.sleep(1.0)
                continue
            result.connections[who] += 1
            if who == "agents" and chance.random() < 0.8:
                wire.register(f"fuzz{number}")
            for _ in range(min(left, BATCH_MAX)):
                if wire.close_code is not None:
                    break
                wire.write(messages(chance, samples))
                await wire.drained()
                left, self._left = left - 1, self._left - 1
                result.sent[who] += 1
                free_s = max(free_s, time.monotonic() - 1.0) + 1.0 / per_s
                if (wait_s := free_s - time.monotonic()) > 0:
                    await asyncio.sleep(wait_s)
            await wire.close()
            result.closes[f"{who} {wire.close_code}"] += 1

    async def _serve(self, operator: Operator) -> None:
        """An honest operator's commands to an honest host, one after the other."""
        while not self._over.is_set():
            begun_s = time.monotonic()
            for command_id in await operator.give("show", "honest"):
                command = await operator.ended(command_id)
                if command["state"] != "succeeded":
                    self.result.problems.append(f"a command of the honest host: {command['state']} {command['reason']}")
            self.result.served_s.append(time.monotonic() - begun_s)
            await asyncio.sleep(0.2)

    async def _tell(self, count: int) -> None:
        told_s = time.monotonic()
        await asyncio.sleep(0)
        while self._left > 0:
            await asyncio.sleep(0.1)
            if time.monotonic() - told_s >= 10.0:
                told_s = time.monotonic()
                self._say(
                    f"{self.result.sent.total():,} of {count:,} messages; {len(self.result.served_s)} commands served"
                )

    def _usage(self) -> dict[str, tuple[int, int]]:
        """Descriptors and memory in bytes, by process."""
        found = {}
        for name in PROCESSES:
            process = psutil.Process(self.house.pulse(name).pid)
            found[name] = (process.num_fds(), process.memory_info().rss)
        return found

    def _judge(self, before: dict[str, int], usual: dict[str, tuple[int, int]], operator: Operator) -> None:
        result, deadline_s = self.result, time.monotonic() + WAIT_S
        for name, pid in before.items():
            if self.house.pulse(name).pid != pid:
                result.problems.append(f"{name} was replaced")
        now = self._usage()
        while any(now[name][0] - usual[name][0] > FDS_MORE_MAX for name in now) and time.monotonic() < deadline_s:
            time.sleep(0.5)  # connections end
            now = self._usage()
        for name, (fds, rss) in now.items():
            fds_before, rss_before = usual[name]
            result.usage[name] = f"{rss_before >> 20} → {rss >> 20} MiB, {fds_before} → {fds} descriptors"
            if rss - rss_before > RSS_MORE_BYTES_MAX or fds - fds_before > FDS_MORE_MAX:
                result.problems.append(f"{name} uses more than before: {result.usage[name]}")
        if operator.breaks:
            result.problems.append(f"the honest operator's WebSocket broke: {operator.breaks}")
        if not result.served_s:
            result.problems.append("no command of the honest host was served")
