"""Finding hosts: `role=web !os:debian cpu>80 offline since>10m name:web*`. Pure.

All terms of a query must match. fanout/page/query.js reads the same language; one set of tests plays both.

    word         is somewhere in name, presence, type, system, running command or a label (key=value)
    online       … but the words of presence (online, offline, stale) are exactly that presence
    field:text   the field has the text in it; field=text, field!=text: it is exactly the text, or is not
    field>n      compares numbers (also >=, <, <=). n may end with %, s, m, h, d or w; a time is compared by its age
    name:web*    a * stands for anything, and the text is then the whole of the field; a word web* is a name
    !…           the opposite; so does a - before it
    "…"          keeps words together, and means each sign in it as it stands

A field is looked for among the host's own (as the API shows them), then in its metrics, its labels, its agent's own
labels, and what its agent reports: the first place that has it counts. `labels.role` is the hub's label alone,
`agent_labels.role` what the agent claims. `since` is for how long the host has had its presence. Upper and lower case
are the same. What is unknown matches no term, and the opposite of each.

Cost: a query has at most TERMS_MAX terms and STARS_MAX stars, each looks at a host once, and at most VALUE_CHARS_MAX
characters of a value, or LIST_ITEMS_MAX items of a list; there are no regular expressions in it. Many hosts are looked
at term by term (Query.found), each field read once. Measured by bin/bench queries.
"""

from __future__ import annotations

import datetime
import functools
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Final, NamedTuple

from processes.core.errors import RemoteError
from processes.core.shown.views import HostView
from processes.core.travels.operator_requests import QUERY_CHARS_MAX
from processes.core.values import Presence

TERMS_MAX: Final = 16  # guess
MINUTES_MAX: Final = 16_384  # whose times are remembered: a host has few, and most of them change seldom
STARS_MAX: Final = 16  # in the whole query: each is a search in every value; guess
VALUE_CHARS_MAX: Final = 1024  # of a host's value; as travels/agent_frames.py bounds its texts
LIST_ITEMS_MAX: Final = 1000  # of a value that is a list; as travels/agent_frames.py bounds what an agent offers

ALIASES: Final = {
    "os": "os_version",
    "type": "host_type",
    "agent": "agent_version",
    "seen": "last_seen",
    "enrolled": "enrolled_at",
    "connected": "connected_since",
    "condition": "conditions",
    "ops": "commands",
    "running": "op",
}
RUNNING: Final = ("op", "state")  # of the host's running command
SINCE: Final = "since"
TIMES: Final = ("last_seen", "enrolled_at", "connected_since", "suspended_at", "rotation_asked_at", "code_until")
OWN: Final = frozenset(HostView.__struct_fields__) | {"conditions"}
LABELS: Final = {"label": "labels", "labels": "labels", "agent_label": "agent_labels", "agent_labels": "agent_labels"}
ELSEWHERE: Final = ("metrics", "labels", "agent_labels", "heartbeat_facts", "facts")  # the first that has it counts
# what every host has under this name, so that no label may have it
RESERVED: Final = OWN | ALIASES.keys() | {*RUNNING, SINCE, *LABELS, "cpu", "ram", "swap", "load", "disk"}
UNITS: Final = {"": 1, "%": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

COMPARES: Final = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}

Host = Mapping[str, Any]  # a host's row, decoded: at least what the query looks at (Query.looks)
Look = tuple[str, str]  # a key of a host's row, and a key within what it has there; empty: all of it

_WORD = re.compile(r'(?:[^ \t\r\n"]|"[^"]*"?)+')
_TERM = re.compile(r"([A-Za-z_][A-Za-z0-9_./-]*)(!=|>=|<=|:|=|>|<)")
_NUMBER = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(%|[smhdw])?")
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MINUTE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:", re.ASCII)
_SECONDS: Final = {f"{number:02}.": 1000 * number for number in range(60)}  # the rest of a time, in ms
_THOUSANDTHS: Final = {f"{number:03}Z": number for number in range(1000)}


class QueryError(RemoteError):
    """A query that cannot be read. `start` and `end`: where, in characters of its text."""

    def __init__(self, message: str, start: int, end: int) -> None:
        super().__init__("bad_query", message)
        self.start, self.end = start, end


class _Looked:
    """Hosts that are looked at together, with what several terms need of them. A host is named by its place in `hosts`.

    What a field has is read once for all terms, so a term costs one pass over texts or numbers that are at hand.
    """

    __slots__ = ("_elsewhere", "_numbers", "_texts", "_words", "doing", "everyone", "hosts", "now_ms")

    def __init__(self, hosts: Sequence[Host], doing: Sequence[tuple[str, str]], now_ms: float) -> None:
        self.hosts, self.doing, self.now_ms = hosts, doing, now_ms
        self.everyone = frozenset(range(len(hosts)))
        self._elsewhere: list[dict[str, Any]] = []
        self._texts: dict[str, list[tuple[int, str]]] = {}
        self._numbers: dict[str, list[tuple[int, float]]] = {}
        self._words: list[str] = []

    @property
    def elsewhere(self) -> list[dict[str, Any]]:
        """What each host has in ELSEWHERE."""
        if not self._elsewhere:
            self._elsewhere = [_elsewhere(host) for host in self.hosts]
        return self._elsewhere

    @property
    def words(self) -> list[str]:
        """The texts of each host in which bare words are looked for, in lower case, a line each."""
        if not self._words:
            self._words = [_own_words(host, op) for host, (op, _) in zip(self.hosts, self.doing, strict=True)]
        return self._words

    def texts(self, name: str, read: Read) -> list[tuple[int, str]]:
        """Return the texts and numbers that the field has, in lower case, each with its host's place."""
        found = self._texts.get(name)
        if found is None:
            found = self._texts[name] = []
            for place, value in enumerate(read(self)):
                if value is None:
                    continue
                if isinstance(value, str):
                    found.append((place, value[:VALUE_CHARS_MAX].lower()))
                    continue
                for each in value[:LIST_ITEMS_MAX] if isinstance(value, list) else (value,):
                    if isinstance(each, str):
                        found.append((place, each[:VALUE_CHARS_MAX].lower()))
                    elif each is not None and not isinstance(each, list | Mapping):
                        found.append((place, number_text(each)))
        return found

    def numbers(self, name: str, read: Read) -> list[tuple[int, float]]:
        """Return the numbers that the field has, of a time its age in seconds, each with its host's place."""
        found = self._numbers.get(name)
        if found is None:
            now_ms = self.now_ms
            values = [_age_s(value, now_ms) for value in read(self)] if name in TIMES else map(_number, read(self))
            found = self._numbers[name] = [(place, value) for place, value in enumerate(values) if value is not None]
        return found


def _elsewhere(host: Host) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place in reversed(ELSEWHERE):
        if (there := host.get(place)) and isinstance(there, dict):
            found.update(there)
    return found


def _own_words(host: Host, op: str) -> str:
    own = (host.get("name"), host.get("presence"), host.get("os_version"), host.get("host_type"), op)
    try:
        found = "\n".join(filter(None, own))
    except TypeError:
        found = "\n".join([text for text in own if isinstance(text, str) and text])
    if len(found) > VALUE_CHARS_MAX:
        found = "\n".join([text[:VALUE_CHARS_MAX] for text in own if isinstance(text, str) and text])
    for labels in (host.get("labels"), host.get("agent_labels")):
        if labels and isinstance(labels, dict):
            for key, value in labels.items():
                found += f"\n{key}={value}"
    return found.lower()


Test = Callable[[_Looked], Set[int]]  # the places of the hosts that it finds
Read = Callable[[_Looked], Iterable[Any]]  # what each host has, in order


class Query(NamedTuple):
    """A query that was read. `looks`: what it looks at in a host's row. `asks_running`: whether also at its command."""

    text: str
    tests: tuple[Test, ...]
    looks: frozenset[Look]
    asks_running: bool

    @property
    def keys(self) -> frozenset[str]:
        """Return the keys of a host's row that it looks at."""
        return frozenset(key for key, _ in self.looks)

    def matches(self, host: Host, now_wall_s: float, op: str = "", state: str = "") -> bool:
        """Return whether the host is found. `op`, `state`: of its running command; empty: there is none.

        `conditions`, where the host has them, is a list of words.
        """
        return bool(self.found([host], now_wall_s, [(op, state)]))

    def found(self, hosts: Sequence[Host], now_wall_s: float, doing: Sequence[tuple[str, str]]) -> list[int]:
        """Return the places of the hosts that are found, in order. `doing`: op and state of each one's command.

        Cost: less than as many calls of `matches`: each field is read once, and each term looks at all hosts in one go.
        """
        looked = _Looked(hosts, doing, now_wall_s * 1000)
        found: Set[int] = looked.everyone
        for test in self.tests:
            found = found & test(looked)
            if not found:
                break
        return sorted(found)


class _Word(NamedTuple):
    """One word of a query, without its quotation marks. `mask`: the same, but with NUL for what stood between them."""

    start: int
    end: int
    text: str
    mask: str
    is_quoted: bool
    is_open: bool  # its last quotation mark is missing

    def from_(self, at: int) -> _Word:
        """Return the rest of the word."""
        return self._replace(text=self.text[at:], mask=self.mask[at:])


class _Term(NamedTuple):
    test: Test
    looks: tuple[Look, ...]


def parse(text: str) -> Query:
    """Return the query of this text; one without terms matches every host. Raises: QueryError."""
    if len(text) > QUERY_CHARS_MAX:
        raise QueryError(f"a query has at most {QUERY_CHARS_MAX} characters", QUERY_CHARS_MAX, len(text))
    terms: list[_Term] = []
    stars = 0
    for word in _words(text):
        if len(terms) == TERMS_MAX:
            raise QueryError(f"a query has at most {TERMS_MAX} terms", word.start, word.end)
        stars += word.mask.count("*")
        if stars > STARS_MAX:
            raise QueryError(f"a query has at most {STARS_MAX} stars", word.start, word.end)
        terms.append(_term(word))
    looks = frozenset(look for term in terms for look in term.looks)
    return Query(text, tuple(term.test for term in terms), looks, any(key in RUNNING for key, _ in looks))


def _all_of(*keys: str) -> tuple[Look, ...]:
    return tuple((key, "") for key in keys)


def _words(text: str) -> Iterator[_Word]:
    for found in _WORD.finditer(text):
        parts = found.group().split('"')
        yield _Word(
            found.start(),
            found.end(),
            "".join(parts),
            "".join("\0" * len(part) if at % 2 else part for at, part in enumerate(parts)),
            len(parts) > 1,
            len(parts) % 2 == 0,
        )


def _wrong(word: _Word, message: str) -> QueryError:
    return QueryError(message, word.start, word.end)


def _term(word: _Word) -> _Term:
    if word.is_open:
        raise _wrong(word, "the quotation mark is not closed")
    if _CONTROL.search(word.text):
        raise _wrong(word, "a query has no control characters")
    is_negated = word.mask[:1] in ("!", "-")
    rest = word.from_(1) if is_negated else word
    found = _TERM.match(rest.mask)
    if found is None:
        test, looks = _bare(rest)
    else:
        name, compare, wanted = found[1].lower(), found[2], rest.from_(found.end())
        test, looks = _compared(ALIASES.get(name, name), compare, wanted, rest.text)
        is_negated ^= compare == "!="
    return _Term(_opposite(test) if is_negated else test, looks)


def _opposite(test: Test) -> Test:
    return lambda looked: looked.everyone - test(looked)


def _bare(word: _Word) -> _Term:
    if not word.text:
        raise _wrong(word, "there is nothing here to look for")
    if word.mask.lower() in tuple(Presence):
        presence = word.mask.lower()
        return _Term(
            lambda looked: {place for place, host in enumerate(looked.hosts) if host.get("presence") == presence},
            _all_of("presence"),
        )
    looks = _all_of("name", "presence", "os_version", "host_type", "labels", "agent_labels", "op")
    pieces = _pieces(word)
    if len(pieces) == 1:  # its signs are no control characters, so what it is found in is within one line
        piece = pieces[0]
        return _Term(lambda looked: {place for place, text in enumerate(looked.words) if piece in text}, looks)
    return _Term(_by_text("name", _reader("name")[0], ":", pieces), _all_of("name"))


def _compared(name: str, compare: str, wanted: _Word, term: str) -> _Term:
    if not wanted.text and not (wanted.is_quoted and compare in ("=", "!=")):
        advice = f"write {term}* for every host that has one" if compare in (":", "=") else "say what to compare with"
        raise _wrong(wanted, f"{term} has nothing after it: {advice}")
    read, looks = _reader(name)
    if compare[0] in "<>":
        return _Term(_by_number(name, read, compare, wanted, term), looks)
    if name == SINCE:
        raise _wrong(wanted, "since is a length of time: compare it, as since>10m")
    return _Term(_by_text(name, read, compare, _pieces(wanted)), looks)


def _by_text(name: str, read: Read, compare: str, pieces: tuple[str, ...]) -> Test:
    first, inner, last = pieces[0], pieces[1:-1], pieces[-1]
    if len(pieces) > 1:
        return lambda looked: _like(looked.texts(name, read), first, inner, last)
    if compare == ":":
        return lambda looked: {place for place, text in looked.texts(name, read) if first in text}
    return lambda looked: {place for place, text in looked.texts(name, read) if text == first}


def _reader(name: str) -> tuple[Read, tuple[Look, ...]]:
    """Return what reads the field, and what of a host's row it needs."""
    first, _, rest = name.partition(".")
    if name in RUNNING:
        at = RUNNING.index(name)
        return lambda looked: [each[at] or None for each in looked.doing], _all_of(name)
    if name == SINCE:
        looks = _all_of("presence", "last_seen", "enrolled_at", "connected_since")
        return lambda looked: [_since(host, looked.now_ms) for host in looked.hosts], looks
    if name in OWN:
        return lambda looked: [host.get(name) for host in looked.hosts], _all_of(name)
    if rest and first in LABELS:
        place = LABELS[first]
        return lambda looked: [_within(host.get(place), (rest,)) for host in looked.hosts], ((place, rest),)
    path = tuple(rest.split("."))
    if first in OWN:
        return lambda looked: [_within(host.get(first), path) for host in looked.hosts], ((first, path[0]),)
    if not rest:
        return lambda looked: [each.get(name) for each in looked.elsewhere], tuple((place, name) for place in ELSEWHERE)
    return lambda looked: [
        each[name] if name in each else _within(each[first], path) if first in each else None
        for each in looked.elsewhere
    ], tuple((place, key) for place in ELSEWHERE for key in (name, first))


def _within(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _since(host: Host, now_ms: float) -> float | None:
    """Return for how many seconds the host has had its presence; None: unknown."""
    if host.get("presence") == Presence.ONLINE:
        return _age_s(host.get("connected_since"), now_ms)
    return _age_s(host.get("last_seen") or host.get("enrolled_at"), now_ms)


# values


def _pieces(word: _Word) -> tuple[str, ...]:
    """Return what stands before, between and after the word's stars; one piece: it has none."""
    ends = [at for at, sign in enumerate(word.mask) if sign == "*"]
    starts = [0, *(end + 1 for end in ends)]
    return tuple(word.text[start:end].lower() for start, end in zip(starts, [*ends, len(word.text)], strict=True))


def _like(texts: list[tuple[int, str]], first: str, inner: tuple[str, ...], last: str) -> set[int]:
    """Return the places of texts that begin and end so, and have the pieces between in this order."""
    begun, ended, least = len(first), len(last), len(first) + len(last)
    if least:
        texts = [
            (place, text)
            for place, text in texts
            if text.startswith(first) and text.endswith(last) and len(text) >= least
        ]
    pieces = [piece for piece in inner if piece]
    for piece in sorted(set(pieces), key=len, reverse=True):  # most texts end here: the longest is the rarest
        texts = [each for each in texts if piece in each[1]]
    if not pieces or (len(pieces) == 1 and not least):
        return {place for place, _ in texts}
    found = [(place, text, begun) for place, text in texts]
    for piece in pieces:
        size = len(piece)
        found = [
            (place, text, begins + size)
            for place, text, at in found
            if (begins := text.find(piece, at, len(text) - ended)) >= 0
        ]
    return {place for place, _, _ in found}


def number_text(value: float | bool) -> str:
    """Return the number or truth value as JavaScript writes it: 2.0 is 2. Source: ECMA-262, Number::toString."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and -(2**53) <= value <= 2**53:
        return str(value)
    number = _as_float(value)
    if not math.isfinite(number):
        return "infinity" if number > 0 else "-infinity" if number < 0 else "nan"
    if number == 0:
        return "0"
    mantissa, _, exponent = f"{number!r}".partition("e")
    sign, mantissa = ("-", mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if len(digits) <= point <= 21:
        return f"{sign}{digits:0<{point}}"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.inf if value > 0 else -math.inf


@functools.lru_cache(maxsize=MINUTES_MAX)
def _minute_ms(text: str) -> int | None:
    """Return the minute `2025-11-30T10:53:`, in ms since 1970; None: it is none."""
    if not _MINUTE.fullmatch(text):
        return None
    try:
        return round(datetime.datetime.fromisoformat(f"{text}00.000Z").timestamp()) * 1000
    except ValueError:  # the 31st of February
        return None


def _age_s(time: Any, now_ms: float) -> float | None:
    if not isinstance(time, str):
        return None
    minute, seconds, thousandths = _minute_ms(time[:17]), _SECONDS.get(time[17:20]), _THOUSANDTHS.get(time[20:])
    if minute is None or seconds is None or thousandths is None:
        return None
    return (now_ms - (minute + seconds + thousandths)) / 1000


def _by_number(name: str, read: Read, compare: str, wanted: _Word, term: str) -> Test:
    found = _NUMBER.fullmatch(wanted.mask)
    if found is None:
        raise _wrong(wanted, f"{term} does not compare with a number: write for example cpu>80 or since>10m")
    limit = float(found[1]) * UNITS[found[2] or ""]
    compares = COMPARES[compare]
    return lambda looked: {place for place, number in looked.numbers(name, read) if compares(number, limit)}


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _as_float(value)
    return float(value) if isinstance(value, str) and _PLAIN_NUMBER.fullmatch(value) else None
