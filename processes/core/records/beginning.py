"""Whether a hub may begin with the database that it finds, judged by the epoch beside it. Pure.

Each hub writes its epoch into the database first and into the file `epoch` after that, so the database never knows less
than the file. If it does, or if it is not there at all, somebody took it away or put an older one in its place. A hub
counts what it writes too, in each transaction and after it in its pulse, so a database that knows less of the last hub
has lost its log. A hub that began then would lose in silence whatever was accepted since.
"""

from __future__ import annotations

import msgspec

ADVICE = "Restore a backup: fleethub restore FILE. Or begin empty: fleethub up --new keeps aside what is there."


class Found(msgspec.Struct, frozen=True):
    """What is on the disk.

    epoch_beside: in the file `epoch`; 0: there is none, so no hub ever began here. size_bytes: of the database; None:
    there is no such file. is_made: its schema is there. epoch, written: the last hub that it knows, and how many rows
    that hub wrote; epoch None: it is of a version that did not always know the newest. last_epoch, last_written: the
    same of the last hub, by its pulse.
    """

    epoch_beside: int
    size_bytes: int | None = None
    is_made: bool = False
    epoch: int | None = None
    written: int = 0
    last_epoch: int = 0
    last_written: int = 0


def refusal(name: str, found: Found) -> str:
    """Return why no hub may begin with the database of this name; empty if one may."""
    if found.epoch_beside == 0:
        return ""
    ran = f"the file epoch says that hub {found.epoch_beside} has run here"
    if found.size_bytes is None:
        return f"{name} is missing, and {ran}"
    if not found.is_made:
        return f"{name} is empty, and {ran}"
    if found.epoch is not None and found.epoch < found.epoch_beside:
        return f"{name} is an older one, which knows hub {found.epoch}, and {ran}"
    missing = found.last_written - found.written
    if found.epoch is not None and found.epoch == found.last_epoch and missing > 0:
        return (
            f"{name} lacks the last {missing} rows that hub {found.epoch} wrote: its log ({name}-wal) was removed, or "
            "it is an older one. To go on with what is left: fleethub backup FILE, then fleethub restore FILE"
        )
    return ""
