"""The examples of the page on new people run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tests.carried import PLAN
from tests.pages import blocks_of, text_of

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import twin_world
from isthmus.model.base import Features, Places
from isthmus.split.temporal import VALID, Split
from isthmus.train.carriers import SequenceCarrier
from isthmus.train.fit import training_data

PAGE = text_of("new-people.md")


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    world = twin_world(0, replace(PLAN, persons=60, items=30))
    split = Split.make(Corpus.from_tables(world.tables, name="twin").save("CORPUS")).save("SPLIT")
    features = Features(places=Places.of(split.corpus.items))
    carrier = SequenceCarrier({"dim": 8, "layers": 1, "epochs": 1})
    carrier.fit(training_data(split, VALID, "target", features))
    known = SimpleNamespace(features=features, targets={"target": SimpleNamespace(methods=[carrier])})
    blocks = blocks_of(PAGE, "python")
    assert len(blocks) == 2
    names: dict[str, object] = {"recommender": known}
    for block in blocks:
        exec(block, names)
        assert np.asarray(names["scores"]).shape == (2, 30)
