"""The manual against the code: what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]


def test_every_file_that_the_manual_names_exists() -> None:
    """Paths there are those inside processes/, or inside core/ or fanout/ where the text stands under that room."""
    package = HOME / "processes"
    manual = (package / "__init__.py").read_text()
    rooms = sorted(path.name for path in [*package.iterdir(), *(package / "core").iterdir()] if path.is_dir())
    names = set(re.findall(rf"(?<![\w/])((?:{'|'.join(rooms)}|page|tests)/[\w/]+\.(?:py|js))", manual))
    assert len(names) > 40
    places = (HOME, package, package / "core", package / "fanout", package / "cli")
    assert [name for name in sorted(names) if not any((place / name).exists() for place in places)] == []
