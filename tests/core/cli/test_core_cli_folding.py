"""Identical output of many hosts, once."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from processes.core.cli.folding import NAMES_MAX, Folding, Group, Said, folded, title
from processes.core.values import Stream

OUT, ERR = Stream.STDOUT, Stream.STDERR
Lines = Sequence[tuple[Stream, str]]


def said(folder: Folding, host: str, lines: Lines, op: str = "pull", step: int = 0) -> Said:
    found = Said(host, op, f"id-{host}-{step}")
    found.step = step
    for stream, line in lines:
        folder.take(found, stream, line)
    return found


def hosts(groups: Sequence[Group]) -> list[list[str]]:
    return [group.hosts for group in groups]


def test_hosts_with_one_output_are_one_group_and_the_odd_ones_follow() -> None:
    folder = Folding()
    alike = [said(folder, f"web{number}", [(OUT, "up to date")]) for number in range(9)]
    odd = said(folder, "db1", [(OUT, "up to date"), (OUT, "and more")])
    (groups,) = folded([odd, *alike])
    assert hosts(groups) == [[f"web{number}" for number in range(9)], ["db1"]]
    assert groups[0].said.lines == [(OUT, "up to date")]
    assert title(groups[0], 10, is_first=True) == "--- 9 of 10 at pull: web0, web1, web2, web3, web4 and 4 more"
    assert title(groups[1], 10, is_first=False) == "--- 1 of 10 at pull: db1"


def test_all_odd_ones_are_named_and_silence_is_an_output() -> None:
    folder = Folding()
    group = Group([f"h{number}" for number in range(NAMES_MAX * 3)], said(folder, "h0", []))
    assert title(group, 99, is_first=False).endswith(", ".join(group.hosts))
    assert title(group, 99, is_first=True).startswith("--- 15 of 99 at pull, no output: h0")


def test_the_steps_of_a_run_are_folded_each_by_itself_in_their_order() -> None:
    folder = Folding()
    commands = [said(folder, host, [(OUT, "same")], op, step) for host in "ba" for step, op in enumerate(("z", "a"))]
    assert [[(group.said.op, group.hosts) for group in groups] for groups in folded(commands)] == [
        [("z", ["a", "b"])],
        [("a", ["a", "b"])],
    ]


def test_in_which_order_two_streams_come_makes_no_difference_and_which_stream_does() -> None:
    folder = Folding()
    one, other = said(folder, "a", [(OUT, "x"), (ERR, "y")]), said(folder, "b", [(ERR, "y"), (OUT, "x")])
    swapped = said(folder, "c", [(OUT, "y"), (ERR, "x")])
    (groups,) = folded([one, other, swapped])
    assert hosts(groups) == [["a", "b"], ["c"]]


lines = st.lists(
    st.tuples(st.sampled_from([OUT, ERR]), st.sampled_from(["", "a", "b", "ab", "1:a", "é" * 9])), max_size=5
)


@given(st.lists(lines, max_size=8), st.integers(0, 40), st.integers(0, 12))
def test_hosts_are_together_exactly_if_they_said_the_same_whatever_is_kept(
    outputs: list[Lines], bytes_max: int, lines_max: int
) -> None:
    """Past the limits lines are compared all the same: two hosts that differ there are not shown as alike."""
    folder = Folding(lines_bytes_max=bytes_max, lines_max=lines_max)
    commands = [said(folder, f"h{number}", output) for number, output in enumerate(outputs)]
    groups = [group for groups in folded(commands) for group in groups]
    by_streams = [
        tuple(tuple(line for stream, line in output if stream is which) for which in Stream) for output in outputs
    ]
    together = {tuple(group.hosts) for group in groups}
    expected = {
        tuple(f"h{number}" for number, each in enumerate(by_streams) if each == streams) for streams in set(by_streams)
    }
    assert together == expected
    kept = [line for command in commands for line in command.lines]
    assert len(kept) <= lines_max
    assert sum(len(line.encode()) for line in {line for _, line in kept}) <= bytes_max
    for group in groups:
        output = outputs[int(group.said.host[1:])]
        assert group.said.lines == list(output[: len(output) - group.missing]), "what is kept is how it begins"
