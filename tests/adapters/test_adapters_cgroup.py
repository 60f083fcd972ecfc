"""Control groups: which folders speak of a process, and what they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from processes.adapters import cgroup
from processes.adapters.cgroup import Groups, Held, Mounts, folders, mounts

BOTH = """tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/cpuset cgroup rw,relatime,cpuset 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""


def test_both_versions_are_found_where_they_are_mounted() -> None:
    assert mounts(BOTH) == Mounts("/sys/fs/cgroup/unified", "/sys/fs/cgroup/cpu,cpuacct")
    assert mounts("garbage\ncgroup2\n") == Mounts("", "")


def test_a_group_is_asked_with_all_above_it_the_innermost_first() -> None:
    groups = "4:cpu,cpuacct:/a/b\n2:cpuset:/c\n0::/x\n"
    places = mounts(BOTH)
    v1, v2 = places.cpu, places.unified
    assert folders(places, groups) == [f"{v1}/a/b", f"{v1}/a", v1, f"{v2}/x", v2]


@pytest.mark.parametrize("groups", ["", "garbage", "0::/../../other", "1:cpuset:/a"])
def test_what_is_elsewhere_or_nonsense_is_left_out(groups: str) -> None:
    assert folders(Mounts("/u", "/c"), groups) in ([], ["/u"])


def made(folder: Path, stat: str, pressure: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.stat").write_text(stat)
    if pressure:
        (folder / "cpu.pressure").write_text(pressure)


def test_the_level_that_throttled_most_counts_and_the_innermost_pressure(tmp_path: Path) -> None:
    made(tmp_path, "nr_periods 0\nnr_throttled 0\n", "some avg10=0.00 avg60=0.00 avg300=0.00 total=9000000\n")
    made(
        tmp_path / "pod",
        "usage_usec 5\nnr_periods 40\nnr_throttled 30\nthrottled_usec 99\n",
        "some avg10=1 total=2500000\nfull total=1\n",
    )
    made(tmp_path / "pod" / "main", "usage_usec 5\nnr_periods 7\nnr_throttled 1\n")
    group = tuple(str(path) for path in (tmp_path / "pod" / "main", tmp_path / "pod", tmp_path))
    assert Groups("").held(group) == Held(40, 30, 2.5)


def test_a_group_is_read_once_a_round(tmp_path: Path) -> None:
    made(tmp_path, "nr_periods 4\nnr_throttled 3\n", "some total=0\n")
    groups, group = Groups(""), (str(tmp_path),)
    assert groups.held(group).throttled == 3
    made(tmp_path, "nr_periods 5\nnr_throttled 4\n", "some total=0\n")
    assert groups.held(group).throttled == 3
    groups.begin_round()
    assert groups.held(group).throttled == 4


@pytest.mark.parametrize("stat", ["", "garbage", "nr_periods x\nnr_throttled -1\n"])
def test_what_cannot_be_read_is_zero(tmp_path: Path, stat: str) -> None:
    made(tmp_path, stat, "garbage")
    found = Groups("").held((str(tmp_path),))
    assert (found.periods, found.throttled) == (0, 0)
    assert Groups("").of(2**22 - 1) == ()


def test_without_a_pressure_of_its_own_the_machines_counts(tmp_path: Path) -> None:
    made(tmp_path, "nr_periods 0\n")
    machine = cgroup._pressed_s(cgroup._text("/proc/pressure/cpu"))
    assert Groups("").held((str(tmp_path),)).pressed_s >= (machine or 0.0)


def test_this_very_process_has_a_group_where_any_is_mounted() -> None:
    places = mounts(Path("/proc/self/mounts").read_text())
    found = Groups().of(os.getpid())
    if places.cpu:
        assert found
    assert all(Path(path).is_dir() for path in found)
