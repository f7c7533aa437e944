"""Methods that look at pictures and other vectors of items, and one that looks at all modalities together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from isthmus.encode.base import unit
from isthmus.encode.embed import factors, weighted
from isthmus.encode.fuse import Fuser
from isthmus.encode.whiten import Whitening
from isthmus.errors import ArtefactError, InputError
from isthmus.model.base import Features, Settings, State, TrainingData
from isthmus.model.content import TextContent
from isthmus.types import Floats, Indices, Ints

if TYPE_CHECKING:
    from isthmus.model.fusing import Fusion, Shown

#: Length of the vectors that the graph is made into.
GRAPH_DIM = 64
#: Pairs of items that teach a network, at most.
PAIRS = 30_000


class ImageContent(TextContent):
    """Cosine of picture vectors after whitening, summed over the history with decay."""

    name = "image"
    #: Which vectors (:attr:`isthmus.model.base.Features.more`).
    modality: ClassVar[str] = "image"
    defaults: ClassVar[Settings] = {"decay": 0.9, "sources": True, "shrink": 0.1}
    grid: ClassVar = {"sources": (True, False), "shrink": (0.1, 0.5), "decay": (0.9, 1.0)}

    def _fit(self, data: TrainingData, seed: int) -> None:
        if self.modality not in data.features.more:
            raise InputError(f"the method {self.name} needs {self.modality} vectors", fix="name files")
        super()._fit(replace(data, features=self._seen(data.features)), seed)

    def restore(self, state: State, features: Features) -> None:
        """Take back the whitening and apply it to the vectors."""
        super().restore(state, self._seen(features))

    def extend(self, features: Features, target: Indices) -> None:
        """Whiten the vectors of new items as those of the old."""
        super().extend(self._seen(features), target)

    def _seen(self, features: Features) -> Features:
        if self.modality not in features.more:
            raise ArtefactError(f"the model lacks its {self.modality} vectors")
        return Features(vectors=features.more[self.modality])


class ToldContent(ImageContent):
    """Cosine of language-model vectors of the item's text and of what the graph tells of it in words."""

    name = "told"
    modality: ClassVar[str] = "told"
    defaults: ClassVar[Settings] = {"decay": 0.7, "sources": True, "shrink": 0.0}
    grid: ClassVar = {"sources": (True, False), "shrink": (0.0, 0.1), "decay": (0.7, 0.9, 1.0)}


class FusedContent(TextContent):
    """Cosine of one vector made of all modalities: text, graph, image, audio, video.

    ``how``: ``concat`` whitens each and puts them side by side; ``gated``, ``experts`` and ``attention`` are small
    networks (:class:`isthmus.model.fusing.Fusion`) that learn from items met in a row, with modality dropout.
    """

    name = "fused"
    defaults: ClassVar[Settings] = {"decay": 0.9, "sources": True, "how": "concat"}
    grid: ClassVar = {
        "sources": (True, False),
        "how": ("concat", "gated", "experts", "attention"),
        "decay": (0.9, 0.7, 1.0),
    }

    def _fit(self, data: TrainingData, seed: int) -> None:
        self.directions = np.zeros((0, GRAPH_DIM), np.float32)
        self.idf = np.zeros(0, np.float32)
        if data.features.graph is not None:
            self.idf = data.features.graph.idf()
            self.directions = factors(data.features.graph, GRAPH_DIM, seed=seed)[1]
        blocks = self._blocks(data.features)
        if not blocks:
            raise InputError("the method fused needs vectors of at least one modality")
        self.fuser = Fuser.fit(blocks)
        self.weights: State = {}
        parts = self.fuser.parts(blocks)
        if self.settings["how"] != "concat":
            self.weights = self._learn(data, parts, seed)
        self._take(parts)

    def _blocks(self, features: Features) -> dict[str, Floats]:
        """Return the vectors of each modality that is there."""
        blocks = {name: rows for name, rows in features.more.items() if name != "told"}
        if features.vectors is not None:
            blocks["text"] = features.vectors
        if features.graph is not None:
            if features.graph.n_entities != self.idf.size:
                raise ArtefactError("the model lacks its graph")
            blocks["graph"] = unit(np.asarray(weighted(features.graph, self.idf) @ self.directions, dtype=np.float32))
        return {name: rows for name, rows in blocks.items() if rows.any()}

    def _learn(self, data: TrainingData, parts: Mapping[str, Floats], seed: int) -> State:
        from isthmus.model.fusing import Shown, train_fusion

        pairs = _pairs(data, seed)
        if not pairs.size:
            return {}
        model = train_fusion(Shown(parts), pairs, str(self.settings["how"]), seed=seed)
        return {name: tensor.numpy() for name, tensor in model.state_dict().items()}

    def _take(self, parts: Mapping[str, Floats]) -> None:
        if not self.weights:
            self.vectors = unit(np.concatenate(list(parts.values()), axis=1))
            return
        from isthmus.model.fusing import Shown, fused_vectors

        shown = Shown(parts)
        self.vectors = fused_vectors(shown, self._network(shown))

    def _network(self, shown: Shown) -> Fusion:
        import torch

        from isthmus.model.fusing import Fusion

        model = Fusion(shown.dims, str(self.settings["how"]))
        model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in self.weights.items()})
        model.eval()
        return model

    def state(self) -> State:
        """Return how each modality is whitened, the directions of the graph, and the network."""
        white = {
            f"white.{name}.{part}": getattr(found, part)
            for name, found in self.fuser.whitenings.items()
            for part in ("mean", "directions")
        }
        return {
            "graph.directions": self.directions,
            "graph.idf": self.idf,
            **white,
            **{f"net.{name}": array for name, array in self.weights.items()},
        }

    def restore(self, state: State, features: Features) -> None:
        """Take back what :meth:`state` returned and fuse the items' vectors with it."""
        arrays = {name: np.asarray(array, dtype=np.float32) for name, array in state.items()}
        self.directions, self.idf = arrays["graph.directions"], arrays["graph.idf"]
        names = sorted({name.split(".")[1] for name in arrays if name.startswith("white.")})
        self.fuser = Fuser(
            {name: Whitening(arrays[f"white.{name}.mean"], arrays[f"white.{name}.directions"]) for name in names}
        )
        self.weights = {name.removeprefix("net."): array for name, array in arrays.items() if name.startswith("net.")}
        blocks = self._blocks(features)
        sizes = {name: white.mean.size for name, white in self.fuser.whitenings.items()}
        empty = {name: np.zeros((self.n_items, size), np.float32) for name, size in sizes.items()}
        self._take(self.fuser.parts({**empty, **blocks}))

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """Fuse the vectors of old and new items as before."""
        self.restore(self.state(), features)


def _pairs(data: TrainingData, seed: int) -> Ints:
    """Return items and the ones met next by the same person, (2, K); repeats left out."""
    every = data.learn_from(True)
    same = every.rows[1:] == every.rows[:-1]
    pairs = np.stack([every.items[:-1], every.items[1:]])[:, same].astype(np.int64)
    pairs = pairs[:, pairs[0] != pairs[1]]
    if pairs.shape[1] > PAIRS:
        from isthmus.rng import generator

        pairs = pairs[:, generator(seed, "fused").choice(pairs.shape[1], PAIRS, replace=False)]
    return pairs
