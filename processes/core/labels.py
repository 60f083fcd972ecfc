"""Labels of hosts: what a key and a value may be. Pure.

The rules are Kubernetes' (its documentation, "Labels and Selectors: Syntax and character set"), but a key has only
lower-case letters and begins with one, for upper and lower case are the same in queries.
"""

from __future__ import annotations

import re
from typing import Final

LABELS_MAX: Final = 64  # of one host, from each source; guess
KEY_CHARS_MAX: Final = 317  # source: a prefix of 253, a slash, a name of 63
VALUE_CHARS_MAX: Final = 63  # source: Kubernetes

KEY: Final = re.compile(r"(?:[a-z](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[a-z](?:[a-z0-9_.-]{0,61}[a-z0-9])?")
VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")


def complaint_of_key(key: str) -> str:
    """Return what is wrong with a label's key; empty: nothing."""
    if KEY.fullmatch(key):
        return ""
    return (
        f"{key[:80]!r} is no key of a label: lower case letters, digits, '-', '_' and '.', at most 63, first a letter "
        "and last no sign; before it there may be a name of DNS and a slash"
    )


def complaint(key: str, value: str) -> str:
    """Return what is wrong with a label; empty: nothing."""
    if wrong := complaint_of_key(key):
        return wrong
    if VALUE.fullmatch(value):
        return ""
    return (
        f"{value[:80]!r} is no value of the label {key}: letters, digits, '-', '_' and '.', at most {VALUE_CHARS_MAX}, "
        "first and last a letter or digit; or nothing"
    )
