"""The watchdog, opened and closed: settings → tokens, inquiries, incident log, canary → loop → close."""

from __future__ import annotations

import asyncio

from processes.adapters import bootstrap, clock, failpoint
from processes.adapters.bootstrap import Process
from processes.adapters.queue_engine import open_queues
from processes.adapters.supervisor import Supervisor
from processes.watchdog.alarms import Alarms
from processes.watchdog.canary import Canary
from processes.watchdog.heartbeat import DeadMansSwitch
from processes.watchdog.incident_log import IncidentLog
from processes.watchdog.incident_store import Store
from processes.watchdog.inquiries import Inquiries
from processes.watchdog.loop import Loop, for_ever
from processes.watchdog.systemd import Systemd


async def main(process: Process) -> None:
    """Judge the processes until this one is asked to stop. A part that ends by itself ends the whole watchdog:
    supervisord starts it anew.
    """
    settings = process.settings
    if settings.file.drills.enabled:
        failpoint.allow(settings.run / "failpoint-watchdog")
    supervisor = Supervisor(settings.supervisor_socket)
    link = open_queues(settings, process.name)
    inquiries = Inquiries(settings, supervisor, link, process.log)
    retention = settings.file.retention
    store = Store(
        settings.incidents_database, settings.evidence, retention.incidents, int(retention.evidence_mb * 2**20)
    )
    incident_log = IncidentLog(store, clock.boot_id(), process.log)
    switch = DeadMansSwitch(settings, process.log)
    alarms, systemd = Alarms(settings, incident_log, process.log, switch), Systemd(process.log)
    canary = Canary(settings)
    canary.write_tokens()
    beside = {
        "inquiry of supervisord": inquiries.run_supervisor(),
        "inquiry of the ledger": inquiries.run_ledger(),
        "inquiry of the storage": inquiries.run_storage(),
        "inquiry of the queues": inquiries.run_queues(),
        "incident log": incident_log.run(),
        "alarms": alarms.run(),
        "heartbeat": switch.run(),
        "canary agent": canary.run_agent(),
        "canary subscriber": canary.run_subscriber(),
        "canary rounds": canary.run_rounds(),
        "canary knocks": canary.run_knocks(),
    }
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(for_ever(name, work)) for name, work in beside.items()]
        await Loop(process, supervisor, inquiries, incident_log, canary, alarms=alarms, systemd=systemd).run()
        systemd.close()
        await alarms.leave()
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    bootstrap.run("watchdog", main)
