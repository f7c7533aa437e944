"""Adapted models on disk: the pre-trained model once, and what each target has of its own.

folder/adapted.json              format version
folder/backbone/                 the pre-trained model as it was
folder/adapters/NAME/            what the target's carrier has that the backbone has not
folder/heads/NAME.safetensors    weights of the head, and which items the id embeddings stand for
folder/heads/NAME.json           head, metrics, settings, hashes
folder/plain/NAME/               the target's carrier as a pre-trained model, made when first asked for
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from isthmus.errors import ArtefactError, InputError, NotFoundError, nearest
from isthmus.files import Json, new_file, new_folder, read_json, sha256, write_json
from isthmus.model.base import Places
from isthmus.transfer.pretrained import CARD, read_card, write_pretrained

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from isthmus.transfer.adapted import Adapted

FORMAT: Final = 1
MARK: Final = "adapted.json"
_AGAIN: Final = "adapt it again"


def is_adapted(path: Path) -> bool:
    """Return whether models were adapted in folder ``path``."""
    return (Path(path) / MARK).is_file()


def backbone_of(path: Path) -> Path:
    """Return the folder of the pre-trained model: ``path`` itself, or the one inside if models were adapted there."""
    return path / "backbone" if is_adapted(path) else path


def require_room(out: Path, source: Path, target: str) -> None:
    """Refuse, before the work, a folder that cannot take this target of this pre-trained model.

    Raises
    ------
    InputError
        It holds something else, or adaptations of another pre-trained model; or the target cannot name a folder.
    """
    if not re.fullmatch(r"\w[\w.&+ -]*", target):
        raise InputError(f"'{target}' cannot be the name of a folder", fix="rename the domain: letters and digits")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not is_adapted(out):
        raise InputError("exists and holds no adapted models", where=out, fix="choose another --out")
    _check_format(out)
    if sha256(out / "backbone" / CARD) != sha256(source / CARD):
        raise InputError("holds adaptations of another pre-trained model", where=out, fix="choose another --out")


def keep(adapted: Adapted, out: Path, source: Path, said: Json) -> None:
    """Write an adapted model to folder ``out``, beside others of the same backbone."""
    if is_adapted(out):
        _keep_target(adapted, out, said)
        return
    with new_folder(out) as part:
        (part / "backbone").mkdir()
        for name in (*cast("Json", read_card(source)["files"]), CARD):
            shutil.copyfile(source / name, part / "backbone" / name)
        write_json(part / MARK, {"format": FORMAT})
        _keep_target(adapted, part, said)


def _keep_target(adapted: Adapted, folder: Path, said: Json) -> None:
    import torch
    from safetensors.torch import save_file

    from isthmus.transfer.adapters import save_adapter

    name = adapted.scene.domain
    path = save_adapter(adapted.carrier, folder, name)
    head, file = adapted.head, _head_file(folder, name)
    weights = {f"head.{key}": tensor.detach().cpu().contiguous() for key, tensor in head.state_dict().items()}
    with new_file(file.with_suffix(".safetensors")) as part:
        save_file({**weights, "known": torch.from_numpy(adapted.known.astype(np.int32))}, part)
    about: Json = {
        "format": FORMAT,
        "target": name,
        "head": adapted.kind,
        "loss": head.loss_name,
        "dim": head.settings.dim,
        "labels": list(head.settings.labels),
        "additive": adapted.old is not None,
        "adapter": sha256(path / "adapter.safetensors"),
        "weights": sha256(file.with_suffix(".safetensors")),
        "metrics": adapted.metrics,
        **said,
    }
    write_json(file, about)


def read_head(folder: Path, target: str | None) -> tuple[Json, dict[str, Tensor]]:
    """Return what the head of a target says of itself, its name under ``target``, and its weights, all checked.

    Raises
    ------
    NotFoundError
        No such target, or none is named and there are several.
    ArtefactError
        Damaged, or of another format version.
    """
    name = _chosen(folder, target)
    about = _about(folder, name)
    return about, _weights(folder, name, about)


def start_folder(path: Path, domain: str | None = None) -> Path:
    """Return the folder of a pre-trained model to start from: with adapted models, that of ``domain`` if there is one.

    The carrier of an adapted target is written out as a pre-trained model of its own, once.

    Raises
    ------
    ArtefactError
        No model there, or one that is damaged.
    """
    path = Path(path)
    if not is_adapted(path):
        read_card(path)
        return path
    _check_format(path)
    if domain is None or domain not in targets(path):
        read_card(path / "backbone")
        return path / "backbone"
    return _plain(path, domain)


def targets(path: Path) -> list[str]:
    """Return the targets that models were adapted to in folder ``path``."""
    return sorted(file.stem if file.suffix == ".json" else file.name for file in (path / "heads").glob("*.json"))


def _plain(path: Path, name: str) -> Path:
    from isthmus.encode.text import quiet
    from isthmus.transfer.adapters import load_adapters
    from isthmus.transfer.strategies import plain

    about, out = _about(path, name), path / "plain" / name
    if (out / CARD).is_file() and read_json(out / CARD, what="pre-trained model").get("adapter") == about["adapter"]:
        return out
    model: PreTrainedModel = plain(load_adapters(path).use(name))
    if hasattr(model, "grown"):
        model = model.grown(Places.nameless(0), 0)  # items of other corpora have no id here
    card = {key: value for key, value in read_card(path / "backbone").items() if key not in ("format", "files")}
    with quiet():
        write_pretrained(model, out, {**card, "adapter": about["adapter"], "target": name})
    return out


def _check_format(folder: Path) -> None:
    found = read_json(folder / MARK, what="folder of adapted models").get("format")
    if found != FORMAT:
        raise ArtefactError(f"adapted models of format {found}, this version reads {FORMAT}", where=folder, fix=_AGAIN)


def _chosen(folder: Path, target: str | None) -> str:
    _check_format(folder)
    names = targets(folder)
    if target is None and len(names) == 1:
        return names[0]
    if target not in names:
        hint = nearest(target or "", names)
        what = "no target is named" if target is None else f"nothing was adapted to '{target}'{hint}"
        raise NotFoundError(what, where=folder, fix=f"targets: {', '.join(names)}")
    return str(target)


def _about(folder: Path, name: str) -> Json:
    """Return what a head says of itself, after its adapter was checked."""
    file = _head_file(folder, name)
    about = read_json(file, what="adapted head")
    if about.get("format") != FORMAT:
        raise ArtefactError(f"format {about.get('format')}, this version reads {FORMAT}", where=file, fix=_AGAIN)
    adapter = folder / "adapters" / name / "adapter.safetensors"
    if not adapter.is_file() or sha256(adapter) != about.get("adapter"):
        raise ArtefactError("head and adapter do not belong together", where=file, fix=_AGAIN)
    return about


def _weights(folder: Path, name: str, about: Json) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    file = _head_file(folder, name).with_suffix(".safetensors")
    if not file.is_file() or sha256(file) != about.get("weights"):
        raise ArtefactError("the weights of the head are missing or damaged", where=file, fix=_AGAIN)
    found: dict[str, Tensor] = load_file(file)
    return found


def _head_file(folder: Path, name: str) -> Path:
    return folder / "heads" / f"{name}.json"
