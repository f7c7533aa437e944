"""Pre-trained models on disk: a folder with safetensors, JSON, a model card, and what it was learned from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from isthmus.encode.text import quiet
from isthmus.errors import ArtefactError
from isthmus.files import Json, new_folder, read_json, sha256, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FORMAT: Final = 1
CARD: Final = "isthmus.json"


def write_pretrained(model: PreTrainedModel, path: Path, said: Json) -> None:
    """Write ``model`` to folder ``path``, whole or not at all, with a model card that says ``said``."""
    with new_folder(path) as folder:
        with quiet():
            model.save_pretrained(folder)
        (folder / "README.md").write_text(_page(said), encoding="utf-8")
        files = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
        write_json(folder / CARD, {"format": FORMAT, **said, "files": files})


def read_card(path: Path) -> Json:
    """Return what a pre-trained model says of itself, after its files were checked.

    Raises
    ------
    ArtefactError
        No model there, another format version, a file missing or changed.
    """
    path = Path(path)
    card = read_json(path / CARD, what="pre-trained model")
    if card.get("format") != FORMAT:
        raise ArtefactError(
            f"pre-trained model of format {card.get('format')}, this version reads {FORMAT}",
            where=path,
            fix="pre-train it again",
        )
    files = card.get("files")
    if not isinstance(files, dict) or card.get("carrier") not in ("sequence", "language"):
        raise ArtefactError(f"{CARD} is damaged", where=path, fix="pre-train it again")
    for name, digest in cast("dict[str, str]", files).items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise ArtefactError(f"{name} is missing", where=path, fix="pre-train it again")
        if sha256(file) != digest:
            raise ArtefactError(f"{name} was changed since it was written", where=path, fix="pre-train it again")
    return card


def load(path: Path) -> PreTrainedModel:
    """Return the pre-trained model in folder ``path``, either carrier, ready to read.

    Raises
    ------
    ArtefactError
        See :func:`read_card`.
    """
    from isthmus.transfer.strategies import carrier

    kind = carrier(f"isthmus-{read_card(path)['carrier']}")
    with quiet():
        model: PreTrainedModel = kind.from_pretrained(Path(path))
    return model.eval()


def _page(said: Json) -> str:
    """Return the model card as Markdown."""
    domains = ", ".join(f"{row['domain']} ({row['corpus']})" for row in cast("list[Json]", said.get("domains", [])))
    log = cast("Json", said.get("log", {}))
    lines = [
        "---",
        "library_name: isthmus",
        "tags: [recommendation, transfer]",
        "---",
        f"# A pre-trained {said['carrier']} carrier",
        "",
        f"Learned from: {domains or 'not said'}.",
        f"Objectives and weights: {said.get('objectives')}.",
        f"Events {said.get('events')}, items {said.get('items')}; text encoder `{said.get('encoder')}`.",
        f"Steps {log.get('steps')}, seconds {log.get('seconds')}, validation {log.get('best')}.",
        "",
        "Use it with `isthmus fit SPLIT --from THIS_FOLDER` or `isthmus adapt THIS_FOLDER SPLIT --target DOMAIN`.",
        "What it may be used for is decided by the licences of the data it was learned from.",
        "",
    ]
    return "\n".join(lines)
