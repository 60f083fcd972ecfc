"""Queries and what they find, for both of their readers: core/shown/query.py, and page/query.js in a browser."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

NOW_S = 1_764_500_000  # 2025-11-30T10:53:20Z

HOST: dict[str, Any] = {
    "name": "web1", "presence": "online", "os_version": "Debian 12", "host_type": "Frontend", "address": "10.0.0.7",
    "last_seen": "2025-11-30T10:53:15.000Z", "enrolled_at": "2025-11-20T10:53:20.000Z",
    "connected_since": "2025-11-30T10:43:20.500Z", "suspended": "", "metrics": {"cpu": 81.5, "load": 2.0, "swap": 0},
    "commands": ["pull", "switch"], "labels": {"role": "web", "env": "prod", "rack": "b4", "empty": "", "tier": "1",
    "example.com/team": "infra"}, "agent_labels": {"role": "db", "site": "vienna"}, "protocol": 1,
    "facts": {"generation": "917d168", "deep": {"er": "x"}, "site": "graz", "uptime": 90061, "odd": None, "big": 1e21,
    "small": 0.0000015, "list": [1, "two", True, None, [3], {"a": 4}], "text": "a*b", "n": "12.50",
    "long": [0] * 1000 + ["end"]},
    "heartbeat_facts": {"location": "rack b4", "odd": "even"}, "revoked": False,
    "conditions": ["disk", "flapping"],
}  # fmt: skip
RUNNING = {"op": "pull", "state": "running"}

FOUND = [
    ("name:*b*w*", False), ("name:*eb*b*", False), ("name:w*b1*1", False),
    ("", True), ("WEB", True), ("web debian", True), ("web nixos", False), ("-nixos", True), ("!nixos", True),
    ("-web", False), ("os:debian", True), ("os=debian", False), ('os:"debian 12"', True), ('os:"debian 13"', False),
    ('"debian 12" web', True), ("cpu>80", True), ("cpu<80", False), ("disk<50", False), ("!disk<50", True),
    ("generation=917d168", True), ("deep.er:x", True), ("facts.generation:917", True), ("facts.deep.er=x", True),
    ("presence=online -presence=offline", True), ("ops:switch", True), ("revoked=false", True), ("running:pull", True),
    ("state=running", True), ("constructor:function", False), ("__proto__:object", False), ("no.such.field:x", False),
    ("online", True), ("offline", False), ("!offline", True), ("ONLINE", True), ('"offline"', False), ("onl", True),
    ("name:w*1", True), ("name:w*2", False), ("name=web*", True), ("name:*", True), ("name:eb*", False), ("w*1", True),
    ("eb*", False), ("*eb*", True), ("name:**", True), ("name:web1*", True), ("name:web1*1", False), ("deb*12", False),
    ("role=web", True), ("role=db", False), ("role!=db", True), ("!role!=db", False), ("role=we", False), ("role:we", True),
    ("label.role=web", True), ("labels.role=db", False), ("agent_labels.role=db", True), ("agent_label.role:*", True),
    ("example.com/team=infra", True), ("label.example.com/team:infra", True), ("site=vienna", True), ("site=graz", False),
    ("facts.site=graz", True), ('empty=""', True), ('role=""', False), ('empty!=""', False), ("empty:*", True),
    ("role=web*", True), ("rack=b4 env=prod", True), ("env=prod", True), ('"env=prod"', True), ("infra", True),
    ("tier>0", True), ("tier=1", True), ("tier>=1 tier<=1", True), ("tier>1", False), ("load=2", True), ("load=2.0", False),
    ("load>1.9", True), ("swap<1", True), ("cpu>80%", True), ("cpu:81.", True), ("uptime>1d", True), ("uptime>25.1h", False),
    ("big=1e+21", True), ("small=0.0000015", True), ("list=two", True), ("list=1", True), ("list=true", True),
    ("list=3", False), ("list>0", False), ("list:null", False), ("long=0", True), ("long=end", False), ("odd=even", True), ('text="a*b"', True),
    ('text:"a*"', True), ("text:a*", True), ('text="a*"', False), ("n=12.50", True), ("n>12.4", True), ("n<12.51", True),
    ("since>9m", True), ("since>10m", False), ("since<1h", True), ("seen<10s", True), ("seen>4s", True), ("seen>5", False),
    ("enrolled>9d", True), ("enrolled<2w", True), ("enrolled>=10d", True), ("connected<600", True), ("suspended=web", False),
    ("condition:disk", True), ("condition=flapping", True), ("conditions:mem", False), ("!condition:offline", True),
    ("name:*" + "*" * 14 + "w*", True), ("name:*" + "*" * 14 + 'x* "*"', False),
    ("seen:2025-11-30", True), ("protocol=1", True), ("10.0.0", False), ("address:10.0.0", True), ("role=WEB", True),
    ("ROLE=web", True), ("metrics:cpu", False), ("metrics.cpu>81", True), ("facts:x", False), ("--web", True), ("!!x", True),
    ("web-1", False), ("-5", True), ("cpu>-5", True), ("a.:x", False), ("label.:x", False), ("pull", True),
]  # fmt: skip

# the query, the message, and the piece of it that is wrong
WRONG = [
    ("os:", "os: has nothing after it: write os:* for every host that has one", "os:"),
    ("web role= x", "role= has nothing after it: write role=* for every host that has one", "role="),
    ("role!=", "role!= has nothing after it: say what to compare with", "role!="),
    ("!cpu>", "cpu> has nothing after it: say what to compare with", "!cpu>"),
    ('os:""', "os: has nothing after it: write os:* for every host that has one", 'os:""'),
    ('"', "the quotation mark is not closed", '"'),
    ('web "a b', "the quotation mark is not closed", '"a b'),
    ("ä web -", "there is nothing here to look for", "-"),
    ("!", "there is nothing here to look for", "!"),
    ('""', "there is nothing here to look for", '""'),
    ("cpu>x", "cpu>x does not compare with a number: write for example cpu>80 or since>10m", "cpu>x"),
    ("cpu>1e3", "cpu>1e3 does not compare with a number: write for example cpu>80 or since>10m", "cpu>1e3"),
    ('cpu>"1"', "cpu>1 does not compare with a number: write for example cpu>80 or since>10m", 'cpu>"1"'),
    ("since>10y", "since>10y does not compare with a number: write for example cpu>80 or since>10m", "since>10y"),
    ("\N{GRINNING FACE} since=3", "since is a length of time: compare it, as since>10m", "since=3"),
    ("a\x07b", "a query has no control characters", "a\x07b"),
    ('"a\nb"', "a query has no control characters", '"a\nb"'),
    (" ".join("abcdefghijklmnopqr"), "a query has at most 16 terms", "q"),
    ("name:" + "*a" * 8 + " web " + "*b" * 9, "a query has at most 16 stars", "*b" * 9),
    ("x" * 1001, "a query has at most 1000 characters", "x"),
]

_TEXTS = [
    "web1", "WEB-22", "db", "Debian 12", "nixos", "b4", "ÄÖ σας", "ΣΑΣ", "İ", "a*b", "", "0", "12", "-3.5", "1e3", "007",
    "\N{GRINNING FACE}x", "line\nbreak", "online", "offline", "pull", "x" * 1030, "prod", "10.0.0.1", "null", "true",
]  # fmt: skip
_NUMBERS = [
    0,
    1,
    -1,
    80,
    81.5,
    2.0,
    0.1,
    1e21,
    1e-7,
    1.5e-7,
    123456.789,
    2**53,
    10**20,
    90061,
    600,
    0.30000000000000004,
]
_KEYS = ["role", "env", "site", "generation", "cpu", "deep", "a.b", "example.com/x", "os", "name", "uptime", "tags"]
_TIMES = ["2025-11-30T10:53:15.000Z", "2025-11-30T10:43:20.500Z", "2025-11-20T10:53:20.000Z", None, "soon"]
_FIELDS = [
    "name", "presence", "os", "type", "agent", "ops", "running", "state", "since", "seen", "enrolled", "connected",
    "revoked", "condition", "label.role", "agent_labels.env", "facts.deep.er", "deep.er", "metrics.cpu", "op", "cpu",
    "ledger.open", "constructor", "toString", "__proto__", "address", "facts", "labels", *_KEYS,
]  # fmt: skip
_OPS = [":", "=", "!=", ">", "<", ">=", "<="]


class Asked(NamedTuple):
    """One query over one host."""

    query: str
    host: dict[str, Any]
    running: dict[str, str] | None


def _value(chance: random.Random, deep: int = 2) -> Any:
    kind = chance.randrange(10)
    if kind < 4:
        return chance.choice(_TEXTS)
    if kind < 7:
        return chance.choice(_NUMBERS)
    if kind == 7:
        return chance.choice([True, False, None])
    if not deep:
        return "end"
    if kind == 8:
        return [_value(chance, deep - 1) for _ in range(chance.randrange(4))]
    return {chance.choice(["er", "x", *_KEYS]): _value(chance, deep - 1) for _ in range(chance.randrange(3))}


def _facts(chance: random.Random) -> dict[str, Any]:
    return {chance.choice(_KEYS): _value(chance) for _ in range(chance.randrange(5))}


def _labels(chance: random.Random) -> dict[str, str]:
    return {chance.choice(_KEYS): chance.choice(_TEXTS) for _ in range(chance.randrange(4))}


def _host(chance: random.Random) -> dict[str, Any]:
    texts, times = chance.choices(_TEXTS, k=5), chance.choices(_TIMES, k=3)
    host: dict[str, Any] = {
        "name": texts[0], "presence": chance.choice(["online", "stale", "offline"]), "os_version": texts[1],
        "host_type": texts[2], "agent_version": texts[3], "address": texts[4], "revoked": chance.random() < 0.5,
        "last_seen": times[0], "enrolled_at": times[1], "connected_since": times[2], "labels": _labels(chance),
        "agent_labels": _labels(chance), "facts": _facts(chance), "heartbeat_facts": _facts(chance), "ledger": {"open": 3},
        "commands": chance.choice([None, ["pull", "switch"], []]),
        "metrics": chance.choice([None, {"cpu": chance.choice(_NUMBERS)}, {}]),
        "conditions": chance.choice([[], ["disk", "stale"]]),
    }  # fmt: skip
    for key in chance.sample(sorted(host), chance.randrange(4)):
        del host[key]
    return host


def _word(chance: random.Random) -> str:
    text = chance.choice(
        ["*", "w*", "*b*", "1*2", "d", "x y", "Σ", "e", "10m", "80", "1.5h", "5%", "-3.5", "", *_TEXTS]
    )
    return f'"{text}"' if " " in text or chance.random() < 0.15 else text


def _query(chance: random.Random) -> str:
    terms = []
    for _ in range(chance.choice([1, 1, 1, 2, 3, 18]) if chance.random() < 0.97 else 0):
        sign = chance.choice(["", "", "", "!", "-"])
        bare, compare = chance.random() < 0.3, chance.choice(_OPS)
        number = compare[0] in "<>" and chance.random() < 0.9
        wanted = chance.choice(["10m", "80", "1.5h", "5%", "-3.5", "0", "600"]) if number else _word(chance)
        terms.append(sign + (_word(chance) if bare else chance.choice(_FIELDS) + compare + wanted))
    text = chance.choice([" ", "  ", "\t"]).join(terms)
    if chance.random() < 0.1:
        at = chance.randrange(len(text) + 1)
        text = text[:at] + chance.choice(['"', "!", "*", ":", "\x01", "=", "ẞ", "\N{GRINNING FACE}"]) + text[at:]
    return text


def random_cases(seed: int, count: int) -> list[Asked]:
    """Return `count` random queries, each over a random host; the same for the same seed."""
    chance = random.Random(seed)
    return [
        Asked(_query(chance), _host(chance), chance.choice([None, RUNNING, {"op": "switch", "state": "queued"}]))
        for _ in range(count)
    ]
