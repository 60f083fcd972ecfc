"""What shape a message may have, against a parser."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.errors import BadFrame
from processes.core.travels import agent_frames, operator_frames
from processes.core.travels.shape import (
    DEPTH_MAX,
    NAMES_MAX,
    NUMBER_CHARS_MAX,
    STRING_BYTES_MAX,
    VALUES_MAX,
    complaint,
)


def depth_of(value: Any) -> int:
    """Slow and obvious."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


VALUES = st.recursive(
    st.none() | st.integers(-(10**30), 10**30) | st.text('[]{}"\\a', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\a', max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.integers(0, 40), st.integers(0, 40))
def test_the_depth_is_the_parsers_whatever_stands_in_strings(value: Any, wraps: int, width: int) -> None:
    """The bugs it would catch: brackets in strings that count, escaped quotes that end a string, wide taken for deep."""
    for number in range(wraps):
        value = [value] if number % 2 else {"k": value, '"[{': [[]] * (width if number == 0 else 0)}
    assert ("nested" in complaint(json.dumps(value).encode())) == (depth_of(value) > DEPTH_MAX)


@pytest.mark.parametrize("kind", [*agent_frames.FRAME_TYPES, "of_a_version_to_come"])
def test_a_frame_of_any_type_that_is_nested_deeper_is_malformed(kind: str) -> None:
    """An enrolled agent's nested heartbeat once ended the hub, each time: its facts were merged by recursion."""
    for depth in (DEPTH_MAX + 1, 980, 100_000):
        facts = "[" * (depth - 2) + "]" * (depth - 2)
        with pytest.raises(BadFrame, match="nested"):
            agent_frames.decode(
                f'{{"type":"{kind}","payload":{{"hostname":"a","reason":"x","facts":{facts}}}}}'.encode()
            )


def test_a_heartbeat_that_is_nested_as_deep_as_may_be_goes_through() -> None:
    facts = "[" * (DEPTH_MAX - 2) + "]" * (DEPTH_MAX - 2)
    frame, kept = agent_frames.decode(f'{{"type":"heartbeat","payload":{{"metrics":null,"facts":{facts}}}}}'.encode())
    assert isinstance(frame, agent_frames.Heartbeat)
    assert json.loads(kept) == {"facts": json.loads(facts)}


def strings_of(value: Any) -> Iterator[str]:
    """Slow and obvious: all strings and names."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from strings_of(each)
    if isinstance(value, str):
        yield value


@given(VALUES, st.integers(0, 3), st.integers(-2, 2), st.sampled_from(["x", '"', "\\", "é", "{", ":", ",", "1"]))
def test_one_string_may_be_long_whatever_is_in_it(value: Any, long: int, beyond: int, char: str) -> None:
    """The bugs it would catch: strings counted as one, escapes that end a string, names that are not counted."""
    size = len(json.dumps(char)) - 2
    text = char * ((STRING_BYTES_MAX + beyond) // size)
    held = [value, *([text] * min(long, 2)), *([{text: 1}] if long == 3 else [])]
    sizes = [len(json.dumps(each)) - 2 for each in strings_of(held)]
    assert ("string" in complaint(json.dumps(held).encode())) == (sum(each > STRING_BYTES_MAX for each in sizes) > 1)


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        ("[" + "0," * (VALUES_MAX - 1) + "0]", "[" + "0," * VALUES_MAX + "0]"),
        (
            "{" + ",".join('"a":0' for _ in range(VALUES_MAX)) + "}",
            "{" + ",".join('"a":0' for _ in range(VALUES_MAX + 1)) + "}",
        ),
        ('{"a":' * 20 + "0" + "}" * 20, "{" + '"a":{},' * NAMES_MAX + '"b":{}}'),
        ("[" + ",".join(["[[]]"] * 15_000) + "]", "[" + ",".join(["[[[]]]"] * 15_000) + "]"),
        ("1" * NUMBER_CHARS_MAX, "1" * (NUMBER_CHARS_MAX + 1)),
        ('{"a":-1.7976931348623157e+308}', '{"a":0.' + "0" * NUMBER_CHARS_MAX + "}"),
        ('"' + "1" * 5000 + '"', "[1e" + "0" * 5000 + "1]"),
        ("[" * DEPTH_MAX + "]" * DEPTH_MAX, '{"":' * (DEPTH_MAX + 1) + "0" + "}" * (DEPTH_MAX + 1)),
    ],
)
def test_a_message_is_malformed_just_past_each_bound(within: str, beyond: str) -> None:
    assert complaint(within.encode()) == ""
    assert complaint(beyond.encode()) != ""


@pytest.mark.parametrize("kind", [*agent_frames.FRAME_TYPES, "of_a_version_to_come"])
@pytest.mark.parametrize(
    "value", ["[" + "0," * VALUES_MAX + "0]", "9" * 400, '["' + '","'.join(["x" * 9000] * 2) + '"]']
)
def test_a_frame_of_any_type_with_an_unknown_field_past_a_bound_is_malformed(kind: str, value: str) -> None:
    with pytest.raises(BadFrame, match="more than"):
        agent_frames.decode(
            f'{{"type":"{kind}","payload":{{"hostname":"a","reason":"x","line":"","x":{value}}}}}'.encode()
        )


@pytest.mark.parametrize("kind", ["get_state", "subscribe", "of_a_version_to_come"])
@pytest.mark.parametrize("value", ["[" * 40 + "]" * 40, "9" * 400])
def test_an_operators_frame_past_a_bound_is_malformed(kind: str, value: str) -> None:
    with pytest.raises(msgspec.DecodeError, match=r"nested|more than"):
        operator_frames.decode_request(f'{{"type":"{kind}","command_id":"a","x":{value}}}')


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 33 + b'"' + b'\\"' * 100_000,
        b"[" * 33 + b'"\\' * 100_000,
        b"[" * 250_000,
        b'["",' * 60_000,
        b'"\\' * 100_000,
        b'"' * 500_000,
        b'["' + b'","' * 160_000 + b'"]',
        b'{"a":' * 100_000,
        b"[" + b"[]," * 160_000 + b"[]]",
    ],
)
def test_no_text_of_half_a_megabyte_keeps_a_gateway_busy(text: bytes) -> None:
    """A quote that opened a string without an end was tried again from each quote behind it: a frame of 40 KB took 42 s
    of a gateway, which the watchdog kills after two.
    """
    begun_s = time.process_time()
    complaint(text)
    assert time.process_time() - begun_s < 5.0


@pytest.mark.parametrize("text", [b'"' * 1_000_000, b'["' + b'","' * 300_000 + b'"]'])
def test_a_text_that_is_past_a_bound_is_looked_at_no_further(text: bytes) -> None:
    """A megabyte of quotes took 0.3 s, and who signs in may send one: seven of them at once froze a fanout."""
    peaks = []
    for part in (text[: len(text) // 4], text):
        tracemalloc.start()
        assert complaint(part) != ""
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4 * len(text), "it was cut into all of its pieces"


def test_facts_that_are_too_long_are_left_out_and_a_fact_says_so() -> None:
    room = agent_frames.FACTS_BYTES_MAX - len('{"a":""}')
    for size, fits in ((room, True), (room + 1, False)):
        text = f'{{"type":"heartbeat","payload":{{"a":"{"x" * size}"}}}}'.encode()
        facts = agent_frames.decode(text)[1]
        if fits:
            assert len(facts) == agent_frames.FACTS_BYTES_MAX
        else:
            assert list(json.loads(facts)) == [agent_frames.LEFT_OUT]
            assert "further fields of 16385 bytes" in facts.decode()
