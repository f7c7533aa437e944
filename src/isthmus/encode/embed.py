"""A graph as dense vectors: factors of who is tied to what, or embeddings trained to tell true edges from false."""

from __future__ import annotations

from importlib import import_module
from typing import Final, Literal

import numpy as np
import polars as pl
from pydantic import Field
from scipy import sparse

from isthmus.config import Settings
from isthmus.encode.base import unit
from isthmus.encode.graph import Graph, Neighbours
from isthmus.errors import DataError, NotFoundError
from isthmus.types import Floats

#: Embeddings by name in ``torch_geometric.nn.kge``.
TRAINED: Final = {"transe": "TransE", "distmult": "DistMult", "complex": "ComplEx", "rotate": "RotatE"}


class EmbedSettings(Settings):
    """How a graph becomes vectors.

    Parameters
    ----------
    how : {"factors", "transe", "distmult", "complex", "rotate"}
        ``factors``: singular vectors of items × entities, weighted by idf; seconds for a million edges, and new items
        have vectors at once. The others are trained through PyTorch Geometric.
    dim : int
        Length of a vector.
    epochs : int
        Passes over the edges (trained ones).
    learning_rate : float
        Of Adam (trained ones).
    batch_size : int
        Edges a step (trained ones).
    seed : int
        For everything that draws.
    """

    how: Literal["factors", "transe", "distmult", "complex", "rotate"] = "factors"
    dim: int = Field(default=64, ge=1)
    epochs: int = Field(default=20, ge=1)
    learning_rate: float = Field(default=0.01, gt=0)
    batch_size: int = Field(default=4096, ge=1)
    seed: int = Field(default=0, ge=0)


class GraphEncoder:
    """An encoder of items by their place in a graph.

    Parameters
    ----------
    graph : Graph
        Edges and links.
    settings : EmbedSettings, optional
        How.

    Examples
    --------
    >>> edges = pl.DataFrame({"head": ["a", "b", "c"], "relation": ["by"] * 3, "tail": ["x", "x", "y"]})
    >>> items = pl.DataFrame({"platform": ["p"] * 3, "item": ["1", "2", "3"], "entity": ["a", "b", "c"]})
    >>> vectors = GraphEncoder(Graph(edges, items), EmbedSettings(dim=2)).encode(items)
    >>> (vectors @ vectors.T).round().astype(int).tolist()[0]
    [1, 1, 0]
    """

    def __init__(self, graph: Graph, settings: EmbedSettings | None = None) -> None:
        self.graph = graph
        self.settings = settings or EmbedSettings()

    @property
    def fingerprint(self) -> str:
        """Hash of graph and settings."""
        return f"graph-{self.graph.fingerprint}-{self.settings.model_dump_json()}"

    @property
    def dim(self) -> int:
        """Length ``D`` of a vector."""
        return self.settings.dim * (1 + (self.settings.how in ("complex", "rotate")))

    def encode(self, items: pl.DataFrame) -> Floats:
        """Return (N, D) float32, rows of length 1; zeros for an item that no edge reaches.

        Raises
        ------
        DataError
            The graph has no edge.
        NotFoundError
            PyTorch Geometric is not installed.
        """
        if not self.graph.triples.size:
            raise DataError("the graph has no edge", where="encode graph", fix="import a source of kind edges")
        ties = self.graph.neighbours(items)
        if self.settings.how == "factors":
            return factors(ties, self.settings.dim, seed=self.settings.seed)[0]
        own = ties.matrix((np.arange(len(ties.relations)) == 0).astype(np.float32))
        return unit(np.asarray(own @ self._trained(), dtype=np.float32))

    def _trained(self) -> Floats:
        """Return the vector of each entity, (E, D)."""
        try:
            import torch

            kge = import_module("torch_geometric.nn.kge")
        except ImportError as error:
            raise NotFoundError(
                "trained graph embeddings are not installed", where="encode graph", fix="pip install 'isthmus[graph]'"
            ) from error
        how, (head, kind, tail) = self.settings, torch.from_numpy(self.graph.triples.astype(np.int64))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(how.seed)
            model = getattr(kge, TRAINED[how.how])(self.graph.entities.len(), len(self.graph.names), how.dim)
            optimiser = torch.optim.Adam(model.parameters(), lr=how.learning_rate)
            for _ in range(how.epochs):
                for some in torch.randperm(head.numel()).split(how.batch_size):
                    optimiser.zero_grad()
                    model.loss(head[some], kind[some], tail[some]).backward()
                    optimiser.step()
        parts = [model.node_emb.weight]
        if how.how in ("complex", "rotate"):
            parts.append(model.node_emb_im.weight)
        return np.asarray(torch.cat(parts, 1).detach().numpy(), dtype=np.float32)


def factors(ties: Neighbours, dim: int, *, seed: int = 0) -> tuple[Floats, Floats]:
    """Return the vectors of items (N, dim), of length 1, and the directions (E, dim) that make those of others.

    Randomised singular value decomposition (Halko, Martinsson and Tropp 2011) through scikit-learn of the items' rows
    of entities, weighted by idf and of length 1. Directions that the graph is too small for are zeros.
    """
    rows = weighted(ties, ties.idf())
    directions = np.zeros((ties.n_entities, dim), np.float32)
    rank = min(dim, min(rows.shape) - 1, np.unique(ties.rows).size)
    if rank > 0 and rows.nnz:
        from sklearn.utils.extmath import randomized_svd

        right = randomized_svd(sparse.csr_matrix(rows), rank, n_iter=3, random_state=seed)[2]
        directions[:, :rank] = right.T
    return unit(np.asarray(rows @ directions, dtype=np.float32)), directions


def weighted(ties: Neighbours, idf: Floats) -> sparse.csr_array:
    """Return the rows of entities weighted by ``idf``, (N, E) float32 of length 1 or 0."""
    rows = ties.matrix(np.ones(len(ties.relations), np.float32))
    rows.data *= idf[rows.indices]
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1), dtype=np.float32).ravel())
    rows.data /= np.repeat(np.where(length > 0, length, 1.0), np.diff(rows.indptr)).astype(np.float32)
    return rows
