"""Models judged on the test part of a split: one model with all its methods, or several side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final, cast

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.errors import DataError, InputError, LeakError
from isthmus.evaluate.cards import data_card, examples
from isthmus.evaluate.protocol import judge
from isthmus.evaluate.report import Cards, Report
from isthmus.evaluate.sections import Section
from isthmus.files import Json
from isthmus.log import logger
from isthmus.recommender import Recommender
from isthmus.split.cohorts import build_task
from isthmus.split.leaks import audit, require_clean
from isthmus.split.task import Task
from isthmus.split.temporal import TEST, Split
from isthmus.train.fit import FitSettings, Target
from isthmus.types import Floats

#: What of an item each method looks at; other methods look at who met what.
MODALITY: Final = {
    **dict.fromkeys(("tfidf", "text", "terms", "topics", "fm", "aligned", "launch", "towers", "language"), "text"),
    **{name: name for name in ("graph", "image", "told", "fused")},
}
_NO_TEST = "split with a test share above 0, or fit a domain that has test events"


def evaluate(
    recommender: Recommender,
    split: Split,
    *,
    seeds: Sequence[int] = (),
    methods: bool = True,
    both: bool = True,
    ks: Sequence[int] = (10, 50),
) -> Report:
    """Return the report of one model: in each target domain its blend against each of its methods, on test.

    Parameters
    ----------
    recommender : Recommender
        Fitted on this very split.
    split : Split
        Its test part is read here, and nowhere before.
    seeds : sequence of int
        Fit again with each of these seeds, to show how much chance does. Takes as long as that many fits.
    methods : bool
        Judge every method of the blend too.
    both : bool
        Judge with and without the items of the history in the lists.
    ks : sequence of int
        List lengths.

    Raises
    ------
    DataError
        The model was fitted on another corpus, or its items are not those of the split.
    LeakError
        The model was fitted on another split of the corpus and may have learned from the test part, or the audit
        found a leak.
    InputError
        No target domain of the model has test events.
    """
    check_pair(recommender, split)
    flags = _audit(split)
    tasks = _tasks(recommender, split)
    again = [_refitted(recommender, split, seed) for seed in seeds]
    sections = []
    for domain, task in tasks.items():
        target = recommender.targets[domain]
        names = [None, *(method.name for method in target.methods)] if methods else [None]
        outcomes = [judge(recommender.system(domain, name), task, ks=ks, both=both) for name in names]
        runs = [outcomes[0], *(judge(other.system(domain), task, ks=ks) for other in again)] if again else []
        sections.append(
            Section(
                outcomes,
                main="blend",
                vectors=_vectors(recommender, task),
                blend=_weights(target),
                tuning=[_row(entry) for entry in target.log],
                seeds=runs,
                left_out=[judge(system, task, ks=ks) for system in _left_out(target)] if methods else [],
                examples=examples(outcomes[0], split.corpus, k=min(10, max(ks))),
            )
        )
    cards = Cards(
        title=f"{split.corpus.name}: the blend and its methods",
        protocol=split.card,
        data=data_card(split.corpus),
        audit=flags,
        notes=_notes(recommender, tasks),
    )
    return Report.build(cards, sections)


def compare(models: Sequence[tuple[str, Recommender]], split: Split, *, ks: Sequence[int] = (10, 50)) -> Report:
    """Return the report of several models on the same test persons; the first is compared with each other one.

    Parameters
    ----------
    models : sequence of (str, Recommender)
        Names, each different, and models fitted on this very split.
    split : Split
        Its test part is read here.
    ks : sequence of int
        List lengths.

    Raises
    ------
    InputError
        Fewer than two models, two of one name, or no domain with test events that all of them serve.
    DataError, LeakError
        As :func:`evaluate`.
    """
    names = [name for name, _ in models]
    if len(models) < 2 or len(set(names)) < len(names):
        raise InputError(f"cannot compare {', '.join(names) or 'nothing'}", fix="give two or more models, named apart")
    for _, model in models:
        check_pair(model, split)
    flags = _audit(split)
    first = models[0][1]
    tasks = _tasks(first, split, {domain for _, model in models for domain in first.targets.keys() - model.targets})
    sections = []
    for domain, task in tasks.items():
        outcomes = [judge(_Named(name, model, domain), task, ks=ks, both=True) for name, model in models]
        sections.append(
            Section(
                outcomes,
                main=names[0],
                vectors=_vectors(first, task),
                examples=examples(outcomes[0], split.corpus, k=min(10, max(ks))),
            )
        )
    cards = Cards(
        title=f"{split.corpus.name}: {' against '.join(names)}",
        protocol=split.card,
        data=data_card(split.corpus),
        audit=flags,
        notes=[f"Models: {', '.join(names)}. Every difference is paired person by person; {names[0]} is compared."],
    )
    return Report.build(cards, sections)


class _Less:
    """A target whose blend goes without one modality; nothing is learned again."""

    def __init__(self, target: Target, modality: str) -> None:
        self.name, self._target = modality, target
        gone = [method.name for method in target.methods if MODALITY.get(method.name) == modality]
        self._blend = target.blend.less(gone)

    def score(self, histories: Histories) -> Floats:
        """Return the scores of the target items, (B, T)."""
        return self._blend.score(self._target.methods, histories, self._target.new)


def _left_out(target: Target) -> list[_Less]:
    """Return the blend without each modality, where more is known of items than their texts."""
    used = {MODALITY[method.name] for method in target.methods if method.name in MODALITY}
    return [_Less(target, modality) for modality in sorted(used)] if used - {"text"} else []


def check_pair(recommender: Recommender, split: Split) -> None:
    """Refuse a model that was not fitted on ``split``: its figures would mean nothing, or flatter it."""
    if recommender.card["fingerprint"] != split.corpus.fingerprint:
        raise DataError(
            f"the model was fitted on another corpus ({recommender.card.get('corpus')})",
            where=split.corpus.name,
            fix="fit on this split",
        )
    if _canonical(recommender.card["protocol"]) != _canonical(split.card):
        raise LeakError(
            "the model was fitted on another split of this corpus and may know its test part",
            where=split.corpus.name,
            fix="fit on the split you evaluate on",
        )


class _Named:
    """The blend of one of several models under the model's name."""

    def __init__(self, name: str, model: Recommender, domain: str) -> None:
        self.name = name
        self.score = model.system(domain).score


def _canonical(card: object) -> str:
    return json.dumps(card, sort_keys=True, default=str)


def _audit(split: Split) -> list[Json]:
    """Return the flags of the leak audit as rows; a leak stops."""
    findings = audit(split)
    require_clean(findings)
    return [asdict(finding) for finding in findings if finding.level != "ok"]


def _tasks(recommender: Recommender, split: Split, without: set[str] | None = None) -> dict[str, Task]:
    """Return the test question of each target domain that has test events."""
    item_domain = split.corpus.items["domain"]
    tested = set(item_domain.gather(split.events.filter(split.events["part"] == TEST)["item"]).unique().to_list())
    tasks = {}
    for domain in sorted(recommender.targets.keys() - (without or set())):
        if domain not in tested:
            logger.warning("%s: no test event, so nothing is measured there", domain)
            continue
        task = build_task(split, TEST, domain)
        if not np.array_equal(task.items, recommender.targets[domain].items):
            raise DataError("the model's items are not those of the split", where=domain, fix="fit again")
        tasks[domain] = task
    if not tasks:
        raise InputError("no target domain has test events", where=split.corpus.name, fix=_NO_TEST)
    return tasks


def _refitted(recommender: Recommender, split: Split, seed: int) -> Recommender:
    """Return the same model learned again with another seed."""
    names = list(dict.fromkeys(method.name for target in recommender.targets.values() for method in target.methods))
    card = recommender.card
    settings = FitSettings(methods=names, budget=float(str(card["budget"])), refit=bool(card["refit"]), seed=seed)
    return Recommender.fit(
        split, targets=sorted(recommender.targets), model=recommender.content.readers.model, settings=settings
    )


def _vectors(recommender: Recommender, task: Task) -> Floats | None:
    vectors = recommender.features.vectors
    return None if vectors is None else vectors[task.items]


def _weights(target: Target) -> Json:
    """Return cohort to method to weight, and in words what is different for new items."""
    blend = target.blend
    rows: Json = {
        cohort: dict(zip(blend.methods, (round(float(weight), 4) for weight in weights), strict=True))
        for cohort, weights in blend.weights.items()
    }
    voice = blend.voice or ()
    said = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(blend.methods, voice, strict=False) if weight)
    return {**rows, "New items": f"{said or 'as all items'}; level {blend.level:+.2f}"}


def _row(entry: Json) -> Json:
    """Return a row of the tuning log with its settings in words."""
    settings = cast("Json", entry.get("settings", {}))
    return {**entry, "settings": ", ".join(f"{name} {value}" for name, value in settings.items())}


def _notes(recommender: Recommender, tasks: dict[str, Task]) -> list[str]:
    learned = "train and valid" if recommender.card.get("refit") else "train"
    notes = [
        f"Settings and weights were chosen on valid; the model then learned from {learned}; test was read once, here."
    ]
    rules = cast("Json", recommender.card.get("rules", {}))
    if rules:
        said = ", ".join(f"{name} {count}" for name, count in cast("Json", rules["declared"]).items())
        notes.append(f"Declared rules kept by every list: {said}.")
        notes += [f"Rules: {problem}." for problem in cast("list[str]", rules["problems"])]
    lost = {domain: task.unreachable for domain, task in tasks.items() if task.unreachable}
    if lost:
        said = ", ".join(f"{domain} {count}" for domain, count in lost.items())
        notes.append(f"Targets the person already had, which no list can show: {said}.")
    return notes
