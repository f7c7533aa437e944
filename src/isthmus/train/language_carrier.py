"""The language model as a method: it reads items and people, before any event of the target is known if need be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final, cast

import numpy as np
from numpy.typing import NDArray

from isthmus.data.sequences import Histories
from isthmus.encode.base import unit
from isthmus.encode.whiten import Whitening
from isthmus.errors import ArtefactError, InputError
from isthmus.model.base import Features, Method, Places, Setting, Settings, State, TrainingData
from isthmus.model.content import without_self
from isthmus.model.whitened import whitenings
from isthmus.rng import generator
from isthmus.train.settings import LoopSettings
from isthmus.types import Bools, Floats, Indices

if TYPE_CHECKING:
    from isthmus.encode.text import Precision
    from isthmus.model.language import LanguageModel
    from isthmus.model.reading import Reader
    from isthmus.train.settings import LoopLog

#: Persons whose texts are read for their mean.
SAMPLE: Final = 512
PERSONS: Final = ("items", "text")
FIX: Final = "fit it again"


class LanguageCarrier(Method):
    """One language model reads items and people (:mod:`isthmus.model.language`); the score is their cosine.

    It needs no event of the target: with ``epochs`` 0 nothing is learned. ``person`` is ``items``: the decayed mean of
    the vectors of what somebody met, less what an item says for itself; or ``text``: what he or she did, told in words
    and read. Vectors of items are whitened by domain, those of people told in words by the map of the target domain
    around the mean of people.

    ``start`` is the folder of a pre-trained model, any Hugging Face base model, or empty for the bundled one;
    ``strategy`` is what of it is trained (:mod:`isthmus.model.strategies`), on pairs of what people did. With the hook
    ``watch``, ``fit`` keeps the best epoch and notes it in the settings.
    """

    name = "language"
    defaults: ClassVar[Settings] = {
        "start": "",
        "person": "items",
        "sources": True,
        "shrink": 0.1,
        "decay": 0.7,
        "strategy": "full",
        "epochs": 0.0,
        "learning_rate": 2e-5,
        "batch": 32,
        "hard": 4,
        "precision": "auto",
        **LoopSettings.aids(warmup=0.1),
    }
    grid: ClassVar = {
        "sources": (True, False),
        "shrink": (0.1, 0.0),
        "decay": (0.7, 0.5, 0.9, 1.0),
        "person": ("items", "text"),
    }
    reading = ("person", "shrink", "decay")
    inductive = True

    def __init__(self, settings: Mapping[str, Setting] | None = None) -> None:
        super().__init__(settings)
        if self.settings["person"] not in PERSONS:
            raise InputError(f"person '{self.settings['person']}'", where="method language", fix="take items or text")
        self.log: LoopLog | None = None
        self.texts: tuple[str, ...] = ()
        self.places = Places.nameless(0)
        self.vectors: NDArray[np.float16] = np.zeros((0, 0), np.float16)
        self.fitted = 0
        self.sample = Histories.of([])
        self._model: LanguageModel | None = None
        self._packed: State = {}
        self._forget()

    def _forget(self) -> None:
        """Drop what follows from settings, vectors and texts."""
        self._white: tuple[Floats, dict[str, Whitening]] | None = None
        self._mean: Floats | None = None
        self._reader: Reader | None = None

    def take_over(self, other: Method) -> None:
        """Take what ``other`` learned."""
        super().take_over(other)
        self._forget()

    def _fit(self, data: TrainingData, seed: int) -> None:
        from isthmus.train.languages import learn_language, start_model

        self._take(data.features, InputError("the method language needs item texts", where="features"))
        people = data.learn_from(True)
        chosen = generator(seed, "language", "people").permutation(len(people))[:SAMPLE]
        self.sample = people.take(np.sort(chosen))
        learns = self.number("epochs") > 0
        if learns:
            self.show(*learn_language(self, data, seed))
        else:
            self.show(start_model(str(self.settings["start"]), seed), keep=True)

    def show(
        self, model: LanguageModel | None, vectors: NDArray[np.float16] | None = None, *, keep: bool = False
    ) -> None:
        """Read the items with ``model``, unless it gave ``vectors``, and score by it from now on; None takes it away.

        Without ``sources`` the target's items alone are read. With ``keep`` the vectors may come from the cache on
        disk, and go there.
        """
        self._model, self._packed = model, {}
        if model is None:
            self.vectors = np.zeros((0, 0), np.float16)
        else:
            self.vectors = self._read(self._heard, keep=keep) if vectors is None else vectors
        self.fitted = len(self.vectors)
        self._forget()

    @property
    def _heard(self) -> tuple[str, ...]:
        """The texts that count: those of the target without ``sources``, empty for the others."""
        if self.settings["sources"]:
            return self.texts
        mine = set(self.target.tolist())
        return tuple(text if place in mine else "" for place, text in enumerate(self.texts))

    def _take(self, features: Features, missing: Exception) -> None:
        if features.texts is None:
            raise missing
        self.texts = features.texts
        self.places = features.places or Places.nameless(len(features.texts))

    @property
    def model(self) -> LanguageModel:
        """The language model; made of its arrays when it is first needed."""
        if self._model is None:
            from isthmus.train.languages import unpack

            self._model, self._packed = unpack(self._packed), {}
        return self._model

    def _read(self, texts: tuple[str, ...], *, keep: bool) -> NDArray[np.float16]:
        """Return the vectors of some texts, (n, D), rounded as they are stored."""
        from isthmus.train.languages import read_items

        keep = keep and not self.model.config.strategy
        return read_items(self.model, texts, precision=str(self.settings["precision"]), keep=keep).astype(np.float16)

    def _items(self) -> tuple[Floats, dict[str, Whitening]]:
        """Return the whitened vectors of length 1 of all items, (N, D), and the map of each domain.

        The maps are those of the items it was fitted with: later ones change nothing for the others.
        """
        if self._white is None:
            vectors = self.vectors.astype(np.float32)
            domain, n = self.places.domain, self.fitted
            first = replace(self.places, domain=domain[:n], platform=self.places.platform[:n])
            maps = whitenings(Features(vectors=vectors[:n], places=first), self.number("shrink"))
            white = np.zeros_like(vectors)
            for place, name in enumerate(self.places.domains):
                if name in maps:
                    white[domain == place] = maps[name].transform(vectors[domain == place])
            self._white = unit(white), maps
        return self._white

    def score(self, histories: Histories) -> Floats:
        """Return the cosine of each target item to each person, (B, T); 0 for a person without events."""
        return self._by_text(histories) if self.settings["person"] == "text" else self._by_items(histories)

    def _by_items(self, histories: Histories) -> Floats:
        items, _ = self._items()
        profile = self.profile(histories)
        scores = np.asarray(profile @ items) @ items[self.target].T
        total = np.asarray(profile.sum(axis=1), np.float32).reshape(-1, 1)
        scores = without_self(scores, profile, self.target, self._readable.astype(np.float32))
        return np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)

    @property
    def _readable(self) -> Bools:
        found: Bools = np.any(self.vectors != 0, axis=1)
        return found

    def _by_text(self, histories: Histories) -> Floats:
        items, maps = self._items()
        white = maps.get(self._domain)
        if white is None:
            return np.zeros((len(histories), self.target.size), np.float32)
        people = self._people(histories)
        said = np.any(people != 0, axis=1)
        moved = ((people[said] - self._people_mean(white)) @ white.directions).astype(np.float32)
        people[said] = unit(moved)
        scores: Floats = people @ items[self.target].T
        return scores

    @property
    def _domain(self) -> str:
        """Name of the target domain."""
        return self.places.domains[self.places.domain[self.target[0]]] if self.target.size else ""

    def _people(self, histories: Histories) -> Floats:
        """Return the vectors of people told in words, (B, D); zeros for an empty history."""
        from isthmus.model.language_encoder import person_vectors
        from isthmus.train.languages import reader_of

        if self._reader is None:
            self._reader = reader_of(self.model, self.texts, self.places)
        precision = cast("Precision", self.settings["precision"])
        return person_vectors(self.model, self._reader, self._seen(histories), precision=precision)

    def _seen(self, histories: Histories) -> Histories:
        if self.settings["sources"]:
            return histories
        mine = np.zeros(self.n_items, dtype=bool)
        mine[self.target] = True
        return histories.keep(mine[histories.items])

    def _people_mean(self, white: Whitening) -> Floats:
        """Return the mean vector of people, (D,); that of the target's items where nobody is known."""
        if self._mean is None:
            people = self._people(self.sample)
            said = np.any(people != 0, axis=1)
            self._mean = people[said].mean(axis=0) if said.any() else white.mean
        return self._mean

    def state(self) -> State:
        """Return the language model, the items' vectors, and the mean of people where it is used."""
        from isthmus.train.languages import pack

        packed = self._packed or pack(self.model)
        found: State = {"vectors": self.vectors, "fitted": np.array([self.fitted], np.int64)}
        white = self._items()[1].get(self._domain) if self.settings["person"] == "text" else None
        if white is not None:
            found["people"] = self._people_mean(white)
        return {**packed, **found}

    def restore(self, state: State, features: Features) -> None:
        """Take back what :meth:`state` returned; the language model itself is loaded when it is first needed."""
        self._take(features, ArtefactError("the model lacks its item texts", where="method language", fix=FIX))
        self._model = None
        self._packed = {key: array for key, array in state.items() if key.startswith(("weight.", "file."))}
        self.vectors, self.fitted = state["vectors"].astype(np.float16), int(state["fitted"][0])
        self.sample = Histories.of([])
        self._forget()
        self._mean = state["people"].astype(np.float32) if "people" in state else None

    def extend(self, features: Features, target: Indices) -> None:  # noqa: ARG002
        """Read the new items; a text that is known already is not read again."""
        missing = ArtefactError("new items come without texts", where="method language", fix=FIX)
        readable = self._readable
        known = {text: place for place, text in enumerate(self.texts) if readable[place] or not text}
        self._take(features, missing)
        new = self.texts[len(self.vectors) :]
        fresh = tuple(dict.fromkeys(text for text in new if text not in known))
        known |= {text: len(self.vectors) + place for place, text in enumerate(fresh)}
        read = self._read(fresh, keep=False) if fresh else self.vectors[:0]
        table = np.concatenate([self.vectors, read])
        self.vectors = np.concatenate([self.vectors, table[[known[text] for text in new]]])
        mean = self._mean
        self._forget()
        self._mean = mean
