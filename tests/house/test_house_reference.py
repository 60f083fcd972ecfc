"""docs/settings.md against the code that it is made of."""

from __future__ import annotations

import re

from doubles import reference

from processes.adapters import settings
from processes.core.shown.status import Verdict
from processes.core.shown.troubles import TroubleCode


def test_the_page_of_the_settings_is_what_the_code_has() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run bin/reference"


def test_whatever_can_be_wrong_stands_in_the_page_on_troubles() -> None:
    text = reference.TROUBLESHOOTING.read_text()
    assert text == reference.troubleshooting(text), "run bin/reference"
    assert [code for code in TroubleCode if f"| `{code}` |" not in text] == []


def test_every_verdict_stands_in_the_page_of_words() -> None:
    text = reference.TROUBLESHOOTING.with_name("words.md").read_text()
    assert [verdict for verdict in Verdict if f"| `{verdict}` |" not in text] == []


def test_every_setting_has_a_word_that_says_what_it_does() -> None:
    assert list(reference.without_a_word()) == []


def test_every_variable_that_the_page_names_is_taken() -> None:
    named = set(re.findall(r"`(FLEETHUB_[A-Z_]+)`", reference.page())) - settings.RESERVED
    assert len(named) > 25
    assert [name for name in sorted(named) if "unknown setting" in refusal(name)] == []
    assert "unknown setting" in refusal("FLEETHUB_OPERATORS_LISTN")


def refusal(name: str) -> str:
    """What is said of this variable; empty: it is taken."""
    value = {"FLEETHUB_OPERATORS_FRESH_FOR": "reboot", "FLEETHUB_ALARMS_SEVERITY": "info"}.get(name, "1")
    try:
        settings.load({"FLEETHUB_STATE": "/nowhere", name: value})
    except settings.SettingsError as error:
        return str(error)
    return ""
