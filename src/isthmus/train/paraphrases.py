"""Texts and the same in other words, for the contrastive objective: what an item is should not hang on its words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl
import torch
from torch import Tensor

from isthmus.data.paraphrase import Paraphraser, WordEdits
from isthmus.data.synonyms import Synonyms, company_vectors, words_of
from isthmus.encode.store import encode_items
from isthmus.encode.template import Template
from isthmus.encode.text import TextEncoder
from isthmus.errors import InputError
from isthmus.model.reading import Reader, Tokens, tokenise
from isthmus.rng import generator
from isthmus.train.schedule import Schedule, TextSettings
from isthmus.train.texts import tensors
from isthmus.types import Bools, Floats, Ints

#: Shares of the words of a text that are exchanged, left out and swapped.
EDITS: Final = (0.2, 0.1, 0.1)
#: From so many texts on a word must stand in five of them to be exchanged, else in two.
MANY: Final = 1000
#: Texts that are looked at to see whether a paraphraser does anything.
_PROBE: Final = 500


class ParaphrasedTexts:
    """Pairs of an item's text and the same in other words; the other texts of the batch are what it is told from.

    Every step says its texts anew, and the same step always in the same way. A text that comes back with the same
    tokens is no pair: it only stands among the wrong answers. Items of one text are not told from each other. Where a
    whole batch comes back as it was, each text is its own pair, and dropout alone tells the two apart (Gao, Yao &
    Chen, SimCSE, EMNLP 2021, section 3).

    Parameters
    ----------
    reader : Reader
        Reads the items.
    rows : int64 array (n,)
        Items whose texts are read; they need no events. Those without a text are passed over.
    paraphraser : Paraphraser
        Says texts in other words.
    settings : TextSettings
        Sizes and seed. Each batch is of one domain.

    Raises
    ------
    InputError
        No text, or the paraphraser leaves all texts as they are.
    """

    def __init__(self, reader: Reader, rows: Ints, paraphraser: Paraphraser, settings: TextSettings) -> None:
        self.reader, self.paraphraser, self.settings = reader, paraphraser, settings
        self.rows = rows[reader.items.lengths[rows] > 0]
        texts = reader.template.render(reader.table).to_list()
        self.texts: list[str] = [texts[row] for row in self.rows.tolist()]
        _, self.kinds = np.unique(np.array(self.texts, dtype=object), return_inverse=True)
        groups = reader.places.domain[self.rows].astype(np.int64)
        self.schedule = Schedule(reader.items.lengths[self.rows], settings, groups, purpose="paraphrase")
        some = np.arange(min(self.rows.size, _PROBE))
        if not self._said(some, settings.seed)[1].any():
            raise InputError(
                "the paraphraser leaves the texts as they are",
                where="objective contrastive-paraphrase",
                fix="give more texts, or another paraphraser",
            )

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self.schedule)

    def batch(self, step: int) -> dict[str, list[dict[str, Tensor | str]]]:
        """Return the input of the model for a step."""
        drawn = self.schedule.rows(step)
        said, changed = self._said(drawn, int(generator(self.settings.seed, "paraphrase", step).integers(1 << 31)))
        if not changed.any():
            changed = ~changed
        order = np.concatenate([np.flatnonzero(changed), np.flatnonzero(~changed)])
        left, right = self.reader.items.take(self.rows[drawn[changed]]), said.take(order)
        kinds = self.kinds[drawn]
        sides = {**tensors(left, "left_ids", "left_mask"), **tensors(right, "right_ids", "right_mask")}
        ignored = torch.from_numpy(kinds[changed][:, None] == kinds[order])
        return {"parts": [{"objective": "contrastive", **sides, "ignored": ignored}]}

    def _said(self, places: Ints, seed: int) -> tuple[Tokens, Bools]:
        """Return texts in other words, as they were where nothing is left of them, and which have other tokens."""
        texts = [self.texts[place] for place in places.tolist()]
        found = self.paraphraser.paraphrase(texts, seed=seed)
        kept = [new if new.strip() else old for new, old in zip(found, texts, strict=True)]
        said = tokenise(self.reader.tokenizer, kept, self.reader.settings.max_tokens_item)
        return said, _differ(self.reader.items.take(self.rows[places]), said)


def _differ(one: Tokens, other: Tokens) -> Bools:
    """Return which texts have other tokens, (B,)."""
    ids, more = one.padded()[0], other.padded()[0]
    width = max(ids.shape[1], more.shape[1])
    wide, wider = (np.pad(part, [(0, 0), (0, width - part.shape[1])]) for part in (ids, more))
    found: Bools = (one.lengths != other.lengths) | (wide != wider).any(axis=1)
    return found


def word_edits(texts: Sequence[str]) -> WordEdits:
    """Return the usual paraphraser of some texts: words exchanged for synonyms among them, left out, and swapped.

    In scripts with spaces between words synonyms are those near by the bundled model, in others those that keep the
    same company in the texts (:mod:`isthmus.data.synonyms`). Vectors of words come from the cache on disk where they
    were made before.
    """
    known = sorted({text for text in texts if text})
    words = words_of(known, least=5 if len(known) >= MANY else 2)
    close = sorted(Synonyms(dict.fromkeys(words, ())).of_script(spaced=False).near)
    apart = sorted(set(words) - set(close))
    near = Synonyms.of(apart, _read(apart)) if apart else Synonyms({})
    if close:
        near = near | Synonyms.of(close, company_vectors(known, close), most=2.0)
    exchange, delete, swap = EDITS
    return WordEdits(near, exchange=exchange, delete=delete, swap=swap)


def _read(words: Sequence[str]) -> Floats:
    table = pl.DataFrame({"platform": [""] * len(words), "item": list(words), "title": list(words)})
    return encode_items(table, TextEncoder(template=Template(parts=("title",)))).matrix
