"""Settings of several methods, searched with Optuna for the same time each, and chosen on validation."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import numpy as np
import polars as pl

from isthmus.errors import InputError, IsthmusError, StorageError
from isthmus.files import Json
from isthmus.log import logger, progress
from isthmus.model.base import Features, Hooks, Method, Settings, TrainingData
from isthmus.split.cohorts import build_task
from isthmus.split.task import Task
from isthmus.split.temporal import VALID, Split
from isthmus.train.fit import FitSettings, task_names, training_data
from isthmus.train.found import COLUMNS, Best, Found
from isthmus.train.methods import CARRIERS, make
from isthmus.train.spaces import digest, knobs, words
from isthmus.train.studies import Pruner, Sampler, opened, optuna_, quiet, sampler_for, study_of
from isthmus.train.tune import validate

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

#: Trials of one method where no number is given: more of them find next to nothing.
MOST: Final = 300
#: Failed trials after which a method that never worked is given up.
HOPELESS: Final = 5
_ENDED: Final = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True)
class SearchSettings:
    """How settings are searched.

    Parameters
    ----------
    methods : sequence of str
        Names of the methods; see :data:`isthmus.train.methods.METHODS`.
    budget_minutes : float
        Time of all trials together; each method gets the same share of it.
    trials : int, optional
        Trials of each method, at most; :data:`MOST` by default.
    seed : int
        For everything that draws.
    sampler : {"tpe", "random"}
        Tree-structured Parzen estimators (Bergstra et al., NIPS 2011), or random points.
    pruner : {"median", "none"}
        Whether a trial whose best epoch so far is below the median of the earlier trials at that epoch is stopped.
    persons : int
        Validation persons that choose, at most.
    """

    methods: Sequence[str]
    budget_minutes: float = 10.0
    trials: int | None = None
    seed: int = 0
    sampler: Sampler = "tpe"
    pruner: Pruner = "median"
    persons: int = 4000

    def __post_init__(self) -> None:
        if not (math.isfinite(self.budget_minutes) and self.budget_minutes >= 0):
            raise InputError(f"budget_minutes = {self.budget_minutes}", fix="take 0 or more")
        if self.trials is not None and self.trials < 1:
            raise InputError(f"trials = {self.trials}", fix="take 1 or more")
        for key, value, known in (("sampler", self.sampler, Sampler), ("pruner", self.pruner, Pruner)):
            if value not in get_args(known):
                raise InputError(f"no {key} '{value}'", fix=f"one of {', '.join(get_args(known))}")


def search(
    split: Split, domain: str, features: Features, settings: SearchSettings, *, folder: Path | None = None
) -> Found:
    """Return the best settings of each method for ``domain``, by NDCG@10 on validation.

    The defaults are always tried first. The next trial goes to the method that took the least time so far, so all
    have had the same whenever the search stops.

    Parameters
    ----------
    split : Split
        Train teaches, valid chooses; test is never looked at.
    domain : str
        Target domain.
    features : Features
        What the items' texts say.
    settings : SearchSettings
        Methods, budget, seed.
    folder : Path, optional
        Where trials and results are kept. A search that is there already goes on, and its time counts.

    Raises
    ------
    InputError
        Nothing to learn from, no method worked, or ``folder`` holds the search of another split.
    """
    task = build_task(split, VALID, domain, most=settings.persons)
    data = training_data(split, VALID, domain, features)
    if not data.in_target[data.histories.items].any():
        raise InputError(f"no training event in domain '{domain}'", where=split.corpus.name, fix="cut later")
    names = task_names(split, FitSettings(methods=settings.methods), features)
    without = sorted(set(settings.methods) - set(names))
    if without:
        logger.warning("%s: nothing to read or no dates for %s, left out", domain, ", ".join(without))
    if not names:
        raise InputError("no method is left to search", where=domain, fix="name more methods")
    card = _card(split, domain, features, settings)
    with quiet(), opened(folder, card) as storage:
        settings = replace(settings, methods=names)
        races = [Race(make(name), study_of(storage, name, settings.pruner), data, task, settings) for name in names]
        try:
            _run(races, folder, str(card["split"]))
        finally:
            found = _found(races, str(card["split"]))
            if folder is not None and found.best:
                found.write(folder)
    if not found.best:
        raise InputError(f"no trial worked: {races[0].error}", where=domain, fix="name other methods")
    return found


class Race:
    """The search of one method: its trials so far, and the next one."""

    def __init__(self, usual: Method, study: Study, data: TrainingData, task: Task, settings: SearchSettings) -> None:
        self.usual, self.study, self.data, self.task, self.settings = usual, study, data, task, settings
        self.name, self.domain = usual.name, task.domain
        self.space = knobs(usual, data)
        self.quick = usual.quick(data)
        self.share = 60 * settings.budget_minutes / len(settings.methods)
        self.trials: list[FrozenTrial] = []
        self.refresh()

    def refresh(self) -> None:
        """Look at the trials that ended; those broken off are not counted."""
        every = self.study.get_trials(deepcopy=False)
        self.trials = [t for t in every if t.state.name in ("COMPLETE", "PRUNED") or _failed(t)]
        self.spent = float(sum(trial.user_attrs["seconds"] for trial in self.trials))

    @property
    def best(self) -> FrozenTrial | None:
        """The trial with the highest NDCG@10; the first of equals."""
        done = [trial for trial in self.trials if trial.state.name == "COMPLETE"]
        return max(done, key=lambda trial: trial.value, default=None)

    @property
    def error(self) -> str:
        """What the last failed trial said."""
        return next((t.user_attrs["error"] for t in reversed(self.trials) if "error" in t.user_attrs), "")

    @property
    def progress(self) -> float:
        """How much of the share is used, 1 if there is nothing more to do; the defaults are always tried."""
        if not self.trials:
            return 0.0
        if not self.space or (self.best is None and len(self.trials) >= HOPELESS):
            return 1.0
        by_time = self.spent / self.share if self.share else 1.0
        return min(max(by_time, len(self.trials) / (self.settings.trials or MOST)), 1.0)

    def step(self) -> None:
        """Run the next trial."""
        begun, number = time.monotonic(), len(self.trials)
        self.study.sampler = sampler_for(self.settings.sampler, self.settings.seed, self.name, number)
        waiting = self.study.get_trials(deepcopy=False, states=(optuna_().trial.TrialState.WAITING,))
        if number == 0 and not waiting:
            self.study.enqueue_trial(words(self.space, self.usual.settings))
        trial = self.study.ask()
        chosen = {**self.usual.settings, **{name: knob.suggest(trial, name) for name, knob in self.space.items()}}
        state, value = self._learn(trial, chosen, begun + max(self.share - self.spent, 0.0))
        trial.set_user_attr("settings", chosen)
        trial.set_user_attr("seconds", round(time.monotonic() - begun, 3))
        self.study.tell(trial, value, getattr(optuna_().trial.TrialState, state))
        self.refresh()

    def _learn(self, trial: Trial, chosen: Settings, deadline: float) -> tuple[str, float | None]:
        """Return how the trial ended, and its NDCG@10 if it did well."""
        method = make(self.name, {**chosen, **self.quick})
        watch = Watch(trial, self.task, deadline)
        if method.name in CARRIERS:
            method.hooks = Hooks(watch=watch)
        try:
            method.fit(self.data, seed=self.settings.seed)
            return "COMPLETE", _finite(validate(method, self.task))
        except PoorError:
            return "PRUNED", None
        except SpentError:
            trial.set_user_attr("cut", True)
            return "COMPLETE", max(watch.seen)
        except StorageError:
            raise
        except (IsthmusError, ArithmeticError, MemoryError, np.linalg.LinAlgError) as error:
            trial.set_user_attr("error", str(error) or type(error).__name__)
            return "FAIL", None

    def summary(self) -> Best | None:
        """Return the best trial and what was spent, or None where no trial did well."""
        best = self.best
        if best is None:
            return None
        states = [trial.state.name for trial in self.trials]
        usual = self.trials[0].value if states[0] == "COMPLETE" else None
        pruned, failed = states.count("PRUNED"), states.count("FAIL")
        settings, seconds = dict(best.user_attrs["settings"]), round(self.spent, 3)
        return Best(settings, best.value, usual, len(states), pruned, failed, seconds, self.quick)

    def rows(self) -> list[tuple[object, ...]]:
        """Return a row a trial; columns as :data:`isthmus.train.found.COLUMNS`."""
        return [
            (
                self.name,
                number,
                "cut" if "cut" in trial.user_attrs else _ENDED[trial.state.name],
                trial.value,
                len(trial.intermediate_values),
                trial.user_attrs["seconds"],
                json.dumps(trial.user_attrs["settings"]),
                trial.user_attrs.get("error"),
            )
            for number, trial in enumerate(self.trials)
        ]


class PoorError(Exception):
    """The trial is worse than most at this epoch."""


class SpentError(Exception):
    """The method's time is spent."""


class Watch:
    """Reports each epoch to the trial; stops a poor one, and any when the time is spent."""

    def __init__(self, trial: Trial, task: Task, deadline: float) -> None:
        self.trial, self.task, self.deadline = trial, task, deadline
        self.seen: list[float] = []

    def __call__(self, method: Method) -> float:
        """Return the method's NDCG@10 after an epoch.

        Raises
        ------
        PoorError, SpentError
            The trial should stop.
        """
        score = validate(method, self.task)
        self.trial.report(score, len(self.seen))
        self.seen.append(score)
        if self.trial.should_prune():
            raise PoorError
        if time.monotonic() > self.deadline:
            raise SpentError
        return score


def _finite(score: float) -> float:
    if not math.isfinite(score):
        raise InputError(f"NDCG@10 is {score}")
    return score


def _failed(trial: FrozenTrial) -> bool:
    """Return whether a trial failed by itself: one that was broken off has no error or no time."""
    return trial.state.name == "FAIL" and {"error", "seconds"} <= set(trial.user_attrs)


def _run(races: Sequence[Race], folder: Path | None, fingerprint: str) -> None:
    done = 0
    with progress(f"search {races[0].domain}, percent", 100) as advance:
        while True:
            now = int(100 * sum(race.progress for race in races) / len(races))
            advance(now - done)
            done = now
            left = [race for race in races if race.progress < 1]
            if not left:
                return
            race = min(left, key=lambda race: race.spent)
            race.step()
            _tell(race)
            if folder is not None and race.best is not None:
                _found(races, fingerprint).write_best(folder)


def _tell(race: Race) -> None:
    last, best = race.trials[-1], race.best
    reached = "-" if last.value is None else f"{last.value:.4f}"
    highest = "-" if best is None else f"{best.value:.4f}"
    number, state = len(race.trials) - 1, _ENDED[last.state.name]
    logger.info("%s, trial %d: %s, NDCG@10 %s, best %s", race.name, number, state, reached, highest)
    if "error" in last.user_attrs:
        logger.warning("%s, trial %d: %s", race.name, number, last.user_attrs["error"])


def _found(races: Sequence[Race], fingerprint: str) -> Found:
    best = {race.name: summary for race in races if (summary := race.summary()) is not None}
    rows = [row for race in races for row in race.rows()]
    return Found(races[0].domain, fingerprint, best, pl.DataFrame(rows, schema=COLUMNS, orient="row"))


def _card(split: Split, domain: str, features: Features, settings: SearchSettings) -> Json:
    """Return what the outcome of a trial depends on."""
    said = hashlib.blake2b(split.corpus.fingerprint.encode(), digest_size=16)
    for column in ("person", "item", "part"):
        said.update(np.ascontiguousarray(split.events[column].to_numpy()).tobytes())
    text, vectors = features.text, features.vectors
    return {
        "split": said.hexdigest(),
        "domain": domain,
        "texts": None if text is None else [*text.shape, int(text.nnz)],
        "vectors": None if vectors is None else [*vectors.shape, int(np.abs(vectors.mean(axis=0)).argmax())],
        "persons": settings.persons,
        "seed": settings.seed,
        "sampler": settings.sampler,
        "pruner": settings.pruner,
        "spaces": digest(),
    }
