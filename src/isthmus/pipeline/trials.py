"""A trial of transfer: pre-trained against from scratch and against no source, over seeds and shares of people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from isthmus.data.augment import shuffle_histories
from isthmus.data.sequences import Histories
from isthmus.evaluate.protocol import Outcome, judge
from isthmus.files import Json, sha256
from isthmus.log import logger, progress
from isthmus.model.base import Features, Method, Settings, TrainingData
from isthmus.pipeline.runs import Run, Runs
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
#: File of a pre-trained model whose checksum tells it.
WEIGHTS: Final = "model.safetensors"
#: Arms of ground methods.
GROUNDS: Final = ("no source", "sources")
#: Settings that say which steps there are, and change none of them.
_ARMS: Final = ("seeds", "shuffled", "scratch")


@dataclass(frozen=True)
class TrialSettings:
    """What is compared.

    Parameters
    ----------
    starts : dict of str to dict
        Settings of each carrier, its pre-trained model under ``start``.
    seeds : int
        Times that each carrier is trained, with other seeds; the ground methods and what draws in the blend stay.
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
    scratch : bool
        Whether the carriers are trained from scratch too. Without them the verdict is against ``no source`` alone: it
        tells what taking part gains, not what pre-training taught.
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
    scratch: bool = True


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
    runs : dict of str to Run
        What each blended arm was made of, of the first seed.
    """

    task: Task
    arms: dict[str, list[Outcome]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)

    def add(self, arm: str, run: Run) -> None:
        """Take in what was judged in a step whose blended system is ``arm``."""
        self.runs.setdefault(arm, run)
        for name, outcome in run.outcomes.items():
            self.arms.setdefault(name, []).append(outcome)

    def verdict(self, metric: str = "ndcg@10") -> Verdict:
        """Return whether transfer helped."""
        from isthmus.evaluate.verdict import Verdict

        rivals = [name for name in ("scratch", "no source") if name in self.arms]
        names = ("transfer", *rivals, *(["shuffled"] if "shuffled" in self.arms else []))
        return Verdict.of({name: self.arms[name] for name in names}, rivals=tuple(rivals), metric=metric)


def trial(split: Split, domain: str, features: Features, settings: TrialSettings, *, work: Path | None = None) -> Trial:
    """Return the outcomes of all arms in one domain; every arm is tuned on validation, and sees test once.

    Where the domain has no training event, ``transfer`` is zero-shot, and its rivals are the content methods.

    Parameters
    ----------
    split : Split
        Train teaches, validation chooses.
    domain : str
        Target.
    features : Features
        What is known of the items.
    settings : TrialSettings
        What is compared.
    work : Path, optional
        Folder for what is done, seed by seed: a trial that was stopped goes on there, and one with more seeds has
        those of before. Nothing is kept without.
    """
    task = build_task(split, TEST, domain, most=settings.test_persons)
    steps = _Steps(split, domain, features, settings, task)
    runs, found = Runs(work, task, _about(split, domain, settings)), Trial(task)
    if is_unseen(split, domain):
        for name, unseen in (("transfer", steps.unseen), ("no source", steps.unseen_alone)):
            found.add(name, runs.do(f"{name} unseen", unseen))
        return found
    seeds = range(settings.seeds)
    todo: list[tuple[str, str, Callable[[], Run]]] = [(name, name, partial(steps.ground, name)) for name in GROUNDS]
    for seed in seeds:
        named = {"transfer": True, "scratch": settings.scratch, "shuffled": settings.shuffled}
        names = [name for name, takes_part in named.items() if takes_part]
        todo += [(name, f"{name} {seed}", partial(steps.carried, name, seed)) for name in names]
    with progress(f"trial {domain}", len(todo)) as advance:
        for arm, step, make in todo:
            run = runs.do(step, make)
            found.add(arm, run)
            logger.info("%s %s: %.4f", domain, step, run.outcomes[arm].mean("ndcg@10"))
            advance(1)
    return found


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


def _about(split: Split, domain: str, settings: TrialSettings) -> Json:
    """Return all that a step depends on but which step it is: how many seeds and arms there are does not matter."""
    chosen: Json = {name: value for name, value in vars(settings).items() if name not in _ARMS}
    chosen["starts"] = {name: {**how, "start": _weights(how.get("start"))} for name, how in settings.starts.items()}
    return {"split": split.card, "domain": domain, "settings": chosen}


def _weights(start: object) -> str:
    """Return what tells the weights of a pre-trained model, wherever its folder is."""
    file = Path(str(start or "")) / WEIGHTS
    return sha256(file) if start and file.is_file() else str(start or "")


class _Steps:
    """The steps of a trial; the ground methods are tuned once, when they are first needed."""

    def __init__(self, split: Split, domain: str, features: Features, settings: TrialSettings, task: Task) -> None:
        self.split, self.domain, self.features, self.settings, self.task = split, domain, features, settings, task
        self.how = FitSettings(budget=settings.budget, persons=settings.persons, methods=settings.methods)

    @cached_property
    def alone(self) -> _Ground:
        return _Ground(self.split.only(self.domain), self.domain, self.features, self.how)

    @cached_property
    def joint(self) -> _Ground:
        return _Ground(self.split, self.domain, self.features, self.how)

    def ground(self, name: str) -> Run:
        """Return the ground methods, without or with the other domains."""
        only = name == "no source"
        target = (self.alone if only else self.joint).target
        return Run.of(target, {name: judge(_On(System(target, name=name), only, self.task), self.task)})

    def carried(self, name: str, seed: int) -> Run:
        """Return the ground methods with carriers of one seed: pre-trained, from scratch, or taught in disorder."""
        settings, shuffled = self.settings, name == "shuffled"
        starts = _from_scratch(settings.starts) if name == "scratch" else settings.starts
        how = replace(self.how, seed=seed, settings=starts, members=1 if shuffled else settings.members)
        carriers = _Carriers(self.joint, how, settings, shuffled=shuffled)
        target = carriers.target()
        outcomes = {name: judge(System(target, name=name), self.task)}
        for carrier, fitted in {} if shuffled else carriers.fitted.items():
            said = carrier if name == "transfer" else f"{carrier} scratch"
            outcomes[said] = judge(_Alone(fitted, said), self.task)
        return Run.of(target, outcomes)

    def unseen(self) -> Run:
        """Return the zero-shot system, and its methods that the content methods alone do not have."""
        settings = self.settings
        how = FitSettings(persons=settings.persons, settings=settings.starts, methods=settings.methods)
        target = fit_unseen(self.split, self.domain, self.features, how)
        own = {method.name for method in self.plain.methods}
        outcomes = {"transfer": judge(System(target, name="transfer"), self.task)}
        for method in target.methods:
            if method.name not in own:
                outcomes[method.name] = judge(_Alone(method, method.name), self.task)
        return Run.of(target, outcomes)

    @cached_property
    def plain(self) -> Target:
        """The content methods, as they are where no other domain is seen."""
        how = FitSettings(persons=self.settings.persons, methods=self.settings.methods)
        return fit_unseen(self.split.only(self.domain), self.domain, self.features, how)

    def unseen_alone(self) -> Run:
        """Return the content methods, blended and each alone."""
        outcomes = {"no source": judge(_On(System(self.plain, name="no source"), True, self.task), self.task)}
        for method in self.plain.methods:
            outcomes[method.name] = judge(_On(_Alone(method, method.name), True, self.task), self.task)
        return Run.of(self.plain, outcomes)


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
        self.ground, self.shuffled = ground, shuffled
        self.fitting = Fitting(old.split, old.domain, old.features, replace(how, budget=settings.carrier_budget))
        if shuffled:
            self.fitting.data = _shuffled(self.fitting.data, how.seed)
            self.fitting.later = _shuffled(self.fitting.later, how.seed)
        self.carriers = self.fitting.tune(list(how.settings))
        self.fitted = dict(zip((m.name for m in self.carriers), self.fitting.refit(self.carriers), strict=True))

    def target(self) -> Target:
        fitting = self.fitting if self.shuffled else self.ground.fitting  # which has rehearsed its methods already
        methods, blend = fitting.blend([*self.ground.tuned, *self.carriers])
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
