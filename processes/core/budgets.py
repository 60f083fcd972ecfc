"""How much one client may send and ask, and what follows if more comes: the figures and the counting. Pure.

Other limits stand elsewhere: how large one message may be with its type (core/travels/; an operator's frame in
fanout/subscribers.py), how much of a host may wait in core/gateway/outbox.py (Bounds), how many connections a port may
have, and an address or all clients of it, in core/connections.py. HTTP requests have allowances of the same kind
(fanout/request_budget.py). How often an address may offer an enrolment code is in core/gateway/code_offers.py.

A client is an agent's host, an operator's token, or a connection that is nobody's yet. In one pass of an event loop
every connection gets a share of what was read from it, by turns, until PASS_S is over; the rest waits its turn, and
nothing more is read meanwhile. Who has said less has the next turn (core/turns.py), so an honest agent is not held up
by a thousand that flood. Over the seconds each client has an allowance of frames and of bytes:

    within its allowance ──▶ read at once; a burst is free
    beyond it ─────────────▶ slowed: nothing is read of it until the allowance has grown again
    slowed until its patience is over, and not for valid heartbeats alone ──▶ closed with 1008, let in after REST_S
    closed so for the CLOSED_MAX-th time within CLOSED_S ──────▶ the hub suspends the host, which is an alarm

Valid heartbeats beyond the allowance are slowed too, but never closed for; those that the hub has not taken yet when
the next one of their host comes are conflated (core/gateway/outbox). Frames of every kind count: pings, pongs,
fragments and unknown types included.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar

PASS_S: Final = 0.01  # for all that was read, in one pass of a loop; the watchdog calls a loop frozen after 2 s
# of one connection's bytes in one turn; at six bytes for the smallest frame 170 frames, parsed in 0.4 ms (measured; in
# 1.2 ms if they are parts of messages), so a round of a thousand connections takes 0.1 to 1.2 s
SHARE_BYTES: Final = 1024
UNREAD_BYTES_MAX: Final = 16 * 1024  # that wait their turn, of one connection; past it nothing more is read of it

PATIENCE_BACK: Final = 0.1  # seconds of patience that come back in each second without
REST_S: Final = 30.0  # contract: whoever was closed for a flood comes back after so long, or later
CLOSED_MAX: Final = 3  # closes for a flood …
CLOSED_S: Final = 600.0  # … within so long suspend the host; source: the flood of poison has the same window
# Connections of one client at a time. A host has one, and for a moment the one that it replaces; a browser has six,
# and a WebSocket for each page; a token may be a whole team's, or that of a script with many threads.
HOST_CONNECTIONS_MAX: Final = 8
TOKEN_CONNECTIONS_MAX: Final = 256  # for HTTP; its sessions count too
TOKEN_WEBSOCKETS_MAX: Final = 250  # its sessions' too; a quarter of all (SUBSCRIBERS_MAX in fanout/subscribers.py)
CLIENTS_MAX: Final = 20_000  # whose allowances are kept; four times the largest fleet that was measured

ROUNDING_S: Final = 1e-9  # of the sum of many uses: less is no debt

Client = TypeVar("Client", bound=Hashable)


class Rate(NamedTuple):
    """So many a second for ever, and a burst beyond it."""

    per_s: float
    burst: float


class Budget(NamedTuple):
    """What one client may send: valid heartbeats, frames of any other kind, and bytes of both. `patience_s`: so long it
    may be slowed for anything but heartbeats before it is closed; `rest_s`: so long it is kept away then.
    """

    heartbeats: Rate
    frames: Rate
    bytes: Rate
    patience_s: float = 10.0
    rest_s: float = REST_S


# The shortest interval of heartbeats is 0.1 s. A build's output is one frame a line; a journal that was cut off sends
# a thousand records at once.
AGENT: Final = Budget(heartbeats=Rate(10.0, 200.0), frames=Rate(1000.0, 10_000.0), bytes=Rate(2 << 20, 16 << 20))
# What our own agents keep within by themselves, so that a command that prints without end never has its host closed.
AGENT_OWN: Final = Budget(heartbeats=AGENT.heartbeats, frames=Rate(800.0, 4000.0), bytes=Rate(3 << 19, 4 << 20))
# A person clicks; a script that follows a thousand commands subscribes to them once.
OPERATOR: Final = Budget(heartbeats=Rate(1.0, 1.0), frames=Rate(50.0, 2000.0), bytes=Rate(64 << 10, 1 << 20))

# HTTP requests on the operators' port; bytes are those of the answers, so a listing of ten thousand hosts (10 MB) may
# be asked for once a second. A request takes the fanout about 1 ms. Beyond it: 429 with Retry-After.
REQUESTS: Final = Budget(heartbeats=Rate(1.0, 1.0), frames=Rate(200.0, 5000.0), bytes=Rate(16 << 20, 256 << 20))
# All requests of one address, whoever asks and whatever becomes of it: an office has one address.
ADDRESS_REQUESTS: Final = Budget(
    heartbeats=Rate(1.0, 1.0), frames=Rate(400.0, 10_000.0), bytes=Rate(64 << 20, 512 << 20)
)
SIGN_IN_COST: Final = 200  # requests; each leaves a file for as long as a session may last, and each sign-out another
REFUSED_PAUSE_S: Final = 0.25  # before a request is refused: so often asks who does not wait, on one connection
FULL_STATE_FRAMES: Final = 10  # a frame for which the whole state is sent at once counts as so many


class Charged(NamedTuple):
    """What a client's use of its allowance leads to."""

    rest_s: float  # read nothing of it for so long; 0: go on
    is_over: bool  # its patience is at an end: close it


GO_ON: Final = Charged(0.0, False)


class Allowance:
    """One client's, on however many connections it comes.

    Units: `now_s` seconds of a monotonic clock.
    Each of the three rates is kept as one number, the time at which its burst is whole again; so nothing is to be
    refilled, and who uses little costs little. Source: the virtual scheduling algorithm of ITU-T I.371, which is the
    same as a bucket of tokens that may go into debt by one use.
    """

    __slots__ = (
        "_bytes_s",
        "_doubtful_s",
        "_frames_s",
        "_heartbeats_s",
        "_patience_at_s",
        "_patience_s",
        "budget",
        "closed_s",
    )

    def __init__(self, budget: Budget, now_s: float) -> None:
        self._heartbeats_s = self._frames_s = self._bytes_s = now_s
        self.budget = budget
        self._doubtful_s = 0.0  # of rest for the parts of a message that may yet be a valid heartbeat
        self._patience_s, self._patience_at_s = budget.patience_s, now_s
        self.closed_s: tuple[float, ...] = ()  # the last CLOSED_MAX closes for a flood

    def spend(self, frames: int, size: int, heartbeats: int, now_s: float) -> Charged:
        """Take so many frames and bytes, `heartbeats` of the frames being valid heartbeats."""
        budget = self.budget
        if heartbeats:
            since_s = self._heartbeats_s if self._heartbeats_s > now_s else now_s
            self._heartbeats_s = since_s + heartbeats / budget.heartbeats.per_s
        if frames != heartbeats:
            since_s = self._frames_s if self._frames_s > now_s else now_s
            self._frames_s = since_s + (frames - heartbeats) / budget.frames.per_s
        since_s = self._bytes_s if self._bytes_s > now_s else now_s
        self._bytes_s = since_s + size / budget.bytes.per_s
        frames_s, bytes_s = _debt_s(self._frames_s, budget.frames, now_s), _debt_s(self._bytes_s, budget.bytes, now_s)
        rest_s = max(frames_s, bytes_s, _debt_s(self._heartbeats_s, budget.heartbeats, now_s))
        impatient_s = frames_s
        if frames > heartbeats:
            impatient_s = max(frames_s, bytes_s) + self._doubtful_s
        self._doubtful_s = 0.0 if frames else self._doubtful_s + bytes_s
        if not rest_s and not impatient_s:
            return GO_ON
        patience_s = self._patience(now_s)
        is_over = impatient_s > 0 and patience_s <= 0  # it has rested long enough, and goes on
        self._patience_s, self._patience_at_s = patience_s - impatient_s, now_s
        return Charged(rest_s, is_over) if rest_s else GO_ON

    def debt_s(self, now_s: float) -> float:
        """Return the seconds until something may be taken again; 0: now."""
        return max(_debt_s(self._frames_s, self.budget.frames, now_s), _debt_s(self._bytes_s, self.budget.bytes, now_s))

    def close(self, now_s: float) -> bool:
        """Count a close for a flood. Return whether there were too many of them."""
        self.closed_s = (*self.closed_s[1 - CLOSED_MAX :], now_s)
        self._patience_s, self._patience_at_s = self.budget.patience_s, now_s
        return len(self.closed_s) == CLOSED_MAX and now_s - self.closed_s[0] <= CLOSED_S

    def banned_s(self, now_s: float) -> float:
        """Return for how long this client is not let in yet."""
        return max(0.0, self.closed_s[-1] + self.budget.rest_s - now_s) if self.closed_s else 0.0

    def is_idle(self, now_s: float) -> bool:
        """Return whether it may be forgotten: it says nothing that a new one would not say."""
        return (
            max(self._heartbeats_s, self._frames_s, self._bytes_s) <= now_s
            and self._patience(now_s) >= self.budget.patience_s
            and (not self.closed_s or now_s - self.closed_s[-1] > CLOSED_S)
        )

    def _patience(self, now_s: float) -> float:
        grown_s = max(0.0, now_s - self._patience_at_s) * PATIENCE_BACK
        return min(self.budget.patience_s, self._patience_s + grown_s)


def _debt_s(whole_s: float, rate: Rate, now_s: float) -> float:
    """Return the seconds until there is no debt, of a rate whose burst is whole again at `whole_s`."""
    debt_s = whole_s - now_s - rate.burst / rate.per_s
    return debt_s if debt_s > ROUNDING_S else 0.0


class Allowances(Generic[Client]):
    """All clients' that are known; the least recently used are forgotten past CLIENTS_MAX, idle ones past half of that.

    (To forget idle ones earlier would cost more than they take: most hosts are idle between two heartbeats.)
    """

    def __init__(self, budget: Budget, clients_max: int = CLIENTS_MAX) -> None:
        self._budget, self._clients_max = budget, clients_max
        self._of: OrderedDict[Client, Allowance] = OrderedDict()

    def __len__(self) -> int:
        return len(self._of)

    def of(self, client: Client, now_s: float) -> Allowance:
        """Return the client's allowance, a full one if it has none yet."""
        allowance = self._of.get(client)
        if allowance is None:
            self._forget(now_s)
            allowance = self._of[client] = Allowance(self._budget, now_s)
        else:
            self._of.move_to_end(client)
        return allowance

    def banned_s(self, client: Client, now_s: float) -> float:
        """Return for how long this client is not let in yet; makes no allowance."""
        allowance = self._of.get(client)
        return 0.0 if allowance is None else allowance.banned_s(now_s)

    def _forget(self, now_s: float) -> None:
        while len(self._of) >= max(self._clients_max // 2, 1):
            client, oldest = next(iter(self._of.items()))
            if len(self._of) < self._clients_max and not oldest.is_idle(now_s):
                return
            del self._of[client]
