"""Learning a sequence model from histories: from scratch, from a pre-trained one, over one or many data sets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from torch import Tensor

from isthmus.data.sequences import Histories
from isthmus.encode.text import quiet
from isthmus.errors import InputError
from isthmus.model.base import Features, Places, TrainingData
from isthmus.model.catalogue import Catalogue
from isthmus.model.sequence import UNKNOWN, SequenceConfig, SequenceModel
from isthmus.model.strategies import StrategySettings, plain, prepare
from isthmus.model.whitened import strongest_directions
from isthmus.rng import generator
from isthmus.train.batches import BatchSettings, SequenceBatches
from isthmus.train.loop import LoopLog, LoopSettings, train
from isthmus.train.schedule import temperature_shares
from isthmus.train.settings import AIDS
from isthmus.types import Bools, Floats, Indices

if TYPE_CHECKING:
    from isthmus.train.carriers import SequenceCarrier

#: Catalogues of a domain from this size on are sampled while learning (docs/decisions/0009-sequence-model.md).
SAMPLED_FROM: Final = 15_000
CANDIDATES: Final = 4096
#: Times as many epochs as the best one, at most, that learning again takes: the learning rate was high still, and goes
#: down to nothing then.
AGAIN: Final = 1.5


@dataclass(frozen=True)
class Material:
    """What a sequence model learns from: one corpus, less the items that take no part.

    Parameters
    ----------
    histories : Histories
        Training events; items count in ``rows``.
    places : Places
        Of those items.
    vectors : float32 array (n, D) or None
        Of those items, whitened.
    rows : int32 array (n,)
        Corpus item index of each item, rising: items with an event, and those of a target domain.
    predict : bool array (n,)
        Items that count as a next item.
    now : int
        Time of the newest event.
    dated : bool
        Whether times are dates.
    """

    histories: Histories
    places: Places
    vectors: Floats | None
    rows: Indices
    predict: Bools
    now: int
    dated: bool

    @classmethod
    def of(cls, data: TrainingData, places: Places, vectors: Floats | None, *, sources: bool) -> Material:
        """Return the material of ``data``; without ``sources`` events of other domains take no part."""
        histories = data.learn_from(sources)
        taking = data.in_target.copy()
        taking[histories.items] = True
        rows = np.flatnonzero(taking).astype(np.int32)
        mine = replace(places, domain=places.domain[rows], platform=places.platform[rows])
        some = None if vectors is None else vectors[rows]
        return cls(histories.within(rows), mine, some, rows, np.ones(rows.size, dtype=bool), data.now, data.dated)

    @classmethod
    def about(cls, data: TrainingData, places: Places, vectors: Floats | None) -> Material:
        """Return what leads to the target domain only: its people, whatever they did, predict its items."""
        inside = data.in_target[data.histories.items]
        people = np.bincount(data.histories.rows[inside], minlength=len(data.histories)) > 0
        some = replace(data, histories=data.histories.take(np.flatnonzero(people & (data.histories.lengths > 1))))
        material = cls.of(some, places, vectors, sources=True)
        return replace(material, predict=data.in_target[material.rows])

    @property
    def met(self) -> Indices:
        """Items with an event, rising."""
        return np.unique(self.histories.items)

    def batches(self, settings: BatchSettings) -> SequenceBatches:
        """Return the batches; of large catalogues only a sample takes part in each."""
        largest = int(np.bincount(self.places.domain, minlength=1).max())
        views = settings.views and settings.views.told(self.histories, self.places, self.vectors)
        settings = replace(settings, sampled=CANDIDATES if largest >= SAMPLED_FROM else 0, views=views)
        return SequenceBatches(self.histories, self.places, self.predict, settings, now=self.now, dated=self.dated)


class Mixture:
    """Batches of several materials, drawn by temperature sampling; each batch is of one material.

    Parameters
    ----------
    parts : sequence of SequenceBatches
        One for each material, in the order of the model's catalogues.
    alpha : float
        A material of ``n`` batches is drawn with a share that grows as ``n ** alpha``.
    seed : int
        Order.
    """

    def __init__(self, parts: Sequence[SequenceBatches], alpha: float, seed: int) -> None:
        self.parts, self.seed = parts, seed
        self.shares = temperature_shares(np.array([len(part) for part in parts]), alpha)
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Return the batches of an epoch: as many as all materials have."""
        return sum(len(part) for part in self.parts)

    def batch(self, step: int) -> dict[str, dict[str, Tensor]]:
        """Return the inputs of the model for a step, with the number of the material as ``group``."""
        epoch, place = divmod(step, len(self))
        if epoch != self._epoch:
            rng = generator(self.seed, "mixture", epoch)
            self._epoch, self._order = epoch, rng.choice(len(self.parts), size=len(self), p=self.shares)
        group = int(self._order[place])
        drawn = int((self._order[:place] == group).sum())
        # a material goes on in each epoch about where it would be by its share
        before = int(epoch * len(self) * self.shares[group])
        return {"batch": {**self.parts[group].fields(before + drawn), "group": torch.tensor(group)}}


def learn_sequence(
    method: SequenceCarrier, data: TrainingData, vectors: Floats | None, seed: int
) -> tuple[SequenceModel, Indices]:
    """Return a trained model, and the corpus item index of each item that it has an embedding of.

    Where nobody has two events to learn from, or for 0 epochs, the model stays as it starts.
    """
    if method.settings["sources"]:
        material = Material.about(data, method.places, vectors)
    else:
        material = Material.of(data, method.places, vectors, sources=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _start(method, material, data.features)
    if method.settings["start"]:
        prepare(model, StrategySettings(str(method.settings["strategy"]), seed=seed))
    known = material.met if model.ids is not None else material.met[:0]
    model.attend(material.vectors, material.places, known)
    rows = material.rows[known]
    settings = BatchSettings(
        events=int(method.number("batch")),
        length=model.config.length,
        half_life=method.number("half_life"),
        seed=seed,
    )
    batches = material.batches(settings)
    if method.settings["epochs"] == 0 or len(batches) == 0:
        return cast("SequenceModel", plain(model)).eval(), rows
    loop = LoopSettings(
        epochs=method.epochs(len(batches)),
        learning_rate=method.number("learning_rate"),
        seed=seed,
        patience=2 if method.hooks.watch else 0,
        precision="bf16",
        name="sequence",
    ).changed({name: method.settings[name] for name in AIDS})
    log = train(model, batches, loop, watch=_watcher(method, vectors, rows) if method.hooks.watch else None)
    method.log = log
    model = cast("SequenceModel", plain(model))
    if method.hooks.watch is not None:
        best = max(round(log.best_step / len(batches)), 1)
        method.settings.update(epochs=min(loop.epochs, math.ceil(AGAIN * best)), steps=0)
    return model, rows


def learn_mixture(
    model: SequenceModel,
    materials: Sequence[Material],
    settings: BatchSettings,
    loop: LoopSettings,
    *,
    folder: Path | None = None,
    watch: Callable[[SequenceModel], float] | None = None,
) -> LoopLog:
    """Train ``model`` on several materials and return the log; a killed run goes on with ``folder``.

    Materials are drawn by temperature sampling with ``settings.alpha``.
    """
    none = np.zeros(0, np.int32)
    catalogues = [Catalogue(part.vectors, part.places, model.config, none) for part in materials]
    parts = [part.batches(replace(settings, seed=settings.seed + place)) for place, part in enumerate(materials)]
    model.attend_all(catalogues)
    return train(model, Mixture(parts, settings.alpha, settings.seed), loop, folder=folder, watch=watch)


def _start(method: SequenceCarrier, material: Material, features: Features) -> SequenceModel:
    """Return the model to train: new, or the pre-trained one with room for the names and ids of these items."""
    ids = material.met.size if method.settings["ids"] or material.vectors is None else 0
    start, places = str(method.settings["start"]), material.places
    width = 0 if material.vectors is None else material.vectors.shape[1]
    if start:
        with quiet():
            loaded: SequenceModel = SequenceModel.from_pretrained(Path(start))
        if loaded.config.width != width:
            raise InputError(
                f"the pre-trained model reads vectors of length {loaded.config.width}, the items have {width}",
                where=start,
                fix="encode the items with the language model it was pre-trained with",
            )
        grown = loaded.grown(places, ids)
        grown.config.id_dropout = method.number("id_dropout")
        return grown
    config = SequenceConfig(
        width=width,
        dim=int(method.number("dim")),
        layers=int(method.number("layers")),
        dropout=method.number("dropout"),
        id_dropout=method.number("id_dropout"),
        domains=[UNKNOWN, *places.domains],
        platforms=[UNKNOWN, *places.platforms],
        n_items=ids,
    )
    directions = strongest_directions(features, material.rows, config.dim)
    model: SequenceModel = SequenceModel(config).begin_with(directions)
    return model


def _watcher(method: SequenceCarrier, vectors: Floats | None, known: Indices) -> Callable[[SequenceModel], float]:
    """Return what judges the model while it learns: the method, as if it were done."""

    def watch(model: SequenceModel) -> float:
        catalogues = model.catalogues
        method.known, method.models = known, [model]
        method.tables = [model.whole(vectors, method.places, known)]
        found = method.hooks.watch(method) if method.hooks.watch else 0.0
        method.models, method.tables = [], []
        model.catalogues = catalogues
        return found

    return watch
