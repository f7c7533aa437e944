"""The methods by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from isthmus.errors import InputError, nearest
from isthmus.model.aligned import Aligned
from isthmus.model.base import Method, Setting
from isthmus.model.bridge import Bridge
from isthmus.model.collaborative import CoOccurrence, Ease
from isthmus.model.content import TextContent, TfidfContent
from isthmus.model.factors import Als, Bpr, HybridFm
from isthmus.model.fresh import Launch
from isthmus.model.fused import FusedContent, ImageContent, ToldContent
from isthmus.model.graph import GraphContent
from isthmus.model.popularity import Popularity, RecentPopularity
from isthmus.model.student import STUDENTS
from isthmus.model.terms import TermContent
from isthmus.model.topics import TopicContent
from isthmus.model.towers import Towers
from isthmus.train.carriers import SequenceCarrier
from isthmus.train.language_carrier import LanguageCarrier

#: Every method, the quickest and most useful first: the order in which a time budget is spent.
METHODS: Final[dict[str, type[Method]]] = {
    kind.name: kind
    for kind in (
        Popularity,
        RecentPopularity,
        CoOccurrence,
        TfidfContent,
        TextContent,
        GraphContent,
        ImageContent,
        Aligned,
        Launch,
        TermContent,
        TopicContent,
        Ease,
        Als,
        HybridFm,
        Bpr,
        ToldContent,
        FusedContent,
        Towers,
        Bridge,
        SequenceCarrier,
        LanguageCarrier,
    )
}

#: The methods that need a neural network to be trained, and can carry what was learned elsewhere.
CARRIERS: Final = ("sequence", "language")
#: The methods that take part unless others are named: not carriers, and not those made for people or domains without
#: events, which take part where they are needed or named.
GROUND: Final = tuple(
    name
    for name in METHODS
    if name
    not in (*CARRIERS, *(kind.name for kind in (TermContent, TopicContent, Towers, Bridge, ToldContent, FusedContent)))
)


#: What stands for :data:`GROUND` among the names of methods.
ALL: Final = "all"


def named(names: Sequence[str]) -> tuple[str, ...]:
    """Return the methods that some names stand for, each once: ``all`` is what takes part unless others are named.

    Examples
    --------
    >>> named(["all", "sequence"]) == (*GROUND, "sequence")
    True
    >>> named(["knn", "tfidf", "knn"]), named([]) == GROUND
    (('knn', 'tfidf'), True)
    """
    every = (one for name in names or [ALL] for one in (GROUND if name == ALL else (name,)))
    return tuple(dict.fromkeys(every))


def make(name: str, settings: Mapping[str, Setting] | None = None) -> Method:
    """Return the method ``name``, not yet fitted; or a student, which only a model can teach.

    Raises
    ------
    InputError
        There is no such method or setting.
    """
    kind = METHODS.get(name) or STUDENTS.get(name)
    if kind is None:
        raise InputError(f"no method '{name}'{nearest(name, list(METHODS))}", fix=f"methods: {', '.join(METHODS)}")
    return kind(settings)
