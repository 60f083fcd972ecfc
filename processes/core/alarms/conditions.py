"""Which conditions stand now, from the watchdog's report, its incidents and a few facts beside them. Pure.

An incident is a condition. So is an incident that lasts too long, a state that no remedy mends, and a fact that is not
in the report. Units: *_s of CLOCK_MONOTONIC unless a length of time, *_wall_s since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from processes.core.alarms.alarm import Condition
from processes.core.alarms.hosts import HOSTS
from processes.core.records.condition import ConditionRecord
from processes.core.records.request import OperatorToken
from processes.core.shown.status import WELL, IncidentView, ProcessReport, Report, Verdict
from processes.core.travels.pulse import Blocked
from processes.core.values import Severity, rfc3339, token_id

SETTLE_S: Final = 2.0  # an incident waits so long for its remedy before it is told: evidence takes 1 s at most
# an incident that is not over by then is told once more, as critical. Promised: over within 5 s
LASTING_S: Final = 30.0
LAGGING_S: Final = 60.0
STORAGE_S: Final = 5.0  # a backup or a checkpoint locks the database for less
CANARY_S: Final = 15.0  # red for so long, after the 6 s until it counts as red
SUPERVISORD_S: Final = 10.0
JUDGE_S: Final = 60.0  # another fanout takes over within a second or two
HOLE_S: Final = 10.0  # for so long no watchdog ran; one that dies is replaced within about 2 s
DISK_FREE_MIN_BYTES: Final = 256 << 20  # guess: an hour of a noisy fleet's output
CERTIFICATE_DAYS: Final = (  # each is told once; all are over when the certificate is replaced
    (14, Severity.WARNING, "expires in less than 14 days"),
    (3, Severity.CRITICAL, "expires in less than 3 days"),
    (0, Severity.CRITICAL, "has expired"),
)
TOKEN_DAYS: Final = (  # each is told once; all are over when the token is rotated, revoked or no longer listed
    (7, 28.0, "expires in less than 7 days"),  # the second number: of tokens that were made for so many days or more
    (1, 4.0, "expires in less than a day"),
    (0, 4.0, "has expired"),
)
DAY_S: Final = 86400.0
INCIDENTS: Final = "incident:"
LASTING: Final = "lasting:"
DEAD_LETTERS: Final = "deadletter:"
TOKENS: Final = "token:"
UNKNOWN_END: Final = "it is not there any more"  # of a dead letter, if no watchdog saw how it came to its end


class AlarmFacts(msgspec.Struct, frozen=True):
    """Facts that are not in the report. None: not known."""

    budgets: frozenset[str] = frozenset()  # processes whose restart budget is used up
    disk_free_bytes: int | None = None
    certificate_wall_s: float | None = None  # when it expires
    certificate_problem: str = ""
    put_aside: list[tuple[str, str]] | None = None  # dead letters: id and description
    ended: Mapping[str, str] = {}  # dead letters that had an alarm, and how that came to its end
    suspended: list[tuple[str, str]] | None = None  # hosts whose token is suspended, and why
    contested: list[str] = []  # hosts whose identity two agents claim
    impersonated: list[tuple[str, str]] = []  # hosts whose agents claimed to be others, and how
    guessed: list[tuple[str, str]] = []  # fanouts at which credentials are guessed, and by whom
    judging: bool = True  # some fanout judges the hosts' conditions
    audit_head: str = ""  # NUMBER:HASH of the newest line of the audit trail; empty: not known
    hosts: list[ConditionRecord] | None = None  # conditions of hosts that stand and are parts of no other
    hosts_over: Mapping[str, str] = {}  # those that had an alarm, by their keys, and how they came to their ends
    ending: list[OperatorToken] | None = None  # operators' tokens with an end that no other token has replaced


def conditions(report: Report, facts: AlarmFacts, wall_s: float) -> list[Condition]:
    """Return all conditions of this moment but the incidents."""
    found = [*_of_processes(report.processes, facts.budgets, report.hindrance), *_of_the_whole(report, facts)]
    found += [
        Condition(f"{DEAD_LETTERS}{key}", Severity.WARNING, "a message was put aside", what, over=UNKNOWN_END)
        for key, what in facts.put_aside or []
    ]
    found += [
        Condition(f"suspended:{host}", Severity.CRITICAL, f"the token of {host} is suspended", why, over="lifted")
        for host, why in facts.suspended or []
    ]
    found += [
        Condition(
            f"contested:{host}",
            Severity.WARNING,
            f"the identity of {host} is contested",
            "several agents use its token, in turn: was the machine or its agent's folder copied? On the copy remove "
            "the agent's token file and state, and enrol it under a name of its own",
        )
        for host in facts.contested
    ]
    found += [
        Condition(
            f"impersonated:{host}",
            Severity.CRITICAL,
            f"an agent with the token of {host} claims another name",
            f"{how}: its token may be in wrong hands",
            over="it does so no longer",
        )
        for host, how in facts.impersonated
    ]
    found += [
        Condition(f"guessed:{fanout}", Severity.WARNING, f"credentials are guessed at {fanout}", how,
                  over="it has ended")
        for fanout, how in facts.guessed
    ]  # fmt: skip
    return [*found, *_certificate(facts, wall_s), *_tokens(facts.ending or [], wall_s)]


def unknown(report: Report, facts: AlarmFacts, incidents_known: bool) -> tuple[str, ...]:
    """Return prefixes of the keys whose conditions may stand though they are not seen: a watchdog that starts anew does
    not know everything at once.
    """
    found = [] if incidents_known else [INCIDENTS, LASTING]
    for process in report.processes:
        if process.wanted and process.verdict not in WELL:
            found += [f"budget:{process.name}", f"unkillable:{process.name}"]
    if facts.put_aside is None or facts.suspended is None:
        found += [DEAD_LETTERS, "suspended:"]
    if facts.ending is None:
        found.append(TOKENS)
    if facts.hosts is None:
        found.append(HOSTS)
    return tuple(found)


def end_of_dead_letter(kept: bool, last_audited: str | None) -> str:
    """Return how the alarm of a dead letter came to its end. `kept`: the dead letter is still there. `last_audited`:
    what the audit trail says of the dead letter last; None: nothing.
    """
    if kept:
        return "it is still kept, but newer ones took its place among the alarms"
    known = {"tried_again": "it was retried", "discarded": "it was discarded"}
    return known.get(last_audited or "", "it made room for newer ones, or was too old to be kept")


def over(facts: AlarmFacts) -> dict[str, str]:
    """Return how conditions came to their ends, by their keys, where that is known."""
    return {DEAD_LETTERS + key: text for key, text in facts.ended.items()} | dict(facts.hosts_over)


def incident(view: IncidentView) -> Condition:
    """Return the incident as a condition, as it is now."""
    found = Verdict.MEMORY.phrase if view.verdict == Verdict.MEMORY else view.verdict
    title = f"{view.process} {found}" + (" (drill)" if view.drill else "")
    parts = [view.reason, f"stuck at {view.stuck_at}" if view.stuck_at else "", view.remedy]
    after = f"well again after {view.recovered_after_s:.1f} s" if view.recovered_after_s is not None else "over"
    lost = f"{view.lost} accepted commands disappeared" if view.lost else "nothing lost"
    severity = Severity.CRITICAL if view.lost or view.verdict == Verdict.UNKILLABLE else Severity.WARNING
    return Condition(
        INCIDENTS + view.id,
        Severity.INFO if view.drill else severity,
        title,
        "; ".join([part for part in parts if part] + [f"incident {view.id}"]),
        after_s=0.0 if view.remedy or view.over_at else SETTLE_S,
        over=f"{after}, {lost}" + (f", {view.remedy}" if view.remedy else ""),
    )


def lasting(view: IncidentView) -> Condition:
    """Return the condition that an open incident does not end, which begins after LASTING_S."""
    return Condition(
        LASTING + view.id, Severity.INFO if view.drill else Severity.CRITICAL, f"{view.process} is still not well",
        f"{view.verdict}: {view.reason}; {view.remedy or 'no remedy yet'}; incident {view.id}", after_s=LASTING_S,
        over="well again",
    )  # fmt: skip


def lost(before: int | None, now: int) -> list[Condition]:
    """Return what is told once of commands that became lost since `before`."""
    if before is None or now <= before:
        return []
    more = now - before
    title = f"{more} command{'s' * (more != 1)} became lost"
    return [
        Condition(
            f"lost:{now}", Severity.WARNING, title, f"nobody can know whether they ran; {now} in all: fleethub commands"
        )
    ]


def hole(away_s: float) -> list[Condition]:
    """Return what is told once of a time without a watchdog."""
    if away_s < HOLE_S:
        return []
    return [
        Condition(
            "watchdog:hole",
            Severity.WARNING,
            f"the watchdog was away for {away_s:.0f} s",
            "nobody watched meanwhile; it watches again",
        )
    ]


def _of_processes(processes: list[ProcessReport], budgets: frozenset[str], hindrance: str) -> list[Condition]:
    found = []
    for process in processes:
        name, reason = process.name, process.reason
        if process.verdict is Verdict.LAGGING:
            found.append(
                Condition(
                    f"lagging:{name}", Severity.WARNING, f"{name} lags behind", reason, LAGGING_S, "it keeps up again"
                )
            )
        if process.verdict is Verdict.UNKILLABLE:
            found.append(
                Condition(
                    f"unkillable:{name}", Severity.CRITICAL, f"{name} cannot be killed", reason, over="it is gone"
                )
            )
        if name in budgets:
            text = f"killing it again and again does not help; {reason}".rstrip("; ")
            found.append(
                Condition(
                    f"budget:{name}",
                    Severity.CRITICAL,
                    f"the restart budget of {name} is used up",
                    text,
                    over="well again",
                )
            )
        if process.pulse is not None and process.pulse.blocked_on == Blocked.STORAGE:
            text = "new requests are refused, reports stay at the agents: look at the disk"
            text = f"{hindrance}; {text}" if hindrance else text
            found.append(
                Condition("storage", Severity.CRITICAL, "storage is blocked", text, STORAGE_S, "it takes writes again")
            )
    return found


def _of_the_whole(report: Report, facts: AlarmFacts) -> list[Condition]:
    found = []
    hub = next((process for process in report.processes if process.name == "hub"), None)
    if not report.canary.ok and hub is not None and hub.wanted:
        closed = any(not port.ok for port in report.canary.ports)  # the reasons tell of that
        text = "; ".join(report.reasons if closed else ["no command goes all the way round", *report.reasons])
        found.append(Condition("canary", Severity.CRITICAL, "the canary is red", text, CANARY_S, "green again"))
    if (report.supervisord_silent_s or 0.0) >= SUPERVISORD_S:
        text = "nothing can be restarted until it answers"
        found.append(
            Condition("supervisord", Severity.CRITICAL, "supervisord is silent", text, over="it answers again")
        )
    fanouts = [p for p in report.processes if p.name.partition(":")[0] == "fanout" and p.wanted and p.verdict in WELL]
    if fanouts and not facts.judging:
        text = "conditions of hosts neither begin nor end"
        found.append(
            Condition("judge", Severity.WARNING, "no process judges the hosts", text, JUDGE_S, "one does again")
        )
    free = facts.disk_free_bytes
    if free is not None and free < DISK_FREE_MIN_BYTES:
        found.append(
            Condition(
                "disk", Severity.WARNING, "the disk of the state folder is almost full", f"{free >> 20} MiB are free"
            )
        )
    return found


def _certificate(facts: AlarmFacts, wall_s: float) -> list[Condition]:
    if facts.certificate_problem:
        return [
            Condition(
                "certificate:unreadable",
                Severity.WARNING,
                "the TLS certificate cannot be read",
                facts.certificate_problem,
            )
        ]
    if facts.certificate_wall_s is None:
        return []
    left_s = facts.certificate_wall_s - wall_s
    on = _minute(facts.certificate_wall_s)
    return [
        Condition(f"certificate:{days}", severity, f"the TLS certificate {what}", on, over="another one is in place")
        for days, severity, what in CERTIFICATE_DAYS
        if left_s < days * DAY_S
    ]


def _tokens(ending: list[OperatorToken], wall_s: float) -> list[Condition]:
    """Return what is told of operators' tokens with an end. One that was made for a short time ends as was meant."""
    return [
        Condition(
            f"{TOKENS}{token_id(token.token_hash)}:{days}",
            Severity.WARNING,
            f"the token {token.label or token_id(token.token_hash)} {what}",
            f"{_minute(token.expires_wall_s)}: fleethub token rotate {token_id(token.token_hash)}",
            over="it was rotated, revoked, or is no longer listed",
        )
        for token in ending
        for days, life_days, what in TOKEN_DAYS
        if token.expires_wall_s is not None
        and token.expires_wall_s - token.created_wall_s >= life_days * DAY_S
        and token.expires_wall_s - wall_s < days * DAY_S
    ]


def _minute(wall_s: float | None) -> str:
    return f"on {(rfc3339(wall_s) or '')[:16].replace('T', ' ')} UTC"


def away_s(at_mono_s: float, at_wall_s: float, now_mono_s: float, now_wall_s: float) -> float:
    """Return for how long at least there was no watchdog since the report of that moment: by the monotonic clock,
    unless a reboot set it back since.
    """
    by_wall_s = max(0.0, now_wall_s - at_wall_s)
    return min(now_mono_s - at_mono_s, by_wall_s) if at_mono_s <= now_mono_s else by_wall_s
