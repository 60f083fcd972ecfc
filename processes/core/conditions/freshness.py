"""Until when what is seen of hosts may be the house's own trouble: presence must be learnt again after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from processes.core.values import Now

FRESH_S: Final = 60.0  # source: agents come back within 60 s (core/agent/reconnect.py, BACKOFF_S_MAX)
TOLD_LATE_S: Final = 15.0  # hosts are seen to go so long before the watchdog's report says that a process is not well
OWN_GAP_S: Final = 20.0  # so long without a turn: we were away ourselves; a busy machine makes gaps of some seconds


class House(NamedTuple):
    """How the house is. `anew`: the hub began or its rows are not whole, so presence must be learnt again. `gateways`:
    those that are not well or young. `epoch`: the hub's.
    """

    epoch: int
    is_well: bool = True
    is_anew: bool = False
    gateways: frozenset[str] = frozenset()


class Freshness:
    """What the house's troubles let nobody believe. `well_boot_s`: before this nothing is believed of any host."""

    def __init__(self, now: Now) -> None:
        self.is_well = True
        self.well_boot_s = now.boot_s + FRESH_S
        self._epoch = 0
        self._gateways: dict[str, float] = {}

    def of_gateway(self, gateway: str) -> float:
        """Return until when nothing is believed of the hosts of this gateway."""
        return self._gateways.get(gateway, 0.0)

    def learn(self, house: House, away_s: float, now: Now) -> Callable[[str], bool] | None:
        """Take in how the house is; `away_s`: since the last time. Return of which gateways' hosts the losses that were
        just noted were the house's: a trouble has begun, and hosts are seen to go before the report says why.
        """
        is_of_all = self.is_well and not house.is_well
        if house.is_anew or house.epoch != self._epoch or away_s > OWN_GAP_S:
            self._epoch, self.well_boot_s, is_of_all = house.epoch, now.boot_s + FRESH_S, True
        begun = {each for each in house.gateways if self.of_gateway(each) <= now.boot_s}
        self._gateways.update(dict.fromkeys(house.gateways, now.boot_s + FRESH_S))
        self.is_well = house.is_well
        return (lambda _: True) if is_of_all else begun.__contains__ if begun else None
