"""How deep a message may be nested, against a parser."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.errors import BadFrame
from processes.core.travels import agent_frames
from processes.core.travels.shape import DEPTH_MAX, too_deep


def depth_of(value: Any) -> int:
    """Slow and obvious."""
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


VALUES = st.recursive(
    st.none() | st.integers() | st.text('[]{}"\\a', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\a', max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES, st.integers(0, 40), st.integers(0, 40))
def test_the_depth_is_the_parsers_whatever_stands_in_strings(value: Any, wraps: int, width: int) -> None:
    """The bugs it would catch: brackets in strings that count, escaped quotes that end a string, wide taken for deep."""
    for number in range(wraps):
        value = [value] if number % 2 else {"k": value, '"[{': [[]] * (width if number == 0 else 0)}
    assert too_deep(json.dumps(value).encode()) == (depth_of(value) > DEPTH_MAX)


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
