"""Adapting to a person as a method of a blend: a sequence carrier, and a start from which a few steps are taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.model.base import Features, Method, Setting, Settings, State, TrainingData
from isthmus.train.carriers import SequenceCarrier
from isthmus.train.methods import make
from isthmus.types import Floats, Indices, Ints

if TYPE_CHECKING:
    from isthmus.transfer.meta import MetaLearner, MetaSettings

_CARRIER: Final = "carrier."
_START: Final = "start."
_POOL: Final = "pool"


class MetaMethod(Method):
    """A sequence carrier that takes a few gradient steps on a person's newest target events when it is asked.

    The settings are those of :class:`isthmus.transfer.meta.MetaSettings`, and ``carrier.NAME`` for each of the
    carrier's. Nothing is kept about anybody. People without target events are scored from the start as it is.
    """

    name = "meta"
    defaults: ClassVar[Settings] = {
        "way": "anil",
        "rate": 0.1,
        "steps": 3,
        "epochs": 5,
        "learning_rate": 2e-3,
        "candidates": 256,
        "rank": 4,
        "seed": 0,
        **{f"{_CARRIER}{name}": value for name, value in SequenceCarrier.defaults.items()},
    }
    grid: ClassVar[Mapping[str, tuple[Setting, ...]]] = {}
    reading = ()
    inductive = True
    carrier: SequenceCarrier
    learner: MetaLearner

    def on(self, carrier: SequenceCarrier, data: TrainingData) -> MetaMethod:
        """Learn the start on a fitted ``carrier``, from the people of ``data``; return self."""
        self.target, self.n_items, self.carrier = carrier.target, carrier.n_items, carrier
        self.settings |= {f"{_CARRIER}{name}": value for name, value in carrier.settings.items()}
        self._begin()
        seen = data.learn_from(bool(carrier.settings["sources"]))
        self.learner.learn(replace(data, histories=seen))
        return self

    def stepping(self, rate: float, steps: int) -> MetaMethod:
        """Return a method that shares what was learned and adapts by other steps."""
        other = MetaMethod({**self.settings, "rate": rate, "steps": steps})
        other.target, other.n_items, other.carrier = self.target, self.n_items, self.carrier
        other.learner = self.learner.stepping(rate, steps)
        return other

    def score(self, histories: Histories) -> Floats:
        """Return the scores after the steps, (B, T) float32; 0 without any event."""
        seen = histories
        if not self.carrier.settings["sources"]:
            seen = histories.keep(np.isin(histories.items, self.target))
        return self.learner.score(seen)

    def state(self) -> State:
        """Return what the carrier keeps, the start, and the items that the steps compare with."""
        own: State = {f"{_CARRIER}{name}": array for name, array in self.carrier.state().items()}
        start = {f"{_START}{name}": array for name, array in self.learner.weights().items()}
        return {**own, **start, _POOL: self.learner.pool.numpy()}

    def restore(self, state: State, features: Features) -> None:
        """Take back carrier and start."""
        parts: dict[str, State] = {
            mark: {name.removeprefix(mark): array for name, array in state.items() if name.startswith(mark)}
            for mark in (_CARRIER, _START)
        }
        self.carrier = self._new()
        self.carrier.target, self.carrier.n_items = self.target, self.n_items
        self.carrier.restore(parts[_CARRIER], features)
        self._begin(parts[_START], state[_POOL].astype(np.int64))

    def extend(self, features: Features, target: Indices) -> None:
        """Show the carrier the new items."""
        start, pool = self.learner.weights(), self.learner.pool.numpy()
        longer = self.carrier.extended(features, target, self.n_items)
        assert isinstance(longer, SequenceCarrier)
        self.carrier = longer
        self._begin(start, pool)

    def _fit(self, data: TrainingData, seed: int) -> None:
        carrier = self._new()
        carrier.fit(data, seed=seed)
        self.settings["seed"] = seed
        self.on(carrier, data)

    def _new(self) -> SequenceCarrier:
        own = {name: value for name, value in self.settings.items() if name.startswith(_CARRIER)}
        return SequenceCarrier({name.removeprefix(_CARRIER): value for name, value in own.items()})

    def _begin(self, start: State | None = None, pool: Ints | None = None) -> None:
        from isthmus.transfer.meta import MetaLearner

        self.learner = MetaLearner(self.carrier, self._how())
        if start is not None:
            self.learner.take(start, pool)

    def _how(self) -> MetaSettings:
        from isthmus.transfer.meta import MetaSettings

        whole = {name: int(self.number(name)) for name in ("steps", "epochs", "candidates", "rank", "seed")}
        rates = {name: self.number(name) for name in ("rate", "learning_rate")}
        return MetaSettings(way=str(self.settings["way"]), **whole, **rates)  # type: ignore[arg-type]


def made(name: str, settings: Mapping[str, Setting] | None = None) -> Method:
    """Return the method ``name``, not yet fitted: one of :func:`isthmus.train.methods.make`, or ``meta``.

    Raises
    ------
    InputError
        There is no such method or setting.
    """
    return MetaMethod(settings) if name == MetaMethod.name else make(name, settings)
