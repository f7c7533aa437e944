"""A recommender that adapts to people with few events when it is asked, and what that is worth by number of events."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.errors import DataError, InputError
from isthmus.evaluate.protocol import RankingSystem, judge
from isthmus.files import Json
from isthmus.log import logger
from isthmus.model.base import Features, Method, TrainingData
from isthmus.model.blend import COHORTS, Blend
from isthmus.recommender.lifting import SHARES, Choice, chosen, each_ndcg
from isthmus.recommender.newcomers import of_training
from isthmus.split.cohorts import FEW, build_task
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, VALID, Split
from isthmus.train.carriers import SequenceCarrier
from isthmus.train.fit import Target, training_data
from isthmus.transfer.meta_method import MetaMethod
from isthmus.transfer.meta_tasks import newest
from isthmus.types import Floats, Ints

if TYPE_CHECKING:
    from isthmus.recommender.facade import Recommender

#: Validation persons that choose rate and steps, and those that choose the share, at most.
CHOOSERS: Final = 100
PEOPLE: Final = 600
#: Target events that people are shown with in the table.
SHOWN: Final = range(6)
#: Rates and numbers of steps that are tried.
TRIED: Final = ((0.1, 0), (0.03, 3), (0.1, 1), (0.1, 3), (0.3, 1), (0.3, 3), (1.0, 1))


@dataclass(frozen=True)
class Adapting:
    """How to learn to adapt.

    Parameters
    ----------
    way : str
        ``anil``, ``maml`` or ``reptile`` (:mod:`isthmus.transfer.meta`).
    epochs : int
        Times that every person is a task.
    people : int
        Test persons in the table, at most; 0 for no table.
    seed : int
        For everything that draws.
    """

    way: str = "anil"
    epochs: int = 5
    people: int = 300
    seed: int = 0


def with_meta(model: Recommender, split: Split, domain: str, how: Adapting | None = None) -> Recommender:
    """Return the recommender that adapts its sequence carrier to people with few events, where validation says so.

    The start is learned on the training people. Validation people, shown with their newest 1 to 3 target events, choose
    rate and steps, and the share of the score for people with so few events; it is kept only if it is better than
    the blend as it is by more than a standard error, on people who did not choose. Then the start is learned again on
    what the model learned from. What was measured stands in the card, under ``meta``.

    Parameters
    ----------
    model : Recommender
        Fitted on ``split``, with the method ``sequence``.
    split : Split
        Train teaches, valid chooses; test is only measured, once.
    domain : str
        Target domain.
    how : Adapting, optional
        Way, epochs, seed.

    Raises
    ------
    InputError
        The model has no sequence carrier there, or adapts already.
    DataError
        It was fitted on other data.
    """
    how = how or Adapting()
    if model.card.get("fingerprint") != split.corpus.fingerprint:
        raise DataError("the model was fitted on other data", where=split.corpus.name, fix="give its own split")
    model.system(domain)  # says which domains there are
    target, refit = model.targets[domain], bool(model.card.get("refit"))
    carrier = _carrier(target.methods, domain)
    data = training_data(split, VALID, domain, model.features)
    methods = of_training(target, data, how.seed, refit=refit, cold=False)
    task = few_events(build_task(split, VALID, domain, most=PEOPLE))
    learned, plain = (_learned(way, _carrier(methods, domain), data, task, how) for way in (how.way, "plain"))
    choice, blend = _choose(target.blend, methods, learned, task, how.seed)
    logger.info("adapting in %s: %s", domain, choice.said)
    if refit:
        later = training_data(split, TEST, domain, model.features)
        learned, plain = (MetaMethod(each.settings).on(carrier, later) for each in (learned, plain))
    said: Json = {"way": how.way, "rate": learned.settings["rate"], "steps": learned.settings["steps"], **choice.said}
    made = replace(target, methods=[*target.methods, learned], blend=blend) if choice.share else target
    if how.people:
        said["table"] = _table(split, target, made, (learned, plain), how)
    kept = model.card.get("meta")
    card = {**model.card, "meta": {**(kept if isinstance(kept, dict) else {}), domain: said}}
    return type(model)(replace(model.content, targets={**model.targets, domain: made}, card=card))


def few_events(task: Task, shown: Sequence[int] = tuple(range(1, FEW + 1))) -> Task:
    """Return the task of those with target events, shown with as many of the newest as ``shown`` says, in turn.

    Those with fewer are shown as they are.
    """
    inside = np.isin(task.histories.items, task.items)
    own = np.bincount(task.histories.rows[inside], minlength=len(task))
    rows = np.flatnonzero(own >= min(shown))
    keep = np.resize(np.array(shown), rows.size)
    some = task.take(rows)
    return replace(some, histories=newest(some.histories, task.items, keep))


def _carrier(methods: Sequence[Method], domain: str) -> SequenceCarrier:
    if any(method.name == MetaMethod.name for method in methods):
        raise InputError("the model adapts already", where=domain, fix="give the model it was made from")
    for method in methods:
        if isinstance(method, SequenceCarrier) and method.models:
            return method
    fix = "fit with --methods …,sequence (it is left out where it helps nobody)"
    raise InputError("the model has no sequence carrier to adapt", where=domain, fix=fix)


def _learned(way: str, carrier: SequenceCarrier, data: TrainingData, task: Task, how: Adapting) -> MetaMethod:
    """Return a start learned on ``carrier``, with the rate and steps that are best on validation."""
    start = MetaMethod({"way": way, "epochs": how.epochs, "seed": how.seed}).on(carrier, data)
    some = task.take(np.unique(np.linspace(0, len(task) - 1, min(CHOOSERS, len(task))).astype(np.int64)))
    tried = [start.stepping(rate, steps) for rate, steps in TRIED]
    values = each_ndcg(some, lambda rows: [each.score(some.histories.take(rows)) for each in tried])
    return tried[int(values.mean(axis=1).argmax())]


def _choose(blend: Blend, methods: Sequence[Method], meta: Method, task: Task, seed: int) -> tuple[Choice, Blend]:
    """Return what validation says, and the blend of all methods and ``meta``."""
    every = [*methods, meta]
    blends = [_shared(blend, share) for share in (0.0, *SHARES)]
    new = task.popularity == 0

    def score(rows: Ints) -> list[Floats]:
        some = task.histories.take(rows)
        ready = [_Ready(method, method.score(some)) for method in every]
        return [each.score(ready, some, new) for each in blends]  # type: ignore[arg-type]

    choice = chosen(each_ndcg(task, score), seed=seed)
    return choice, _shared(blend, choice.share)


def _shared(blend: Blend, share: float) -> Blend:
    """Return the blend with a share for ``meta`` among people with few events."""
    wide = blend.among([*blend.methods, MetaMethod.name])
    row = np.array(wide.weights[COHORTS[1]]) * (1 - share)
    row[-1] = share
    return replace(wide, weights={**wide.weights, COHORTS[1]: tuple(row.tolist())})


class _Ready:
    """A method whose scores are known."""

    def __init__(self, method: Method, scores: Floats) -> None:
        self.name, self.target, self.inductive, self.scores = method.name, method.target, method.inductive, scores

    def score(self, histories: Histories) -> Floats:
        """Return them: all people are of one kind, so a blend asks for all or for none."""
        assert len(histories) == len(self.scores)
        return self.scores


class _Named:
    """A method or target as something that is judged."""

    def __init__(self, name: str, said: Method | Target) -> None:
        self.name, self._said = name, said

    def score(self, histories: Histories) -> Floats:
        """Return the scores, (B, T)."""
        if isinstance(self._said, Target):
            return self._said.blend.score(self._said.methods, histories, self._said.new)
        return self._said.score(histories)


def _table(
    split: Split, before: Target, after: Target, learned: tuple[MetaMethod, MetaMethod], how: Adapting
) -> list[Json]:
    """Return NDCG@10 on test people by number of target events shown, and milliseconds a person, of each system."""
    from isthmus.transfer.meta_rivals import SimilarPeople

    events = split.events.filter(split.events["part"] == TEST)
    if not (split.corpus.items["domain"].gather(events["item"]) == before.domain).any():
        return []
    meta, plain = learned
    task = build_task(split, TEST, before.domain, most=how.people)
    data = training_data(split, TEST, before.domain, Features())
    systems: list[RankingSystem] = [
        _Named("no adaptation", meta.carrier),
        _Named(how.way, meta),
        _Named("plain fine-tuning", plain),
        SimilarPeople(meta.carrier, data),
        _Named("blend before", before),
        _Named("blend after", after),
    ]
    tasks = [_with_events(task, count) for count in SHOWN]
    found: list[Json] = []
    for system in systems:
        row: Json = {"system": system.name, "people": [len(each) for each in tasks]}
        row["ndcg@10"] = [
            round(judge(system, each, ks=(10,), threads=1).mean("ndcg@10"), 6) if len(each) else None for each in tasks
        ]
        found.append({**row, "ms": round(_milliseconds(system, tasks[min(3, len(tasks) - 1)]), 2)})
    return found


def _with_events(task: Task, count: int) -> Task:
    """Return the task of those who have so many target events, shown with the newest ``count``."""
    own = np.bincount(task.histories.rows[np.isin(task.histories.items, task.items)], minlength=len(task))
    rows = np.flatnonzero(own >= count)
    some = task.take(rows)
    return replace(some, histories=newest(some.histories, task.items, np.full(rows.size, count)))


def _milliseconds(system: RankingSystem, task: Task) -> float:
    """Return the median milliseconds of processor time for one person."""
    spent = []
    for row in range(min(9, len(task))):
        one = task.histories.take(np.array([row]))
        start = time.process_time()
        system.score(one)
        spent.append(1000 * (time.process_time() - start))
    return float(np.median(spent)) if spent else 0.0
