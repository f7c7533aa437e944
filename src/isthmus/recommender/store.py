"""A recommender on disk: JSON, Parquet and safetensors, every file named with its checksum in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
import polars as pl
from safetensors.numpy import save_file
from scipy import sparse

from isthmus.data.pseudonyms import Pseudonyms
from isthmus.encode.modalities import Knowledge
from isthmus.encode.template import Template
from isthmus.encode.tfidf import TfidfEncoder
from isthmus.errors import ArtefactError
from isthmus.files import Json, new_folder, read_json, sha256, write_json
from isthmus.model.base import Features, Method, Places, Settings, State
from isthmus.model.blend import Blend
from isthmus.recommender.closed import SIGNATURE, arrays_of, require_closed, require_sealed, sealed
from isthmus.recommender.consents import FILE as CONSENTS
from isthmus.recommender.consents import read_consents, with_consents, write_consents
from isthmus.recommender.declared import Declared, declare
from isthmus.recommender.newcomers import Newcomers
from isthmus.recommender.people import People
from isthmus.recommender.readers import Readers
from isthmus.train.fit import Target
from isthmus.transfer.meta_method import made

FORMAT: Final = 3
#: Format 1 had no names of persons and no consents, format 2 no checksum of the manifest.
READS: Final = (1, 2, 3)
MANIFEST: Final = "model.json"
#: What a model's folder holds besides the files with checksums.
BESIDE: Final = (MANIFEST, CONSENTS, SIGNATURE)
FIX: Final = "fit it again"
#: Put before the names of vectors of pictures and the like.
MORE: Final = "more."


@dataclass(frozen=True)
class Content:
    """Everything a recommender holds.

    Parameters
    ----------
    targets : dict of str to Target
        What was learned for each target domain.
    items : polars.DataFrame
        The items table.
    people : People
        Accounts and histories.
    readers : Readers
        What turns texts into features.
    features : Features
        What the items' texts say, one row an item.
    card : dict
        Data fingerprint, protocol, settings.
    newcomers : Newcomers, optional
        What is said to people without any event, besides the blend.
    declared : Declared, optional
        Rules between items that every list keeps (:func:`isthmus.recommender.declared.declare`).
    """

    targets: dict[str, Target]
    items: pl.DataFrame
    people: People
    readers: Readers
    features: Features
    card: Json
    newcomers: Newcomers | None = None
    declared: Declared | None = None


def write(content: Content, path: Path) -> None:
    """Write ``content`` to folder ``path``, whole or not at all.

    What people said in a model that stood there stays: it is theirs, and a new model does not take it back.
    """
    pseudonyms = content.people.pseudonyms
    consents = content.people.hidden(with_consents(read_consents(path), content.people.consents))
    with new_folder(path) as folder:
        content.items.write_parquet(folder / "items.parquet")
        content.people.accounts.write_parquet(folder / "accounts.parquet")
        content.people.events.write_parquet(folder / "events.parquet")
        write_json(folder / "tfidf.json", content.readers.tfidf.state())
        _save(folder / "features.safetensors", _pack(content.features))
        targets = [_write_target(folder, place, target) for place, target in enumerate(content.targets.values())]
        manifest: Json = {
            "format": FORMAT,
            "card": content.card,
            "pseudonyms": None if pseudonyms is None else pseudonyms.to_json(),
            "language_model": content.readers.model,
            "vectors": content.readers.vectors,
            "texts": content.readers.texts,
            "knowledge": content.readers.knowledge.save(folder),
            "targets": targets,
            "newcomers": None if content.newcomers is None else content.newcomers.save(folder),
            "rules": None if content.declared is None else content.declared.save(folder),
            "files": {file.name: sha256(file) for file in sorted(folder.iterdir())},
        }
        write_consents(consents, folder)  # without a checksum: people change their minds, the model stays
        write_json(folder / MANIFEST, sealed(manifest))


def version_of(path: Path) -> str:
    """Return the version of the model in folder ``path``: twelve digits of its manifest's checksum."""
    return sha256(path / MANIFEST)[:12]


def read(path: Path) -> Content:
    """Return the content of folder ``path``.

    Raises
    ------
    ArtefactError
        No model there, a file is missing, was changed or does not belong there, or it has another format version.
    """
    manifest = read_json(path / MANIFEST, what="model")
    if manifest.get("format") not in READS:
        read_ones = f"{READS[0]} to {READS[-1]}"
        raise ArtefactError(
            f"model format {manifest.get('format')}, this version reads {read_ones}", where=path, fix=FIX
        )
    require_sealed(path / MANIFEST, manifest, since=FORMAT)
    try:
        require_closed(path, cast("Mapping[str, str]", manifest["files"]), BESIDE)
        if manifest["format"] != 1 and not (path / CONSENTS).is_file():
            raise ArtefactError(f"{CONSENTS} is missing: nobody's ban is known", where=path, fix=FIX)
        return _read(path, manifest)
    except ArtefactError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # a file that was made up may fail in any way
        raise ArtefactError(f"the model is damaged: {error}", where=path, fix=FIX) from error


def _read(path: Path, manifest: Json) -> Content:
    items = pl.read_parquet(path / "items.parquet")
    tfidf = TfidfEncoder.from_state(read_json(path / "tfidf.json", what="model"))
    readers = Readers(
        tfidf,
        None if manifest["language_model"] is None else str(manifest["language_model"]),
        bool(manifest["vectors"]),
        bool(manifest.get("texts", False)),
        Knowledge.open(path, cast("Json", manifest.get("knowledge", {}))),
    )
    features = _unpack(arrays_of(path / "features.safetensors"), items, readers)
    targets = [
        _read_target(path, place, target, items.height, features)
        for place, target in enumerate(cast("list[Json]", manifest["targets"]))
    ]
    content = Content(
        {target.domain: target for target in targets},
        items,
        People(
            pl.read_parquet(path / "accounts.parquet"),
            pl.read_parquet(path / "events.parquet"),
            read_consents(path),
            Pseudonyms.of_json(manifest.get("pseudonyms")),
        ),
        readers,
        features,
        cast("Json", manifest["card"]),
        Newcomers.open(path, cast("Json | None", manifest.get("newcomers"))),
        Declared.open(path, manifest.get("rules")),
    )
    return declare(content)


def _write_target(folder: Path, place: int, target: Target) -> Json:
    _save(folder / f"target-{place}.safetensors", {"items": target.items, "new": target.new})
    for method in target.methods:
        _save(folder / f"target-{place}-{method.name}.safetensors", method.state())
    return {
        "domain": target.domain,
        "methods": [{"name": method.name, "settings": method.settings} for method in target.methods],
        **target.blend.to_json(),
        "log": target.log,
        "valid": target.valid,
    }


def _read_target(path: Path, place: int, said: Json, n_items: int, features: Features) -> Target:
    arrays = arrays_of(path / f"target-{place}.safetensors")
    methods: list[Method] = []
    for entry in cast("list[Json]", said["methods"]):
        method = made(str(entry["name"]), cast("Settings", entry["settings"]))
        method.target, method.n_items = arrays["items"], n_items
        method.restore(arrays_of(path / f"target-{place}-{method.name}.safetensors"), features)
        methods.append(method)
    return Target(
        str(said["domain"]),
        arrays["items"],
        arrays["new"],
        methods,
        Blend.of_json(tuple(method.name for method in methods), said),
        cast("list[Json]", said["log"]),
        cast("dict[str, float]", said["valid"]),
    )


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def _pack(features: Features) -> State:
    packed: State = {}
    if features.text is not None:
        packed |= {"data": features.text.data, "indices": features.text.indices, "indptr": features.text.indptr}
    if features.vectors is not None:
        packed["vectors"] = features.vectors
    packed |= {f"{MORE}{name}": rows for name, rows in features.more.items()}
    return packed


def _unpack(arrays: Mapping[str, np.ndarray], items: pl.DataFrame, readers: Readers) -> Features:
    text = None
    if "data" in arrays:
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        text = sparse.csr_array(parts, shape=(items.height, readers.tfidf.n_features))
    texts = tuple(Template().render(items).to_list()) if readers.texts else None
    graph = readers.knowledge.graph
    return Features(
        text,
        arrays.get("vectors"),
        Places.of(items),
        texts,
        None if graph is None else graph.neighbours(items),
        {name.removeprefix(MORE): rows for name, rows in arrays.items() if name.startswith(MORE)},
    )
