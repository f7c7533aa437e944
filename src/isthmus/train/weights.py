"""What training changes in a model: take it out, put it back, average it, tell whether it is finite."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.errors import InputError

Weights: TypeAlias = dict[str, Tensor]
#: Values of each tensor that a fingerprint reads.
_LOOKED_AT: Final = 64
#: Marks what :meth:`training_state` of a model gives.
_EXTRA: Final = "training_state:"


def learned(model: nn.Module) -> Weights:
    """Return a copy, on the CPU, of all that training changes.

    These are the parameters that want a gradient, the buffers that are saved with the model, and what the model's
    method ``training_state() -> dict[str, Tensor]`` gives, if it has one.
    """
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in _live(model).items()}


def put(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put back what :func:`learned` gave.

    Raises
    ------
    InputError
        The model has other parameters.
    """
    live = _live(model)
    own = {name for name in live if not name.startswith(_EXTRA)}
    given = {name for name in weights if not name.startswith(_EXTRA)}
    if own != given:
        raise InputError(f"the weights are of another model: {', '.join(sorted(own ^ given)[:3])} …")
    with torch.no_grad():
        for name in own:
            if live[name].shape != weights[name].shape:
                raise InputError(f"the weights are of another model: {name} has another shape")
            live[name].copy_(weights[name])
    extra = {name.removeprefix(_EXTRA): tensor for name, tensor in weights.items() if name.startswith(_EXTRA)}
    if extra:
        model.load_training_state(extra)


def _live(model: nn.Module) -> Weights:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    weights = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    saved = model.state_dict()
    weights.update({name: saved[name] for name in saved if name not in parameters and isinstance(saved[name], Tensor)})
    if hasattr(model, "training_state"):
        weights.update({f"{_EXTRA}{name}": tensor for name, tensor in model.training_state().items()})
    return weights


def finite(model: nn.Module) -> bool:
    """Return whether every trained weight is a finite number."""
    return all(bool(tensor.isfinite().all()) for tensor in _live(model).values() if tensor.is_floating_point())


def average_weights(many: Sequence[nn.Module] | Sequence[Mapping[str, Tensor]]) -> Weights:
    """Return the mean of the weights of several models of one kind, or of several sets of weights.

    Whole numbers, such as counters, are those of the last. Source: Izmailov et al., "Averaging Weights Leads to
    Wider Optima and Better Generalization", UAI 2018, equation of section 3.2 with equal shares.

    Raises
    ------
    InputError
        There is none, or they are of different models.

    Examples
    --------
    >>> average_weights([{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0])}])["w"].tolist()
    [2.0, 2.0]
    """
    sets = [learned(one) if isinstance(one, nn.Module) else one for one in many]
    if not sets:
        raise InputError("nothing to average", fix="give at least one model")
    last = sets[-1]
    for other in sets:
        if {n: t.shape for n, t in other.items()} != {n: t.shape for n, t in last.items()}:
            raise InputError("models of different shapes cannot be averaged", fix="average models of one kind")
    mean: Weights = {}
    for name, tensor in last.items():
        if tensor.is_floating_point():
            total = sum(other[name].to(torch.float64) for other in sets)
            mean[name] = (total / len(sets)).to(tensor.dtype)
        else:
            mean[name] = tensor.clone()
    return mean


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return a short hash of names, shapes, kinds and some values of each tensor.

    Examples
    --------
    >>> fingerprint({"a": torch.zeros(3)}) == fingerprint({"a": torch.ones(3)})
    False
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        flat = tensors[name].detach().reshape(-1)
        stride = max(1, flat.numel() // _LOOKED_AT)
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        digest.update(np.ascontiguousarray(flat[::stride].to(torch.float64).cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]
