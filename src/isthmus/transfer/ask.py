"""What to ask somebody of whom nothing is known: the items whose answers tell most about what kind of person it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from scipy import sparse
from scipy.special import entr

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Doubles
from isthmus.model.blend import standardise
from isthmus.train.fit import Target
from isthmus.transfer.crowds import Answers, Crowds
from isthmus.types import Bools, Floats, Indices, Ints

#: Answers that are followed at once when several questions are chosen: the likeliest.
PATTERNS: Final = 256
#: People interviewed at a time.
BLOCK: Final = 512


@dataclass(frozen=True)
class AskSettings:
    """What is asked, and what the answers are worth.

    Parameters
    ----------
    candidates : int
        Items that may be asked about, at most: those most people met.
    known : float
        Power of the chance of a yes that the information is multiplied with: 0 counts information alone, a large one
        asks about what the person most likely met, given the answers so far.
    crowd : float
        Weight of what the person's crowds meet, beside the model's own list.
    """

    candidates: int = 1000
    known: float = 2.0
    crowd: float = 3.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.candidates < 1 or self.known < 0 or self.crowd < 0:
            raise InputError("the settings of questions are impossible", fix="candidates from 1, weights from 0")


class Asker:
    """Chooses what to ask, and makes lists from the answers.

    An answer is yes (met and liked) or not. A question's worth is the information that its answer is expected to give
    about the person's crowd, in bits, times a power of the chance of a yes: what nobody knows tells nothing.

    Parameters
    ----------
    crowds : Crowds
        Kinds of people.
    askable : bool array (N,)
        Items that may be asked about.
    settings : AskSettings, optional
        How.

    Raises
    ------
    InputError
        No item that anybody met may be asked about.

    Notes
    -----
    Information gain through clustered neighbours (IGCN): Rashid, Karypis & Riedl, "Learning preferences of new users in
    recommender systems", SIGKDD Explorations 10(2), 2008. Answers that choose the next question: Golbandi, Koren &
    Lempel, "Adaptive bootstrapping of recommender systems using decision trees", WSDM 2011. Several questions at once
    are chosen greedily: given the crowd the answers are independent, so that the greedy set has at least 1 - 1/e of
    the information of the best one (Krause & Guestrin, UAI 2005).

    Examples
    --------
    >>> from isthmus.transfer.crowds import CrowdSettings
    >>> people = Histories.of([[0, 1, 4], [0, 4], [2, 3, 4], [2, 4]] * 20)
    >>> asker = Asker(Crowds.of(people, 5, CrowdSettings(crowds=2, dim=2)), np.ones(5, bool))
    >>> first = int(asker.questions(2)[0])
    >>> first in (0, 2)  # not 4, which everybody met
    True
    """

    def __init__(self, crowds: Crowds, askable: Bools, settings: AskSettings | None = None) -> None:
        self.crowds, self.settings = crowds, settings or AskSettings()
        everybody = crowds.share @ crowds.chance
        able = np.flatnonzero(askable & (everybody > 0))
        if able.size == 0:
            raise InputError("there is nothing to ask about", fix="name a domain whose items people met")
        best = able[np.argsort(-everybody[able], kind="stable")[: self.settings.candidates]]
        self.items: Indices = np.sort(best).astype(np.int32)
        self._yes = np.clip(crowds.chance[:, self.items].astype(np.float64), 1e-9, 1 - 1e-9)
        self._noise = _bits(self._yes)

    def worth(self, posterior: Doubles) -> Doubles:
        """Return the worth of each candidate for people with some posterior (B, C): (B, Q)."""
        return self._weighed(self.gain(posterior), posterior)

    def gain(self, posterior: Doubles) -> Doubles:
        """Return the bits about the crowd that an answer on each candidate is expected to give, (B, Q)."""
        told: Doubles = np.maximum(_bits(posterior @ self._yes) - posterior @ self._noise, 0)
        return told

    def questions(self, k: int, answers: Answers | None = None) -> Indices:
        """Return the ``k`` items to ask one person about, most telling first; none that was asked before.

        Parameters
        ----------
        k : int
            How many; fewer where there are not as many candidates.
        answers : Answers, optional
            What the person said so far.
        """
        said = answers or Answers.none()
        states = self.crowds.posterior(said)
        mass, free = np.ones(1), ~np.isin(self.items, said.items)
        chosen: list[int] = []
        while len(chosen) < k and free.any():
            told = mass @ self.gain(states)
            worth = self._weighed(told[None], mass[None] @ states)[0]
            place = int(np.argmax(np.where(free, worth, -1.0)))
            chosen.append(place)
            free[place] = False
            mass, states = self._after(mass, states, place)
        return self.items[np.array(chosen, dtype=np.int64)]

    def interview(self, met: Callable[[Ints, Indices], Bools], persons: int, k: int) -> Answers:
        """Return the answers of ``persons`` people who are asked ``k`` questions, each chosen by the answers before.

        Parameters
        ----------
        met : callable
            Given persons (A,) and items (A,), whether each person met the item.
        persons, k : int
            How many people and questions.
        """
        parts = [self._interview(met, np.arange(s, min(s + BLOCK, persons)), k) for s in range(0, persons, BLOCK)]
        return Answers(persons, *(np.concatenate(found) for found in zip(*parts, strict=True)))

    def list_scores(self, target: Target, answers: Answers, histories: Histories | None = None) -> Floats:
        """Return the score of each target item for each person who answered, (B, T).

        The model's list for the items with yes, plus how likely the person's crowds meet each item, both standardised.

        Parameters
        ----------
        target : Target
            What was learned for the target domain.
        answers : Answers
            Of ``B`` people.
        histories : Histories, optional
            What the people are known to have met, the items with yes included; else those alone.
        """
        met = answers.histories if histories is None else histories
        own = target.blend.plain.score(target.methods, met, target.new)
        crowd = self.crowds.posterior(answers) @ self.crowds.chance[:, target.items]
        told = np.float32(self.settings.crowd) * standardise(crowd.astype(np.float32))
        return target.blend.keep(np.asarray(standardise(own) + told, dtype=np.float32), met, target.items)

    def _weighed(self, told: Doubles, posterior: Doubles) -> Doubles:
        weighed: Doubles = told * (posterior @ self._yes) ** self.settings.known
        return weighed

    def _after(self, mass: Doubles, states: Doubles, place: int) -> tuple[Doubles, Doubles]:
        """Return the chance (S,) of each way to answer all questions so far, and its posterior (S, C)."""
        yes = self._yes[:, place]
        joint = np.concatenate([states * yes, states * (1 - yes)])
        split = np.concatenate([mass, mass]) * joint.sum(axis=1)
        kept = np.argsort(-split, kind="stable")[:PATTERNS]
        rows = joint[kept]
        return split[kept] / split[kept].sum(), rows / rows.sum(axis=1, keepdims=True)

    def _interview(self, met: Callable[[Ints, Indices], Bools], persons: Ints, k: int) -> _Said:
        posterior = np.tile(self.crowds.share, (persons.size, 1))
        free = np.ones((persons.size, self.items.size), bool)
        rows, said = np.arange(persons.size), []
        for _ in range(min(k, self.items.size)):
            place = np.where(free, self.worth(posterior), -1.0).argmax(axis=1)
            free[rows, place] = False
            yes = met(persons, self.items[place])
            chance = self._yes[:, place].T
            posterior = posterior * np.where(yes[:, None], chance, 1 - chance)
            posterior /= posterior.sum(axis=1, keepdims=True)
            said.append((persons, self.items[place], yes))
        return tuple(np.concatenate(part) for part in zip(*said, strict=True))  # type: ignore[return-value]


_Said: TypeAlias = tuple[Ints, Indices, Bools]


def asked_all(met: Callable[[Ints, Indices], Bools], persons: int, items: Indices) -> Answers:
    """Return the answers of ``persons`` people who are all asked about the same items, in that order."""
    rows = np.repeat(np.arange(persons), items.size)
    asked = np.tile(items, persons)
    return Answers(persons, rows, asked, met(rows, asked))


def has_met(histories: Histories, n_items: int) -> Callable[[Ints, Indices], Bools]:
    """Return what tells whether persons (A,) met items (A,), by their histories."""
    met = sparse.csr_array(histories.matrix(n_items) > 0)

    def answer(persons: Ints, items: Indices) -> Bools:
        return np.asarray(met[persons, items], dtype=bool).ravel()

    return answer


def _bits(chance: Doubles) -> Doubles:
    """Return the entropy of yes and no, in bits."""
    found: Doubles = (entr(chance) + entr(1 - chance)) / np.log(2)
    return found
