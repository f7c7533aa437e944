"""What is known of items beside their text, as it comes with a corpus and stays with a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import polars as pl

from isthmus.data.corpus import Corpus
from isthmus.data.media import Folders
from isthmus.encode.audio import LogMel
from isthmus.encode.base import Encoder, ItemVectors
from isthmus.encode.embed import GraphEncoder
from isthmus.encode.files import FileEncoder
from isthmus.encode.fuse import Fuser
from isthmus.encode.graph import Graph
from isthmus.encode.image import image_encoder
from isthmus.encode.static import open_encoder
from isthmus.encode.store import encode_items
from isthmus.encode.video import SampledFrames
from isthmus.errors import InputError, nearest
from isthmus.files import Json
from isthmus.types import Floats

#: What items can be encoded with.
WITH: Final = ("text", "graph", "image", "audio", "video")
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


def encode_corpus(
    corpus: Corpus, kinds: Sequence[str], *, model: str | None = None, image_model: str | None = None
) -> tuple[ItemVectors, dict[str, int]]:
    """Return one vector an item made of ``kinds`` (text, graph, image, audio, video), and how many items have each.

    One kind is given as it is; several are whitened and put side by side (:class:`isthmus.encode.fuse.Fuser`).

    Raises
    ------
    InputError
        A kind that there is not, or that the corpus has nothing for.
    """
    for kind in kinds:
        if kind not in WITH:
            raise InputError(f"no kind '{kind}'{nearest(kind, list(WITH))}", where="--with", fix=", ".join(WITH))
    known = Knowledge.of(corpus, ("graph", "image", "fused"), image_model=image_model)
    encoders: dict[str, Encoder] = dict(known.encoders())
    if known.graph is not None:
        encoders["graph"] = GraphEncoder(known.graph)
    if "text" in kinds:
        encoders["text"] = open_encoder(model)
    lacking = [kind for kind in kinds if kind not in encoders]
    if lacking or not kinds:
        raise InputError(
            f"the corpus has nothing for {', '.join(lacking) or 'no kind'}",
            where="--with",
            fix="import edges and links for graph; name files in the spec for image, audio, video",
        )
    made = {
        kind: encode_items(corpus.items, encoders[kind], corpus=corpus.fingerprint) for kind in dict.fromkeys(kinds)
    }
    counts = {kind: int(vectors.known.sum()) for kind, vectors in made.items()}
    if len(made) == 1:
        return next(iter(made.values())), counts
    blocks = {kind: vectors.matrix for kind, vectors in made.items()}
    matrix = Fuser.fit(blocks).transform(blocks)
    names = "+".join(made[kind].encoder for kind in sorted(made))
    return ItemVectors.of(corpus.items, matrix, encoder=f"fused({names})", corpus=corpus.fingerprint), counts
