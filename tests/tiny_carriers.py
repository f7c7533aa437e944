"""Tiny carriers with random weights, batches for them, and what they give: what the tests of strategies share."""

from __future__ import annotations

import copy

import numpy as np
import torch
from tests.tiny_language import tiny as tiny_language
from torch import Tensor
from transformers import PreTrainedModel

from isthmus.data.sequences import Histories
from isthmus.model.base import Places
from isthmus.model.language_files import quiet
from isthmus.model.sequence import UNKNOWN, SequenceConfig, SequenceModel
from isthmus.train.batches import BatchSettings, SequenceBatches

CARRIERS = ("sequence", "bert", "gpt2")
N = 30
PLACES = Places(np.arange(N, dtype=np.int32) % 2, np.zeros(N, np.int32), ("Food", "Kitchen"), ("shop",))
VECTORS = np.random.default_rng(0).normal(size=(N, 12)).astype(np.float32)
KNOWN = np.arange(N, dtype=np.int32)


def histories() -> Histories:
    """Each person goes through the items of one domain in order."""
    return Histories.of([[(start + 2 * step) % N for step in range(4 + start % 5)] for start in range(20)])


class Pairs:
    """Batches of two views of some token rows; the same step gives the same batch."""

    def __len__(self) -> int:
        return 5

    def batch(self, step: int) -> dict[str, Tensor]:
        drawn = torch.Generator().manual_seed(step % 5)
        left = torch.randint(1000, 2000, (6, 9), generator=drawn)
        right = left.roll(1, 1)
        mask = torch.ones_like(left)
        mask[0, 5:] = 0
        part = {"objective": "contrastive", "left_ids": left, "left_mask": mask, "right_ids": right, "right_mask": mask}
        return {"parts": [part]}  # type: ignore[dict-item]


def carrier(kind: str, *, ids: bool = True) -> PreTrainedModel:
    """Return a carrier whose weights are all away from their starting values, as if it were pre-trained."""
    if kind == "sequence":
        config = SequenceConfig(
            width=12, dim=16, layers=3, heads=2, experts=2, dropout=0.0, vector_dropout=0.0,
            domains=[UNKNOWN, "Food", "Kitchen"], platforms=[UNKNOWN, "shop"], n_items=N if ids else 0,
        )  # fmt: skip
        model = SequenceModel.seeded(config, 0)
    else:
        model = tiny_language(kind)
    torch.manual_seed(1)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return shown(model.eval())


def shown(model: PreTrainedModel) -> PreTrainedModel:
    """Show a sequence model the items."""
    if isinstance(model, SequenceModel):
        model.attend(VECTORS, PLACES, KNOWN if model.ids is not None else KNOWN[:0])
    return model


def batches(kind: str) -> SequenceBatches | Pairs:
    if kind != "sequence":
        return Pairs()
    return SequenceBatches(histories(), PLACES, np.ones(N, bool), BatchSettings(events=40), dated=False)


@torch.no_grad()
def outputs(model: PreTrainedModel) -> Tensor:
    """Return what a carrier gives for fixed inputs, (B, d)."""
    if isinstance(model, SequenceModel):
        table = model.items().numpy()
        return torch.cat([model.items(), torch.from_numpy(model.states(table, histories(), dated=False))])
    part = Pairs().batch(0)["parts"][0]
    return model.embed(part["left_ids"], part["left_mask"])  # type: ignore[index]


def clone(model: PreTrainedModel) -> PreTrainedModel:
    return copy.deepcopy(model)


def save(model: PreTrainedModel, folder: object) -> None:
    with quiet():
        model.save_pretrained(folder)


def reload(model: PreTrainedModel, folder: object) -> PreTrainedModel:
    with quiet():
        return shown(type(model).from_pretrained(folder).eval())
