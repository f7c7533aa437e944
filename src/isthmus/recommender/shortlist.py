"""Lists of a large catalogue without a score for every item: each method proposes its best, the blend scores those.

The scores are those of :meth:`isthmus.model.blend.Blend.score`; what is approximate is which items are looked at, and
the deviation of methods that compare texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.evaluate.ranks import top_k
from isthmus.model.blend import Blend
from isthmus.model.constraints import Constraints
from isthmus.recommender.parts import Columns, Part, Sketch, Spread
from isthmus.recommender.sketching import dense, sketch_of
from isthmus.split.cohorts import cohorts_of
from isthmus.train.fit import Target
from isthmus.types import Bools, Floats, Indices, Ints

#: Items that each method proposes, at least, and for each place of a list.
PROPOSED: Final = 1000
FOR_A_PLACE: Final = 10
#: So many times the length of a list must be left of what was proposed; else more are proposed.
LEFT: Final = 5
#: They are this many times as many then; above this share of the catalogue everything is scored.
WIDER: Final = 4
WHOLE: Final = 0.25

#: Which of some items (corpus index) may be listed; None for all.
Sieve = Callable[[Indices], Bools | None]


@dataclass(frozen=True)
class Wanted:
    """What a list has to keep to.

    Parameters
    ----------
    k : int
        Its length.
    met : Histories, optional
        What is left out of each person's list.
    sieve : callable, optional
        Which items may be listed.
    lift : callable, optional
        From scores (1, C) and columns (C,) to what the scores become.
    """

    k: int
    met: Histories | None = None
    sieve: Sieve | None = None
    lift: Callable[[Floats, Ints], Floats] | None = None


class Picked(NamedTuple):
    """The columns of a list, best first, and their scores."""

    columns: Ints
    scores: Floats


class _Weighed(NamedTuple):
    """A part, and its weight for known and for new items."""

    part: Part
    known: float
    new: float


class _Person(NamedTuple):
    """What one list is made from: what methods say, columns left out, others to look at, what rules make of scores."""

    parts: Sequence[_Weighed]
    out: Ints
    more: Ints
    keep: Callable[[Floats, Ints], Floats]


class Shortlist:
    """Lists of one target domain.

    Parameters
    ----------
    target : Target
        What was learned for the domain.
    before : Shortlist, optional
        That of the same model with the first items only: what it made ready is used again.
    off : int64 array, optional
        Columns that are off the lists; see :meth:`show`.
    """

    def __init__(self, target: Target, before: Shortlist | None = None, off: Ints | None = None) -> None:
        self.target = target
        sample = None if before is None else before.columns.sample
        self.columns: Columns = Columns.of(target.items, target.new, sample, off)
        old: Sequence[Sketch | None] = [None] * len(target.methods) if before is None else before._sketches
        self._sketches: list[Sketch] = [
            sketch_of(method, self.columns, had) for method, had in zip(target.methods, old, strict=True)
        ]
        found = (dense(sketch) for sketch in self._sketches)
        self._dense = [sketch for sketch in found if sketch is not None]

    @property
    def recall(self) -> float | None:
        """The lowest recall@10 of its indices of vectors, when last measured; None if nothing was measured."""
        known = (sketch.near.recall for sketch in self._dense)
        return min((recall for recall in known if recall is not None), default=None)

    def show(self, item: int, *, shown: bool) -> None:
        """Tell indices of vectors that an item (corpus index) is on the lists, or off; lists need a sieve besides."""
        columns = self.columns.of_items(np.array([item], np.int32))
        for sketch in self._dense:
            sketch.show(columns[columns >= 0], shown=shown)

    def pick(self, histories: Histories, wanted: Wanted, blend: Blend | None = None) -> list[Picked | None]:
        """Return the list of each history; None where too little was proposed, and everything must be scored.

        Parameters
        ----------
        histories : Histories
            ``B`` histories.
        wanted : Wanted
            What the lists have to keep to.
        blend : Blend, optional
            Other weights than those of the target.
        """
        blend = self.target.blend if blend is None else blend
        out = [np.zeros(0, np.int64)] * len(histories)
        if wanted.met is not None:
            out = np.split(self.columns.of_items(wanted.met.items), wanted.met.indptr[1:-1])
        found = []
        for place, parts in enumerate(self._weighed(histories, blend)):
            person = _Person(parts, out[place], np.zeros(0, np.int64), lambda scores, _: scores)
            if blend.constraints is not None:
                person = self._ruled(person, histories.take(np.array([place])), blend.constraints)
            found.append(self._pick(person, wanted, blend))
        return found

    def at(self, histories: Histories, columns: Ints) -> Floats:
        """Return the scores of some columns for each history, (B, C)."""
        blend = self.target.blend
        scores = np.stack([self._totals(parts, columns, blend) for parts in self._weighed(histories, blend)])
        return blend.keep(scores, histories, self.columns.items[columns])

    def _weighed(self, histories: Histories, blend: Blend) -> Sequence[Sequence[_Weighed]]:
        """Return the parts that count for each history."""
        weights = blend.of_persons(cohorts_of(histories, self.columns.of_items(histories.items) >= 0))
        voice = None if blend.voice is None or not self.columns.fresh.size else blend.voice
        found: list[list[_Weighed]] = [[] for _ in range(len(histories))]
        for place, sketch in enumerate(self._sketches):
            spoken = None if voice is None else voice[place]
            rows = np.arange(len(histories)) if spoken else np.flatnonzero(weights[:, place])
            if not rows.size:
                continue
            some = histories if rows.size == len(histories) else histories.take(rows)
            for row, part in zip(rows.tolist(), sketch.parts(some), strict=True):
                own = float(weights[row, place])
                found[row].append(_Weighed(part, own, own if spoken is None else spoken))
        return found

    def _ruled(self, person: _Person, history: Histories, rules: Constraints) -> _Person:
        """Return a person whose list keeps to declared rules."""
        lifted, gone = (self.columns.of_items(items) for items in rules.concerned(history))

        def keep(scores: Floats, columns: Ints) -> Floats:
            return rules.apply(scores, history, self.columns.items[columns])

        return person._replace(out=np.concatenate([person.out, gone]), more=lifted[lifted >= 0], keep=keep)

    def _pick(self, person: _Person, wanted: Wanted, blend: Blend) -> Picked | None:
        count = max(PROPOSED, FOR_A_PLACE * wanted.k)
        while True:
            columns = self._candidates(person, count, wanted)
            if columns.size >= LEFT * wanted.k or count >= self.columns.size:
                break
            count *= WIDER
            if count > WHOLE * self.columns.size:
                return None
        scores = person.keep(self._totals(person.parts, columns, blend)[None], columns)
        if wanted.lift is not None:
            scores = wanted.lift(scores, columns)
        best = top_k(scores, min(wanted.k, columns.size))[0]
        best = best[best >= 0]
        return Picked(columns[best], scores[0, best])

    def _candidates(self, person: _Person, count: int, wanted: Wanted) -> Ints:
        """Return the columns that may be listed of what is proposed, rising."""
        count += person.out.size
        first = np.arange(min(count, self.columns.size))
        if count >= self.columns.size:
            found = [first]
        else:
            found = [one.part.propose(count) for one in person.parts] + [person.more]
            if not self.columns.many_new:
                found.append(self.columns.fresh)
            if sum(some.size for some in found) < count:  # of items that are all alike the first ones are listed
                found.append(first)
        columns = np.sort(np.concatenate(found))
        columns = columns[np.diff(columns, prepend=-1) > 0]
        columns = columns[~np.isin(columns, person.out)]
        allowed = None if wanted.sieve is None else wanted.sieve(self.columns.items[columns])
        return columns if allowed is None else columns[allowed]

    def _totals(self, parts: Sequence[_Weighed], columns: Ints, blend: Blend) -> Floats:
        """Return the weighted sum of standardised scores of some columns, (C,)."""
        if blend.bare:
            return parts[0].part.at(columns)
        new = self.columns.new[columns]
        total = np.where(new, np.float32(blend.level), np.float32(0.0))
        for part, known, spoken in parts:
            spread: Spread = part.spread
            if spread.deviation:
                scaled = (part.at(columns) - np.float32(spread.mean)) / np.float32(spread.deviation)
                total += scaled * np.where(new, np.float32(spoken), np.float32(known))
        return total
