"""Batches of texts for the language model: hidden words, following words, classes; and mixtures of objectives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch
from torch import Tensor

from isthmus.errors import InputError
from isthmus.model.objectives import IGNORED
from isthmus.model.reading import Tokens
from isthmus.rng import generator
from isthmus.train.schedule import Schedule, TextSettings
from isthmus.types import Bools, Ints

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from isthmus.train.loop import Batches

#: Share of the words that are asked for, and what becomes of these: [MASK], any word, left as it is.
MASKED: Final = 0.15
FATES: Final = (0.8, 0.1, 0.1)


def tensors(tokens: Tokens, ids: str = "input_ids", mask: str = "attention_mask") -> dict[str, Tensor]:
    """Return ids and mask of some texts, int64 (B, L), under the names given."""
    return {name: torch.from_numpy(array) for name, array in zip((ids, mask), tokens.padded(), strict=True)}


@dataclass(frozen=True)
class Masking:
    """How words are hidden.

    Parameters
    ----------
    mask : int
        Id of the mask token.
    words : int
        Size of the vocabulary.
    special : int64 array
        Ids that are never asked for.
    share : float
        Share of the words that are asked for.
    """

    mask: int
    words: int
    special: Ints
    share: float = MASKED

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Masking:
        """Return the usual masking of a tokeniser.

        Raises
        ------
        InputError
            It has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise InputError("the tokeniser has no mask token", where="objective mlm", fix="take clm for a decoder")
        special = np.unique(np.array(tokenizer.all_special_ids, np.int64))
        return cls(int(tokenizer.mask_token_id), len(tokenizer), special)

    def hide(self, ids: Ints, real: Bools, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Return ids with some words hidden, and labels: the words asked for, -100 elsewhere; both (B, L).

        Of the words asked for 80 % become the mask token, 10 % any word and 10 % stay (Devlin et al., BERT, NAACL
        2019, section 3.1). A text with words but none drawn is asked for one of them, so no text is read for nothing.
        """
        may = real & ~np.isin(ids, self.special)
        drawn = rng.random(ids.shape)
        drawn[~may] = 2.0
        asked = drawn < self.share
        lacking = np.flatnonzero(may.any(axis=1) & ~asked.any(axis=1))
        asked[lacking, drawn[lacking].argmin(axis=1)] = True
        fate = rng.random(ids.shape)
        hidden = np.where(asked & (fate < FATES[0]), self.mask, ids)
        other = asked & (fate >= FATES[0]) & (fate < FATES[0] + FATES[1])
        hidden[other] = rng.integers(0, self.words, int(other.sum()))
        return hidden, np.where(asked, ids, IGNORED)


class _Texts:
    """Texts in batches; a text without tokens is passed over."""

    purpose = "texts"

    def __init__(self, tokens: Tokens, settings: TextSettings, groups: Ints | None = None) -> None:
        self.tokens, self.settings = tokens, settings
        self.used = np.flatnonzero(self._useful())
        chosen = None if groups is None else groups[self.used]
        self.schedule = Schedule(tokens.lengths[self.used], settings, chosen, purpose=self.purpose)

    def _useful(self) -> Bools:
        return self.tokens.lengths > 0

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self.schedule)

    def _rows(self, step: int) -> Ints:
        return self.used[self.schedule.rows(step)]


class MaskedTexts(_Texts):
    """Texts with hidden words. Any text serves: also of items without events.

    Parameters
    ----------
    tokens : Tokens
        The texts, with special tokens.
    masking : Masking
        How words are hidden.
    settings : TextSettings
        Sizes and seed.
    groups : int64 array (B,), optional
        Domain of each text, for temperature sampling.
    """

    purpose = "mlm"

    def __init__(self, tokens: Tokens, masking: Masking, settings: TextSettings, groups: Ints | None = None) -> None:
        self.masking = masking
        super().__init__(tokens, settings, groups)

    def batch(self, step: int) -> dict[str, list[dict[str, Tensor | str]]]:
        """Return the input of the model for a step."""
        ids, mask = self.tokens.take(self._rows(step)).padded()
        hidden, labels = self.masking.hide(ids, mask > 0, generator(self.settings.seed, "mask", step))
        names = ("input_ids", "attention_mask", "labels")
        made = {name: torch.from_numpy(array) for name, array in zip(names, (hidden, mask, labels), strict=True)}
        return {"parts": [{"objective": "mlm", **made}]}


class CausalTexts(_Texts):
    """Texts of which each word is told from those before it: item texts, or what people did.

    Parameters
    ----------
    tokens : Tokens
        The texts; those of one token are passed over.
    settings : TextSettings
        Sizes and seed.
    groups : int64 array (B,), optional
        Domain of each text, for temperature sampling.
    """

    purpose = "clm"

    def _useful(self) -> Bools:
        return self.tokens.lengths > 1

    def batch(self, step: int) -> dict[str, list[dict[str, Tensor | str]]]:
        """Return the input of the model for a step."""
        return {"parts": [{"objective": "clm", **tensors(self.tokens.take(self._rows(step)))}]}


class LabelledTexts(_Texts):
    """Texts with their classes by one or several fields.

    Parameters
    ----------
    tokens : Tokens
        The texts.
    labels : dict of str to int64 array (B,)
        For each field the number of each text's class, -100 for none. A text without any label is passed over.
    settings : TextSettings
        Sizes and seed.
    groups : int64 array (B,), optional
        Domain of each text, for temperature sampling.
    """

    purpose = "classify"

    def __init__(
        self, tokens: Tokens, labels: dict[str, Ints], settings: TextSettings, groups: Ints | None = None
    ) -> None:
        if not labels:
            raise InputError("nothing to classify by", where="objective classify", fix="give labels of a field")
        self.labels = labels
        super().__init__(tokens, settings, groups)

    def _useful(self) -> Bools:
        known = np.stack([labels != IGNORED for labels in self.labels.values()]).any(axis=0)
        return (self.tokens.lengths > 0) & known

    def batch(self, step: int) -> dict[str, list[dict[str, Tensor | str]]]:
        """Return the input of the model for a step."""
        rows = self._rows(step)
        labels = {field: torch.from_numpy(numbers[rows]) for field, numbers in self.labels.items()}
        return {"parts": [{"objective": "classify", **tensors(self.tokens.take(rows)), **labels}]}


class Mixed:
    """Several objectives at once: every batch has a part of each, and the loss is their weighted sum.

    Parameters
    ----------
    sources : sequence of (Batches, float)
        Batches with their weights. An epoch is that of the longest; the others start anew meanwhile.

    Raises
    ------
    InputError
        No source, or a weight that is not above 0.
    """

    def __init__(self, sources: Sequence[tuple[Batches, float]]) -> None:
        if not sources or any(weight <= 0 for _, weight in sources):
            raise InputError("needs objectives with weights above 0", where="mixed objectives")
        self.sources = list(sources)

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return max(len(source) for source, _ in self.sources)

    def batch(self, step: int) -> dict[str, list[dict[str, Tensor | str | float]]]:
        """Return the input of the model for a step."""
        parts = [
            {**part, "weight": weight * float(part.get("weight", 1.0))}
            for source, weight in self.sources
            for part in cast("list[dict[str, Tensor | str | float]]", source.batch(step)["parts"])
        ]
        return {"parts": parts}


def class_numbers(names: Sequence[str | None], *, least: int = 1) -> tuple[Ints, list[str]]:
    """Return the class number of each text (-100 for none) and the names of the classes, sorted.

    Parameters
    ----------
    names : sequence of str or None
        Class of each text: its domain, its category.
    least : int
        Classes with fewer texts do not count.

    Examples
    --------
    >>> numbers, classes = class_numbers(["tea", None, "tea", "book"], least=2)
    >>> numbers.tolist(), classes
    ([0, -100, 0, -100], ['tea'])
    """
    words = np.array([name or "" for name in names], dtype=object)
    known, counts = np.unique(words, return_counts=True)
    classes = [str(name) for name, count in zip(known, counts, strict=True) if name and count >= least]
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place.get(str(word), IGNORED) for word in words], np.int64), classes
