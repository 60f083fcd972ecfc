"""The hub's labels: operators set them on hosts, each change is in the audit trail. Pure.

What an agent says of itself (`labels` of its register) is another thing, is shown apart, and changes nothing here.
"""

from __future__ import annotations

import msgspec

from processes.core import labels
from processes.core.hub import noted
from processes.core.hub.memory import Draft
from processes.core.hub.refused import Refused
from processes.core.labels import LABELS_MAX
from processes.core.records.host import HostRecord
from processes.core.shown.pages import HostsLabelled
from processes.core.shown.query import RESERVED
from processes.core.shown.views import encode
from processes.core.travels.messages import Json, LabelHosts


def change(draft: Draft, request: LabelHosts, hosts: list[HostRecord], actor: str) -> tuple[int, Json]:
    """Set and remove labels of these hosts: all of them, or none. Raises: Refused."""
    check(request.set)
    for key in request.remove:
        if wrong := labels.complaint_of_key(key):
            raise Refused(400, "malformed", wrong)
        if key in request.set:
            raise Refused(400, "malformed", f"the label {key} is to be both set and removed")
    if not request.set and not request.remove:
        raise Refused(400, "malformed", "name a label to set (KEY=VALUE) or to remove (KEY-)")
    changed = [after for host in hosts if (after := _changed(host, request)) is not host]
    for host in changed:
        draft.put(draft.memory.hosts, host.name, host)
        noted.of_host(draft, host.name, "labelled", actor, _words(request))
    return 200, encode(HostsLabelled([host.name for host in hosts], len(changed), request.query))


def check(wanted: dict[str, str]) -> None:
    """Check labels that a host is to have. Raises: Refused."""
    for key, value in wanted.items():
        if wrong := labels.complaint(key, value):
            raise Refused(400, "malformed", wrong)
        if key in RESERVED:
            raise Refused(400, "malformed", f"{key} is something that every host has: choose another key")
    if len(wanted) > LABELS_MAX:
        raise Refused(400, "malformed", f"a host has at most {LABELS_MAX} labels")


def added(host: HostRecord, wanted: dict[str, str]) -> HostRecord:
    """Return the host with these labels too, as it is enrolled. Raises: Refused, if they are too many."""
    return _changed(host, LabelHosts([host.name], wanted))


def _changed(host: HostRecord, request: LabelHosts) -> HostRecord:
    """Return the host with its new labels, or the same one if they are the same. Raises: Refused."""
    after = {key: value for key, value in host.labels.items() if key not in request.remove} | request.set
    if after == host.labels:
        return host
    if len(after) > LABELS_MAX:
        raise Refused(400, "malformed", f"host {host.name} would have {len(after)} labels: at most {LABELS_MAX}")
    return msgspec.structs.replace(host, labels=dict(sorted(after.items())))


def _words(request: LabelHosts) -> str:
    return " ".join([*(f"{key}={value}" for key, value in request.set.items()), *(f"{key}-" for key in request.remove)])
