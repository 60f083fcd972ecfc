"""Every verdict is known wherever verdicts are shown: on the page, in the CLI's tables, in sentences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import processes
from processes.cli.terminal.output import STYLES
from processes.core.shown.status import KILLED, STUCK, WELL, CanaryReport, ProcessReport, Verdict, judged

PAGE = Path(processes.__file__).parent / "fanout" / "page"
SENTENCES = {
    Verdict.STARTING: "web is starting",
    Verdict.ADVANCING: "web is advancing",
    Verdict.STANDBY: "web is standby",
    Verdict.LAGGING: "web is lagging",
    Verdict.STALLED: "web is stalled",
    Verdict.DEAF: "web is deaf",
    Verdict.MEMORY: "web uses too much memory",
    Verdict.FROZEN: "web is frozen",
    Verdict.DEAD: "web is dead",
    Verdict.EXCUSED: "web is excused",
    Verdict.UNKILLABLE: "web is unkillable",
    Verdict.STOPPED: "web is stopped",
    Verdict.SILENT: "web is silent",
}


def block(file: str, name: str, end: str) -> str:
    """Return the text of a constant of the page, from its name to its end."""
    text = (PAGE / file).read_text()
    found = re.search(rf"const {name} = (.*?){re.escape(end)};", text, re.DOTALL)
    assert found, f"{file} has no {name}"
    return found[1]


def states() -> dict[str, str]:
    """Return the tone of each word that the page knows."""
    return dict(re.findall(r'(\w+): \["(\w+)", "\w+"\]', block("words.js", "STATES", "}")))


def phrases(name: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+): "([^"]+)"', block("words.js", name, "}")))


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_a_tone_a_colour_and_a_sentence(verdict: Verdict) -> None:
    """The bug it would catch: a process that is about to be killed is drawn calm, and `status` says "hub is memory"."""
    assert verdict in states()
    assert verdict in STYLES
    assert f"web {verdict.phrase}" == SENTENCES[verdict]


def test_the_picture_knows_which_verdict_of_several_is_the_worst() -> None:
    worst = re.findall(r'"(\w+)"', block("picture.js", "WORST", "]"))
    assert sorted(worst) == sorted(Verdict)
    tones = [states()[word] for word in worst]
    assert tones.index("good") == len(tones) - 1, "the best one is the last"
    assert set(tones[: tones.index("busy")]) == {"bad"}, "no bad one is less bad than one that begins"


def test_the_page_says_in_its_sentences_what_the_reasons_say() -> None:
    unlike = {verdict.value for verdict in Verdict if verdict.phrase != f"is {verdict}"}
    assert phrases("PAST").keys() == unlike
    assert phrases("MEANS") == {verdict.value: verdict.means for verdict in Verdict}


def test_what_is_killed_or_stuck_is_shown_as_bad_everywhere_and_what_is_well_nowhere() -> None:
    bad = {verdict for verdict in Verdict if states()[verdict] == "bad"}
    red = {verdict for verdict in Verdict if STYLES[verdict] == "red"}
    assert bad >= KILLED | STUCK
    assert red >= KILLED | STUCK
    assert not WELL & (bad | red)


@pytest.mark.parametrize("name", ["hub", "gateway"])
def test_a_process_that_uses_too_much_memory_is_named_in_whole_words(name: str) -> None:
    rows = [
        ProcessReport(each, "RUNNING", 1, 1.0, 0, 1, Verdict.MEMORY if each == name else Verdict.ADVANCING, "900 MiB")
        for each in ("hub", "gateway")
    ]
    (found,) = judged(rows, CanaryReport(ok=True))[1]
    assert found.text == f"{name} uses too much memory: 900 MiB"
