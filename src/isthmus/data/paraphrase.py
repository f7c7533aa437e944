"""Paraphrases of texts: words exchanged, left out and swapped, or the text translated there and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from isthmus.data.synonyms import Synonyms, pieces
from isthmus.errors import ArtefactError, DataError, InputError, NotFoundError
from isthmus.files import read_json, write_json
from isthmus.log import logger
from isthmus.rng import generator

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Translate = Callable[[Sequence[str]], Sequence[str]]
_NOTHING: Final[Collection[str]] = frozenset()


class Paraphraser(Protocol):
    """Says each text in other words."""

    def paraphrase(self, texts: Sequence[str], *, seed: int = 0) -> list[str]:
        """Return one text for each of ``texts``, which does not depend on the others; another seed may say it anew."""
        ...


@dataclass(frozen=True)
class WordEdits:
    """Exchanges words for synonyms, leaves words out and swaps words: EDA.

    After Wei & Zou, "EDA: Easy Data Augmentation Techniques for Boosting Performance on Text Classification Tasks",
    EMNLP 2019, section 2. A share of ``n`` words is ``floor(share * n + u)`` with ``u`` from [0, 1), so that short
    texts are touched now and then. The same text and seed give the same paraphrase in any batch.

    Parameters
    ----------
    synonyms : Synonyms
        What may stand for a word.
    exchange, delete, swap : float
        Shares of the words of a text, in [0, 1]. One word at least stays.

    Raises
    ------
    InputError
        A share is out of range.

    Examples
    --------
    >>> edits = WordEdits(Synonyms({"cheap": ("inexpensive",)}), exchange=1.0)
    >>> edits.paraphrase(["Cheap tea, CHEAP mugs!"])
    ['Inexpensive tea, INEXPENSIVE mugs!']
    """

    synonyms: Synonyms = Synonyms({})  # noqa: RUF009
    exchange: float = 0.15
    delete: float = 0.0
    swap: float = 0.0

    def __post_init__(self) -> None:
        """Check the shares."""
        for name in ("exchange", "delete", "swap"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} = {getattr(self, name)} is out of range", where="word edits", fix="take 0.1")

    def paraphrase(self, texts: Sequence[str], *, seed: int = 0) -> list[str]:
        """Return the texts with some words changed."""
        return [self._one(text, generator(seed, "word edits", text)) for text in texts]

    def _one(self, text: str, rng: np.random.Generator) -> str:
        text = exchange_words(text, self.synonyms, self.exchange, rng)
        known = self.synonyms.near.keys()
        text = delete_words(text, self.delete, rng, known=known)
        return swap_words(text, self.swap, rng, known=known)


def exchange_words(text: str, synonyms: Synonyms, share: float, rng: np.random.Generator) -> str:
    """Return ``text`` with ``share`` of its words, of those that have synonyms, exchanged; capitals are kept."""
    words, gaps = _taken_apart(text, synonyms.near.keys())
    able = [place for place, word in enumerate(words) if word.casefold() in synonyms.near]
    count = min(_portion(len(words), share, rng), len(able))
    for place in rng.choice(able, size=count, replace=False).tolist() if count else []:
        near = synonyms.near[words[place].casefold()]
        words[place] = _cased(near[int(rng.integers(len(near)))], words[place])
    return _joined(words, gaps)


def delete_words(text: str, share: float, rng: np.random.Generator, *, known: Collection[str] = _NOTHING) -> str:
    """Return ``text`` without ``share`` of its words and the gap before each; one word stays.

    Examples
    --------
    >>> delete_words("tea, green, hot", 0.34, np.random.default_rng(1))
    'tea, green'
    """
    words, gaps = _taken_apart(text, known)
    count = min(_portion(len(words), share, rng), len(words) - 1)
    if count <= 0:
        return text
    dropped = rng.choice(len(words), size=count, replace=False).tolist()
    for place in sorted(dropped, reverse=True):
        del words[place], gaps[max(place, 1)]
    return _joined(words, gaps)


def swap_words(text: str, share: float, rng: np.random.Generator, *, known: Collection[str] = _NOTHING) -> str:
    """Return ``text`` in which ``share`` of the words change places in pairs; what stands between words stays."""
    words, gaps = _taken_apart(text, known)
    for _ in range(_portion(len(words), share / 2, rng) if len(words) > 1 else 0):
        a, b = rng.choice(len(words), size=2, replace=False).tolist()
        words[a], words[b] = words[b], words[a]
    return _joined(words, gaps)


def _taken_apart(text: str, known: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the ``n`` words of a text, and the ``n + 1`` gaps around them."""
    words: list[str] = []
    gaps = [""]
    for piece, is_word in pieces(text, known):
        if is_word:
            words.append(piece)
            gaps.append("")
        else:
            gaps[-1] += piece
    return words, gaps


def _joined(words: list[str], gaps: list[str]) -> str:
    return gaps[0] + "".join(word + gap for word, gap in zip(words, gaps[1:], strict=True))


def _portion(n: int, share: float, rng: np.random.Generator) -> int:
    return int(share * n + rng.random())


def _cased(word: str, like: str) -> str:
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


class BackTranslation:
    """Says a text in other words by translating it there and back.

    Sennrich, Haddow & Birch, "Improving Neural Machine Translation Models with Monolingual Data", ACL 2016. What was
    translated is kept; a text that comes back empty stays as it was.

    Parameters
    ----------
    there, back : callable
        Texts in, translations out; :class:`Seq2Seq` makes one of a Hugging Face model.
    name : str
        Name of the pair: what is kept under one name is used again under that name.
    cache : Path, optional
        Folder; without it translations are kept in memory only.

    Examples
    --------
    >>> BackTranslation(lambda texts: [text.upper() for text in texts], lambda texts: texts).paraphrase(["tea", ""])
    ['TEA', '']
    """

    def __init__(self, there: Translate, back: Translate, *, name: str = "pair", cache: Path | None = None) -> None:
        self.there, self.back = there, back
        self.folder = None if cache is None else Path(cache) / hashlib.sha256(name.encode()).hexdigest()[:16]

    @classmethod
    def of_models(cls, there: str, back: str, *, cache: Path | None = None) -> BackTranslation:
        """Return the back-translation by two Hugging Face models, by name or folder; they are loaded when needed."""
        return cls(Seq2Seq(there), Seq2Seq(back), name=f"{there}\x1f{back}", cache=cache)

    def paraphrase(self, texts: Sequence[str], *, seed: int = 0) -> list[str]:  # noqa: ARG002
        """Return the texts as they come back; the seed changes nothing.

        Raises
        ------
        DataError
            A translator gives back another number of texts than it was given.
        """
        missing = sorted({text for text in texts if text.strip()} - self._kept.keys())
        if missing:
            new = dict(zip(missing, self._there_and_back(missing), strict=True))
            self._kept.update(new)
            if self.folder is not None:
                digest = hashlib.sha256("\x1f".join(missing).encode("utf-8", "surrogatepass")).hexdigest()[:32]
                write_json(self.folder / f"{digest}.json", new)
        return [self._kept.get(text) or text for text in texts]

    @cached_property
    def _kept(self) -> dict[str, str]:
        """What was translated before; a damaged file counts as absent."""
        kept: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.json")) if self.folder is not None else []:
            try:
                kept.update({text: str(said) for text, said in read_json(path, what="cache of translations").items()})
            except ArtefactError as error:
                logger.warning("paraphrase: passed over, %s", error)
        return kept

    def _there_and_back(self, texts: list[str]) -> list[str]:
        for translate in (self.there, self.back):
            said = [text.strip() for text in translate(texts)]
            if len(said) != len(texts):
                raise DataError(f"{len(texts)} texts in, {len(said)} out", where="back-translation")
            texts = said
        return texts


class Seq2Seq:
    """A Hugging Face sequence-to-sequence model as a translator: the likeliest token at each step.

    Only safetensors are read, and no code from the folder is run. A text's translation does not depend on its batch
    beyond rounding.

    Parameters
    ----------
    model : str
        Name on the Hugging Face hub, or folder.
    batch_size : int
        Texts read together.
    max_tokens : int
        Longest text, in and out; the rest of a longer one is cut off.
    """

    def __init__(self, model: str, *, batch_size: int = 32, max_tokens: int = 256) -> None:
        self.model, self.batch_size, self.max_tokens = model, batch_size, max_tokens

    @cached_property
    def _loaded(self) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.model)
            model = AutoModelForSeq2SeqLM.from_pretrained(self.model, use_safetensors=True)
        except (OSError, ValueError) as error:
            first = str(error).splitlines()[0]
            raise NotFoundError(f"no such translation model ({first})", where=self.model) from error
        return tokenizer, model.eval()

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """Return the translation of each text."""
        import torch

        tokenizer, model = self._loaded
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        said = [""] * len(texts)
        for start in range(0, len(order), self.batch_size):
            places = order[start : start + self.batch_size]
            batch = tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            )
            with torch.inference_mode():
                tokens = model.generate(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    max_new_tokens=self.max_tokens,
                    do_sample=False,
                    num_beams=1,
                )
            for place, text in zip(places, tokenizer.batch_decode(tokens, skip_special_tokens=True), strict=True):
                said[place] = text
        return said
