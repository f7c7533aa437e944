"""What is kept ready: lists with what they depend on, and reasons for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import ref

from isthmus.service.lists.live import Live, Top
from isthmus.service.lists.loading import STEP, free
from isthmus.service.lists.scoring import Ask
from isthmus.types import Floats, Indices

#: Whose list of what: person and domain.
Key = tuple[int | None, str]

#: Lengths of one list that are kept ready to be sent; every other one is cut again when it is asked for.
LENGTHS: Final = 3
#: Lists whose reasons are kept.
TOLD: Final = 5000


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


class Older:
    """Lists of a model before items came, for whoever cannot wait for a new one; they keep no model in memory.

    Their rows count the same items still, for what comes is put at the end. They are taken in a few at a time.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[Key, tuple[Indices, Floats]] = OrderedDict()
        self._coming: OrderedDict[Key, Kept] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Lists that still have to be taken in by :meth:`step`."""
        return len(self._coming)

    def follow(self, kept: OrderedDict[Key, Kept], *, grown: bool) -> None:
        """Take in the lists of a model that has ``grown`` since; of another one nothing is left, nor of those before.

        Nobody changes ``kept`` any longer. Its lists are found at once.
        """
        if not grown:
            for held in (kept, self._coming, self._held):
                free(held)
            self._held, self._coming = OrderedDict(), OrderedDict()
        elif self._coming:
            self._coming.update(kept)
            free(kept)
        else:
            self._coming = kept

    def step(self) -> None:
        """Take in some of those that wait."""
        for _ in range(min(STEP, len(self._coming))):
            key, kept = self._coming.popitem()
            self._held[key] = kept.top.rows, kept.top.scores

    def find(self, key: Key, live: Live) -> Top | None:
        """Return a list as one of ``live``, None if there is none."""
        if key in self._coming:
            top = self._coming[key].top
            return Top(top.rows, top.scores, live)
        found = self._held.get(key)
        return None if found is None else Top(*found, live)

    def drop(self, keys: Iterable[Key]) -> None:
        """Forget some lists."""
        for key in keys:
            self._coming.pop(key, None)
            self._held.pop(key, None)


class Told:
    """Reasons as JSON, one for each item of a list; they hold as long as that very list is kept.

    A key is the number of a person, then what else they depend on.

    Examples
    --------
    >>> import numpy as np
    >>> told, top = Told(), Top(np.zeros(1, np.int32), np.zeros(1, np.float32), None)
    >>> told.keep((3, 20), top, [b"[]"])
    >>> told.find((3, 20), top), told.find((3, 20), top.keep(slice(1)))
    ([b'[]'], None)
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[object, ...], tuple[ref[Top], Sequence[bytes]]] = OrderedDict()

    def __len__(self) -> int:
        """How many lists something is told of."""
        return len(self._held)

    def find(self, asked: tuple[object, ...], top: Top) -> Sequence[bytes] | None:
        """Return what was told of ``top``, None if nothing is kept."""
        found = self._held.get(asked)
        return found[1] if found is not None and found[0]() is top else None

    def keep(self, asked: tuple[object, ...], top: Top, reasons: Sequence[bytes]) -> None:
        """Keep what is told of ``top``; what was kept first goes first."""
        self._held[asked] = ref(top), reasons
        self._held.move_to_end(asked)
        if len(self._held) > TOLD:
            self._held.popitem(last=False)

    def forget(self, persons: Container[object]) -> None:
        """Drop what was told of some persons."""
        for asked in [asked for asked in self._held if asked[0] in persons]:
            del self._held[asked]
