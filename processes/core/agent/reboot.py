"""When a command that reboots its own machine has ended, and how. Pure.

    launched ──▶ its program ──refused: its own exit code──▶ failed
                     │ did all it can, or died with the machine
                     ▼
                  awaited ──another boot──▶ ok
                     └──────`back_s` over, and still this boot──▶ timed out, or unknown

The theory: the journal has the boot in which the command came, durably, before anything is started. Another boot than
that one is what was wanted, whatever became of the run folder; only the program's own word (it refused, it was
cancelled) speaks against it. In this boot nothing that ended well has ended yet, and a program that died without a word
may have died of the reboot that it began. So a reboot is never begun in another boot than the one in which it came: a
machine that went down by itself meanwhile does not go down once more.

What bothers the author: a machine that reboots after `back_s` was already reported as not rebooted. Nobody can take a
reboot back that an init was told of.
"""

from __future__ import annotations

from typing import Final

import msgspec

from processes.core.agent.effects import Observed
from processes.core.agent.remembered import Ended, FolderVerdict, JournalRow, ReportStatus
from processes.core.values import Now

SIGNALLED: Final = 128  # exit codes above it: the program was ended by a signal, as shells say it
DONE_BEFORE: Final = Ended(ReportStatus.OK, None, "the machine booted anew before it could be started: not run")
DONE: Final = Ended(ReportStatus.OK, None, "the machine booted anew")


def is_done(row: JournalRow, boot_id: str) -> bool:
    """Return True for a reboot that came in another boot than this one."""
    # plant: another-boot
    return row.back_s is not None and row.boot_id != boot_id


def judged(row: JournalRow, seen: Observed, now: Now, boot_id: str, launched_boot_s: float) -> Observed:
    """Return what a look into the run folder of a reboot means. Any other command's stays as it is.

    Units: `launched_boot_s` in seconds of this boot's CLOCK_BOOTTIME, 0 if another agent launched it.
    """
    if row.back_s is None or seen.ended is None:
        return seen
    if _is_its_own_word(seen.ended):
        return seen
    if is_done(row, boot_id):
        return msgspec.structs.replace(seen, ended=DONE)
    if now.boot_s < max(row.written_boot_s, launched_boot_s) + row.back_s:
        return msgspec.structs.replace(seen, run=FolderVerdict.RUNNING, ended=None, total=None)
    if seen.ended.status is not ReportStatus.OK:
        return seen
    told = f"it said that it reboots, and {row.back_s:g} s later the machine has not"
    return msgspec.structs.replace(seen, ended=Ended(ReportStatus.TIMED_OUT, seen.ended.exit_code, told))


def _is_its_own_word(ended: Ended) -> bool:
    """Return True if the program itself ended in another way than well, or by a signal that may be the shutdown's."""
    if ended.status is ReportStatus.CANCELLED:
        return True
    code = ended.exit_code
    return ended.status is ReportStatus.ERROR and code is not None and 0 < code <= SIGNALLED
