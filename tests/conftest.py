"""For all tests: made-up examples have no deadline, for how fast a machine is proves nothing."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fleethub", deadline=None, print_blob=True)
settings.load_profile("fleethub")
