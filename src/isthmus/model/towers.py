"""Two towers with id dropout: an item that nobody has met has a place in the space of those that were met.

    item in a history   p = x A + [met] a        x: what is known of the item (isthmus.model.space)
    item in a list      q = x B + [met] b        a, b: what only its events tell
    person              u = sum of the p of the events, newest most, over the root of their weights
    score               u . q + x c + [met] d

While it learns (:mod:`isthmus.model.tower_net`) items lose a, b and d by chance, so that A, B and c have to do alone.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.model.base import Features, Method, Settings, State, TrainingData, grown
from isthmus.model.space import ContentSpace
from isthmus.types import Floats, Indices


class Towers(Method):
    """Items and people in one space, learned with id dropout so that items nobody has met are placed too.

    Dropping what is known by id alone follows DropoutNet (Volkovs et al., NeurIPS 2017), doing so inside the loss that
    places items, and not afterwards, CLCRec (Wei et al., ACM MM 2021). The loss is the softmax over the target's items,
    or a sample of them, of each event given the other events of the person.
    """

    name = "towers"
    defaults: ClassVar[Settings] = {
        "dim": 128,
        "epochs": 4,
        "dropout": 0.5,
        "learning_rate": 1e-3,
        "decay": 0.8,
        "sources": True,
    }
    grid: ClassVar = {"sources": (True, False), "dropout": (0.5, 0.3)}
    reading = ()
    inductive = True
    #: The maps of what is known, (2, D, d) for histories and lists, and of how popular it makes an item, (D,).
    maps: Floats
    liked: Floats
    #: What only events tell, (2, N, d) and (N,); zeros for items nobody met.
    ids: Floats
    fame: Floats

    def _fit(self, data: TrainingData, seed: int) -> None:
        from isthmus.model.tower_net import learn_towers

        if data.features.text is None and data.features.vectors is None:
            raise InputError("the method towers needs item texts")
        self.space = ContentSpace.fit(data.features, seed=seed)
        rows = self.space.rows(data.features)
        self.maps, self.liked, self.ids, self.fame = learn_towers(self, data, rows, seed)
        self._place(rows)

    def _place(self, rows: Floats) -> None:
        """Give every item its places in histories, (N, d), and in lists, (T, d), and its popularity, (T,)."""
        some = rows[self.target]
        self.inputs = rows @ self.maps[0] + self.ids[0]
        self.outputs = some @ self.maps[1] + self.ids[1][self.target]
        self.bias = some @ self.liked + self.fame[self.target]

    def score(self, histories: Histories) -> Floats:
        """Return ``u . q`` plus the popularity, (B, T); the popularity alone for an empty history."""
        profile = self.profile(histories)
        total = np.sqrt(np.maximum(np.asarray(profile.sum(axis=1)), 1e-9))
        persons = np.asarray(profile @ self.inputs) / total.reshape(-1, 1)
        return np.asarray(persons @ self.outputs.T + self.bias, dtype=np.float32)

    def state(self) -> State:
        """Return the space, the maps, and what the events of items that were met tell."""
        met = np.flatnonzero(self.ids.any(axis=(0, 2)))
        own: State = {"met": met, "ids": self.ids[:, met], "fame": self.fame[met]}
        return {**self.space.state(), "maps": self.maps, "liked": self.liked, **own}

    def restore(self, state: State, features: Features) -> None:
        """Take back what was learned."""
        self.space = ContentSpace.of(state)
        self.maps, self.liked = state["maps"].astype(np.float32), state["liked"].astype(np.float32)
        met = state["met"].astype(np.int64)
        self.ids = np.zeros((2, self.n_items, self.maps.shape[2]), np.float32)
        self.fame = np.zeros(self.n_items, np.float32)
        self.ids[:, met], self.fame[met] = state["ids"], state["fame"]
        self._place(self.space.rows(features))

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """Place new items by what is known of them."""
        self.ids = np.stack([grown(part, self.n_items) for part in self.ids])
        self.fame = grown(self.fame, self.n_items)
        self._place(self.space.rows(features))
