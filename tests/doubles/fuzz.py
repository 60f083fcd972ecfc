"""Mutated messages at a real gateway and a real fanout: deep, wide, long, of wrong types, cut, in pieces, not UTF-8.

The house must not notice: no process is replaced, memory and descriptors stay where they were, and an honest agent and
an honest operator are served meanwhile. The seed fixes the messages, not what the machine makes of them.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import psutil
from doubles.deadline import WAIT_S
from doubles.house import House, Operator
from websockets.frames import Frame, Opcode

PROCESSES: Final = ("queues", "hub", "gateway", "fanout")
SENDERS: Final = 2  # processes that send, so that what is measured is the house and not one loop of ours
HOSTS: Final = 12  # hostile ones; each keeps within what a host may send, for a flood is another campaign's
TOKENS: Final = 24  # of hostile operators
# messages on one connection, all sent at once: half are malformed, and the tenth such closes it. Its end is a ping,
# whose pong shows that all of them were read
BATCH: Final = 12
HOST_PER_S: Final = 700.0  # messages of one host; more than 1,000 would be a flood
OPERATOR_PER_S: Final = 40.0
OPERATORS_SHARE: Final = 0.2  # of all messages
RSS_MORE_BYTES_MAX: Final = 64 << 20  # guess: caches that fill; a leak of 1 KB a message would be 1 GB
FDS_MORE_MAX: Final = 40
LARGE: Final = 0.01  # of all messages are deep, wide or long: one of them takes as long as a thousand small ones
NO_FRAME: Final = 0.1  # of all connections end in bytes that are not even a frame
PING: Final = Frame(Opcode.PING, b"all read?").serialize(mask=True)
PONG: Final = Frame(Opcode.PONG, b"all read?").serialize(mask=False)

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
LARGE_ONES: Final[tuple[Callable[[int], bytes], ...]] = (
    lambda size: b"[" * size + b"]" * size,
    lambda size: b'{"a":' * size + b"0" + b"}" * size,
    lambda size: b"[" * size,
    lambda size: b"[" + b"0," * size + b"0]",
    lambda size: b"[" + b"[]," * size + b"0]",
    lambda size: b"{" + b",".join(b'"k%d":0' % number for number in range(size)) + b"}",
    lambda size: b'"' + b"y" * size * 8 + b'"',
    lambda size: b'"' + b'\\"' * size,
    lambda size: b"[" * 40 + b'"' + b'\\"' * size,
    lambda size: b'"' * size * 8,
    lambda size: b"9" * size,
    lambda size: b"0." + b"1" * size,
    lambda size: b'["' + b'","' * size + b'"]',
)


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
    inner = chance.choice(LARGE_ONES)(size)
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
    read: Counter[str] = field(default_factory=Counter)  # of those sent, what a pong behind it says was read
    took_s: float = 0.0
    connections: Counter[str] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)
    served_s: list[float] = field(default_factory=list)  # of each command of the honest host
    usage: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def lines(self) -> str:
        """All of it for a person."""
        told = [
            f"seed {self.seed}: {self.sent.total():,} messages ({dict(self.sent)}) on {dict(self.connections)} connections"
            f" in {self.took_s:.0f} s, {self.sent.total() / max(self.took_s, 0.001):,.0f} a second",
            f"{self.read.total():,} of them ({dict(self.read)}) on connections that lived to the end, so all were read",
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


class Client(NamedTuple):
    """A hostile client and its share of the messages."""

    who: str
    listen: str
    name: str
    token: str
    share: int


class Told(NamedTuple):
    """What a process of senders has done since it told last: messages sent, and read; connections, and their ends."""

    sent: Counter[str]
    read: Counter[str]
    connections: Counter[str]
    closes: Counter[str]


def _work(who: str, listen: str, tokens: list[str], share: int) -> list[Client]:
    of = len(tokens)
    return [
        Client(who, listen, f"fuzz{number}", token, share // of + (number < share % of))
        for number, token in enumerate(tokens)
    ]


def _told(pipe: Connection) -> Told | None:
    try:
        found: Told | None = pipe.recv()
    except EOFError as error:
        raise AssertionError("a process of senders died") from error
    return found


def send(work: list[Client], seed: str, pipe: Connection) -> None:
    """Run in a process of its own: send these clients' messages, and tell twice a second, at the end None."""
    asyncio.run(_send_all(work, seed, pipe))
    pipe.send(None)


async def _send_all(work: list[Client], seed: str, pipe: Connection) -> None:
    told = Told(Counter(), Counter(), Counter(), Counter())
    sending = asyncio.gather(*(_hostile(client, random.Random(f"{seed} {client}"), told) for client in work))
    while not sending.done():
        await asyncio.wait({sending}, timeout=0.5)
        pipe.send(told)
        for counted in told:
            counted.clear()
    await sending


async def _hostile(client: Client, chance: random.Random, told: Told) -> None:
    """Send a client's share, at the pace that a client may have: a batch on each connection."""
    agent = client.who == "agents"
    samples, per_s = (AGENTS, HOST_PER_S) if agent else (OPERATORS, OPERATOR_PER_S)
    left, free_s = client.share, time.monotonic()
    while left:
        batch = [messages(chance, samples) for _ in range(min(left, BATCH))]
        hello = Frame(Opcode.TEXT, json.dumps({"type": "register", "payload": {"hostname": client.name, "protocol": 1,
                                               "heartbeat_interval": 5}}).encode()).serialize(mask=True)  # fmt: skip
        last = chance.randbytes(chance.randrange(1, 40)) if chance.random() < NO_FRAME else PING
        ended = await _batch(client, (hello if agent and chance.random() < 0.8 else b"") + b"".join(batch) + last)
        told.closes[f"{client.who} {ended}"] += 1
        if ended.startswith("not let in"):
            await asyncio.sleep(1.0)
            continue
        told.connections[client.who] += 1
        told.sent[client.who] += len(batch)
        if ended == "all read":
            told.read[client.who] += len(batch)
        left -= len(batch)
        free_s = max(free_s, time.monotonic() - 2.0) + len(batch) / per_s
        if (wait_s := free_s - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)


async def _batch(client: Client, said: bytes) -> str:
    """Say all of this on one connection. Return how it ended: "all read", a close code, or why it was not let in."""
    host, _, port = client.listen.rpartition(":")
    head = (
        f"GET /ws HTTP/1.1\r\nHost: {client.listen}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {client.token}\r\n\r\n"
    )
    writer = None
    heard = b""
    try:
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 101"):
                return f"not let in: {answer.split(b' ')[1].decode()}"
            writer.write(said)
            while piece := await reader.read(1 << 16):
                heard = heard[-8192:] + piece
                if PONG in heard:
                    return "all read"
                if code := _close_code(heard):
                    return code
    except (OSError, asyncio.IncompleteReadError) as error:
        return f"not let in: {type(error).__name__}" if not heard else "cut"
    finally:
        if writer is not None:
            writer.transport.abort()
    return "cut"


def _close_code(heard: bytes) -> str:
    """Return the code of a close frame at the end of what was heard; empty: there is none."""
    for at in range(len(heard) - 4, max(-1, len(heard) - 128), -1):
        if heard[at] == 0x80 | Opcode.CLOSE and heard[at + 1] == len(heard) - at - 2:
            return str(int.from_bytes(heard[at + 2 : at + 4]))
    return ""


class Fuzz:
    """One campaign over a fresh house."""

    def __init__(self, house: House, seed: int, *, say: Callable[[str], None]) -> None:
        self.house, self._say, self.result = house, say, Fuzzed(seed)
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
            usual: dict[str, tuple[int, int, float]] = {}
            begun_s = time.monotonic()
            for number, part in enumerate((warm, count - warm)):
                shares = (part - part * for_operators // count, part * for_operators // count)
                work = _work("agents", house.agents, hosts, shares[0]) + _work(
                    "operators", house.operators, tokens, shares[1]
                )
                await self._send(work, number, count)
                usual = usual or self._usage()
            result.took_s = time.monotonic() - begun_s
            self._over.set()
            await serving
            self._judge(before, usual, operator)
        return result

    async def _send(self, work: list[Client], part: int, count: int) -> None:
        """Have the clients' work done by processes of their own, and add up what they tell."""
        pipes, processes = [], []
        context = multiprocessing.get_context("spawn")
        for number in range(SENDERS):
            here, there = context.Pipe(duplex=False)
            mine = work[number::SENDERS]
            process = context.Process(target=send, args=(mine, f"{self.result.seed} {part}", there), daemon=True)
            process.start()
            there.close()
            pipes.append(here)
            processes.append(process)
        try:
            await asyncio.gather(*(self._add_up(pipe) for pipe in pipes), self._tell(pipes, count))
        finally:
            for process in processes:
                process.kill()
                process.join()

    async def _add_up(self, pipe: Connection) -> None:
        while True:
            told = await asyncio.to_thread(_told, pipe)
            if told is None:
                pipe.close()
                return
            for mine, more in zip(
                (self.result.sent, self.result.read, self.result.connections, self.result.closes), told, strict=True
            ):
                mine.update(more)

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

    async def _tell(self, pipes: list[Connection], count: int) -> None:
        told_s = time.monotonic()
        while not all(pipe.closed for pipe in pipes):
            await asyncio.sleep(0.1)
            if time.monotonic() - told_s >= 10.0:
                told_s = time.monotonic()
                self._say(
                    f"{self.result.sent.total():,} of {count:,} messages; {len(self.result.served_s)} commands served"
                )

    def _usage(self) -> dict[str, tuple[int, int, float]]:
        """Descriptors, memory in bytes and seconds of CPU, by process."""
        found = {}
        for name in PROCESSES:
            process = psutil.Process(self.house.pulse(name).pid)
            times = process.cpu_times()
            found[name] = (process.num_fds(), process.memory_info().rss, times.user + times.system)
        return found

    def _judge(self, before: dict[str, int], usual: dict[str, tuple[int, int, float]], operator: Operator) -> None:
        result, deadline_s = self.result, time.monotonic() + WAIT_S
        for name, pid in before.items():
            if self.house.pulse(name).pid != pid:
                result.problems.append(f"{name} was replaced")
        now = self._usage()
        while any(now[name][0] - usual[name][0] > FDS_MORE_MAX for name in now) and time.monotonic() < deadline_s:
            time.sleep(0.5)  # connections end
            now = self._usage()
        for name, (fds, rss, cpu_s) in now.items():
            fds_before, rss_before, _ = usual[name]
            result.usage[name] = (
                f"{rss_before >> 20} → {rss >> 20} MiB, {fds_before} → {fds} descriptors, {cpu_s:.0f} s of CPU in all"
            )
            if rss - rss_before > RSS_MORE_BYTES_MAX or fds - fds_before > FDS_MORE_MAX:
                result.problems.append(f"{name} uses more than before: {result.usage[name]}")
        if operator.breaks:
            result.problems.append(f"the honest operator's WebSocket broke: {operator.breaks}")
        if not result.served_s:
            result.problems.append("no command of the honest host was served")
