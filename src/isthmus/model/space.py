"""One dense space for what is known of items: their most frequent words, reduced, beside their whitened vectors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from isthmus.encode.base import unit
from isthmus.encode.whiten import Whitening
from isthmus.errors import InputError
from isthmus.model.base import Features, State
from isthmus.types import Floats, Ints


@dataclass(frozen=True)
class ContentSpace:
    """The map from features to dense rows, learned once and applicable to items that come later.

    Words: a singular value decomposition of the TF-IDF rows, each direction brought to the same strength and each
    row to length 1. Vectors: whitened, each row of length 1. A part that the features lack is left out.

    Parameters
    ----------
    words : int64 array (W,)
        Columns of the TF-IDF features that count.
    axes : float32 array (W, D1)
        What a word adds to a row.
    whitening : Whitening or None
        The map of the vectors to (N, D2).

    Examples
    --------
    >>> text = sparse.csr_array(np.eye(5, dtype=np.float32)[[0, 0, 1, 1]])
    >>> space = ContentSpace.fit(Features(text), dim=2)
    >>> np.round(np.abs(space.rows(Features(text)) @ space.rows(Features(text)).T), 3)[0].tolist()
    [1.0, 1.0, 0.0, 0.0]
    """

    words: Ints
    axes: Floats
    whitening: Whitening | None

    @classmethod
    def fit(cls, features: Features, *, dim: int = 256, words: int = 4000, seed: int = 0) -> ContentSpace:
        """Return the space of ``features`` with at most ``dim`` directions of the ``words`` most frequent words.

        Raises
        ------
        InputError
            Nothing is known of any item.
        """
        if features.text is None and features.vectors is None:
            raise InputError("nothing is known of the items", fix="give texts or vectors")
        chosen, axes = np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
        if features.text is not None:
            frequency = np.bincount(features.text.indices, minlength=features.text.shape[1])
            order = np.argsort(-frequency, kind="stable")[:words]
            chosen = np.sort(order[frequency[order] > 0])
            axes = _axes(sparse.csr_array(features.text[:, chosen]), dim, seed)
        vectors = features.vectors
        enough = vectors is not None and int(np.any(vectors != 0, axis=1).sum()) > 1
        return cls(chosen, axes, Whitening.fit(vectors) if vectors is not None and enough else None)

    def rows(self, features: Features) -> Floats:
        """Return the dense rows of items, (N, D); zeros where nothing is known of an item."""
        parts = []
        if self.axes.size and features.text is not None:
            parts.append(unit(np.asarray(features.text[:, self.words] @ self.axes, dtype=np.float32)))
        if self.whitening is not None and features.vectors is not None:
            parts.append(unit(self.whitening.transform(features.vectors)))
        if parts:
            return np.concatenate(parts, axis=1)
        known = features.text if features.text is not None else features.vectors
        return np.zeros((0 if known is None else known.shape[0], 0), np.float32)

    def state(self) -> State:
        """Return the map as arrays."""
        learned: State = {"words": self.words, "axes": self.axes}
        if self.whitening is not None:
            learned |= {"mean": self.whitening.mean, "directions": self.whitening.directions}
        return learned

    @classmethod
    def of(cls, state: State) -> ContentSpace:
        """Return the space whose :meth:`state` this is."""
        whitening = None
        if "mean" in state:
            whitening = Whitening(state["mean"].astype(np.float32), state["directions"].astype(np.float32))
        return cls(state["words"].astype(np.int64), state["axes"].astype(np.float32), whitening)


def _axes(text: sparse.csr_array, dim: int, seed: int) -> Floats:
    """Return the right singular vectors of ``text`` over their singular values, (W, D1)."""
    from sklearn.utils.extmath import randomized_svd

    most = min(dim, *text.shape)
    if most == 0 or text.nnz == 0:
        return np.zeros((text.shape[1], 0), np.float32)
    _, strength, axes = randomized_svd(sparse.csr_matrix(text), most, n_iter=3, random_state=seed)
    kept = strength > 1e-4 * strength[0]
    return np.ascontiguousarray((axes[kept] / strength[kept, None]).T, dtype=np.float32)
