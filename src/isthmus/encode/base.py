"""What an encoder is, and what it gives: one vector an item, on disk and in a corpus's order."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

import numpy as np
import polars as pl

from isthmus.encode.template import Template
from isthmus.encode.whiten import Whitening
from isthmus.errors import ArtefactError, DataError
from isthmus.files import Json, new_folder, read_json, write_json
from isthmus.types import Bools, Floats, Ints

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Final = 1
MANIFEST: Final = "vectors.json"
KEY: Final = ("platform", "item")


class Encoder(Protocol):
    """Item table in, vectors out. An encoder never sees events, so no test signal can reach a vector."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the vectors: weights, settings, template."""
        ...

    @property
    def dim(self) -> int:
        """Length ``D`` of a vector."""
        ...

    def encode(self, items: pl.DataFrame) -> Floats:
        """Return (N, D) float32, one row a row of ``items``; zeros for an item with nothing to encode."""
        ...


class TextModel(Encoder, Protocol):
    """An encoder that reads one text an item, so that a vector can be kept under its text."""

    @property
    def model_fingerprint(self) -> str:
        """Hash of what turns a text into a vector; the template is not part of it."""
        ...

    def texts(self, items: pl.DataFrame) -> pl.Series:
        """Return the text of each item; empty where there is none."""
        ...

    def stream(self, texts: Sequence[str]) -> Iterator[tuple[Ints, Floats]]:
        """Yield (places in ``texts``, their vectors) batch by batch, in any order, each place once."""
        ...


class Templated(ABC):
    """What encoders of texts share: a template makes the text of an item, and counts in the fingerprint."""

    #: First word of the fingerprint.
    kind: ClassVar[str]
    template: Template

    @property
    @abstractmethod
    def model_fingerprint(self) -> str:
        """Hash of what turns a text into a vector."""

    @property
    def fingerprint(self) -> str:
        """Hash of the model and the template."""
        said = f"{self.model_fingerprint} {self.template.model_dump_json()}"
        return f"{self.kind}-{hashlib.sha256(said.encode()).hexdigest()[:32]}"

    def texts(self, items: pl.DataFrame) -> pl.Series:
        """Return the text of each item as the template makes it."""
        return self.template.render(items)


@dataclass(frozen=True)
class ItemVectors:
    """One vector for each of ``N`` items.

    Parameters
    ----------
    keys : polars.DataFrame
        Columns platform, item; row ``n`` names the item of ``matrix[n]``.
    matrix : float32 array (N, D)
        The vectors; a row of zeros is an item without one.
    encoder : str
        Fingerprint of the encoder.
    corpus : str
        Fingerprint of the corpus the items came from; empty if unknown.

    Examples
    --------
    >>> items = pl.DataFrame({"platform": ["shop", "shop"], "item": ["a", "b"]})
    >>> vectors = ItemVectors.of(items, np.eye(2, dtype="float32"), encoder="mine")
    >>> vectors.align(pl.DataFrame({"platform": ["shop", "shop"], "item": ["b", "new"]})).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """

    keys: pl.DataFrame
    matrix: Floats
    encoder: str
    corpus: str = ""

    @classmethod
    def of(cls, items: pl.DataFrame, matrix: NDArray[np.floating], *, encoder: str, corpus: str = "") -> ItemVectors:
        """Return the vectors of ``items`` (any frame with columns platform, item), checked.

        Raises
        ------
        DataError
            Another number of rows than items, a value that is not finite, or an item that comes twice.
        """
        keys = items.select(KEY)
        if matrix.ndim != 2 or len(matrix) != keys.height:
            raise DataError(f"{keys.height} items but vectors of shape {matrix.shape}", where="item vectors")
        if not np.isfinite(matrix).all():
            raise DataError("some values are not finite", where="item vectors", fix="try precision = 'float32'")
        if keys.is_duplicated().any():
            raise DataError("an item comes twice", where="item vectors")
        return cls(keys, np.ascontiguousarray(matrix, dtype=np.float32), encoder, corpus)

    def __len__(self) -> int:
        """Return the number of items ``N``."""
        return self.keys.height

    @property
    def dim(self) -> int:
        """Length ``D`` of a vector."""
        return int(self.matrix.shape[1])

    @property
    def known(self) -> Bools:
        """Whether each item has a vector, (N,)."""
        found: Bools = np.any(self.matrix != 0, axis=1)
        return found

    def align(self, items: pl.DataFrame) -> Floats:
        """Return (len(items), D) float32: the vectors in the order of ``items``, zeros for an item without one."""
        places = items.select(KEY).join(self.keys.with_row_index("place"), on=KEY, how="left", maintain_order="left")[
            "place"
        ]
        found = places.is_not_null().to_numpy()
        rows = np.zeros((items.height, self.dim), dtype=np.float32)
        rows[found] = self.matrix[places.drop_nulls().to_numpy()]
        return rows

    def whiten(self, fit_on: Ints | Bools | None = None, *, shrink: float = 0.0, dim: int | None = None) -> ItemVectors:
        """Return whitened vectors of length 1, fitted on the rows ``fit_on`` (all by default).

        With ``dim`` the strongest directions only (PCA), else all of them in place (ZCA); see :class:`Whitening`,
        which a caller keeps who must whiten vectors of later items.
        """
        rows = self.matrix if fit_on is None else self.matrix[fit_on]
        whitening = Whitening.fit(rows, shrink=shrink, dim=dim, kind="zca" if dim is None else "pca")
        white = unit(whitening.transform(self.matrix))
        return ItemVectors(self.keys, white, f"{self.encoder}+white-{whitening.fingerprint}", self.corpus)

    def save(self, path: str | Path) -> ItemVectors:
        """Write the vectors to folder ``path``, whole or not at all; return those opened there."""
        from safetensors.numpy import save_file

        manifest: Json = {
            "format": FORMAT,
            "items": len(self),
            "dim": self.dim,
            "encoder": self.encoder,
            "corpus": self.corpus,
        }
        with new_folder(Path(path)) as folder:
            self.keys.write_parquet(folder / "items.parquet")
            save_file({"vectors": np.ascontiguousarray(self.matrix)}, folder / "vectors.safetensors")
            write_json(folder / MANIFEST, manifest)
        return ItemVectors.open(path)

    @classmethod
    def open(cls, path: str | Path) -> ItemVectors:
        """Return the vectors in folder ``path``.

        Raises
        ------
        ArtefactError
            No vectors there, a file is missing or damaged, or it has another format version.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = Path(path)
        manifest = read_json(path / MANIFEST, what="vectors")
        fix = "encode again"
        if manifest.get("format") != FORMAT:
            raise ArtefactError(
                f"vectors format {manifest.get('format')}, this version reads {FORMAT}", where=path, fix=fix
            )
        try:
            keys = pl.read_parquet(path / "items.parquet").select(KEY)
            matrix = load_file(path / "vectors.safetensors")["vectors"]
        except (pl.exceptions.PolarsError, SafetensorError, OSError, KeyError) as error:
            raise ArtefactError(f"the vectors are damaged: {error}", where=path, fix=fix) from error
        if matrix.shape != (manifest.get("items"), manifest.get("dim")) or keys.height != len(matrix):
            raise ArtefactError("the vectors do not fit their manifest", where=path, fix=fix)
        return cls(keys, matrix, str(manifest["encoder"]), str(manifest["corpus"]))


def unit(rows: Floats) -> Floats:
    """Return the rows divided by their Euclidean length, (N, D) float32; rows of zeros stay zero.

    Examples
    --------
    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]], dtype="float32")).round(1).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Floats = np.divide(rows, length, out=np.zeros_like(rows, dtype=np.float32), where=length > 0)
    return scaled
