"""The sequence model as a method: learned from scratch or from a pre-trained one, then scored like any other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, cast

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.encode.whiten import Whitening
from isthmus.files import read_json
from isthmus.model.base import Features, Method, Places, Setting, Settings, State, TrainingData
from isthmus.model.whitened import apply, whitenings
from isthmus.train.settings import LoopSettings
from isthmus.types import Floats, Indices

if TYPE_CHECKING:
    from isthmus.model.sequence import SequenceConfig, SequenceModel
    from isthmus.train.settings import LoopLog

#: Persons scored at a time.
BLOCK: Final = 256
#: Times ``epochs`` that few events are gone through, at most.
MORE: Final = 4


class SequenceCarrier(Method):
    """A causal Transformer over a person's last events of all platforms (:mod:`isthmus.model.sequence`).

    ``start`` is the folder of a pre-trained model to go on from, ``strategy`` what of it is trained (see
    :mod:`isthmus.transfer.strategies`). Training takes ``epochs``, or as many as make ``steps`` updates where that is
    more, up to :data:`MORE` times ``epochs``; who names ``epochs`` alone gets just those. With the hook ``watch``,
    ``fit`` keeps the best epoch, and notes in the settings the epochs that learning again takes.
    """

    name = "sequence"
    defaults: ClassVar[Settings] = {
        "start": "",
        "strategy": "full",
        "ids": True,
        "id_dropout": 0.0,
        "sources": True,
        "half_life": 0.0,
        "epochs": 5,
        "steps": 500,
        "learning_rate": 4e-3,
        "dim": 64,
        "layers": 2,
        "dropout": 0.3,
        "shrink": 0.1,
        "batch": 512,
        "members": 1,
        **LoopSettings.aids(),
    }
    grid: ClassVar = {"half_life": (0.0, 90.0), "sources": (True, False), "dropout": (0.3, 0.5)}
    reading = ()
    dated = ("half_life",)
    inductive = True

    def axes(self) -> Mapping[str, tuple[Setting, ...]]:
        """Return what is worth trying: with a pre-trained model also none, and what of it is trained."""
        start = self.settings["start"]
        if not start:
            return self.grid
        noted = read_json(Path(str(start)) / "config.json", what="pre-trained model").get("strategy")
        strategies = ("full", "top") if noted else ("full", "lora", "top")  # one inserted part is enough
        return {"start": (start, ""), "strategy": strategies, **self.grid}

    def __init__(self, settings: Mapping[str, Setting] | None = None) -> None:
        given = dict(settings or {})
        super().__init__({"steps": 0, **given} if "epochs" in given else given)
        self.log: LoopLog | None = None
        self.models: list[SequenceModel] = []
        self.tables: list[Floats] = []
        self.whitenings: dict[str, Whitening] = {}
        self.known: Indices = np.zeros(0, np.int32)
        self.has_dates = True

    def epochs(self, batches: int) -> float:
        """Return how many times all is gone through where that takes so many ``batches``.

        Examples
        --------
        >>> method = SequenceCarrier()
        >>> [method.epochs(batches) for batches in (400, 50, 4)], SequenceCarrier({"epochs": 3}).epochs(4)
        ([5.0, 10.0, 20.0], 3.0)
        """
        epochs = self.number("epochs")
        return max(epochs, min(float(np.ceil(self.number("steps") / batches)), MORE * epochs))

    def _fit(self, data: TrainingData, seed: int) -> None:
        from isthmus.train.sequences import learn_sequence

        places = data.features.places or Places.nameless(data.n_items)
        self.places, self.has_dates = places, data.dated
        if self.settings["start"]:
            config = read_json(Path(str(self.settings["start"])) / "config.json", what="pre-trained model")
            self.settings["shrink"] = cast("float", config.get("shrink", self.settings["shrink"]))
        self.whitenings = whitenings(data.features, self.number("shrink"))
        vectors = apply(self.whitenings, data.features)
        self.models, self.tables = [], []
        for member in range(int(self.number("members"))):
            model, self.known = learn_sequence(self, data, vectors, seed + 1000 * member)
            self.models.append(model)
            self._tell(model, vectors, places)

    @classmethod
    def wrap(cls, model: SequenceModel, data: TrainingData, shrink: float) -> SequenceCarrier:
        """Return a method that scores by an inductive ``model`` as it is: nothing is learned."""
        method = cls({"shrink": shrink, "ids": False})
        method.target, method.n_items, method.has_dates = data.target, data.n_items, data.dated
        places = data.features.places or Places.nameless(data.n_items)
        method.whitenings, method.models = whitenings(data.features, shrink), [model]
        method._tell(model, apply(method.whitenings, data.features), places)
        return method

    def _tell(self, model: SequenceModel, vectors: Floats | None, places: Places) -> None:
        """Show the model the whole catalogue and keep its item vectors."""
        self.places = places
        self.tables.append(model.whole(vectors, places, self.known))

    def score(self, histories: Histories) -> Floats:
        """Return the mean over the members of ``person . item``, (B, T); 0 for a person without events."""
        seen = histories
        if not self.settings["sources"]:
            mine = np.zeros(self.n_items, dtype=bool)
            mine[self.target] = True
            seen = histories.keep(mine[histories.items])
        total = np.zeros((len(seen), self.target.size), np.float32)
        for model, table in zip(self.models, self.tables, strict=True):
            items = table[self.target].T
            for start in range(0, len(seen), BLOCK):
                some = seen.take(np.arange(start, min(start + BLOCK, len(seen))))
                total[start : start + BLOCK] += model.states(table, some, dated=self.has_dates) @ items
        total[seen.lengths == 0] = 0.0
        return total / np.float32(max(len(self.models), 1))

    def state(self) -> State:
        """Return weights, whitening and configuration."""
        arrays: State = {"known": self.known, "dated": np.array([self.has_dates])}
        for member, model in enumerate(self.models):
            for name, tensor in model.state_dict().items():
                arrays[f"{member}.{name}"] = tensor.float().numpy()
        for name, whitening in self.whitenings.items():
            arrays[f"mean.{name}"], arrays[f"directions.{name}"] = whitening.mean, whitening.directions
        config = json.dumps(self.models[0].config.to_dict())
        return {**arrays, "config": np.frombuffer(config.encode(), dtype=np.uint8)}

    def restore(self, state: State, features: Features) -> None:
        """Take back what :meth:`state` returned."""
        import torch

        from isthmus.model.sequence import SequenceConfig, SequenceModel

        config: SequenceConfig = SequenceConfig.from_dict(json.loads(bytes(state["config"]).decode()))
        self.known, self.has_dates = state["known"].astype(np.int32), bool(state["dated"][0])
        names = [key.removeprefix("mean.") for key in state if key.startswith("mean.")]
        self.whitenings = {
            name: Whitening(state[f"mean.{name}"].astype(np.float32), state[f"directions.{name}"].astype(np.float32))
            for name in names
        }
        vectors = apply(self.whitenings, features)
        self.models, self.tables = [], []
        for member in range(int(self.number("members"))):
            model = SequenceModel(config)
            mark = f"{member}."
            weights = {key.removeprefix(mark): state[key] for key in state if key.startswith(mark)}
            model.load_state_dict({key: torch.from_numpy(np.array(array)) for key, array in weights.items()})
            self.models.append(model.eval())
            self._tell(model, vectors, features.places or Places.nameless(self.n_items))

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """Read the new items; they have no id embedding."""
        vectors, self.tables = apply(self.whitenings, features), []
        for model in self.models:
            self._tell(model, vectors, features.places or Places.nameless(self.n_items))
