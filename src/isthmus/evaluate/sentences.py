"""The verdict in words: one sentence for each rival and one for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from isthmus.evaluate.forest import signed
from isthmus.evaluate.gaps import ALL, HELPED, HURT, NONE, Gap, Result
from isthmus.evaluate.page import chance, name_of, number

#: Rivals that learned from no source: being worse than one of them is harm.
NO_SOURCE: Final = ("scratch", "no source")
#: Fewer runs than this are told in the sentence.
ENOUGH: Final = 5
_FROM: Final = {"scratch": "from scratch", "no source": "without a source", "shuffled": "with shuffled histories"}


@dataclass(frozen=True)
class Teller:
    """Puts rows of a verdict into words.

    Parameters
    ----------
    main : str
        The arm that is judged.
    metric : str
        The metric it is judged by.
    gaps : sequence of Gap
        All rows, corrected.
    """

    main: str
    metric: str
    gaps: Sequence[Gap]

    @property
    def whole(self) -> list[Gap]:
        """The rows of the rivals on the whole task."""
        return [gap for gap in self.gaps if gap.role == "rival" and gap.of == ALL]

    def one(self, gap: Gap) -> str:
        """Return the sentence about one rival on the whole task."""
        return f"{self._told(gap)}."

    def overall(self) -> tuple[Result, str]:
        """Return the outcome against all rivals, and its sentence.

        The sentence tells the numbers of the rival that decides, the nearest or the most harmful; others follow if
        they differ.
        """
        rows = sorted(self.whole, key=lambda gap: gap.difference)
        harm = [gap for gap in rows if gap.outcome == HURT and gap.rival in NO_SOURCE]
        outcome: Result = HURT if harm else HELPED if all(gap.outcome == HELPED for gap in rows) else NONE
        open_rows = [gap for gap in rows if gap.outcome == NONE]
        head = harm[0] if harm else rows[0] if outcome == HELPED else open_rows[0] if open_rows else None
        others = [self._short(gap) for gap in rows if gap is not head and gap.outcome != NONE]
        if head is None:
            return outcome, f"No clear answer: {', '.join(others)}."
        return outcome, f"{'; '.join([self._told(head), *others])}."

    def _told(self, gap: Gap) -> str:
        if gap.outcome == NONE:
            seen = f"an effect of {number(gap.detectable)} or more would have been seen 8 times in 10"
            if not gap.error > 0:
                seen = "nobody's value differs" if gap.n > 1 else "one person tells nothing"
            head = f"No detectable difference from {_quoted(gap.rival)}"
            return f"{head}: {signed(gap.difference)} ({self._sure(gap)}); {seen}"
        word = f"{self.main[:1].upper()}{self.main[1:]} {gap.outcome}"
        source = _FROM.get(gap.rival, f"of {_quoted(gap.rival)}")
        means = f"{name_of(self.metric)} {number(gap.main)} against {number(gap.other)} {source}"
        share = f"{100 * gap.difference / gap.other:+.0f} %, ".replace("-", "−") if gap.other > 0 else ""
        return f"{word}: {means} ({share}{self._sure(gap)}){self._most(gap)}"

    def _sure(self, gap: Gap) -> str:
        """Return the interval, the p-value and the number of runs."""
        p = chance(gap.p_holm)
        ends = f"95 % [{signed(gap.low)}, {signed(gap.high)}]" if gap.low == gap.low else "no interval"
        return f"{ends}, p {p if p.startswith('<') else f'= {p}'}, {_runs(gap)}"

    def _most(self, gap: Gap) -> str:
        """Return the slice with the largest difference of the same sign that stands after correction."""
        sign = 1 if gap.difference > 0 else -1
        parts = [row for row in self.gaps if row.rival == gap.rival and row.of != ALL and row.outcome == gap.outcome]
        best = max(parts, key=lambda row: sign * row.difference, default=gap)
        if sign * best.difference <= sign * gap.difference:
            return ""
        return f"; most for {_quoted(best.slice)} ({signed(best.difference)})"

    def _short(self, gap: Gap) -> str:
        word = "better" if gap.outcome == HELPED else "worse"
        return f"{word} than {_quoted(gap.rival)} ({signed(gap.difference)})"


def _quoted(name: str) -> str:
    return f"“{name}”"


def _runs(gap: Gap) -> str:
    """Return how many seeds stand behind a row; a rival with one run is taken as one without chance."""
    runs = gap.runs if gap.rival_runs == 1 else min(gap.runs, gap.rival_runs)
    return f"{runs} seed{'s' if runs > 1 else ''}{' only' if runs < ENOUGH else ''}"
