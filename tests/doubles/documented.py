"""The commands that a page of docs/ tells its reader to type."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def commands(page: str, section: str) -> list[list[str]]:
    """Return the commands in the section's blocks of sh, in order, each as its words."""
    text = (DOCS / page).read_text()
    _, _, rest = text.partition(f"\n## {section}\n")
    blocks = re.findall(r"```sh\n(.*?)```", re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0], re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
