"""Several targets on one backbone: on disk, and in memory, where one is chosen for each request.

    folder/backbone/                 config.json, model.safetensors (and a tokeniser)
    folder/adapters/NAME/            adapter.json, adapter.safetensors: what differs from the backbone, and no more

In memory each target is a model of its own whose unchanged weights are the very tensors of the backbone, so choosing
one copies nothing, and threads can use different ones at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, fields
from pathlib import Path
from typing import Final, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from isthmus.encode.text import quiet
from isthmus.errors import ArtefactError, InputError, NotFoundError, nearest
from isthmus.files import Json, new_folder, read_json, sha256, storage_errors, write_json
from isthmus.transfer.strategies import StrategySettings, carrier, rebuild

FORMAT: Final = 1
_ADAPTER: Final = "adapter.json"
_WEIGHTS: Final = "adapter.safetensors"


def save_backbone(model: PreTrainedModel, folder: Path) -> None:
    """Write the model that several targets share, before any of them is trained.

    Raises
    ------
    InputError
        There is a backbone already.
    """
    with new_folder(Path(folder) / "backbone", replace=False) as part, quiet():
        model.save_pretrained(part)


def save_adapter(model: PreTrainedModel, folder: Path, name: str) -> Path:
    """Write what a target's model has that its backbone has not; an adapter of that name is replaced.

    Parameters
    ----------
    model : SequenceModel or LanguageModel
        Trained from the backbone in ``folder``, by any strategy; merging it before makes the adapter larger.
    folder : Path
        Where :func:`save_backbone` wrote.
    name : str
        Of the target: letters, digits and ``_ . & + -`` or a space.

    Returns
    -------
    Path
        Of the adapter.

    Raises
    ------
    ArtefactError
        There is no backbone, or it is damaged.
    InputError
        The name cannot be that of a folder, or the model is another kind than the backbone.
    """
    folder = Path(folder)
    if not re.fullmatch(r"\w[\w.&+ -]*", name):
        raise InputError(f"'{name}' cannot be the name of an adapter", where=folder, fix="take letters and digits")
    backbone = _load_backbone(folder)
    if type(model) is not type(backbone):
        raise InputError(f"its backbone is a {type(backbone).__name__}", where=folder, fix="save it beside its own")
    shared, own = backbone.state_dict(), {}
    for key, tensor in model.state_dict().items():
        old = shared.get(_plain_name(key))
        if old is None or old.shape != tensor.shape or not torch.equal(old, tensor.cpu()):
            own[key] = tensor.detach().cpu().contiguous()
    path = folder / "adapters" / name
    if (path / _ADAPTER).is_file():  # moved to where new_folder would, which brings it back if anything fails
        with storage_errors(path):
            path.rename(path.with_name(f".{name}.old-{os.getpid()}"))
    with new_folder(path) as part:
        save_file(own, part / _WEIGHTS)
        settings: StrategySettings = getattr(model, "strategy_settings", StrategySettings())
        about: Json = {
            "format": FORMAT,
            "name": name,
            "strategy": asdict(settings),
            "config": json.loads(model.config.to_json_string(use_diff=False)),
            "backbone": sha256(folder / "backbone" / "model.safetensors"),
            "weights": sha256(part / _WEIGHTS),
        }
        write_json(part / _ADAPTER, about)
    return path


def load_adapters(folder: Path) -> Switchable:
    """Return all targets of a folder on one backbone, ready to be chosen.

    Raises
    ------
    ArtefactError
        No backbone; or an adapter of another format version, of another backbone, damaged, or not fitting.
    """
    folder = Path(folder)
    backbone = _load_backbone(folder)
    print_of_it = sha256(folder / "backbone" / "model.safetensors")
    paths = sorted((folder / "adapters").glob("*")) if (folder / "adapters").is_dir() else []
    models = {path.name: _load_adapter(path, backbone, print_of_it) for path in paths if not path.name.startswith(".")}
    return Switchable(backbone, models)


class Switchable:
    """Models of several targets that share one backbone.

    Each thread, and each asynchronous task, has its own choice; reading with different targets at once is safe. Do
    not train them: they share weights. A sequence model has to be shown its items (``attend``) for each target.

    Parameters
    ----------
    backbone : PreTrainedModel
        The pre-trained model.
    models : dict of str to PreTrainedModel
        By target.
    """

    def __init__(self, backbone: PreTrainedModel, models: Mapping[str, PreTrainedModel]) -> None:
        self.backbone = backbone
        self._models = dict(models)
        self._chosen: ContextVar[PreTrainedModel] = ContextVar("chosen", default=backbone)

    @property
    def names(self) -> tuple[str, ...]:
        """The targets, in alphabetical order."""
        return tuple(sorted(self._models))

    @property
    def model(self) -> PreTrainedModel:
        """The model in use; the backbone if none was chosen."""
        return self._chosen.get()

    def use(self, name: str) -> PreTrainedModel:
        """Choose a target from now on, in this thread; return its model.

        Raises
        ------
        NotFoundError
            No such target.
        """
        model = self._find(name)
        self._chosen.set(model)
        return model

    @contextmanager
    def using(self, name: str) -> Iterator[PreTrainedModel]:
        """Choose a target for a block; afterwards the choice is what it was.

        Raises
        ------
        NotFoundError
            No such target.
        """
        token = self._chosen.set(self._find(name))
        try:
            yield self.model
        finally:
            self._chosen.reset(token)

    def _find(self, name: str) -> PreTrainedModel:
        if name not in self._models:
            hint = nearest(name, list(self._models))
            raise NotFoundError(f"no adapter '{name}'{hint}", fix=f"there are {', '.join(self.names) or 'none'}")
        return self._models[name]


def _plain_name(key: str) -> str:
    """Return the name that a weight has in a model without low-rank updates."""
    return key.replace(".base_layer.", ".")


def _load_backbone(folder: Path) -> PreTrainedModel:
    path = folder / "backbone"
    kind = carrier(str(read_json(path / "config.json", what="backbone").get("model_type")))
    with quiet():
        try:
            model: PreTrainedModel = kind.from_pretrained(path)
        except ArtefactError:
            raise
        except Exception as error:  # a damaged file surfaces as an error of any of three libraries
            raise ArtefactError(f"is damaged: {error}", where=path, fix="copy it again") from error
    return model.eval().requires_grad_(False)


def _load_adapter(path: Path, backbone: PreTrainedModel, backbone_print: str) -> PreTrainedModel:
    about = read_json(path / _ADAPTER, what="saved adapter")
    if about.get("format") != FORMAT:
        raise ArtefactError(
            f"has format {about.get('format')}, this version reads {FORMAT}", where=path, fix="train it again"
        )
    if about.get("backbone") != backbone_print:
        raise ArtefactError("is of another backbone", where=path, fix="put it beside its own backbone")
    weights = path / _WEIGHTS
    if not weights.is_file() or sha256(weights) != about.get("weights"):
        raise ArtefactError("its weights are missing or damaged", where=weights, fix="copy or train it again")
    try:
        own = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"its weights are damaged: {error}", where=weights, fix="train it again") from error
    model = _skeleton(path, about, backbone)
    _share(path, model, own, backbone.state_dict())
    if hasattr(backbone, "tokenizer"):
        model.tokenizer = backbone.tokenizer
    return model.eval().requires_grad_(False)


def _skeleton(path: Path, about: Json, backbone: PreTrainedModel) -> PreTrainedModel:
    """Return a model with the parts that an adapter names, whose weights do not count yet."""
    try:
        said = cast("Mapping[str, object]", about["strategy"])
        known = {field.name for field in fields(StrategySettings)}
        settings = StrategySettings(**{key: said[key] for key in known})  # type: ignore[arg-type]
        return rebuild(type(backbone).config_class.from_dict(about["config"]), settings)
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"is damaged: {error}", where=path / _ADAPTER, fix="train it again") from error


def _share(path: Path, model: PreTrainedModel, own: Mapping[str, Tensor], shared: Mapping[str, Tensor]) -> None:
    """Give a model its own weights, and for the rest the very tensors of the backbone."""
    state = {}
    for key, tensor in model.state_dict().items():
        found = own.get(key, shared.get(_plain_name(key)))
        if found is None or found.shape != tensor.shape:
            raise ArtefactError(f"has no fitting weights for {key}", where=path, fix="train it again")
        state[key] = found
    extra = own.keys() - state.keys()
    if extra:
        raise ArtefactError(f"has weights that fit nothing: {min(extra)}", where=path, fix="train it again")
    model.load_state_dict(state, assign=True)
