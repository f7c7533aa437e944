"""Lists for a domain that nobody was seen in: what reads texts, weighted as it served in the domains that are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from isthmus.errors import InputError
from isthmus.files import Json
from isthmus.model.base import Doubles, Features, Method, TrainingData
from isthmus.model.blend import COHORTS, Blend, learn
from isthmus.split.cohorts import build_task, target_items
from isthmus.split.temporal import TEST, TRAIN, VALID, Split
from isthmus.train.fit import FitSettings, Target, training_data
from isthmus.train.methods import CARRIERS, METHODS, make


def is_unseen(split: Split, domain: str) -> bool:
    """Return whether ``domain`` lacks training or validation events: nothing can be chosen there."""
    inside = split.events.filter(split.corpus.items["domain"].gather(split.events["item"]) == domain)
    return not {TRAIN, VALID} <= set(inside["part"].unique().to_list())


def fit_unseen(split: Split, domain: str, features: Features, settings: FitSettings) -> Target:
    """Return a target fitted without any training event of ``domain`` (zero-shot).

    Methods that read take part: the content methods, and carriers that start from a pre-trained model, as they are.
    Their weights are those that serve best on validation in the other domains of the split, averaged; all alike where
    there are none.

    Raises
    ------
    InputError
        No method that takes part can read.
    """
    names = [name for name in METHODS if _reads(name, features, settings)]
    if not names:
        raise InputError(
            f"no training event in domain '{domain}', and no method that reads texts takes part",
            where=split.corpus.name,
            fix="cut later, or give a pre-trained model with --from",
        )
    data = training_data(split, TEST if settings.refit else VALID, domain, features)
    methods = _read(names, data, settings)
    others = [other for other in split.corpus.domains if other != domain and not is_unseen(split, other)]
    shares = [_weights(split, other, names, features, settings) for other in others]
    row = np.mean(shares, axis=0) if shares else np.full(len(names), 1 / len(names))
    blend = Blend(tuple(names), dict.fromkeys(COHORTS, tuple(row.tolist())))
    items = target_items(split, domain)
    log: list[Json] = [
        {"method": name, "settings": method.settings} for name, method in zip(names, methods, strict=True)
    ]
    return Target(domain, items, np.ones(items.size, dtype=bool), methods, blend, log, {})


def _reads(name: str, features: Features, settings: FitSettings) -> bool:
    if name in CARRIERS:
        return bool(settings.settings.get(name, {}).get("start"))
    if not METHODS[name].inductive or name not in settings.methods or name not in ("tfidf", "text"):
        return False
    return features.vectors is not None if name == "text" else features.text is not None and features.text.nnz > 0


def _read(names: Sequence[str], data: TrainingData, settings: FitSettings) -> list[Method]:
    """Return the methods, none of which learns from events."""
    methods = []
    for name in names:
        chosen = {"start": settings.settings[name]["start"], "epochs": 0} if name in CARRIERS else {}
        methods.append(make(name, {**chosen, **({"ids": False} if name == "sequence" else {})}).fit(data))
    return methods


def _weights(split: Split, domain: str, names: Sequence[str], features: Features, settings: FitSettings) -> Doubles:
    """Return the weights (M,) that serve best on validation in a known domain."""
    task = build_task(split, VALID, domain, most=settings.persons)
    task = replace(task, item_groups={**task.item_groups, "new item": np.zeros(task.items.size, dtype=bool)})
    methods = _read(names, training_data(split, VALID, domain, features), settings)
    blend = learn(methods, task, seed=settings.seed)
    sizes = pl.Series([float(task.cohorts[cohort].sum()) for cohort in COHORTS])
    rows = np.array([blend.weights[cohort] for cohort in COHORTS])
    return np.asarray(sizes.to_numpy() @ rows / max(float(sizes.sum()), 1.0))
