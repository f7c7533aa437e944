"""A list kept ready, and what it depends on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from isthmus.service.lists.live import Live, Top
from isthmus.service.lists.scoring import Ask

#: Lengths of one list that are kept ready to be sent; every other one is cut again when it is asked for.
LENGTHS: Final = 3


@dataclass(frozen=True)
class Kept:
    """A list kept ready, and what it depends on."""

    live: Live
    edition: int
    stamp: int
    until: int
    top: Top
    cuts: dict[int, Top] = field(default_factory=dict)

    def cut(self, ask: Ask) -> Top:
        """Return the part that is asked for; of the first :data:`LENGTHS` lengths it is made once."""
        if ask.left_out:
            return ask.cut(self.top)
        found = self.cuts.get(ask.k)
        if found is None:
            found = ask.cut(self.top)
            if len(self.cuts) < LENGTHS:
                self.cuts[ask.k] = found
        return found
