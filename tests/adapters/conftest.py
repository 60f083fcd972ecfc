"""For tests of the links to `queues`."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's may have 107 bytes."""
    made = Path(tempfile.mkdtemp(prefix="fhq"))
    yield made
    shutil.rmtree(made)
