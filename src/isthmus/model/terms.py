"""A content method that learns which words of the texts tell what people choose, in any domain with events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from scipy import sparse
from scipy.optimize import minimize

from isthmus.errors import InputError
from isthmus.model.base import Doubles, Features, Places, Settings, State, TrainingData
from isthmus.model.content import TfidfContent
from isthmus.rng import generator
from isthmus.room import stacked
from isthmus.types import Bools, Floats, Ints

#: Next items of each domain that are learned from, the newest of a person, and items that each is told from.
CHOICES, NEWEST, RIVALS = 6000, 3, 30
#: Decay of the history while learning; persons handled at a time; parts of the persons, one of which is held back.
FADE, BLOCK, FOLDS = 0.9, 512, 3
#: How strongly weights are held to 1, the weakest last; the first learns nothing but is plain TF-IDF.
STRENGTHS: Final = (np.inf, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
#: Temperatures tried before anything else is learned.
SCALES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0)


class TermContent(TfidfContent):
    """Cosine of TF-IDF texts with a learned weight for each word, summed over the history with decay.

    A word counts as much as it helped to tell the next item from others, in all domains with training events: a
    conditional logit (McFadden 1974) over the words that history and item share, held to the TF-IDF weights. How
    strongly is chosen on persons, items or domains that were not learned from; plain TF-IDF is one of the choices.
    Words mean the same in a domain without any event, so that what was learned carries over.
    """

    name = "terms"
    defaults: ClassVar[Settings] = {"decay": 0.7, "away": 1.0, "sources": True}

    def _fit(self, data: TrainingData, seed: int) -> None:
        if data.features.text is None:
            raise InputError("the method terms needs item texts")
        self.weights = learn(data, seed)
        self._take(data.features.text)

    def _read(self, text: sparse.csr_array) -> sparse.csr_array:
        return sparse.csr_array(text @ sparse.diags_array(np.sqrt(self.weights)))

    def _joined(self, text: sparse.csr_array, fresh: sparse.csr_array) -> sparse.csr_array:  # noqa: ARG002
        return stacked(self.text, fresh)

    def state(self) -> State:
        """Return the weight of each word."""
        return {"weights": self.weights}

    def restore(self, state: State, features: Features) -> None:
        """Take back the weights and apply them to the texts."""
        self.weights = state["weights"].astype(np.float32)
        super().restore(state, features)


@dataclass(frozen=True)
class Choices:
    """Next items and their rivals, told by the words each shares with the history.

    Parameters
    ----------
    shared : csr array (P * C, F) float32
        Contribution of each word to the similarity of person and candidate; the first of ``C`` is the next item.
    rare : float64 array (P, C)
        Minus the logarithm of how often each candidate is drawn: added to the scores, the few that are drawn stand for
        all items (McFadden 1978).
    group : int64 array (P,)
        What is held back together: a domain, or a part of the persons.
    """

    shared: sparse.csr_array
    rare: Doubles
    group: Ints

    def take(self, persons: Bools) -> Choices:
        """Return the choices of some persons."""
        return Choices(self.shared[np.repeat(persons, self.count)], self.rare[persons], self.group[persons])

    @property
    def count(self) -> int:
        """Candidates of each person ``C``."""
        return int(self.rare.shape[1])

    def shares(self, weights: Doubles) -> Doubles:
        """Return the probability of each candidate, (P, C)."""
        scores = np.asarray(self.shared @ weights, dtype=np.float64).reshape(-1, self.count) + self.rare
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def log_likelihood(self, weights: Doubles) -> Doubles:
        """Return the logarithm of the probability of each next item, (P,)."""
        return np.asarray(np.log(np.maximum(self.shares(weights)[:, 0], 1e-12)))


def learn(data: TrainingData, seed: int) -> Floats:
    """Return the weight of each word (F,) float32, not negative, 1 for a word that nothing is known about.

    Raises
    ------
    InputError
        There are no texts.
    """
    text = data.features.text
    if text is None:
        raise InputError("there are no texts to learn from")
    rng = generator(seed, "terms")
    places = data.features.places or Places.nameless(data.n_items)
    parts = [_choices(data, text, np.flatnonzero(places.domain == place), rng) for place in _learned(data)]
    found = [part for part in parts if part is not None]
    if not found:
        return np.ones(text.shape[1], np.float32)
    apart = len(found) > 1 and not data.popularity[data.target].any()
    groups = [np.full(part.group.size, place) if apart else part.group for place, part in enumerate(found)]
    every = _joined(found, np.concatenate(groups))
    strength = _strength(every, range(len(found)) if apart else [0])
    return (_solve(every, strength) / _scale(every)).astype(np.float32)


def _joined(parts: Sequence[Choices], group: Ints) -> Choices:
    shared = sparse.csr_array(sparse.vstack([part.shared for part in parts]))
    return Choices(shared, np.concatenate([part.rare for part in parts]), group)


def _learned(data: TrainingData) -> list[int]:
    """Return the domains with training events."""
    places = data.features.places or Places.nameless(data.n_items)
    met = np.bincount(places.domain, weights=data.popularity, minlength=len(places.domains))
    return [int(place) for place in np.flatnonzero(met)]


def _choices(data: TrainingData, text: sparse.csr_array, items: Ints, rng: np.random.Generator) -> Choices | None:
    """Return the choices of the newest events of persons with two or more among ``items``, by parts of the persons."""
    inside = np.zeros(data.n_items, dtype=bool)
    inside[items] = True
    own = data.histories.keep(inside[data.histories.items])
    own = own.take(np.flatnonzero(own.lengths > 1))
    if not len(own) or items.size < RIVALS:
        return None
    own = own.take(np.sort(rng.permutation(len(own))[: CHOICES // NEWEST]))
    chance = 0.5 * data.popularity[items] / data.popularity[items].sum() + 0.5 / items.size
    shelf, fold = text[items], rng.integers(FOLDS, size=len(own))
    by_word = sparse.csr_array(shelf.T)
    parts = []
    for back in range(NEWEST):
        last = own.indptr[1:] - 1 - back
        persons = np.flatnonzero(last > own.indptr[:-1])
        newer = np.arange(own.items.size) >= np.repeat(last, own.lengths)
        profile = sparse.csr_array(own.keep(~newer).take(persons).matrix(data.n_items, decay=FADE))
        right = np.searchsorted(items, own.items[last[persons]])
        for start in range(0, persons.size, BLOCK):
            some = sparse.csr_array(profile[start : start + BLOCK])
            told = sparse.csr_array(some @ text)
            rivals, rare = _rivals(told, by_word, some[:, items], right[start : start + BLOCK], (chance, rng))
            person = np.repeat(np.arange(told.shape[0]), RIVALS + 1)
            shared = sparse.csr_array(told[person].multiply(shelf[rivals.ravel()]))
            parts.append(Choices(shared, rare, fold[persons[start : start + BLOCK]]))
    return _joined(parts, np.concatenate([part.group for part in parts]))


def _rivals(
    told: sparse.csr_array,
    by_word: sparse.csr_array,
    seen: sparse.csr_array,
    right: Ints,
    draw: tuple[Doubles, np.random.Generator],
) -> tuple[Ints, Doubles]:
    """Return candidates (B, C), the right item, items of like texts and items by popularity, and how rare each is."""
    chance, rng = draw
    rows, half = np.arange(right.size)[:, None], RIVALS // 2
    likeness = (told @ by_word).toarray()
    met = seen.tocoo()
    likeness[met.row, met.col] = -1.0
    wide = min(4 * half, likeness.shape[1] - 1)
    near = np.argpartition(-likeness, wide, axis=1)[:, : wide + 1]
    is_near = np.zeros(likeness.shape, dtype=bool)
    is_near[rows, near] = True
    hard = rng.permuted(near, axis=1)[:, : half + 1]
    hard = np.where(hard[:, :half] == right[:, None], hard[:, half:], hard[:, :half])
    easy = rng.choice(chance.size, size=(right.size, RIVALS - half), p=chance)
    easy = np.where(easy == right[:, None], hard[:, :1], easy)
    chosen = np.concatenate([right[:, None], hard, easy], axis=1)
    often = is_near[rows, chosen] * (half / near.shape[1]) + (RIVALS - half) * chance[chosen]
    return chosen, -np.log(often)


def _strength(choices: Choices, folds: Iterable[int]) -> float:
    """Return how strongly weights are held: the strongest within one standard error of the best."""
    gains: dict[float, Doubles] = {}
    for held in folds:
        rest, other = choices.take(choices.group != held), choices.take(choices.group == held)
        if not rest.group.size or not other.group.size:
            return np.inf
        plain = other.log_likelihood(np.full(choices.shared.shape[1], _scale(rest)))
        for strength in STRENGTHS[1:]:
            gain = other.log_likelihood(_solve(rest, strength)) - plain
            gains[strength] = np.concatenate([gains.get(strength, np.zeros(0)), gain])
    means = {strength: float(gain.mean()) for strength, gain in gains.items()}
    best = max(means, key=lambda strength: means[strength])
    error = float(gains[best].std() / np.sqrt(gains[best].size))
    if means[best] < 2 * error:
        return np.inf
    return next(strength for strength in STRENGTHS[1:] if means[strength] >= means[best] - error)


def _scale(choices: Choices) -> float:
    """Return the temperature at which plain TF-IDF is most likely."""
    ones = np.ones(choices.shared.shape[1])
    return max(SCALES, key=lambda scale: float(choices.log_likelihood(scale * ones).mean()))


def _solve(choices: Choices, strength: float) -> Doubles:
    """Return the weights times the temperature that are most likely given a prior of that ``strength`` at 1, (F,)."""
    centre = _scale(choices)
    start = np.full(choices.shared.shape[1], centre)
    if np.isinf(strength):
        return start
    across = sparse.csr_array(choices.shared.T)

    def loss(weights: Doubles) -> tuple[float, Doubles]:
        shares, away = choices.shares(weights), weights - centre
        value = -float(np.log(np.maximum(shares[:, 0], 1e-12)).sum()) + strength / 2 * float(away @ away)
        shares[:, 0] -= 1.0
        return value, np.asarray(across @ shares.ravel()) + strength * away

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * start.size, options={"maxiter": 30})
    return np.asarray(found.x)
