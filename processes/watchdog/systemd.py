"""sd_notify: the watchdog tells systemd about the whole installation, if systemd started it and listens."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from systemd_watchdog.systemd_watchdog import WatchDog

from processes.adapters.logs import Log
from processes.core.shown.status import Report
from processes.core.watchdog import sd_notify
from processes.core.watchdog.sd_notify import Notification, NotifyState


class Systemd:
    """The socket that NOTIFY_SOCKET of the unit names. Without one, nothing is sent."""

    def __init__(self, log: Log, environ: Mapping[str, str] = os.environ) -> None:
        self._log, self._failed = log, False
        self._why_not = ""
        self._state = NotifyState()
        self._dog: WatchDog | None = None
        self._line: socket.socket | None = None
        if address := environ.get("NOTIFY_SOCKET"):
            # the socket's queue is full when systemd itself hangs: then a message is lost, and the loop does not wait
            self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._dog = WatchDog(sock=self._line, addr=address)

    def look(self, report: Report, remedies: int, now_s: float) -> None:
        """Send systemd what follows from this report. Never raises, never waits."""
        if self._dog is None:
            return
        self._state, said = sd_notify.notify(self._state, sd_notify.seen(report, remedies), now_s)
        self._say(self._dog, said)

    def close(self) -> None:
        """Close the socket: nothing more is sent."""
        if self._line is not None:
            self._line.close()
        self._dog = None

    def _say(self, dog: WatchDog, said: Notification) -> None:
        if said.why_not and not self._why_not:
            self._log.error("systemd is no longer told that all is in good hands", why=said.why_not)
        self._why_not = said.why_not
        try:
            if said.ready:
                dog.ready()
                self._log.info("ready")
            if said.status is not None:
                dog.status(said.status)
            if said.ping:
                dog.notify()
        except OSError as error:
            if not self._failed:
                self._log.error("systemd cannot be told", error=str(error))
            self._failed = True
        else:
            self._failed = False
