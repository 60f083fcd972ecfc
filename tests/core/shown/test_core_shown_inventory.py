"""The fleet for its neighbours: Prometheus' targets and Ansible's inventory."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processes.core.records.host import HostRecord, Link
from processes.core.shown.inventory import InventoryHost, inventory, targets, variables
from processes.core.shown.views import encode, host_view
from processes.core.values import Presence

ADDRESSES = [
    ("192.0.2.7:50000", "192.0.2.7:9100", "192.0.2.7"),
    ("[2001:db8::7]:50000", "[2001:db8::7]:9100", "2001:db8::7"),
    ("[fe80::1%eth0]:1", "[fe80::1%eth0]:9100", "fe80::1%eth0"),
    ("", "", ""),
    ("nonsense", "", ""),
    ("unix:0", "", ""),
]
LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")  # source: prometheus.io/docs/concepts/data_model/
GROUP_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # source: Ansible, C.INVALID_VARIABLE_NAMES


def host(name: str = "web1", address: str = "192.0.2.7:50000", **more: object) -> InventoryHost:
    return msgspec.structs.replace(InventoryHost(name, Presence.ONLINE, address), **more)


@pytest.mark.parametrize(("address", "target", "_"), ADDRESSES)
def test_a_target_is_the_address_from_which_the_agent_is_connected(address: str, target: str, _: str) -> None:
    found = targets([host(address=address)], 9100, by_name=False)
    assert [group.targets for group in found] == ([[target]] if target else [])


def test_a_target_can_be_a_name_for_a_resolver() -> None:
    """Behind a proxy all agents have the proxy's address."""
    found = targets([host(address=""), host("a", "x")], 1234, by_name=True)
    assert [group.targets for group in found] == [["a:1234"], ["web1:1234"]]


def test_a_target_says_which_host_it_is_and_all_else_for_relabelling() -> None:
    labels = {"role": "web", "rack.no": "b-4"}
    (group,) = targets([host(labels=labels, agent_labels={"role": "db"}, os_version="Debian 12")], 9100, by_name=False)
    assert group.labels["instance"] == "web1"
    assert group.labels["__meta_fleethub_label_role"] == "web"
    assert group.labels["__meta_fleethub_label_rack_no"] == "b-4"
    assert group.labels["__meta_fleethub_agent_label_role"] == "db", "an agent's claim is told apart"
    assert group.labels["__meta_fleethub_os"] == "Debian 12"
    assert group.labels["__meta_fleethub_presence"] == "online"


def test_a_host_without_a_token_is_nobodys_target_and_in_no_inventory() -> None:
    assert targets([host(revoked=True)], 9100, by_name=True) == []
    assert inventory([host(revoked=True)]) == {"_meta": {"hostvars": {}}, "all": {"hosts": [], "children": []}}


def test_an_inventory_has_the_hosts_by_presence_and_by_label() -> None:
    offline = host("db1", "", presence=Presence.OFFLINE, labels={"role": "db", "env": "prod", "old": ""})
    found = inventory([host(labels={"role": "web", "env": "prod"}), offline])
    assert found["all"]["hosts"] == ["db1", "web1"]
    assert found["label_env_prod"] == {"hosts": ["db1", "web1"]}
    assert found["label_role_db"] == found["label_old"] == {"hosts": ["db1"]}
    assert found["presence_offline"] == {"hosts": ["db1"]}
    assert sorted(found["all"]["children"]) == sorted(found.keys() - {"_meta", "all"})
    assert sorted(found["_meta"]["hostvars"]) == ["db1", "web1"]


def test_what_an_agent_claims_makes_no_group() -> None:
    """A taken-over server that calls itself a database would be given a database's secrets."""
    found = inventory([host(agent_labels={"role": "db"}, os_version="db", host_type="db")])
    assert sorted(found) == ["_meta", "all", "presence_online"]
    assert found["_meta"]["hostvars"]["web1"]["fleethub_agent_labels"] == {"role": "db"}


@pytest.mark.parametrize(("address", "_", "ansible_host"), ADDRESSES)
def test_ansible_reaches_a_host_by_its_address_or_by_its_name(address: str, _: str, ansible_host: str) -> None:
    assert variables(host(address=address)).get("ansible_host", "") == ansible_host


words = st.text(max_size=12)


@given(st.dictionaries(words, words, max_size=4), st.dictionaries(words, words, max_size=4), words)
def test_no_text_of_an_agent_is_a_template_or_breaks_a_name(
    labels: dict[str, str], claims: dict[str, str], said: str
) -> None:
    """Ansible carries out what stands between two braces, on the machine where it runs."""
    sick = host(labels=labels, agent_labels=claims, os_version=said, kernel="{{ lookup('pipe', 'id') }}", machine="{%")
    found = inventory([sick])
    for value in found["_meta"]["hostvars"]["web1"].values():
        for text in (*value.keys(), *value.values()) if isinstance(value, dict) else (value,):
            assert "{" not in text
            assert "}" not in text
    assert all(GROUP_NAME.fullmatch(name) for name in found)
    (group,) = targets([sick], 9100, by_name=False)
    assert all(LABEL_NAME.fullmatch(name) for name in group.labels)
    assert all(isinstance(value, str) for value in group.labels.values())


def test_what_a_host_shows_is_read_by_an_inventory() -> None:
    """Its fields are named as those of the view: a name that differs would leave a variable empty for ever."""
    view = host_view(HostRecord("web1", "e", "hash", 0.0, address="192.0.2.7:5"), Link(Presence.ONLINE))
    assert msgspec.json.decode(encode(view), type=InventoryHost) == host(address="192.0.2.7:5")
    known = set(view.__struct_fields__) | {"labels", "agent_labels"}
    assert set(InventoryHost.__struct_fields__) <= known
