"""A search small enough to be killed, and what its tests share; run as a program, it searches slowly and logs."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import polars as pl
import pytest

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import WORLD, twin_world
from isthmus.encode.template import Template
from isthmus.log import logger
from isthmus.model.base import Features, Method
from isthmus.recommender.readers import vocabulary
from isthmus.split.task import Task
from isthmus.split.temporal import Split
from isthmus.train import search as module
from isthmus.train.found import Found
from isthmus.train.search import SearchSettings, search
from isthmus.train.tune import validate

DOMAIN = "target"
THREE = SearchSettings(("knn", "tfidf", "ease"), budget_minutes=10.0, trials=12, seed=7)


@cache
def tiny_split() -> Split:
    world = twin_world(2, replace(WORLD, persons=120, items=60))
    return Split.make(Corpus.from_tables(world.tables, name="twin"), valid_share=0.15, test_share=0.15)


@cache
def tiny_features() -> Features:
    split = tiny_split()
    return Features(vocabulary(split).transform(Template().render(split.corpus.items).to_list()))


@cache
def tiny_found() -> Found:
    """Return what a whole search finds, to be compared with."""
    return search(tiny_split(), DOMAIN, tiny_features(), THREE)


@pytest.fixture
def split() -> Split:
    return tiny_split()


@pytest.fixture
def features() -> Features:
    return tiny_features()


@pytest.fixture
def whole() -> Found:
    return tiny_found()


def told(found: Found) -> pl.DataFrame:
    """Return the trials without what the clock says."""
    return found.trials.drop("seconds")


def main(folder: Path) -> None:
    def slowly(method: Method, task: Task) -> float:
        time.sleep(0.03)
        return validate(method, task)

    module.validate = slowly
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.setLevel(logging.INFO)
    search(tiny_split(), DOMAIN, tiny_features(), THREE, folder=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
