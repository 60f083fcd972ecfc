"""What a process of ours does to itself: where its stacks go at a signal, and how it ends."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from pathlib import Path
from typing import Final, NoReturn, TextIO

from processes.adapters import logs
from processes.adapters.state import stacks_file

STOP_S_MAX: Final = 4.5  # from SIGTERM to the end; a promise of 5 s to users, less the interpreter's own start and end
# measured: with the default a loop that spins at 100 % starves the other threads for seconds
SWITCH_INTERVAL_S: Final = 0.0005


def leave(code: int) -> NoReturn:
    """End the process now, whatever threads still run. Write the log first, for half a second at most."""
    flush()
    os._exit(code)


def flush() -> None:
    """Write the log, for half a second at most."""
    flusher = threading.Thread(target=logs.close, daemon=True)
    flusher.start()
    flusher.join(0.5)


def open_stacks(folder: Path, name: str) -> TextIO:
    """Let SIGUSR1 write the main thread's Python stack to FOLDER/NAME.stacks, even in C code or with a lock held;
    return the file, which stays open.

    Of the main thread alone: faulthandler reads the frames of the other threads while they run, which now and then ends
    the process with SIGSEGV (python/cpython#116008). They are with the tasks, and in what py-spy reads.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = stacks_file.of_main(folder, name)
    file = path.open("w")
    faulthandler.enable(file)
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=False, chain=False)
    return file
