"""How much a test does: a little in ``make test``, all of it in ``make soak``."""

from __future__ import annotations

import os


def count(small: int, full: int) -> int:
    """Return ``full`` where the environment says ``ISTHMUS_SOAK=1``, else ``small``."""
    return full if os.environ.get("ISTHMUS_SOAK") == "1" else small
