"""Why a command or a host's part of a run ended as it did, in words. Pure.

docs/words.md says more of each reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, str]] = {
    "host_offline": "its host was not connected in time",
    "waited_too_long": "its host was busy for the whole time",
    "not_offered": "its host does not offer it",
    "unknown_op": "its host does not offer it",
    "busy": "its host was busy",
    "expired": "it reached the agent too late",
    "timed_out": "it ran for too long, and was ended",
    "not_started": "its program could not be started",
    "stopped": "somebody stopped it on the host",
    "warning": "with a warning",
    "silence": "its host was not heard of for too long",
    "forgotten": "its agent does not know it any more",
    "booted_anew": "its machine came back with another boot and another journal",
    "journal_replaced": "its agent came back with another journal",
    "contradicted": "its agent said two things that cannot both be true",
    "unreported": "its agent runs nothing, and has not reported",
    "connection_lost": "its agent's connection ended while it ran",
    "quarantined": "its report was put aside as a dead letter",
    "rebooted": "its machine rebooted while it ran",
    "not_back": "its machine was not back in time",
    "shim_died": "the process that watched it was killed",
    "record_unreadable": "the record of its end is damaged",
    "disk_full": "its host's disk is full",
    "cancelled": "an operator ended it",
    "host_removed": "its host was removed",
    "restored": "a backup was restored",
    "too_many_in_all": "too many commands were open in all",
    "too_many_of_host": "too many commands of its host were open",
}


def in_words(reason: str) -> str:
    """Return what the reason means; a reason without words of its own as it is."""
    return WORDS.get(reason, reason)


def why(reason: str, state: str, exit_code: int | None, message: str) -> str:
    """Return all that is known of why something ended, in words; empty if the state says it all.

    An exit code says more than the reason that there was one.
    """
    code = f"exit code {exit_code}" if exit_code else ""
    known = "" if reason == state or (code and reason in ("exit", "exit_code", "failed")) else in_words(reason)
    return ", ".join(filter(None, (known, code, message)))
