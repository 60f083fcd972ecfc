"""Logs: key=value, one line an event, in a rotating file for each process. Logging never blocks a loop.

A full disk or a stopped supervisord must not freeze a loop through its log. So lines go through a bounded queue to a
thread that writes them; if the queue is full, they are dropped and counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import sys
from io import TextIOWrapper
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from typing import Any, Final

# structlog asks for rich, for a renderer that no process uses: nearly half of the time that a process takes to start
_has_rich = sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
import structlog  # noqa: E402

if _has_rich is None:
    del sys.modules["rich"]

from processes.adapters.held_file import open_held  # noqa: E402

LINES_MAX: Final = 10_000  # waiting for the disk; guess: a few seconds of a very noisy process
FILE_BYTES_MAX: Final = 5_000_000
FILES_KEPT: Final = 3

Log = structlog.stdlib.BoundLogger


class _Dropping(QueueHandler):
    """Never blocks and never raises: a line that does not fit is dropped and counted."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record  # structlog has rendered it already, so a copy would be wasted

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


class _Line(logging.Formatter):
    """Writes one line a record. structlog has rendered our own records already, with their tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        line = record.getMessage()
        if record.exc_info and record.name != "fleethub":
            line += " " + self.formatException(record.exc_info)
        return line if line.isprintable() else line.encode("unicode_escape").decode()


class _File(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Called when the disk is full or gone: the line is lost, the process goes on."""


class _HeldFile(_File):
    """A log of a process that will lose the right to make files in the folder: all its files are open from the start
    on, and are rotated by copying.
    """

    def __init__(self, path: Path) -> None:
        names = [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, FILES_KEPT + 1))]
        self._held = [open_held(name) for name in names]
        super().__init__(path, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT, delay=True, errors="replace")

    def _open(self) -> TextIOWrapper:
        return open(os.dup(self._held[0]), "a", encoding=self.encoding, errors=self.errors)

    def doRollover(self) -> None:
        """Called when the log is full: each file gets the content of the one before, and the first is emptied."""
        if self.stream is not None:
            self.stream.flush()
        for older, newer in zip(self._held[:0:-1], self._held[-2::-1]):  # the oldest first
            content = os.pread(newer, os.fstat(newer).st_size, 0)
            os.ftruncate(older, 0)
            os.write(older, content)
        os.ftruncate(self._held[0], 0)


def _escape(_logger: Any, _name: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key != "exception":
            event[key] = value.encode("unicode_escape").decode()
    return event


def _one_line(_logger: Any, _name: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    if "exception" in event:
        event["exception"] = event["exception"].encode("unicode_escape").decode()
    return event


_listeners: list[QueueListener] = []


def close() -> None:
    """Write the lines that wait, and end the writing threads. A second call does nothing."""
    while _listeners:
        _listeners.pop().stop()


def open_log(folder: Path | None, name: str, level: str = "INFO", *, held: bool = False) -> Log:
    """Return the process's log, in FOLDER/NAME.log; without a folder, on stderr. `held`: for a process that is about to
    lose the right to make files there.

    The logging of libraries goes there too, from WARNING on.
    """
    target: logging.Handler
    if folder is None:
        target = logging.StreamHandler(sys.stderr)
    else:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{name.replace(':', '-')}.log"
        target = (
            _HeldFile(path)
            if held
            else _File(path, maxBytes=FILE_BYTES_MAX, backupCount=FILES_KEPT, delay=True, errors="replace")
        )
    target.setFormatter(_Line())
    waiting: queue.Queue[logging.LogRecord] = queue.Queue(LINES_MAX)
    listener = QueueListener(waiting, target)
    listener.start()
    _listeners.append(listener)
    atexit.register(close)
    chain: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _escape,
        _one_line,
        structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "process", "event"]),
    ]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Dropping(waiting)]
    root.setLevel(logging.WARNING)
    logging.getLogger("fleethub").setLevel(level)
    log: Log = structlog.stdlib.get_logger("fleethub")
    return log.bind(process=name)
