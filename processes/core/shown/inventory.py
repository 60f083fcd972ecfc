"""The fleet as its neighbours want it: targets for Prometheus, an inventory for Ansible. Pure.

What a host's agent says of it is that host's claim. It never makes a group, for by its groups a host is given secrets;
and it has no braces, for Ansible would take text between two of them for a template, and carry it out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from processes.core.values import Presence

PORT: Final = 9100  # node_exporter's; source: github.com/prometheus/prometheus/wiki/Default-port-allocations
META: Final = "__meta_fleethub_"
_NO_WORD: Final = re.compile(r"[^A-Za-z0-9_]")
_BRACES: Final = str.maketrans("{}", "()")


class InventoryHost(msgspec.Struct, frozen=True):
    """As much of a HostView as neighbours are told. `labels`: the hub's; `agent_labels`: of the agent's own file."""

    name: str
    presence: Presence
    address: str = ""
    revoked: bool = False
    host_type: str = ""
    os_version: str = ""
    kernel: str = ""
    machine: str = ""
    agent_version: str = ""
    labels: dict[str, str] = {}
    agent_labels: dict[str, str] = {}

    def told(self) -> dict[str, str]:
        """Return what its agent says of the machine."""
        return {
            "host_type": self.host_type,
            "os": self.os_version,
            "kernel": self.kernel,
            "machine": self.machine,
            "agent_version": self.agent_version,
        }


class TargetGroup(msgspec.Struct, frozen=True):
    """One target of Prometheus. Source: prometheus.io/docs/prometheus/latest/http_sd/."""

    targets: list[str]
    labels: dict[str, str]


def targets(hosts: Iterable[InventoryHost], port: int, *, by_name: bool) -> list[TargetGroup]:
    """Return each host that has a place as a target, by name. Labels that begin with __meta_ are for relabelling: a
    server drops those that no rule of it takes over.

    `by_name`: the target is the host's name, for a resolver; else the address from which its agent is connected.
    """
    groups = []
    for host in sorted(hosts, key=lambda each: each.name):
        address = _address(host)
        place = host.name if by_name else f"[{address}]" if ":" in address else address
        if host.revoked or not place:
            continue
        known = {"host": host.name, "presence": str(host.presence), "address": address, **host.told()}
        labels = {META + name: value for name, value in known.items()}
        labels |= {f"{META}agent_label_{_word(key)}": value for key, value in sorted(host.agent_labels.items())}
        labels |= {f"{META}label_{_word(key)}": value for key, value in sorted(host.labels.items())}
        groups.append(TargetGroup([f"{place}:{port}"], {"instance": host.name, **labels}))
    return groups


def inventory(hosts: Iterable[InventoryHost]) -> dict[str, Any]:
    """Return what Ansible wants of an inventory program that is asked with --list.

    Groups: presence_online and so on, and label_KEY_VALUE of the hub's labels. Source: docs.ansible.com,
    "Developing dynamic inventory".
    """
    groups: dict[str, list[str]] = {}
    known = {}
    for host in sorted(hosts, key=lambda each: each.name):
        if host.revoked:
            continue
        known[host.name] = variables(host)
        own = [
            f"label_{_word(key)}_{_word(value)}" if value else f"label_{_word(key)}"
            for key, value in host.labels.items()
        ]
        for group in dict.fromkeys([f"presence_{host.presence}", *own]):
            groups.setdefault(group, []).append(host.name)
    listed = {name: {"hosts": members} for name, members in sorted(groups.items())}
    return {"_meta": {"hostvars": known}, "all": {"hosts": list(known), "children": list(listed)}, **listed}


def variables(host: InventoryHost) -> dict[str, Any]:
    """Return one host's variables for Ansible; without an address it reaches the host by its name."""
    told = {f"fleethub_{name}": value.translate(_BRACES) for name, value in host.told().items()}
    own = {key.translate(_BRACES): value.translate(_BRACES) for key, value in host.agent_labels.items()}
    labels = {key.translate(_BRACES): value.translate(_BRACES) for key, value in host.labels.items()}
    place = {"ansible_host": address} if (address := _address(host)) else {}
    return {
        **place,
        "fleethub_presence": str(host.presence),
        **told,
        "fleethub_labels": labels,
        "fleethub_agent_labels": own,
    }


def _address(host: InventoryHost) -> str:
    """Return the address from which its agent is or was last connected; empty if none is known."""
    place = host.address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(place))
    except ValueError:
        return ""


def _word(text: str) -> str:
    """Return the text as a part of a label's or group's name, which has letters, digits and _ alone."""
    return _NO_WORD.sub("_", text)
