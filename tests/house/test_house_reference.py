"""docs/settings.md against the code that it is made of."""

from __future__ import annotations

import re

from doubles import reference

from processes.adapters import settings


def test_the_page_of_the_settings_is_what_the_code_has() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run bin/reference"


def test_every_setting_has_a_word_that_says_what_it_does() -> None:
    assert list(reference.without_a_word()) == []


def test_every_variable_that_the_page_names_is_taken() -> None:
    named = set(re.findall(r"`(FLEETHUB_[A-Z_]+)`", reference.page())) - settings.RESERVED
    assert len(named) > 25
    for name in named:
        value = {"FLEETHUB_OPERATORS_FRESH_FOR": "reboot", "FLEETHUB_ALARMS_SEVERITY": "info"}.get(name)
        try:
            settings.load({"FLEETHUB_STATE": "/nowhere", name: value or "1"})
        except settings.SettingsError as error:
            assert "unknown" not in str(error) and "no setting" not in str(error), error
