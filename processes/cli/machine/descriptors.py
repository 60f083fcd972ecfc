"""Whether this user may open enough files for an installation."""

from __future__ import annotations

import resource
from typing import Final

from processes.cli.terminal.failure import Failure

FILES_MIN: Final = 4096  # supervisord's minfds
ADVICE: Final = "Raise it: LimitNOFILE=65536 in the unit, or ulimit -Hn."


def check() -> None:
    """Check the hard limit, to which every process raises its own. Raises: Failure, if that is too low."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_MIN:
        raise Failure("descriptors", f"the hard limit of open files is {hard}; at least {FILES_MIN} are needed", ADVICE)
