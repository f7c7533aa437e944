"""What can be searched: a range or a choice for every setting of every method."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from isthmus.model.base import Method, Setting, Settings, TrainingData


class Suggests(Protocol):
    """What we use of a trial of Optuna."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Return a number."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool) -> int:
        """Return a whole number."""

    def suggest_categorical(self, name: str, choices: tuple[Setting, ...]) -> Setting:
        """Return one of several."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Parameters
    ----------
    low, high : float
        Ends; whole numbers are searched where both are of type int.
    log : bool
        Whether equal ratios, not equal steps, are equally likely.
    off : bool
        Whether 0, which switches the thing off, is tried too.
    """

    low: float
    high: float
    log: bool = False
    off: bool = False

    def suggest(self, trial: Suggests, name: str) -> Setting:
        """Return the value that ``trial`` should take."""
        if self.off and not trial.suggest_categorical(f"{name} on", (False, True)):
            return 0.0
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def words(self, name: str, value: Setting) -> Settings:
        """Return the parameters of a trial for which :meth:`suggest` returns ``value``.

        Examples
        --------
        >>> Range(1.0, 9.0, off=True).words("half_life", 0.0)
        {'half_life on': False}
        """
        if not self.off:
            return {name: value}
        return {f"{name} on": True, name: value} if value else {f"{name} on": False}

    def holds(self, value: Setting) -> bool:
        """Return whether ``value`` can come up."""
        return (self.off and value == 0) or self.low <= float(value) <= self.high


@dataclass(frozen=True)
class Choice:
    """One of several values, in no order."""

    values: tuple[Setting, ...]

    def suggest(self, trial: Suggests, name: str) -> Setting:
        """Return the value that ``trial`` should take."""
        return trial.suggest_categorical(name, self.values)

    def words(self, name: str, value: Setting) -> Settings:
        """Return the parameters of a trial for which :meth:`suggest` returns ``value``."""
        return {name: value}

    def holds(self, value: Setting) -> bool:
        """Return whether ``value`` can come up."""
        return value in self.values


Knob: TypeAlias = Range | Choice

_SOURCES: Final = Choice((True, False))
_DECAY: Final = Range(0.3, 1.0)
_AWAY: Final = Range(0.03, 1.0, log=True)
_HALF_LIFE: Final = Range(1.0, 1000.0, log=True, off=True)
#: Of the training of a carrier.
_AIDS: Final[dict[str, Knob]] = {
    "weight_decay": Range(1e-4, 0.3, log=True, off=True),
    "warmup": Range(0.0, 0.3),
    "schedule": Choice(("linear", "cosine", "constant")),
    "adversarial": Range(0.01, 3.0, log=True, off=True),
    "layer_decay": Range(0.5, 1.0),
    "average": Choice((0, 2, 4)),
}
_DIM: Final = Range(8, 256, log=True)

#: The knobs of every method; with :data:`EXCLUDED` they cover its defaults.
SPACES: Final[dict[str, dict[str, Knob]]] = {
    "popularity": {"half_life": _HALF_LIFE},
    "recent": {"half_life": Range(1.0, 1000.0, log=True)},
    "knn": {
        "window": Range(1, 50, log=True),
        "near": Range(0.3, 1.0),
        "norm": Range(0.0, 1.0),
        "fame": Range(0.0, 1.0),
        "shrink": Range(0.01, 100.0, log=True),
        "half_life": _HALF_LIFE,
        "decay": _DECAY,
        "sources": _SOURCES,
    },
    "tfidf": {"decay": _DECAY, "away": _AWAY, "sources": _SOURCES},
    "graph": {"learned": Choice((True, False)), "norm": Range(0.0, 1.0), "decay": _DECAY, "sources": _SOURCES},
    "image": {"shrink": Range(0.0, 1.0), "decay": _DECAY, "sources": _SOURCES},
    "told": {"shrink": Range(0.0, 1.0), "decay": _DECAY, "sources": _SOURCES},
    "fused": {
        "how": Choice(("concat", "gated", "experts", "attention")),
        "decay": _DECAY,
        "sources": _SOURCES,
    },
    "text": {"shrink": Range(0.0, 0.9), "decay": _DECAY, "away": _AWAY, "sources": _SOURCES},
    "aligned": {
        "l2": Range(0.3, 100.0, log=True),
        "share": Range(0.0, 1.0),
        "dim": Range(16, 512, log=True),
        "decay": _DECAY,
        "sources": _SOURCES,
    },
    "launch": {"days": Range(7.0, 365.0, log=True), "l2": Range(1.0, 1000.0, log=True), "dim": Range(8, 256, log=True)},
    "towers": {
        "dim": Choice((32, 64, 128, 256)),
        "epochs": Range(2, 20, log=True),
        "dropout": Range(0.1, 0.9, off=True),
        "learning_rate": Range(5e-4, 2e-2, log=True),
        "decay": _DECAY,
        "sources": _SOURCES,
    },
    "ease": {
        "l2": Range(1.0, 5000.0, log=True),
        "text": Range(1.0, 1000.0, log=True, off=True),
        "source_weight": Range(0.1, 2.0, log=True),
        "decay": _DECAY,
        "sources": _SOURCES,
    },
    "ials": {
        "dim": _DIM,
        "l2": Range(0.001, 10.0, log=True),
        "alpha": Range(1.0, 100.0, log=True),
        "iterations": Range(5, 30),
        "decay": _DECAY,
        "sources": _SOURCES,
    },
    "fm": {
        "dim": _DIM,
        "epochs": Range(2, 40, log=True),
        "words": Range(300, 30_000, log=True),
        "decay": _DECAY,
        "sources": _SOURCES,
    },
    "terms": {"decay": _DECAY, "away": _AWAY, "sources": _SOURCES},
    "topics": {"dim": Range(8, 128, log=True), "decay": _DECAY, "away": _AWAY, "sources": _SOURCES},
    "bpr": {"dim": _DIM, "iterations": Range(10, 200, log=True), "decay": _DECAY, "sources": _SOURCES},
    "bridge": {
        "kind": Choice(("ridge", "meta")),
        "half_life": _HALF_LIFE,
        "loud": Range(0.01, 2.0, log=True),
        "dim": _DIM,
        "l2": Range(1.0, 1000.0, log=True),
        "text": Range(0.0, 1.0),
        "fame": Range(0.0, 1.0),
        "decay": _DECAY,
        "epochs": Range(1, 20, log=True),
    },
    "sequence": {
        "ids": Choice((True, False)),
        "id_dropout": Range(0.1, 0.9, off=True),
        "sources": _SOURCES,
        "half_life": _HALF_LIFE,
        "epochs": Range(4, 40, log=True),
        "steps": Choice((0, 500)),
        "learning_rate": Range(2e-4, 2e-2, log=True),
        "dim": Choice((32, 64, 128)),
        "layers": Range(1, 4),
        "dropout": Range(0.0, 0.6),
        "shrink": Range(0.0, 0.9),
        "batch": Choice((256, 512, 1024, 2048)),
        **_AIDS,
    },
    "language": {
        "person": Choice(("items", "text")),
        "sources": _SOURCES,
        "shrink": Range(0.0, 0.9),
        "decay": _DECAY,
        "epochs": Range(0.1, 3.0, log=True, off=True),
        "learning_rate": Range(2e-6, 2e-4, log=True),
        "batch": Choice((16, 32, 64)),
        "hard": Range(0, 8),
        **_AIDS,
    },
}

#: Settings that are not searched, and why.
EXCLUDED: Final[dict[str, str]] = {
    "max_items": "a bound on memory and time: more items are only better",
    "members": "a bound on time: the mean of more models is only better",
    "precision": "changes speed, and results by rounding only",
    "strategy": "what of a pre-trained model is trained: adapt and fit try them",
    "start": "names a folder: which pre-trained model to go on from",
}


def knobs(method: Method, data: TrainingData) -> dict[str, Knob]:
    """Return the knobs that matter on ``data``: ``sources`` needs other domains, a half-life needs dates."""
    idle = {"sources", "source_weight"} if data.in_target.all() else set()
    if not data.dated:
        idle |= {"half_life", *method.dated}
    return {name: knob for name, knob in SPACES[method.name].items() if name not in idle}


def words(space: Mapping[str, Knob], settings: Settings) -> Settings:
    """Return the parameters of a trial that give ``settings``; values no knob can take are left out."""
    said: Settings = {}
    for name, knob in space.items():
        if knob.holds(settings[name]):
            said.update(knob.words(name, settings[name]))
    return said


def digest() -> str:
    """Return what tells one version of all spaces from another."""
    said = repr(sorted((name, sorted(space.items(), key=str)) for name, space in SPACES.items()))
    return hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
