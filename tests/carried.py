"""A small world with a source and a target, read once, and a model pre-trained on the source: what tests share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import WORLD, twin_world, unrelated_world
from isthmus.data.simulate.worlds import World
from isthmus.model.base import Features
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.split.temporal import Split
from isthmus.transfer.pretrain import SequencePretraining, pretrain_sequence

PLAN = replace(WORLD, persons=250, items=60, themes=4)
TINY = SequencePretraining(domains=("source",), epochs=2, dim=16, layers=1, experts=1, batch=256, persons=60)


@dataclass(frozen=True)
class Scene:
    """A world, split by time and read."""

    world: World
    split: Split
    features: Features

    @property
    def unseen(self) -> Split:
        """The split in which nobody teaches in the target."""
        return self.split.thinned("target", share=0, seed=0)


@cache
def scene(kind: str = "twin", seed: int = 0) -> Scene:
    world = (twin_world if kind == "twin" else unrelated_world)(seed, PLAN)
    split = Split.make(Corpus.from_tables(world.tables, name=kind))
    readers = Readers(vocabulary(split), None)
    return Scene(world, split, readers.read(split.corpus.items))


@cache
def pretrained(kind: str = "twin", epochs: float = 12.0) -> Path:
    """Return the folder of a model that learned from the source."""
    path = Path(mkdtemp()) / "model"
    pretrain_sequence([scene(kind).unseen], path, replace(TINY, epochs=epochs))
    return path
