"""A carrier with a task head on it, as one model to train, and the batches it learns from.

A batch holds under ``reading`` what the carrier reads, and beside it what was right
(:class:`isthmus.model.heads_base.Truth`): ``wanted``, perhaps ``negatives``, ``ratings`` and ``weights``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import ModelOutput

from isthmus.data.sequences import Histories, ranges
from isthmus.errors import InputError
from isthmus.model.catalogue import Events
from isthmus.model.heads import Head, Truth, draw_negatives
from isthmus.model.reading import Reader, Tokens
from isthmus.model.sequence import SequenceModel
from isthmus.rng import generator
from isthmus.train.batches import BatchSettings, SequenceBatches
from isthmus.train.schedule import Schedule, TextSettings
from isthmus.train.sequences import Material
from isthmus.types import Bools, Floats, Indices, Ints

Batch: TypeAlias = dict[str, Tensor | dict[str, Tensor]]


@dataclass
class HeadedOutput(ModelOutput):  # type: ignore[misc]
    """Loss, a scalar."""

    loss: Tensor | None = None


class Headed(PreTrainedModel):  # type: ignore[misc]
    """A carrier with a head; beside them perhaps the carrier as it was, which is never trained.

    Parameters
    ----------
    carrier : SequenceModel or LanguageModel
        Prepared for a strategy.
    head : Head
        Of the task; an ``AdditiveHead`` with ``apart`` if there is ``old``.
    old : SequenceModel or LanguageModel, optional
        The carrier as it was carried over, for the additive form.
    """

    base_model_prefix = "headed"

    def __init__(self, carrier: PreTrainedModel, head: Head, old: PreTrainedModel | None = None) -> None:
        super().__init__(PretrainedConfig(name_or_path=carrier.config.model_type))
        self.carrier, self.head, self.old = carrier, head, old
        if old is not None:
            old.requires_grad_(False)
        if hasattr(carrier, "after_update"):  # adalora
            self.after_update = self._after_update
            self.training_state, self.load_training_state = carrier.training_state, carrier.load_training_state
        for hook in carrier._forward_hooks.values():
            self.register_forward_hook(hook)

    @property
    def supports_gradient_checkpointing(self) -> bool:
        """Whether the carrier can keep fewer activations."""
        return bool(self.carrier.supports_gradient_checkpointing)

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter from the top: that in the carrier, 0 for the head."""
        part, _, rest = name.partition(".")
        return int(self.carrier.layer_of(rest)) if part == "carrier" else 0

    def adversarial_parameters(self) -> list[nn.Parameter]:
        """Return what adversarial training disturbs: that of the carrier."""
        found: list[nn.Parameter] = self.carrier.adversarial_parameters()
        return found

    def train(self, mode: bool = True) -> Headed:
        """Train, or not; what was carried over is only read."""
        super().train(mode)
        if self.old is not None:
            self.old.eval()
        return self

    def _after_update(self, step: int, steps: int) -> None:
        """Let the carrier share out its ranks; a head may leave parts of it without a gradient."""
        for tensor in self.carrier.parameters():
            if tensor.requires_grad and tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
        self.carrier.after_update(step, steps)

    def forward(
        self,
        reading: Mapping[str, Tensor],
        wanted: Tensor,
        negatives: Tensor | None = None,
        ratings: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> HeadedOutput:
        """Return the loss of the head.

        Parameters
        ----------
        reading : dict of str to Tensor
            Sequence: items, events, gaps (B, L), places (P,), and the rows of the table (T,); for classes rows only.
            Language: person_ids, person_mask (P, L) and item_ids, item_mask (T, M); for classes the latter only.
        wanted, negatives, ratings, weights : Tensors (P,), (P, n), (P,), (P,)
            What was right.
        """
        states, table = read(self.carrier, reading)
        if self.old is not None:
            with torch.no_grad():
                before, shelf = read(self.old, reading)
            states = torch.cat([before, states], dim=1)
            table = None if table is None or shelf is None else torch.cat([shelf, table], dim=1)
        with torch.autocast(states.device.type, enabled=False):
            truth = Truth(wanted, negatives, ratings, weights)
            loss = self.head.loss(states.float(), None if table is None else table.float(), truth)
        return HeadedOutput(loss=loss)


def read(model: PreTrainedModel, reading: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return states (P, d) and items (T, d); for classes the items as states, and no table."""
    if isinstance(model, SequenceModel):
        if "items" not in reading:
            return model.items(reading["rows"]), None
        table = model.items()
        events = Events(reading["items"], reading["events"], reading["gaps"])
        return model.persons(events, table).flatten(0, 1)[reading["places"]], table[reading["rows"]]
    scale = 1 / model.config.pair_temperature
    items = model.embed(reading["item_ids"], reading["item_mask"])
    if "person_ids" not in reading:
        return items * scale, None
    return model.embed(reading["person_ids"], reading["person_mask"]) * scale, items


@dataclass(frozen=True)
class HeadBatching:
    """How a head's batches are made.

    Parameters
    ----------
    head : str
        Its name.
    size : int
        Events of a batch (sequence carrier), or examples (language carrier, classes).
    negatives : int
        Items that each chosen one is ranked above; for the language carrier also the items beside the wanted ones.
    length : int
        Events of a history that are looked at, for the language carrier.
    seed : int
        Order, and what is drawn.
    """

    head: str
    size: int
    negatives: int = 16
    length: int = 30
    seed: int = 0

    def truth(self, wanted: Tensor, n_items: int, step: int) -> Batch:
        """Return what was right in a step; with ``ranking`` also what was not."""
        if self.head != "ranking":
            return {"wanted": wanted}
        seed = int(generator(self.seed, "negatives", step).integers(2**63))
        drawn = draw_negatives(wanted, n_items, self.negatives, torch.Generator().manual_seed(seed))
        return {"wanted": wanted, "negatives": drawn}


class _Rated(SequenceBatches):
    """Batches that predict the events with a value, which stands in place of the weights of the histories."""

    def _weights(self, histories: Histories, predict: Bools, first: Bools, now: int, dated: bool) -> Floats:
        weights = super()._weights(histories, predict, first, now, dated)
        return weights * np.isfinite(histories.weights)

    def _more(self, after: Ints) -> dict[str, Floats]:
        return {"ratings": self.histories.weights[after]}


class SequenceHeadBatches:
    """Every event of a target as the one to predict from what came before, for a sequence model.

    Parameters
    ----------
    material : Material
        What may be learned from; for ratings with the values of events in place of their weights.
    how : HeadBatching
        Head and sizes.
    length : int
        Events of a history that are looked at.

    Raises
    ------
    InputError
        Nobody did anything before an event to predict.
    """

    def __init__(self, material: Material, how: HeadBatching, length: int) -> None:
        self.how, self.rows = how, np.flatnonzero(material.predict)
        rated = how.head == "rating"
        settings = BatchSettings(events=how.size, length=length, repeats=rated, seed=how.seed)
        kind = _Rated if rated else SequenceBatches
        some = material.histories
        self.inner = kind(some, material.places, material.predict, settings, now=material.now, dated=material.dated)
        if not self.inner.start.size:
            raise nothing(rated=rated)

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self.inner)

    def batch(self, step: int) -> Batch:
        """Return the input of :class:`Headed` for a step."""
        made = self.inner.fields(step)
        reading = {name: made[name] for name in ("items", "events", "gaps", "places")}
        wanted = torch.from_numpy(np.searchsorted(self.rows, made["targets"].numpy()))
        found = {
            "reading": {**reading, "rows": torch.from_numpy(self.rows)},
            **self.how.truth(wanted, self.rows.size, step),
        }
        return {**found, **({"ratings": made["ratings"]} if "ratings" in made else {"weights": made["weights"]})}


class TextHeadBatches:
    """Some events of a target as those to predict from what came before told in words, for a language model.

    Next items are told from the other items of the batch, and ``negatives`` more.

    Parameters
    ----------
    reader : Reader
        Tells people and items in words.
    histories : Histories
        What may be learned from; for ratings with the values of events in place of their weights.
    predict : bool array (N,)
        Items of the target.
    how : HeadBatching
        Head and sizes.

    Raises
    ------
    InputError
        Nobody did anything before an event to predict.
    """

    def __init__(self, reader: Reader, histories: Histories, predict: Bools, how: HeadBatching) -> None:
        self.reader, self.histories, self.how = reader, histories, how
        self.person = histories.rows
        self.may = np.flatnonzero(predict & (reader.items.lengths > 0))
        rated = how.head == "rating"
        before = np.arange(self.person.size) - histories.indptr[self.person]
        useful = np.isin(histories.items, self.may) & (before > 0)
        if rated:
            useful &= np.isfinite(histories.weights)
        else:
            keys = self.person * (int(histories.items.max(initial=0)) + 1) + histories.items
            once = np.zeros(keys.size, dtype=bool)
            once[np.unique(keys, return_index=True)[1]] = True
            useful &= once
        self.examples = np.flatnonzero(useful)
        if not self.examples.size:
            raise nothing(rated=rated)
        lengths = np.minimum(before[self.examples], how.length)
        self.schedule = Schedule(lengths, TextSettings(how.size, seed=how.seed), purpose=f"head {how.head}")

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self.schedule)

    def batch(self, step: int) -> Batch:
        """Return the input of :class:`Headed` for a step."""
        chosen = self.examples[self.schedule.rows(step)]
        items, extra = self.histories.items[chosen], self.may[:0]
        if self.how.head != "rating":
            extra = generator(self.how.seed, "beside", step).choice(self.may, self.how.negatives)
        shelf = np.unique(np.concatenate([items, extra]))
        wanted = torch.from_numpy(np.searchsorted(shelf, items))
        people = self.reader.behaviour(before_events(self.histories, chosen, self.how.length))
        found: Batch = {
            "reading": {**_tensors(people, "person"), **_tensors(self.reader.items.take(shelf), "item")},
            **(self.how.truth(wanted, shelf.size, step) if shelf.size > 1 else {"wanted": wanted}),
        }
        rated = self.how.head == "rating"
        return {**found, **({"ratings": torch.from_numpy(self.histories.weights[chosen])} if rated else {})}


class ItemBatches:
    """Some items and their classes, for either carrier.

    Parameters
    ----------
    rows : int64 array (n,)
        Items of the corpus.
    codes : int64 array (n,)
        Class of each.
    how : HeadBatching
        Sizes.
    reader : Reader, optional
        Tells the items in words, for a language model.
    """

    def __init__(self, rows: Ints, codes: Ints, how: HeadBatching, reader: Reader | None) -> None:
        self.rows, self.codes, self.reader = rows, codes, reader
        lengths = np.ones(rows.size, np.int64) if reader is None else reader.items.lengths[rows]
        self.schedule = Schedule(lengths, TextSettings(how.size, seed=how.seed), purpose="classes")

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self.schedule)

    def batch(self, step: int) -> Batch:
        """Return the input of :class:`Headed` for a step."""
        chosen = self.schedule.rows(step)
        wanted = torch.from_numpy(self.codes[chosen])
        if self.reader is None:
            return {"reading": {"rows": torch.from_numpy(self.rows[chosen])}, "wanted": wanted}
        return {"reading": _tensors(self.reader.items.take(self.rows[chosen]), "item"), "wanted": wanted}


def before_events(histories: Histories, chosen: Ints | Indices, n: int) -> Histories:
    """Return what came before each of some events, the newest ``n`` at most.

    Examples
    --------
    >>> before_events(Histories.of([[4, 5, 6], [7]]), np.array([2, 3]), 5).lengths.tolist()
    [2, 0]
    """
    start = np.maximum(histories.indptr[histories.rows[chosen]], chosen - n)
    rows = ranges(start, chosen.astype(np.int64))
    indptr = np.concatenate([[0], np.cumsum(chosen - start)]).astype(np.int64)
    some = histories
    return Histories(indptr, some.items[rows], some.weights[rows], some.ts[rows], some.events[rows])


def nothing(*, rated: bool) -> InputError:
    """Return the error to raise where there is nothing to learn."""
    what = "event with a value" if rated else "event"
    return InputError(
        f"nobody did anything before a training {what} of the target, so there is nothing to learn",
        fix="give more events, cut later, or take the pre-trained model as it is",
    )


def _tensors(tokens: Tokens, name: str) -> dict[str, Tensor]:
    ids, mask = tokens.padded()
    return {f"{name}_ids": torch.from_numpy(ids), f"{name}_mask": torch.from_numpy(mask)}
