"""What two texts both say: the phrases they share, in words that set texts apart."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from math import log
from typing import Final

from isthmus.encode.tfidf import TOKEN, UNSPACED, TfidfEncoder, words_of

#: What may stand between two words of a phrase.
_GAP: Final = re.compile(r"[\s'’&\-]*")
_APART: Final = "\n"
#: Weight of a word that is in a fifth of all texts: more common ones tell nothing, in small catalogues neither.
_TELLS: Final = 1 + log(5)


@dataclass(frozen=True)
class _Word:
    """A word as it stands in its text, or one character where no spaces part the words."""

    start: int
    end: int
    name: str
    joined: bool


def shared_phrases(encoder: TfidfEncoder, text: str, other: str, *, most: int = 3) -> list[str]:
    """Return what ``text`` says in the same words as ``other``, the most telling first, as it stands there.

    Parameters
    ----------
    encoder : TfidfEncoder
        What words are worth: the sum of the weights of its words is what a phrase tells. Words it does not know, those
        in more than a fifth of its texts, and those of one or two letters tell nothing.
    text, other : str
        Two texts.
    most : int
        So many phrases at most.

    Examples
    --------
    >>> texts = ["the lake district", "the sea", "the lake district", "深海之夜", "深海", *["the town"] * 10]
    >>> encoder = TfidfEncoder.fit(texts)
    >>> shared_phrases(encoder, "A lake, in the Lake District", "by the Lake District")
    ['Lake District']
    >>> shared_phrases(encoder, "the 深海之谜", "the 深海")
    ['深海']
    """
    text = unicodedata.normalize("NFKC", text)
    words, line = _read(text), _line(_read(unicodedata.normalize("NFKC", other)))
    found: dict[str, tuple[float, str]] = {}
    place = 0
    while place < len(words):
        end = _run(words, place, line)
        kept = _trimmed(words[place:end], encoder)
        if kept:
            said = text[kept[0].start : kept[-1].end]
            tells = _telling(encoder, words_of(said))
            found.setdefault(said.casefold(), (tells, said))
        place = max(end, place + 1)
    kept_ones: list[str] = []
    for name, (tells, said) in sorted(found.items(), key=lambda one: -one[1][0]):
        if tells > 0 and not any(name in one.casefold() for one in kept_ones):
            kept_ones.append(said)
    return kept_ones[:most]


def _read(text: str) -> list[_Word]:
    """Return the words of a text and whether each follows the one before without a stop between them."""
    words: list[_Word] = []
    for token in TOKEN.finditer(text):
        spans = [(at, at + 1) for at in range(*token.span())] if UNSPACED.match(token[0]) else [token.span()]
        for start, end in spans:
            joined = bool(words) and _GAP.fullmatch(text, words[-1].end, start) is not None
            words.append(_Word(start, end, text[start:end].casefold(), joined))
    return words


def _line(words: list[_Word]) -> str:
    """Return words between spaces, with a break where a stop parts them."""
    return "".join(f" {word.name}" if word.joined else f" {_APART} {word.name}" for word in words) + " "


def _run(words: list[_Word], start: int, line: str) -> int:
    """Return the end of the longest phrase from ``start`` on that ``line`` has."""
    said, end = " ", start
    while end < len(words) and (words[end].joined or end == start):
        said += words[end].name + " "
        if said not in line:
            break
        end += 1
    return end


def _telling(encoder: TfidfEncoder, words: Iterable[str]) -> float:
    """Return what words tell together."""
    least = {word: 2 if UNSPACED.match(word) else 3 for word in words}
    return sum(worth for word, n in least.items() if len(word) >= n and (worth := encoder.idf(word)) >= _TELLS)


def _trimmed(run: list[_Word], encoder: TfidfEncoder) -> list[_Word]:
    """Return a run without words at its ends that tell nothing; empty if no word is left, or one character only."""
    telling = [at for at, word in enumerate(run) if UNSPACED.match(word.name) or _telling(encoder, [word.name])]
    if not telling:
        return []
    kept = run[telling[0] : telling[-1] + 1]
    return [] if len(kept) == 1 and UNSPACED.match(kept[0].name) else kept
