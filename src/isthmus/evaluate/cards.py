"""The cards of a report: which data, which machine, and what lists look like for a few people."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.evaluate.protocol import Outcome
from isthmus.files import Json
from isthmus.rng import generator
from isthmus.split.task import Task
from isthmus.types import Bools, Indices

#: Packages whose versions can change a number.
_PACKAGES: Final = ("isthmus", "numpy", "scipy", "polars", "scikit-learn", "implicit", "torch", "transformers")


def data_card(corpus: Corpus) -> Json:
    """Return what identifies the data: name, fingerprint, and counts of persons, events and items by domain."""
    domains = corpus.items.group_by("domain").len().sort("domain")
    return {
        "name": corpus.name,
        "fingerprint": corpus.fingerprint,
        "persons": corpus.persons.len(),
        "events": corpus.events.height,
        "items": dict(domains.iter_rows()),
        "platforms": corpus.platforms,
    }


def machine_card() -> Json:
    """Return the machine and the versions a report was made with; no name and no address of the machine."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def examples(outcome: Outcome, corpus: Corpus, *, persons: int = 6, k: int = 10, seed: int = 0) -> list[Json]:
    """Return the lists of a few persons in words.

    Parameters
    ----------
    outcome : Outcome
        Whose lists are shown.
    corpus : Corpus
        The corpus of the outcome's task; gives the titles.
    persons : int
        How many persons to draw; half of them with a hit where there are such, so that both are seen.
    k : int
        Places shown.
    seed : int
        Seed of the draw.

    Returns
    -------
    list of dict
        ``history`` (platform to titles, newest first, at most 8 a platform), ``list`` (title, platform, hit),
        ``targets`` (titles). Persons are not named.
    """
    task, rng = outcome.task, generator(seed, "examples", outcome.task.domain)
    top = outcome.top[:, :k]
    hits = _hits(top, task)
    order = rng.permutation(len(task))
    lucky = np.isin(order, np.nonzero(hits)[0])
    chosen = np.concatenate([order[lucky][: persons // 2], order[~lucky]])[:persons]
    names = _Names(corpus)
    made: list[Json] = []
    for person in sorted(chosen.tolist()):
        history = task.histories.take(np.array([person])).items[::-1]
        shown = top[person][top[person] >= 0]
        listed = zip(names.rows(task.items[shown]), hits[person].tolist(), strict=False)
        targets = task.targets[task.target_indptr[person] : task.target_indptr[person + 1]]
        made.append(
            {
                "history": names.by_platform(history, at_most=8),
                "events": int(history.size),
                "list": [{"title": title, "platform": where, "hit": hit} for (title, where), hit in listed],
                "targets": [title for title, _ in names.rows(task.items[targets])],
            }
        )
    return made


class _Names:
    """Titles and platforms of items by index."""

    def __init__(self, corpus: Corpus) -> None:
        title = pl.coalesce(pl.col("title"), pl.format("{}:{}", "platform", "item"))
        self.table = corpus.items.select(title.alias("title"), "platform")

    def rows(self, items: Indices) -> list[tuple[str, str]]:
        return [(str(title), str(where)) for title, where in self.table[items.tolist()].iter_rows()]

    def by_platform(self, items: Indices, *, at_most: int) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for title, where in _unique(self.rows(items)):
            groups.setdefault(where, []).append(title)
        return {where: titles[:at_most] for where, titles in sorted(groups.items())}


def _unique(rows: Sequence[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    return dict.fromkeys(rows)


def _hits(top: Indices, task: Task) -> Bools:
    """Return which places hold a target of their person, same shape as ``top``."""
    keys = np.where(top < 0, -1, top + np.arange(len(top))[:, None] * task.items.size)
    hits: Bools = np.asarray(np.isin(keys, task.target_rows * task.items.size + task.targets))
    return hits


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """Return the model of the processor where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
