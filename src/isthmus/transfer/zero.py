"""Lists for a domain that nobody was seen in: what reads texts, weighted as it served in the domains that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Final, cast

import numpy as np

from isthmus.errors import InputError
from isthmus.files import Json, read_json
from isthmus.model.base import Doubles, Features, Method, Setting, Settings
from isthmus.model.blend import COHORTS, Blend
from isthmus.model.stacking import learn
from isthmus.split.cohorts import build_task, target_items
from isthmus.split.temporal import TEST, TRAIN, VALID, Split
from isthmus.train.fit import FitSettings, Target, training_data
from isthmus.train.methods import CARRIERS, METHODS, make
from isthmus.train.tune import validate
from isthmus.transfer.halves import halved, whole
from isthmus.transfer.pretrained import CARD
from isthmus.types import Indices

#: The ground methods that read, and what must be asked for so that they take part.
READERS: Final = {"tfidf": "tfidf", "text": "text", "terms": "tfidf", "topics": "tfidf"}
#: Those among them that learn from events.
LEARNING: Final = ("terms", "topics")
#: How they look at a history.
READING: Final = ("away", "decay")


def is_unseen(split: Split, domain: str) -> bool:
    """Return whether ``domain`` lacks training or validation events: nothing can be chosen there."""
    inside = split.events.filter(split.corpus.items["domain"].gather(split.events["item"]) == domain)
    return not {TRAIN, VALID} <= set(inside["part"].unique().to_list())


def fit_unseen(split: Split, domain: str, features: Features, settings: FitSettings) -> Target:
    """Return a target fitted without any training event of ``domain`` (zero-shot).

    Methods that read take part: the content methods, and carriers that start from a pre-trained model, as they are.
    How they look at a history, and their weights, are what serves best on validation in the other domains of the
    split, each of which is treated as if it were the unseen one where there are others to learn from; all weights are
    alike where there are none. A carrier has a weight only by what it does in domains it was not pre-trained on.

    Raises
    ------
    InputError
        No method that takes part can read.
    """
    names = [name for name in METHODS if _reads(name, features, settings)]
    others = _others(split, domain)
    if not others:
        names = [name for name in names if name not in LEARNING] or names
    if not names:
        raise InputError(
            f"no training event in domain '{domain}', and no method that reads texts takes part",
            where=split.corpus.name,
            fix="cut later, or give a pre-trained model with --from",
        )
    chosen, row = _serve(split, domain, names, features, settings)
    data = training_data(split, TEST if settings.refit else VALID, domain, features)
    methods = [make(name, chosen[name]).fit(data, seed=settings.seed) for name in names]
    blend = Blend(tuple(names), dict.fromkeys(COHORTS, tuple(row.tolist())))
    items = target_items(split, domain)
    log: list[Json] = [
        {"method": name, "settings": method.settings} for name, method in zip(names, methods, strict=True)
    ]
    return Target(domain, items, np.ones(items.size, dtype=bool), methods, blend, log, {})


def _reads(name: str, features: Features, settings: FitSettings) -> bool:
    if name in CARRIERS:
        return bool(settings.settings.get(name, {}).get("start"))
    if name not in READERS or READERS[name] not in settings.methods:
        return False
    return features.vectors is not None if name == "text" else features.text is not None and features.text.nnz > 0


def _others(split: Split, domain: str) -> list[str]:
    """Return the other domains in which something can be chosen."""
    return [other for other in split.corpus.domains if other != domain and not is_unseen(split, other)]


def _serve(
    split: Split, domain: str, names: Sequence[str], features: Features, settings: FitSettings
) -> tuple[dict[str, Settings], Doubles]:
    """Return the settings of each method and the weights (M,) that serve best in the other domains.

    A single other domain is cut into two halves: what was learned in it would look too good in it.
    """
    others = _others(split, domain)
    if len(others) == 1:
        split, features = halved(split, others[0], features, settings.seed)
    chosen = {name: _start(name, settings) for name in names}
    unseen = target_items(split, domain)
    fitted = {other: _fitted(split, other, chosen, features, settings) for other in _others(split, domain)}
    parts = [_Elsewhere(split, other, unseen, methods, settings) for other, methods in fitted.items()]
    if not parts:
        return chosen, np.full(len(names), 1 / len(names))
    for name, key in product(names, READING):
        if key in chosen[name]:
            values = METHODS[name].grid[key]
            reached = np.mean([part.reached(name, chosen[name], (key, values)) for part in parts], axis=0)
            chosen[name][key] = values[int(np.argmax(reached))]
    ground = [name for name in names if name not in CARRIERS]
    row = np.zeros(len(names))
    for part in parts:
        trusted = [name for name in names if name in ground or whole(part.domain) not in _taught(settings, name)]
        row += part.weights(names, trusted or names, chosen)
    return chosen, row / row.sum()


def _start(name: str, settings: FitSettings) -> Settings:
    """Return the settings to begin with: a carrier stays as it was pre-trained."""
    if name not in CARRIERS:
        return {key: METHODS[name].defaults[key] for key in READING}
    return {"start": settings.settings[name]["start"], "epochs": 0, **({"ids": False} if name == "sequence" else {})}


def _taught(settings: FitSettings, name: str) -> set[str]:
    """Return the domains that a carrier was pre-trained on."""
    said = read_json(Path(str(settings.settings[name]["start"])) / CARD, what="pre-trained model").get("domains", [])
    return {str(row["domain"]) for row in cast("list[Json]", said)}


def _fitted(
    split: Split, domain: str, chosen: dict[str, Settings], features: Features, settings: FitSettings
) -> dict[str, Method]:
    """Return the methods for ``domain``, learned without its events where there are others."""
    data = training_data(split, VALID, domain, features)
    apart = data.histories.keep(~data.in_target[data.histories.items])
    if apart.items.size:
        data = replace(data, histories=apart)
    return {name: make(name, some).fit(data, seed=settings.seed) for name, some in chosen.items()}


class _Elsewhere:
    """A domain with events, as if it had none: the methods that read, and its validation persons.

    What they did in the ``unseen`` domain (its items) is not looked at.
    """

    def __init__(
        self, split: Split, domain: str, unseen: Indices, methods: dict[str, Method], settings: FitSettings
    ) -> None:
        self.domain, self.seed, self.methods = domain, settings.seed, methods
        task = build_task(split, VALID, domain, most=settings.persons)
        self.task = replace(
            task,
            histories=task.histories.keep(~np.isin(task.histories.items, unseen)),
            item_groups={**task.item_groups, "new item": np.zeros(task.items.size, dtype=bool)},
        )

    def reached(self, name: str, chosen: Settings, tried: tuple[str, Sequence[Setting]]) -> Doubles:
        """Return the validation NDCG@10 of a method with each value of a setting, as a share of the best."""
        key, values = tried
        reached = np.array([validate(self._read(name, {**chosen, key: value}), self.task) for value in values])
        return reached / max(float(reached.max()), 1e-9)

    def weights(self, names: Sequence[str], trusted: Sequence[str], chosen: dict[str, Settings]) -> Doubles:
        """Return the weights of the ``trusted`` among ``names`` (M,) that serve best here."""
        methods = [self._read(name, chosen[name]) for name in trusted]
        blend = learn(methods, self.task, seed=self.seed).among(names)
        sizes = np.array([float(self.task.cohorts[cohort].sum()) for cohort in COHORTS])
        rows = np.array([blend.weights[cohort] for cohort in COHORTS])
        return np.asarray(sizes @ rows / max(float(sizes.sum()), 1.0))

    def _read(self, name: str, chosen: Settings) -> Method:
        """Return a fitted method with other settings of reading."""
        again = make(name, {**self.methods[name].settings, **chosen})
        again.take_over(self.methods[name])
        return again
