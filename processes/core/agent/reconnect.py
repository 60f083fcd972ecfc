"""When an agent comes back after a connection ended or was refused. Pure: the random number is an argument."""

from __future__ import annotations

from typing import Final

from processes.core.budgets import REST_S
from processes.core.values import CloseCode

BACKOFF_S_MAX: Final = 60.0
# contract: 401 is retried every 60 s; so are closes that say "do not come back", for tokens are renewed
REFUSED_S: Final = 60.0
REPLACED_S: Final = 30.0  # contract: the older of two connections with one token waits at least so long
SOON_S: Final = 1.0
SOON_TRIES_MAX: Final = 5  # connections closed with "come back soon" before any was registered; guess
HTTP_UNAUTHORIZED: Final = 401


def backoff_s(failures: int, chance: float) -> float:
    """Full jitter: a random time up to 1, 2, 4 … 60 s. `failures`: tries without success before this one; `chance`: 0 …
    1.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter", 2015.
    """
    return chance * min(BACKOFF_S_MAX, 2.0 ** min(failures, 16))


def after_close_s(code: int | None, failures: int, chance: float) -> float:
    """Seconds to wait after a connection ended with this close code (None, 1005, 1006: it just ended)."""
    if code == CloseCode.REPLACED:
        return REPLACED_S + chance * REPLACED_S
    if code is not None and 4500 <= code <= 4999:
        return REFUSED_S
    if code == CloseCode.POLICY:
        return REST_S + chance * REST_S
    soon = code in (CloseCode.GOING_AWAY, CloseCode.RESTART) or (code is not None and 4000 <= code <= 4499)
    if soon and failures < SOON_TRIES_MAX:
        return chance * SOON_S
    return backoff_s(failures, chance)


def after_refusal_s(status: int, retry_after_s: float | None, failures: int, chance: float) -> float:
    """Seconds to wait after the upgrade was answered with this HTTP status."""
    if status == HTTP_UNAUTHORIZED:
        return REFUSED_S
    asked_s = 0.0 if retry_after_s is None else min(BACKOFF_S_MAX, max(0.0, retry_after_s))
    return asked_s + backoff_s(failures, chance)
