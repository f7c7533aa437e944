"""Small aids of training: which weight learns how fast, and a push on the embeddings that makes it harder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from isthmus.errors import InputError
from isthmus.train.settings import LoopSettings


def groups(model: nn.Module, settings: LoopSettings) -> list[dict[str, object]]:
    """Return the parameter groups of AdamW: one for each layer, with weight decay and without.

    A weight of layer ``l``, counted from the top, learns at ``learning_rate * layer_decay ** l`` (Howard and
    Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018, section 3.2). The layer is what
    the model's method ``layer_of(name) -> int`` says; without one, all are layer 0. Biases, norms and all that has
    one dimension longer than 1 at most have no weight decay.

    Raises
    ------
    InputError
        No parameter wants a gradient.
    """
    layer_of = getattr(model, "layer_of", lambda _: 0)
    found: dict[tuple[int, bool], list[Tensor]] = {}
    for name, tensor in model.named_parameters():
        if tensor.requires_grad:
            decays = sum(size > 1 for size in tensor.shape) > 1
            found.setdefault((int(layer_of(name)), decays), []).append(tensor)
    if not found:
        raise InputError("nothing to train: no parameter wants a gradient", where=type(model).__name__)
    return [
        {
            "params": tensors,
            "lr": settings.learning_rate * settings.layer_decay**layer,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (layer, decays), tensors in sorted(found.items(), key=lambda item: item[0])
    ]


@dataclass
class Adversary:
    """Pushes the embeddings to where the loss rises fastest, for a second pass.

    The push is ``size * g / ||g||`` with ``g`` the gradient of the loss in each embedding matrix, equation 8 of
    Miyato, Dai and Goodfellow, "Adversarial Training Methods for Semi-Supervised Text Classification", ICLR 2017,
    taken over the whole matrix instead of the embeddings of one text.

    Parameters
    ----------
    parameters : list of Tensor
        The embeddings.
    size : float
        Length of the push.
    """

    parameters: list[Tensor]
    size: float
    _before: list[Tensor | None] = field(default_factory=list)

    @classmethod
    def of(cls, model: nn.Module, size: float) -> Adversary:
        """Return the adversary of a model: of ``model.adversarial_parameters()`` if it has that, else of ``*embed*``.

        Raises
        ------
        InputError
            No embedding is trained.
        """
        if hasattr(model, "adversarial_parameters"):
            chosen = list(model.adversarial_parameters())
        else:
            chosen = [
                tensor for name, tensor in model.named_parameters() if "embed" in name.lower() and tensor.ndim > 1
            ]
        chosen = [tensor for tensor in chosen if tensor.requires_grad]
        if not chosen:
            raise InputError(
                "no embedding is trained that could be pushed", where="train.adversarial", fix="set adversarial to 0"
            )
        return cls(chosen, size)

    def start(self, accumulating: bool) -> None:
        """Remember the gradients so far, so that only those of the coming batch count."""
        kept = [p.grad.clone() if accumulating and p.grad is not None else None for p in self.parameters]
        self._before = kept

    @contextmanager
    def pushed(self) -> Iterator[None]:
        """Push while the block runs; the weights are the same to the bit after it."""
        saved = [tensor.detach().clone() for tensor in self.parameters]
        with torch.no_grad():
            for tensor, before in zip(self.parameters, self._before, strict=True):
                if tensor.grad is None:
                    continue
                gradient = tensor.grad if before is None else tensor.grad - before
                norm = gradient.norm()
                tensor.add_(torch.where(norm > 0, self.size * gradient / norm.clamp(min=1e-30), 0.0))
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, old in zip(self.parameters, saved, strict=True):
                    tensor.copy_(old)
