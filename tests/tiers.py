"""How much a test does: a little in ``make test``, all of it in ``make soak``, a part with ``ISTHMUS_SOAK=0.3``."""

from __future__ import annotations

import os


def count(small: int, full: int) -> int:
    """Return ``full`` where the environment says ``ISTHMUS_SOAK=1``, a share of it for less than 1, else ``small``."""
    share = float(os.environ.get("ISTHMUS_SOAK") or 0)
    if share >= 1:
        return full
    return max(small, round(share * full)) if full > small else small
