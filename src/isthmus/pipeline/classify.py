"""Item classification: TF-IDF, a language model and a transferred one, each with a linear head, and their pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import polars as pl

from isthmus.data.labelling import choose_to_label
from isthmus.encode.store import encode_items
from isthmus.encode.text import TextEncoder
from isthmus.encode.tfidf import TfidfEncoder
from isthmus.errors import InputError
from isthmus.evaluate.classes import Told
from isthmus.log import logger
from isthmus.model.base import Doubles
from isthmus.model.text_classes import NEVER, STRENGTHS, Linear, Majority, Rows, learn_pool, pool
from isthmus.pipeline.labels import CHOOSE, EXAMINE, TEACH, Labelled, LabelSettings, hidden_split, labelled
from isthmus.pipeline.rate_data import carried_vectors
from isthmus.rng import generator
from isthmus.split.temporal import Split
from isthmus.types import Floats, Ints

#: Name of the opinion that a strategy other than frozen gives.
TUNED: Final = "tuned"


@dataclass(frozen=True)
class ClassifySettings:
    """How items are classified.

    Parameters
    ----------
    labels : LabelSettings
        Which label, of which items.
    start : Path, optional
        Folder of a pre-trained model that reads too.
    strategy : str
        ``frozen``: a linear head on its vectors as they are. Any other of :mod:`isthmus.transfer.strategies`: besides,
        it is trained on with a classification head.
    epochs : float, optional
        Of that training; by carrier if not given.
    model : str, optional
        Language model that reads the items; the bundled one by default.
    read : bool
        Whether a language model reads the items at all.

    Raises
    ------
    InputError
        A strategy without a model, or for domains.
    """

    labels: LabelSettings
    start: Path | None = None
    strategy: str = "frozen"
    epochs: float | None = None
    model: str | None = None
    read: bool = True

    def __post_init__(self) -> None:
        """Check that the strategy has something to train."""
        if self.strategy == "frozen":
            return
        if self.start is None:
            raise InputError(f"strategy {self.strategy} needs a model", where="--from", fix="name a pre-trained model")
        if self.labels.label == "domain":
            raise InputError("domains are told apart with frozen vectors only", fix="leave --strategy out")


@dataclass
class FittedClasses:
    """Opinions learned from the items that teach and choose, and their pool.

    Attributes
    ----------
    labelled : Labelled
        The items.
    readers : dict of str to array (N, F)
        What each opinion reads of every item.
    opinions : dict of str to classifier
        Fitted.
    weights : float64 array (M,)
        Of the pool.
    log : list of dict
        Settings and accuracy on validation of each opinion.
    fixed : dict of str to float64 array (N, C)
        What a trained model says of every item, by name.
    tfidf : TfidfEncoder, optional
        Reader of the opinion ``tfidf``.
    """

    labelled: Labelled
    readers: dict[str, Rows]
    opinions: dict[str, Linear | Majority]
    weights: Doubles
    log: list[dict[str, object]]
    fixed: dict[str, Doubles] = field(default_factory=dict)
    tfidf: TfidfEncoder | None = None

    def log_chances(self, rows: Ints) -> dict[str, Doubles]:
        """Return the logarithm of the chance of each class of some items, (n, C), by opinion; the pool first."""
        each = {name: model.log_chances(self.readers[name][rows]) for name, model in self.opinions.items()}
        each |= {name: table[rows] for name, table in self.fixed.items()}
        return {"blend": pool(list(each.values()), self.weights), **each}

    def judged(self) -> Told:
        """Return what each opinion says of the items that examine."""
        rows, codes = self.labelled.of(EXAMINE)
        said = {name: table.argmax(axis=1) for name, table in self.log_chances(rows).items()}
        return Told(self.labelled.names, codes, said)

    def predict(self, items: pl.DataFrame, *, ask: int = 0, seed: int = 0) -> pl.DataFrame:
        """Return the likeliest class of each item without a label.

        Parameters
        ----------
        items : polars.DataFrame
            The items table of the corpus.
        ask : int
            So many of them, at most, are ranked as those to label next
            (:func:`isthmus.data.labelling.choose_to_label`).
        seed : int
            Decides between equals.

        Returns
        -------
        polars.DataFrame
            platform, item, title, label, probability, ask (1 the first to label; null for the rest).
        """
        rows = self.labelled.unlabelled
        names = pl.Series(self.labelled.names)
        chances = np.exp(self.log_chances(rows)["blend"]) if rows.size else np.zeros((0, len(names)))
        found = (
            items[rows]
            .select("platform", "item", "title")
            .with_columns(
                label=names.gather(pl.Series(chances.argmax(axis=1))) if rows.size else pl.Series([], dtype=pl.String),
                probability=pl.Series(chances.max(axis=1, initial=0.0)),
            )
        )
        rank = np.zeros(rows.size, np.int64)
        if ask and rows.size:
            rank[self._to_ask(rows, min(ask, rows.size), seed)] = np.arange(1, min(ask, rows.size) + 1)
        return found.with_columns(ask=pl.Series(rank).replace(0, None))

    def _to_ask(self, rows: Ints, n: int, seed: int) -> Ints:
        """Return the places of the items to label next, the most telling first."""
        taught = self.labelled.of(TEACH, CHOOSE, EXAMINE)[0]
        both = np.concatenate([rows, taught])
        vectors = next((v for v in self.readers.values() if isinstance(v, np.ndarray)), None)
        chances = np.exp(self.log_chances(both)["blend"]).astype(np.float32)
        known = np.arange(rows.size, both.size)
        space = chances if vectors is None else vectors[both]
        return choose_to_label(space, chances, known, n, generator(seed, "ask"))


def classify(split: Split, settings: ClassifySettings, *, vectors: Mapping[str, Floats] | None = None) -> FittedClasses:
    """Return classifiers of items: settings and weights chosen on valid items, then learned from both parts.

    Parameters
    ----------
    split : Split
        Its corpus holds the items (:func:`isthmus.pipeline.labels.open_items` takes a corpus too).
    settings : ClassifySettings
        How.
    vectors : mapping of str to float32 array (N, D), optional
        What further encoders read of every item, by name; they must not have seen the labels.

    Raises
    ------
    InputError
        No such domain or label, or too few labelled items; or what :func:`isthmus.transfer.adapt.adapt` refuses.
    """
    found = labelled(split.corpus, settings.labels)
    read = hidden_split(split, found.items)
    taught = found.of(TEACH, CHOOSE)[0]
    tfidf = TfidfEncoder.fit([found.texts[row] for row in taught.tolist()])
    readers = {**_readers(read, found, settings, tfidf), **(vectors or {})}
    n_classes = len(found.names)
    (rows, codes), (asked, truth) = found.of(TEACH), found.of(CHOOSE)
    log: list[dict[str, object]] = []
    told: list[Doubles] = []
    makers: dict[str, Callable[[], Linear | Majority]] = {}
    for name, table in readers.items():
        strength, said = _chosen(name, table, (rows, codes), (asked, truth), n_classes)
        makers[name] = Majority if strength is None else _maker(strength)
        told.append(said)
        log.append({"model": name, "strength": strength, "accuracy": float((said.argmax(axis=1) == truth).mean())})
        logger.info("%s: accuracy %.4f on valid", name, log[-1]["accuracy"])
    fixed: dict[str, Doubles] = {}
    if settings.strategy != "frozen":
        first = _tuned(split, found, settings, (rows, codes))
        told.append(first[asked])
        log.append({"model": TUNED, "strength": None, "accuracy": float((told[-1].argmax(axis=1) == truth).mean())})
        fixed = {TUNED: _tuned(split, found, settings, found.of(TEACH, CHOOSE))}
    weights = learn_pool(told, truth, generator(settings.labels.seed, "pool"))
    both, classes = found.of(TEACH, CHOOSE)
    opinions = {name: make().fit(readers[name][both], classes, n_classes) for name, make in makers.items()}
    return FittedClasses(found, readers, opinions, weights, log, fixed, tfidf)


def _readers(split: Split, found: Labelled, settings: ClassifySettings, tfidf: TfidfEncoder) -> dict[str, Rows]:
    """Return what each opinion reads of every item, by its name."""
    readers: dict[str, Rows] = {
        "majority": np.zeros((len(found.texts), 1), np.float32),
        "tfidf": tfidf.transform(found.texts),
    }
    if settings.read:
        readers["text"] = encode_items(found.items, TextEncoder(settings.model)).matrix
    if settings.start is not None:
        domain = settings.labels.target or split.corpus.domains[0]
        readers["transferred"] = carried_vectors(split, domain, settings.start)
    return readers


def _maker(strength: float) -> Callable[[], Linear]:
    return lambda: Linear(strength)


def _chosen(
    name: str, table: Rows, taught: tuple[Ints, Ints], asked: tuple[Ints, Ints], n_classes: int
) -> tuple[float | None, Doubles]:
    """Return the strength that is right most often on valid, and what it says there; None for the majority."""
    if name == "majority":
        return None, Majority().fit(table, taught[1], n_classes).log_chances(table[asked[0]])
    best: tuple[float, float, Doubles] | None = None
    for strength in STRENGTHS:
        said = Linear(strength).fit(table[taught[0]], taught[1], n_classes).log_chances(table[asked[0]])
        right = float((said.argmax(axis=1) == asked[1]).mean())
        if best is None or right > best[0]:
            best = (right, strength, said)
    assert best is not None
    return best[1], best[2]


def _tuned(split: Split, found: Labelled, settings: ClassifySettings, taught: tuple[Ints, Ints]) -> Doubles:
    """Return what the pre-trained model says of every item after training on the labels ``taught``, (N, C)."""
    from isthmus.transfer.adapt import AdaptSettings, adapt

    assert settings.start is not None
    names: list[list[str] | None] = [None] * found.items.height
    for row, code in zip(*(part.tolist() for part in taught), strict=True):
        names[row] = [found.names[code]]
    items = found.items.with_columns(categories=pl.Series(names, dtype=pl.List(pl.String)))
    how = AdaptSettings(
        target=str(settings.labels.target),
        strategy=settings.strategy,
        head="classification",
        epochs=settings.epochs,
        seed=settings.labels.seed,
    )
    with TemporaryDirectory() as folder:
        adapted = adapt(settings.start, hidden_split(split, items), how, Path(folder) / "adapted")
    places = [found.names.index(name) for name in adapted.labels]
    said = np.full((found.items.height, len(found.names)), NEVER)
    rows = found.rows.astype(np.int32)
    said[rows[:, None], np.array(places)] = np.maximum(np.log(np.maximum(adapted.classes(rows), 1e-30)), NEVER)
    return said
