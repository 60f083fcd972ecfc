"""Which agents are old: ours alone, by number and not by letter."""

from __future__ import annotations

import pytest

from processes.core.shown.versions import is_old_agent


@pytest.mark.parametrize(
    ("agent", "protocol", "hub", "is_old"),
    [
        ("0.1.0", 1, "0.1.0", False), ("0.1.0", 1, "0.1.1", True), ("0.9.0", 1, "0.10.0", True), ("0.10.0", 1, "0.9.0", False),
        ("1.0.0", 1, "0.9.9", False), ("3.1.5", 0, "9.0.0", False), ("0.1.0", 0, "0.2.0", False), ("", 1, "0.2.0", False),
        ("0.1", 1, "0.2.0", False), ("0.1.0.1", 1, "0.2.0", False), ("0.1.0+local", 1, "0.2.0", True),
        ("0.1.0rc1", 1, "0.2.0", True), ("x0.1.0", 1, "0.2.0", False), ("9" * 5000, 1, "0.2.0", False), ("0.1.0", 1, "odd", False),
        ("0.1.0", 2, "0.2.0", True),
    ],
)  # fmt: skip
def test_an_agent_is_old_if_it_is_ours_and_its_version_is_less(
    agent: str, protocol: int, hub: str, is_old: bool
) -> None:
    assert is_old_agent(agent, protocol, hub) is is_old
