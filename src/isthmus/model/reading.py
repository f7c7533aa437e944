"""What a language model reads, as flat arrays of token ids: item texts once, behaviour joined from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from isthmus.data.phrases import BARE, Grammar, Language, grammar
from isthmus.data.sequences import Histories, ranges
from isthmus.encode.template import Template
from isthmus.errors import InputError
from isthmus.model.base import Places
from isthmus.types import EVENTS, Bools, Indices, Ints

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Pieces of one event: joiner, place before it, words before the title, title, words after it, place after it.
_SLOTS: Final = 6


@dataclass(frozen=True)
class Tokens:
    """Token ids of ``B`` texts in one flat array; those of text ``b`` are ``indptr[b]:indptr[b + 1]``.

    Examples
    --------
    >>> ids, mask = Tokens.of([[5, 6, 7], [8]]).padded()
    >>> ids.tolist(), mask.tolist()
    ([[5, 6, 7], [8, 0, 0]], [[1, 1, 1], [1, 0, 0]])
    """

    indptr: Ints
    ids: Ints

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Tokens:
        """Return the tokens of plain lists."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
        return cls(np.concatenate([[0], np.cumsum(lengths)]), ids)

    def __len__(self) -> int:
        """Return the number of texts."""
        return self.indptr.size - 1

    @property
    def lengths(self) -> Ints:
        """Tokens of each text, (B,)."""
        return np.diff(self.indptr)

    def take(self, rows: Ints | Indices) -> Tokens:
        """Return the texts of the given places, in that order."""
        start, stop = self.indptr[rows], self.indptr[np.asarray(rows) + 1]
        return Tokens(np.concatenate([[0], np.cumsum(stop - start)]), self.ids[ranges(start, stop)])

    def padded(self) -> tuple[Ints, Ints]:
        """Return ids and attention mask, int64 (B, longest), padded on the right with id 0."""
        lengths = self.lengths
        mask = np.arange(max(1, int(lengths.max(initial=0)))) < lengths[:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = self.ids
        return ids, mask.astype(np.int64)


def tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int, *, special: bool = True
) -> Tokens:
    """Return the tokens of each text, cut to ``max_tokens``, with the model's special tokens unless told otherwise.

    An empty text has no tokens at all.
    """
    if not len(texts):
        return Tokens.of([])
    rows = tokenizer(
        list(texts),
        add_special_tokens=special,
        truncation=True,
        max_length=max_tokens,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    return Tokens.of([row if text else [] for row, text in zip(rows, texts, strict=True)])


def frame_of(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), 0)
    return list(full[:start]), list(full[start + len(bare) :])


@dataclass(frozen=True)
class ReadingSettings:
    """How much is read, and in which words behaviour is told.

    Parameters
    ----------
    max_tokens_item, max_tokens_person : int
        Longest text of an item, and of what a person did, in tokens.
    max_tokens_title : int
        Longest name of an item inside what a person did.
    language : {"en", "zh"}
        Words for the events.
    whole : bool
        Tell an item inside a history by the start of its whole text, not by its title.
    """

    max_tokens_item: int = 64
    max_tokens_person: int = 256
    max_tokens_title: int = 24
    language: Language = "en"
    whole: bool = False


class Reader:
    """Reads items and people of one corpus as tokens.

    The words are those of :func:`isthmus.data.narrate.narrate` (``viewed "A" on shop, then bought "B".``), without
    values and without escapes. Each item is tokenised once; a history is joined from the tokens of its items, so
    telling a million events takes no loop over them.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Of the language model.
    items : polars.DataFrame
        An items table; row ``n`` is item ``n`` of the histories.
    settings : ReadingSettings
        Lengths and words.
    template : Template
        What makes up the text of an item.

    Raises
    ------
    InputError
        There is no room for one event within ``max_tokens_person``.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        items: pl.DataFrame,
        settings: ReadingSettings | None = None,
        template: Template | None = None,
    ) -> None:
        self.tokenizer, self.settings = tokenizer, settings or ReadingSettings()
        self.table, self.template = items, template or Template()
        self.places = Places.of(items)
        self.start, self.end = frame_of(tokenizer)

    @cached_property
    def items(self) -> Tokens:
        """The text of each item, N rows; an item without text has no tokens."""
        texts = self.template.render(self.table).to_list()
        return tokenise(self.tokenizer, texts, self.settings.max_tokens_item)

    def behaviour(self, histories: Histories) -> Tokens:
        """Return what each person did, oldest event first, B rows; no tokens for an empty history.

        Where there is no room for all events, the newest are told.
        """
        kept = histories.keep(self._fits(histories))
        slots = self._slots(kept)
        pieces = self._pieces.take(slots)
        edges = _SLOTS * kept.indptr + 2 * np.arange(len(kept) + 1)
        return Tokens(pieces.indptr[edges], pieces.ids)

    @cached_property
    def _rules(self) -> Grammar:
        return grammar(self.settings.language)

    @cached_property
    def _pieces(self) -> Tokens:
        """All pieces: nothing, start, end, joiner, words before and after a title by event, places, titles."""
        rules = self._rules
        joiner = rules.joiners["oldest"]
        lead = " " if joiner.endswith(" ") else ""
        templates = [rules.template(event, "").split("{t}") for event in EVENTS]
        before = [lead + words + rules.quotes[0] for words, _ in templates]
        after = [rules.quotes[1] + words for _, words in templates]
        words = [joiner.rstrip(), rules.stop, *before, *after, *map(self._place, self.places.platforms)]
        phrases = tokenise(self.tokenizer, words, 512, special=False)
        rows = [phrases.ids[a:b].tolist() for a, b in zip(phrases.indptr, phrases.indptr[1:], strict=False)]
        fixed = Tokens.of([[], self.start, rows[1] + self.end, rows[0], *rows[2:]])
        titles = self._titles()
        ends = fixed.indptr[-1] + titles.indptr[1:]
        pieces = Tokens(np.concatenate([fixed.indptr, ends]), np.concatenate([fixed.ids, titles.ids]))
        room = self.settings.max_tokens_person - int(pieces.lengths[1:3].sum())
        if int(self._costs(pieces).max(initial=0)) > room:
            raise InputError(
                f"no room for one event within {self.settings.max_tokens_person} tokens",
                fix="raise max_tokens_person or lower max_tokens_title",
            )
        return pieces

    @cached_property
    def _at(self) -> dict[str, int]:
        """Where each kind of piece starts."""
        kinds, platforms = len(EVENTS), len(self.places.platforms)
        return {
            "joiner": 3,
            "before": 4,
            "after": 4 + kinds,
            "place": 4 + 2 * kinds,
            "title": 4 + 2 * kinds + platforms,
        }

    def _place(self, platform: str) -> str:
        rules = self._rules
        bare = rules.bare and pl.Series([platform]).str.contains(f"^{BARE}$")[0]
        name = platform if bare else platform.join(rules.place_quotes)
        return rules.place.replace("{c}", "").replace("{p}", name)

    def _titles(self) -> Tokens:
        named = self.table.select(pl.coalesce("title", "item") if "title" in self.table.columns else "item").to_series()
        texts = self.template.render(self.table) if self.settings.whole else named
        texts = pl.select(pl.when(texts != "").then(texts).otherwise(named)).to_series()
        return tokenise(self.tokenizer, texts.to_list(), self.settings.max_tokens_title, special=False)

    def _costs(self, pieces: Tokens) -> Ints:
        """Return the tokens of telling each item, with the longest words that may stand around it, (N,)."""
        lengths, at = pieces.lengths, self._at
        around = lengths[at["before"] : at["after"]] + lengths[at["after"] : at["place"]]
        places = lengths[at["place"] : at["title"]][self.places.platform]
        costs: Ints = lengths[at["title"] :] + places + int(around.max()) + lengths[at["joiner"]]
        return costs

    def _fits(self, histories: Histories) -> Bools:
        """Return which events are told, (E,); each is counted with its place and a joiner, so all fit."""
        pieces, at = self._pieces, self._at
        lengths = pieces.lengths
        cost = (
            lengths[at["joiner"]]
            + lengths[at["before"] + histories.events]
            + lengths[at["after"] + histories.events]
            + lengths[at["title"] + histories.items]
            + lengths[at["place"] + self.places.platform[histories.items]]
        )
        sums = np.concatenate([[0], np.cumsum(cost)])
        to_end = sums[np.repeat(histories.indptr[1:], histories.lengths)] - sums[:-1]
        fits: Bools = to_end <= self.settings.max_tokens_person - int(lengths[1:3].sum())
        return fits

    def _slots(self, kept: Histories) -> Ints:
        """Return the pieces of all texts in order: for each a start, six for each event, and an end."""
        at, rows = self._at, kept.rows
        first = kept.indptr[rows] == np.arange(rows.size)
        platform = self.places.platform[kept.items]
        moved = first | (platform != np.roll(platform, 1))
        place = np.where(moved, at["place"] + platform, 0)
        ahead = self._rules.place.index("{p}") < self._rules.place.index("{c}")
        nothing = np.zeros_like(place)
        event = [
            np.where(first, 0, at["joiner"]),
            place if ahead else nothing,
            at["before"] + kept.events,
            at["title"] + kept.items,
            at["after"] + kept.events,
            nothing if ahead else place,
        ]
        slots = np.zeros(2 * len(kept) + _SLOTS * rows.size, np.int64)
        where = _SLOTS * np.arange(rows.size) + 2 * rows + 1
        slots[where[:, None] + np.arange(_SLOTS)] = np.stack(event, axis=1)
        said = kept.lengths > 0
        slots[(_SLOTS * kept.indptr[:-1] + 2 * np.arange(len(kept)))[said]] = 1
        slots[(_SLOTS * kept.indptr[1:] + 2 * np.arange(len(kept)) + 1)[said]] = 2
        return slots
