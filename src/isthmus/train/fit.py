"""From a split to a fitted target: tune every method, learn the blend, refit on all that may be known."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.files import Json
from isthmus.log import logger, progress
from isthmus.model.base import Features, Hooks, Method, Settings, TrainingData
from isthmus.model.blend import COHORTS, Blend
from isthmus.model.bridge import Bridge
from isthmus.model.stacking import learn
from isthmus.model.voice import Practice, give_voice
from isthmus.split.cohorts import build_task, target_items
from isthmus.split.task import Task
from isthmus.split.temporal import CONTEXT, TEST, VALID, Split
from isthmus.train.methods import CARRIERS, GROUND, METHODS, make
from isthmus.train.tune import Begun, Search, validate
from isthmus.types import Bools, Indices

#: Methods that get no weight unless the blend is better with them: a guard against negative transfer.
GUARDED: Final = (*CARRIERS, Bridge.name)


@dataclass(frozen=True)
class FitSettings:
    """How a model is fitted.

    Parameters
    ----------
    methods : sequence of str
        Names of the methods that take part; see :data:`isthmus.train.methods.METHODS`.
    budget : float
        Seconds for tuning one target domain. All methods begin with their defaults and the target's events, unless
        twice the budget is spent; settings, and what other domains teach, are tried in the time that is left.
    persons : int
        Validation persons that choose, at most.
    refit : bool
        Learn again on train and valid after choosing.
    seed : int
        For everything that draws.
    settings : dict of str to dict
        Settings to start from instead of the defaults, by method; such as a search found
        (:func:`isthmus.train.found.read_best`).
    members : int
        Carriers that are trained with different seeds, and averaged, in the refit.
    hooks : Hooks
        What transfer adds to the training of carriers.
    practise : bool
        Carriers practise with hidden items too, which trains them once more, and so may have a say about new items.
    """

    methods: Sequence[str] = GROUND
    budget: float = 180.0
    persons: int = 4000
    refit: bool = True
    seed: int = 0
    settings: Mapping[str, Settings] = field(default_factory=dict)
    members: int = 1
    hooks: Hooks = field(default_factory=Hooks)
    practise: bool = False


@dataclass
class Target:
    """What was learned for one target domain.

    Attributes
    ----------
    domain : str
        The domain.
    items : int32 array (T,)
        Corpus item index of each column of the scores.
    new : bool array (T,)
        Items without any event that was learned from.
    methods : list of Method
        Fitted methods, in the order of the blend.
    blend : Blend
        Their weights.
    log : list of dict
        The tuning log.
    valid : dict
        Validation NDCG@10 of each method with the settings chosen.
    """

    domain: str
    items: Indices
    new: Bools
    methods: list[Method]
    blend: Blend
    log: list[Json] = field(default_factory=list)
    valid: dict[str, float] = field(default_factory=dict)


def training_data(split: Split, part: int, domain: str, features: Features) -> TrainingData:
    """Return what may be learned from before ``part``: everything earlier but context."""
    events = split.events.filter((pl.col("part") < part) & (pl.col("part") != CONTEXT))
    persons = events["person"].unique().sort().to_numpy().astype(np.int64)
    now = events["ts"].to_physical().max()
    return TrainingData(
        histories=Histories.from_frame(events, persons),
        target=target_items(split, domain),
        n_items=split.corpus.items.height,
        now=int(now) if isinstance(now, int) else 0,
        features=features,
        dated=not split.corpus.order_only,
    )


class Fitting:
    """The steps of fitting one target domain: tune on train, blend on valid, learn again from both.

    Parameters
    ----------
    split : Split
        Train teaches, valid chooses; test is never looked at.
    domain : str
        Target domain.
    features : Features
        What is known of the items.
    settings : FitSettings
        How.

    Raises
    ------
    InputError
        The validation part, or train, has no event in the domain.
    """

    def __init__(self, split: Split, domain: str, features: Features, settings: FitSettings) -> None:
        self.split, self.domain, self.features, self.settings = split, domain, features, settings
        self.task = build_task(split, VALID, domain, most=settings.persons)
        self.data = training_data(split, VALID, domain, features)
        self.log: list[Json] = []
        if not self.data.in_target[self.data.histories.items].any():
            raise InputError(f"no training event in domain '{domain}'", where=split.corpus.name, fix="cut later")

    def tune(self, names: Sequence[str]) -> list[Method]:
        """Return the methods with the best settings found within the budget, learned from train."""
        methods, search = _tune(self.data, names, self.task, self.settings)
        self.log += [
            {"method": t.method, "settings": t.settings, "ndcg@10": t.ndcg, "seconds": t.seconds} for t in search.log
        ]
        return methods

    def blend(self, methods: Sequence[Method]) -> tuple[list[Method], Blend]:
        """Return the methods that are worth it, and their weights."""
        blend, practise = learn(methods, self.task, seed=self.settings.seed, guarded=GUARDED), self.settings.practise
        worth = [method for method in methods if method.name not in GUARDED or blend.weighs(method.name)]
        heard = [method for method in methods if method in worth or (practise and method.name in CARRIERS)]
        spoken = give_voice(blend.among([method.name for method in heard]), heard, self.task, self.practice)
        voice = dict(zip(spoken.methods, spoken.voice or (), strict=False))
        kept = [method for method in heard if method in worth or voice.get(method.name)]
        return kept, spoken.among([method.name for method in kept])

    def refit(self, methods: Sequence[Method]) -> list[Method]:
        """Return the methods learned again from train and valid, if the settings say so."""
        if not self.settings.refit:
            return list(methods)
        return _refit(methods, self.later, self.settings)

    @cached_property
    def practice(self) -> Practice:
        """What methods practise with for new items; kept, so that the next blend need not have them learn again."""
        return Practice(self.data, self.settings.seed, () if self.settings.practise else CARRIERS)

    @cached_property
    def later(self) -> TrainingData:
        """What may be learned from before test."""
        return training_data(self.split, TEST, self.domain, self.features)

    def target(self, methods: Sequence[Method], blend: Blend, fitted: Sequence[Method]) -> Target:
        """Return the outcome, given the methods that chose the blend and those that are delivered."""
        data = self.later if self.settings.refit else self.data
        valid = {method.name: round(validate(method, self.task), 6) for method in methods}
        logger.info("blend: %s", {cohort: blend.weights[cohort] for cohort in COHORTS})
        return Target(self.domain, data.target, data.popularity[data.target] == 0, list(fitted), blend, self.log, valid)


def fit_target(split: Split, domain: str, features: Features, settings: FitSettings) -> Target:
    """Return the fitted target ``domain``.

    Tuning and blend see train and valid only; ``refit`` then learns from both with what was chosen.

    Raises
    ------
    InputError
        The validation part has no event in the domain, or no method could be fitted.
    """
    fitting = Fitting(split, domain, features, settings)
    methods, blend = fitting.blend(fitting.tune(task_names(split, settings, features)))
    return fitting.target(methods, blend, fitting.refit(methods))


def task_names(split: Split, settings: FitSettings, features: Features) -> list[str]:
    """Return the methods that make sense: recent popularity needs dates, reading needs texts, a graph, pictures."""
    unknown = [name for name in settings.methods if name not in METHODS]
    if unknown:
        make(unknown[0])
    wanted = [name for name in METHODS if name in settings.methods]
    if split.corpus.order_only and "recent" in wanted:
        wanted.remove("recent")
    texts = features.text is not None and features.text.nnz > 0
    needs = {
        "tfidf": texts,
        "terms": texts,
        "topics": texts,
        "fm": texts,
        "text": features.vectors is not None,
        "language": features.texts is not None,
    }
    needs |= {"graph": features.graph is not None, "fused": bool(features.graph is not None or features.more)}
    needs |= {name: name in features.more for name in ("image", "told")}
    needs |= dict.fromkeys(("aligned", "launch", "towers"), texts or features.vectors is not None)
    return [name for name in wanted if needs.get(name, True)]


def _tune(data: TrainingData, names: Sequence[str], task: Task, settings: FitSettings) -> tuple[list[Method], Search]:
    """Return the methods as they were chosen: all ground methods begin before any setting is tried."""
    start = time.monotonic()
    search = Search(data, task, settings.seed, start, starts=settings.settings, hooks=settings.hooks)
    ground, carriers = ([name for name in names if (name in CARRIERS) is kind] for kind in (False, True))
    begun: dict[str, Begun] = {}
    methods: list[Method] = []
    with progress(f"tune {task.domain}", 2 * len(ground) + len(carriers)) as advance:
        for place, name in enumerate(ground):
            if begun and time.monotonic() > start + 2 * settings.budget:
                logger.warning("%s: the budget is spent, %s is left out", task.domain, ", ".join(ground[place:]))
                break
            begun[name] = search.begin(name)
            advance(1)
        todo = [*begun, *carriers]
        for place, name in enumerate(todo):
            now = time.monotonic()
            if methods and name in carriers and now > start + 2 * settings.budget:
                logger.warning("%s: the budget is spent, %s is left out", task.domain, ", ".join(todo[place:]))
                break
            search.deadline = now + (start + settings.budget - now) / (len(todo) - place)
            methods.append(search.finish(begun.pop(name) if name in begun else search.begin(name)))
            advance(1)
    if not methods:
        raise InputError("no method is left to fit", where=task.domain, fix="name more methods")
    return methods, search


def _refit(methods: Sequence[Method], data: TrainingData, settings: FitSettings) -> list[Method]:
    with progress("refit on train and valid", len(methods)) as advance:
        fitted = []
        for method in methods:
            chosen = {**method.settings, **({"members": settings.members} if "members" in method.settings else {})}
            again = make(method.name, chosen)
            again.hooks = settings.hooks
            fitted.append(again.fit(data, seed=settings.seed))
            advance(1)
    return fitted
