"""What lies beside the weights of a language model: where a base model's parts are, the tokeniser, the model card."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from isthmus.encode.text import quiet
from isthmus.encode.weights import locate, modules
from isthmus.errors import ArtefactError
from isthmus.files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CARD: Final = "README.md"
BUNDLED: Final = "sentence-transformers/all-MiniLM-L6-v2"
#: Parts of a sentence-transformers folder that a backbone with pooling and unit length replaces.
_KNOWN: Final = ("Transformer", "Pooling", "Normalize")
_POOLINGS: Final[dict[str, Literal["mean", "last", "cls"]]] = {
    "mean": "mean",
    "lasttoken": "last",
    "cls": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_cls_token": "cls",
}


@dataclass(frozen=True)
class Base:
    """A pre-trained model to start from.

    Parameters
    ----------
    folder : Path
        Of the model itself.
    pooling : str, optional
        What the folder says about pooling.
    licence : str
        What its card says; ``unknown`` if nothing.
    name : str
        For the card of what comes of it.
    """

    folder: Path
    pooling: Literal["mean", "last", "cls"] | None
    licence: str
    name: str


def find_base(name_or_path: str | None) -> Base:
    """Return where a base model's parts are: the bundled MiniLM for None, a folder, or a name on the hub.

    Raises
    ------
    NotFoundError
        No such model.
    ArtefactError
        Damaged, unsafe, or with parts that would be lost (a dense layer after pooling).

    Examples
    --------
    >>> find_base(None).pooling
    'mean'
    """
    folder = locate(name_or_path)
    kinds = [kind.rsplit(".", 1)[-1] for kind in modules(folder)]
    foreign = [kind for kind in kinds if kind not in _KNOWN]
    if foreign:
        raise ArtefactError(
            f"has a part that cannot be trained here: {foreign[0]}", where=folder, fix="name the model without it"
        )
    paths = _paths(folder)
    card = folder / CARD
    said = re.search(r"^license:\s*(\S+)", card.read_text(encoding="utf-8"), re.MULTILINE) if card.exists() else None
    return Base(
        folder / paths.get("Transformer", ""),
        _pooling(folder / paths["Pooling"]) if "Pooling" in paths else None,
        said[1] if said else "unknown",
        folder.name if name_or_path and Path(name_or_path).is_dir() else name_or_path or BUNDLED,
    )


def _paths(folder: Path) -> dict[str, str]:
    if not modules(folder):
        return {}
    listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    return {str(part["type"]).rsplit(".", 1)[-1]: str(part.get("path", "")) for part in listed}


def _pooling(folder: Path) -> Literal["mean", "last", "cls"]:
    """Return the pooling that a folder of sentence-transformers asks for, in the old or the new form of its file."""
    said = read_json(folder / "config.json", what="pooling of a text model")
    wanted = [str(said["pooling_mode"])] if "pooling_mode" in said else [
        name for name, on in said.items() if name.startswith("pooling_mode_") and on
    ]  # fmt: skip
    if len(wanted) != 1 or wanted[0] not in _POOLINGS:
        raise ArtefactError(f"pools by {' and '.join(wanted)}", where=folder, fix="choose pooling mean, last or cls")
    return _POOLINGS[wanted[0]]


def load_backbone(folder: Path) -> PreTrainedModel:
    """Return the model in ``folder`` in float32, from safetensors only, without fetching or running anything."""
    import torch

    with quiet():
        try:
            return AutoModel.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True, attn_implementation="eager"
            )
        except Exception as error:  # a damaged file surfaces as an error of any of three libraries
            raise _unreadable(folder, error) from error


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """Return the tokeniser in ``folder``, or None if there is none."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt", "tokenizer.model", "vocab.json")):
        return None
    with quiet():
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:
            raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> ArtefactError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    return ArtefactError(f"cannot be loaded as a language model: {reason}", where=folder)


def check_folder(folder: Path, model_type: str, version: int) -> None:
    """Raise an ArtefactError unless ``folder`` holds a model of this type and format version."""
    said = read_json(folder / "config.json", what="language model")
    if said.get("model_type") != model_type:
        raise ArtefactError(
            f"holds a model of type {said.get('model_type')}", where=folder, fix="start from it with from_encoder"
        )
    if said.get("format") != version:
        raise ArtefactError(
            f"has format {said.get('format')}, this version reads {version}", where=folder, fix="train it again"
        )
    if not list(folder.glob("*.safetensors")):
        raise ArtefactError("holds no weights (*.safetensors)", where=folder, fix="copy or train it again")


def card_text(about: Mapping[str, str | list[str]], objectives: list[str], dim: int, pooling: str) -> str:
    """Return the model card: what it is for, what it learned from, and whose licence counts.

    Examples
    --------
    >>> print(card_text({"base": "MiniLM", "licence": "apache-2.0"}, ["mlm"], 384, "mean").splitlines()[4])
    # Language model for recommendation, from MiniLM
    """
    base, licence = str(about.get("base", "random weights")), str(about.get("licence", "unknown"))
    data = about.get("data", [])
    listed = [data] if isinstance(data, str) else list(data)
    lines = [
        "---",
        "library_name: isthmus",
        f"license: {licence if licence != 'unknown' else 'other'}",
        "---",
        f"# Language model for recommendation, from {base}",
        "",
        str(about.get("task", "Reads item texts and what people did; the cosine of two vectors is the score.")),
        "",
        f"- Vector: {dim} numbers of length 1, pooling {pooling}",
        f"- Objectives: {', '.join(objectives)}",
        f"- Data (fingerprints): {', '.join(listed) or 'none recorded'}",
        f"- Licence: the weights come from {base} (licence: {licence}); its terms and those of the data apply.",
        "",
        'Load with `LanguageModel.from_pretrained("this folder")` of `isthmus.model.language`.',
    ]
    return "\n".join(lines) + "\n"
