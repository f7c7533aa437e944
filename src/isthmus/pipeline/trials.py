"""A trial of transfer: pre-trained against from scratch and against no source, over seeds and shares of people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from isthmus.data.augment import shuffle_histories
from isthmus.data.sequences import Histories
from isthmus.evaluate.protocol import Outcome, judge
from isthmus.log import logger
from isthmus.model.base import Features, Method, Settings, TrainingData
from isthmus.recommender.facade import System
from isthmus.rng import generator
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, Split
from isthmus.train.fit import FitSettings, Fitting, Target, task_names
from isthmus.train.methods import GROUND
from isthmus.transfer.zero import fit_unseen, is_unseen
from isthmus.types import Floats

if TYPE_CHECKING:
    from isthmus.evaluate.verdict import Curve, Verdict

SHARES: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class TrialSettings:
    """What is compared.

    Parameters
    ----------
    starts : dict of str to dict
        Settings of each carrier, its pre-trained model under ``start``.
    seeds : int
        Times that each carrier is trained, with other seeds.
    budget : float
        Seconds for tuning the ground methods of one fit.
    carrier_budget : float
        Seconds for choosing each carrier's settings; 0 trains it once, with the best epoch.
    persons : int
        Validation persons, at most.
    test_persons : int, optional
        Test persons, at most, spread evenly over all of them; everybody by default.
    methods : sequence of str
        Ground methods.
    members : int
        Seeds that are averaged in each delivered carrier.
    shuffled : bool
        Whether the shuffled-history control is trained too.
    """

    starts: dict[str, Settings]
    seeds: int = 5
    budget: float = 60.0
    carrier_budget: float = 0.0
    persons: int = 4000
    test_persons: int | None = None
    methods: Sequence[str] = GROUND
    members: int = 1
    shuffled: bool = False


@dataclass
class Trial:
    """The outcomes of the arms on test, each over its seeds.

    Attributes
    ----------
    task : Task
        The test question.
    arms : dict of str to list of Outcome
        ``transfer`` (all that is known, carriers pre-trained), ``scratch`` (the same, carriers not pre-trained),
        ``no source`` (ground methods that see the target domain only), ``sources`` (ground methods that see all), and
        each carrier alone (``sequence``, ``sequence scratch``).
    targets : dict of str to Target
        The fitted target of each blended arm, of the first seed.
    """

    task: Task
    arms: dict[str, list[Outcome]]
    targets: dict[str, Target]

    def verdict(self, metric: str = "ndcg@10") -> Verdict:
        """Return whether transfer helped."""
        from isthmus.evaluate.verdict import Verdict

        rivals = [name for name in ("scratch", "no source") if name in self.arms]
        names = ("transfer", *rivals, *(["shuffled"] if "shuffled" in self.arms else []))
        return Verdict.of({name: self.arms[name] for name in names}, rivals=tuple(rivals), metric=metric)


def trial(split: Split, domain: str, features: Features, settings: TrialSettings) -> Trial:
    """Return the outcomes of all arms in one domain; every arm is tuned on validation, and sees test once.

    Where the domain has no training event, ``transfer`` is zero-shot, and its rivals are the content methods.
    """
    task = build_task(split, TEST, domain, most=settings.test_persons)
    if is_unseen(split, domain):
        return _unseen(split, domain, features, settings, task)
    alone, joint = split.only(domain), split
    how = FitSettings(budget=settings.budget, persons=settings.persons, methods=settings.methods)
    arms: dict[str, list[Outcome]] = {}
    targets: dict[str, Target] = {}
    grounds = {}
    for name, part in (("no source", alone), ("sources", joint)):
        ground = _Ground(part, domain, features, how)
        grounds[name] = ground
        targets[name] = ground.target
        arms[name] = [judge(_On(System(ground.target, name=name), part is alone, task), task)]
    ground = grounds["sources"]
    for seed in range(settings.seeds):
        for name, starts in (("transfer", settings.starts), ("scratch", _from_scratch(settings.starts))):
            carriers = _Carriers(ground, replace(how, seed=seed, settings=starts, members=settings.members), settings)
            target = carriers.target()
            targets.setdefault(name, target)
            arms.setdefault(name, []).append(judge(System(target, name=name), task))
            for carrier, fitted in carriers.fitted.items():
                said = carrier if name == "transfer" else f"{carrier} scratch"
                arms.setdefault(said, []).append(judge(_Alone(fitted, said), task))
            logger.info("%s seed %d %s: %.4f", domain, seed, name, arms[name][-1].mean("ndcg@10"))
        if settings.shuffled:
            control = _Carriers(ground, replace(how, seed=seed, settings=settings.starts), settings, shuffled=True)
            arms.setdefault("shuffled", []).append(judge(System(control.target(), name="shuffled"), task))
    return Trial(task, arms, targets)


def curve(
    split: Split, domain: str, features: Features, settings: TrialSettings, shares: Sequence[float] = SHARES
) -> Curve:
    """Return the few-shot curve: each arm where only a share of the people teaches in the domain."""
    from isthmus.evaluate.verdict import few_shot_curve

    points: dict[str, dict[float, list[Outcome]]] = {}
    for share in shares:
        part = split if share == 1 else split.thinned(domain, share=share, seed=0)
        for name, outcomes in trial(part, domain, features, settings).arms.items():
            points.setdefault(name, {})[share] = outcomes
    return few_shot_curve(points)


class _Ground:
    """The ground methods of one arm, tuned and refitted once for all seeds."""

    def __init__(self, split: Split, domain: str, features: Features, how: FitSettings) -> None:
        self.fitting = Fitting(split, domain, features, how)
        self.tuned = self.fitting.tune(task_names(split, how, features))
        methods, blend = self.fitting.blend(self.tuned)
        self.refitted = dict(zip((m.name for m in methods), self.fitting.refit(methods), strict=True))
        self.target = self.fitting.target(methods, blend, list(self.refitted.values()))


class _Carriers:
    """The ground methods of an arm with carriers of one seed beside them."""

    def __init__(self, ground: _Ground, how: FitSettings, settings: TrialSettings, *, shuffled: bool = False) -> None:
        old = ground.fitting
        self.ground, self.how = ground, how
        self.fitting = Fitting(old.split, old.domain, old.features, replace(how, budget=settings.carrier_budget))
        if shuffled:
            self.fitting.data = _shuffled(self.fitting.data, how.seed)
            self.fitting.later = _shuffled(self.fitting.later, how.seed)
        self.carriers = self.fitting.tune(list(how.settings))
        self.fitted = dict(zip((m.name for m in self.carriers), self.fitting.refit(self.carriers), strict=True))

    def target(self) -> Target:
        methods, blend = self.fitting.blend([*self.ground.tuned, *self.carriers])
        known = {**self.ground.refitted, **self.fitted}
        return self.fitting.target(methods, blend, [known[method.name] for method in methods])


class _On:
    """A system that is shown only the events of its own domain."""

    def __init__(self, system: System | _Alone, only: bool, task: Task) -> None:
        self.name, self.system, self.only, self.items = system.name, system, only, task.items

    def score(self, histories: Histories) -> Floats:
        seen = histories.keep(np.isin(histories.items, self.items)) if self.only else histories
        return self.system.score(seen)


class _Alone:
    """One method as a system."""

    def __init__(self, method: Method, name: str) -> None:
        self.name, self.score = name, method.score


def _from_scratch(starts: dict[str, Settings]) -> dict[str, Settings]:
    return {name: {**chosen, "start": ""} for name, chosen in starts.items()}


def _shuffled(data: TrainingData, seed: int) -> TrainingData:
    return replace(data, histories=shuffle_histories(data.histories, generator(seed, "shuffled")))


def _unseen(split: Split, domain: str, features: Features, settings: TrialSettings, task: Task) -> Trial:
    how = FitSettings(persons=settings.persons, settings=settings.starts, methods=settings.methods)
    target = fit_unseen(split, domain, features, how)
    arms = {"transfer": [judge(System(target, name="transfer"), task)]}
    plain = fit_unseen(split.only(domain), domain, features, replace(how, settings={}))
    arms["no source"] = [judge(_On(System(plain, name="no source"), True, task), task)]
    for method in plain.methods:
        arms[method.name] = [judge(_On(_Alone(method, method.name), True, task), task)]
    for method in target.methods:
        if method.name not in arms:
            arms[method.name] = [judge(_Alone(method, method.name), task)]
    targets: dict[str, Target] = {"transfer": target, "no source": plain}
    return Trial(task, arms, targets)
