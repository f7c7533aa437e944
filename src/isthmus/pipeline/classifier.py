"""What tells the classes of items once it is learned: for any items, now or from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
import polars as pl

from isthmus.data.tables import conform
from isthmus.encode.store import encode_items
from isthmus.encode.template import Template
from isthmus.encode.text import TextEncoder
from isthmus.encode.tfidf import TfidfEncoder
from isthmus.errors import InputError
from isthmus.files import Json
from isthmus.model.base import Doubles, State
from isthmus.model.rating_base import inner, outer
from isthmus.model.text_classes import NEVER, Linear, Majority, Rows, pool
from isthmus.pipeline.classify import ClassifySettings, FittedClasses
from isthmus.pipeline.kept import Parts, read_parts, whole_or_damaged, write_parts
from isthmus.pipeline.labels import LabelSettings, without_label

KIND: Final = "classes"
#: Opinions that can read an item that came later.
READS: Final = ("majority", "tfidf", "text")


@dataclass(frozen=True)
class Classifier:
    """Opinions about items, and their pool.

    Parameters
    ----------
    how : LabelSettings
        Which label: what it is made of is taken out of an item before anything reads it.
    names : tuple of str
        The C classes.
    hidden : tuple of str
        Names that are cut out of texts where names are hidden.
    tfidf : TfidfEncoder
        Reader of the opinion ``tfidf``.
    model : str, optional
        Language model of the opinion ``text``; the bundled one by default.
    opinions : dict of str to classifier
        Fitted, by name, of :data:`READS`.
    weights : float64 array (M,)
        Of the pool.
    """

    how: LabelSettings
    names: tuple[str, ...]
    hidden: tuple[str, ...]
    tfidf: TfidfEncoder
    model: str | None
    opinions: Mapping[str, Linear | Majority]
    weights: Doubles

    @classmethod
    def of(cls, fitted: FittedClasses, settings: ClassifySettings) -> Classifier:
        """Return what was learned by :func:`isthmus.pipeline.classify.classify` with ``settings``.

        Raises
        ------
        InputError
            A pre-trained model takes part, which cannot be kept here.
        """
        if fitted.fixed or set(fitted.opinions) - set(READS) or fitted.tfidf is None:
            raise InputError("what a pre-trained model says cannot be kept", where="--save", fix="learn without --from")
        found = fitted.labelled
        return cls(
            settings.labels, found.names, found.hidden, fitted.tfidf, settings.model, fitted.opinions, fitted.weights
        )

    def tell(self, items: pl.DataFrame) -> pl.DataFrame:
        """Return the likeliest class of each item.

        Parameters
        ----------
        items : polars.DataFrame
            Columns as the items table; what the label is made of is not looked at.

        Returns
        -------
        polars.DataFrame
            platform, item, title, label, probability; of an item without any text the commonest class.

        Raises
        ------
        DataError
            A column is lacking, or an item stands there twice.
        """
        table = conform("items", items, where="items to classify")
        read = without_label(table, self.how, self.hidden)
        texts = Template().render(read).to_list()
        logs = [model.log_chances(self._read(name, read, texts)) for name, model in self.opinions.items()]
        chances = np.exp(pool(logs, self.weights)) if table.height else np.zeros((0, len(self.names)))
        bare = np.array([not text for text in texts], dtype=bool)
        if bare.any() and isinstance(shares := self.opinions.get("majority"), Majority):
            chances[bare] = np.exp(np.maximum(shares.logs, NEVER))
        names = pl.Series(self.names, dtype=pl.String)
        return table.select("platform", "item", "title").with_columns(
            label=names.gather(pl.Series(chances.argmax(axis=1), dtype=pl.UInt32)),
            probability=pl.Series(chances.max(axis=1, initial=0.0)),
        )

    def _read(self, opinion: str, items: pl.DataFrame, texts: list[str]) -> Rows:
        if opinion == "tfidf":
            return self.tfidf.transform(texts)
        if opinion == "text":
            return encode_items(items, TextEncoder(self.model)).matrix
        return np.zeros((len(texts), 1), np.float32)

    def save(self, path: Path) -> None:
        """Write it to folder ``path``, whole or not at all."""
        arrays: State = {"weights": self.weights}
        strengths: dict[str, float | None] = {}
        for name, opinion in self.opinions.items():
            arrays |= outer(name, opinion.state())
            strengths[name] = opinion.strength if isinstance(opinion, Linear) else None
        said: Json = {
            "how": asdict(self.how),
            "names": list(self.names),
            "hidden": list(self.hidden),
            "model": self.model,
            "opinions": strengths,
            "tfidf": self.tfidf.state(),
        }
        write_parts(path, KIND, Parts(said, arrays, {}))

    @classmethod
    def open(cls, path: Path) -> Classifier:
        """Return the classifier in folder ``path``.

        Raises
        ------
        ArtefactError
            None there, or damaged.
        """
        parts = read_parts(path, KIND)
        said = parts.said
        with whole_or_damaged(path):
            names = tuple(cast("list[str]", said["names"]))
            strengths = cast("Mapping[str, float | None]", said["opinions"])
            opinions: dict[str, Linear | Majority] = {}
            for name in sorted(strengths, key=READS.index):
                strength = strengths[name]
                kind = Majority() if strength is None else Linear(strength)
                opinions[name] = kind.restore(inner(name, parts.arrays), len(names))
            return cls(
                LabelSettings(**cast("dict[str, str]", said["how"])),  # type: ignore[arg-type]
                names,
                tuple(cast("list[str]", said["hidden"])),
                TfidfEncoder.from_state(cast("Json", said["tfidf"])),
                None if said["model"] is None else str(said["model"]),
                opinions,
                parts.arrays["weights"].astype(np.float64),
            )
