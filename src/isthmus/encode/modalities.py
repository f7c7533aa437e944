"""What is known of items beside their text, as it comes with a corpus and stays with a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.data.media import Folders
from isthmus.encode.audio import LogMel
from isthmus.encode.files import FileEncoder
from isthmus.encode.graph import Graph
from isthmus.encode.image import image_encoder
from isthmus.encode.video import SampledFrames
from isthmus.files import Json
from isthmus.types import Floats

#: Methods that look at the graph, and at the files of items.
_GRAPH: Final = ("graph", "told", "fused")
_FILES: Final[dict[str, tuple[str, ...]]] = {"image": ("image", "fused"), "audio": ("fused",), "video": ("fused",)}


@dataclass(frozen=True)
class Knowledge:
    """Graph and files of items, for the methods that look at them.

    Parameters
    ----------
    graph : Graph, optional
        Edges and links.
    kinds : tuple of str
        Which files are read: ``image``, ``audio``, ``video``.
    folders : mapping
        Where they lie: platform -> kind -> folder.
    image_model : str, optional
        Hugging Face image model; the classical descriptor by default.
    told : bool
        Whether the language model reads what the graph tells in words.

    Examples
    --------
    >>> from isthmus.data.simulate import town_tables
    >>> Knowledge.of(Corpus.from_tables(town_tables(seed=1, persons=50), name="town"), ("graph", "image"))
    Knowledge(graph=None, kinds=(), folders={}, image_model=None, told=False)
    """

    graph: Graph | None = None
    kinds: tuple[str, ...] = ()
    folders: Folders = field(default_factory=dict)
    image_model: str | None = None
    told: bool = False

    @classmethod
    def of(cls, corpus: Corpus, methods: Collection[str], *, image_model: str | None = None) -> Knowledge:
        """Return what ``corpus`` has for ``methods``; nothing that none of them looks at."""
        graph = None
        if set(_GRAPH) & set(methods) and corpus.links.height:
            graph = Graph(corpus.edges, corpus.links)
        folders = cast("Folders", corpus.manifest.get("folders", {}))
        kinds = tuple(
            kind
            for kind, readers in _FILES.items()
            if set(readers) & set(methods) and any(kind in found for found in folders.values())
        )
        told = graph is not None and "told" in methods
        return cls(graph, kinds, folders if kinds else {}, image_model if "image" in kinds else None, told)

    def encoders(self) -> dict[str, FileEncoder]:
        """Return the encoder of each kind of file."""
        makers: Mapping[str, Callable[[], FileEncoder]] = {
            "image": lambda: image_encoder(self.folders, self.image_model),
            "audio": lambda: LogMel(self.folders),
            "video": lambda: SampledFrames(self.folders),
        }
        return {kind: makers[kind]() for kind in self.kinds}

    def read_files(self, items: pl.DataFrame) -> dict[str, Floats]:
        """Return the vectors of each kind of file, (N, D) each; zeros for an item without a file that can be read."""
        return {kind: encoder.encode(items) for kind, encoder in self.encoders().items()}

    def save(self, folder: Path) -> Json:
        """Write the graph to ``folder`` and return the rest as JSON."""
        if self.graph is not None:
            self.graph.edges.write_parquet(folder / "edges.parquet")
            self.graph.links.write_parquet(folder / "links.parquet")
        return {
            "graph": self.graph is not None,
            "kinds": list(self.kinds),
            "folders": self.folders,
            "image_model": self.image_model,
            "told": self.told,
        }

    @classmethod
    def open(cls, folder: Path, said: Json) -> Knowledge:
        """Return what :meth:`save` wrote; ``said`` is what it returned."""
        graph = None
        if said.get("graph"):
            graph = Graph(pl.read_parquet(folder / "edges.parquet"), pl.read_parquet(folder / "links.parquet"))
        model = said.get("image_model")
        return cls(
            graph,
            tuple(cast("list[str]", said.get("kinds", []))),
            cast("Folders", said.get("folders", {})),
            None if model is None else str(model),
            bool(said.get("told", False)),
        )
