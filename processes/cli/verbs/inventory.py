"""The verb `inventory`: the hosts for other programs."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from processes.cli.terminal import completion, output
from processes.cli.terminal.options import asking, asks_hub
from processes.client.api import segment
from processes.client.errors import Refused
from processes.core.shown.inventory import InventoryHost, variables
from processes.core.shown.inventory import inventory as inventory_of
from processes.core.values import Presence


class InventoryPage(msgspec.Struct, frozen=True):
    """GET /api/v1/hosts, as far as an inventory needs it."""

    hosts: list[InventoryHost]


@click.command()
@click.option("--ansible", is_flag=True, help="As a program that Ansible asks for its inventory.")
@click.option("--list", "listed", is_flag=True, help="All hosts, with their groups and variables. [default]")
@click.option("--host", "name", metavar="NAME", help="The variables of one host.", shell_complete=completion.hosts)
@click.option(
    "--presence", type=click.Choice([presence.value for presence in Presence]), help="Only hosts of this presence."
)
@asks_hub
def inventory(
    *, ansible: bool, listed: bool, name: str | None, presence: str | None, hub: str | None, token_file: Path | None
) -> None:
    """Print the hosts as JSON for Ansible, which asks a program for them with --list or --host NAME.

    Save two lines as an executable file, and give it to Ansible with -i: #!/bin/sh, and
    exec fleethub inventory --ansible "$@".
    """
    if not ansible:
        raise click.UsageError("say for which program: --ansible. Prometheus reads /api/v1/sd/prometheus itself")
    if listed and name is not None:
        raise click.UsageError("--list is for all hosts, --host for one: choose one of them")
    with asking(hub, token_file) as api:
        if name is None:
            filters = {} if presence is None else {"presence": presence}
            output.document(inventory_of(api.read("/hosts", InventoryPage, filters).view.hosts))
            return
        try:
            output.document(variables(api.read(f"/hosts/{segment(name)}", InventoryHost).view))
        except Refused as refused:
            if not refused.not_found:
                raise
            output.document({})  # as Ansible wants it of a host that is not known
