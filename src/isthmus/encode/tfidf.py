"""TF-IDF over words and character n-grams, for texts in any script: sparse rows whose inner product is a cosine."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from isthmus.config import Settings, parse
from isthmus.errors import ArtefactError, DataError, SpecError
from isthmus.files import Json
from isthmus.types import Floats

FORMAT: Final = 1

#: Scripts written without spaces: kana, Han with its extensions, and compatibility forms.
_UNSPACED: Final = "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
#: A word, or a run of characters of a script without spaces.
TOKEN: Final = re.compile(f"[{_UNSPACED}]+|[^\\W_{_UNSPACED}]+")
UNSPACED: Final = re.compile(f"[{_UNSPACED}]")

#: Below this many texts a frequent word may still be what sets a taste apart.
_MANY: Final = 1000

Counts: TypeAlias = sparse.csr_matrix


class TfidfSettings(Settings):
    """What counts as a feature, and how many are kept.

    Parameters
    ----------
    ngrams : tuple of int
        Shortest and longest character n-gram inside a word, its edges included.
    char_weight : float
        Share of the character n-grams in the cosine of two texts, in [0, 1]; words have the rest.
    min_df : int
        Features in fewer texts are dropped.
    max_df : float
        Features in a larger share of the texts are dropped where there are 1,000 texts or more: they tell little
        apart, and the cost of comparing texts grows with the square of this share.
    max_features : int
        Of words, and of n-grams, so many at most: those in most texts.
    """

    ngrams: tuple[int, int] = (3, 4)
    char_weight: float = Field(default=0.3, ge=0.0, le=1.0)
    min_df: int = Field(default=2, ge=1)
    max_df: float = Field(default=0.2, gt=0.0, le=1.0)
    max_features: int = Field(default=200_000, ge=1)


@dataclass(frozen=True)
class _Block:
    """One kind of feature: its vocabulary, sorted, and the number of texts each feature is in."""

    vocabulary: list[str]
    texts_with: NDArray[np.int64]

    def weights(self, counts: Counts, known: Sequence[str], n_texts: int) -> Counts:
        """Return rows of length 1: ``(1 + ln tf) (1 + ln((1 + n) / (1 + df)))`` for columns named ``known``."""
        chosen = _columns(counts, known, self.vocabulary)
        chosen.data = 1.0 + np.log(chosen.data)
        idf = 1.0 + np.log((1.0 + n_texts) / (1.0 + self.texts_with))
        return _unit(chosen @ sparse.diags(idf, format="csr"))


class TfidfEncoder:
    """Turns texts into sparse vectors of length 1, by a vocabulary fitted on other texts.

    Texts are NFKC-normalised and case-folded. A word is a run of letters and digits; a run of Han or kana gives its
    characters and pairs of neighbours instead, since no spaces part its words. Words also give character n-grams.
    Each kind is weighted by TF-IDF with sublinear tf and smoothed idf (Salton and Buckley 1988) and scaled to length
    1; then ``cosine = (1 - char_weight) * cosine of words + char_weight * cosine of n-grams``, unless a text has
    features of one kind only.

    Examples
    --------
    >>> texts = ["green tea", "green tea bags", "绿茶 green", "深度学习", "学习"]
    >>> encoder = TfidfEncoder.fit(texts, TfidfSettings(min_df=1))
    >>> rows = encoder.transform(["teas, green", "机器学习"])
    >>> (rows @ encoder.transform(texts).T).toarray().round(1).astype(float).round(1).tolist()
    [[0.7, 0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.6, 1.0]]
    """

    def __init__(self, settings: TfidfSettings, words: _Block, grams: _Block, n_texts: int) -> None:
        self.settings = settings
        self._words = words
        self._grams = grams
        self._n_texts = n_texts

    @classmethod
    def fit(cls, texts: Iterable[str], settings: TfidfSettings | None = None) -> TfidfEncoder:
        """Return an encoder whose vocabulary and idf come from ``texts``: those known before the cut, no others."""
        settings = settings or TfidfSettings()
        words, counts = _count(list(texts), words_of)
        grams, inside = _count(words, _grams_of(settings.ngrams))
        blocks = [
            _Block(*_kept(names, block, settings)) for names, block in ((words, counts), (grams, counts @ inside))
        ]
        return cls(settings, blocks[0], blocks[1], int(counts.shape[0]))

    @property
    def n_features(self) -> int:
        """Number of features ``F``: words, then n-grams."""
        return len(self._words.vocabulary) + len(self._grams.vocabulary)

    @property
    def vocabulary(self) -> list[str]:
        """Names of the features, (F,); an n-gram at an edge of its word shows the edge as a space."""
        return self._words.vocabulary + self._grams.vocabulary

    def idf(self, word: str) -> float:
        """Return the inverse document frequency of a word, case-folded; 0 for one that the vocabulary has not.

        Examples
        --------
        >>> encoder = TfidfEncoder.fit(["green tea", "green tea bags"])
        >>> encoder.idf("tea"), encoder.idf("coffee")
        (1.0, 0.0)
        """
        words = self._words.vocabulary
        place = bisect_left(words, word)
        if place == len(words) or words[place] != word:
            return 0.0
        return float(1.0 + np.log((1.0 + self._n_texts) / (1.0 + self._words.texts_with[place])))

    def transform(self, texts: Iterable[str]) -> sparse.csr_array:
        """Return (N, F) float32, rows of length 1; a text without a known feature is a row of zeros."""
        words, counts = _count(list(texts), words_of)
        grams, inside = _count(words, _grams_of(self.settings.ngrams))
        share = self.settings.char_weight
        blocks = [
            self._words.weights(counts, words, self._n_texts) * np.sqrt(1 - share),
            self._grams.weights(counts @ inside, grams, self._n_texts) * np.sqrt(share),
        ]
        joined = _unit(sparse.hstack(blocks, format="csr"))
        joined.eliminate_zeros()
        return sparse.csr_array(joined.astype(np.float32))

    def state(self) -> Json:
        """Return everything the encoder holds, as an object that JSON can hold."""
        return {
            "format": FORMAT,
            "settings": self.settings.model_dump(mode="json"),
            "n_texts": self._n_texts,
            "words": self._words.vocabulary,
            "words_in": self._words.texts_with.tolist(),
            "grams": self._grams.vocabulary,
            "grams_in": self._grams.texts_with.tolist(),
        }

    @classmethod
    def from_state(cls, state: Json) -> TfidfEncoder:
        """Return the encoder that :meth:`state` described.

        Raises
        ------
        ArtefactError
            The state is damaged, or of another format version.
        """
        if state.get("format") != FORMAT:
            raise ArtefactError(
                f"TF-IDF format {state.get('format')}, this version reads {FORMAT}", where="tfidf", fix="fit again"
            )
        try:
            settings = parse(TfidfSettings, state["settings"], where="tfidf")
            blocks = [_block(state, name) for name in ("words", "grams")]
            return cls(settings, blocks[0], blocks[1], int(cast("int", state["n_texts"])))
        except (KeyError, TypeError, ValueError, SpecError) as error:
            raise ArtefactError(f"the TF-IDF state is damaged: {error}", where="tfidf", fix="fit again") from error


def _block(state: Json, name: str) -> _Block:
    vocabulary = [str(word) for word in cast("list[str]", state[name])]
    texts_with = np.array(state[f"{name}_in"], dtype=np.int64)
    if texts_with.shape != (len(vocabulary),):
        raise ValueError(f"{len(vocabulary)} {name} but {texts_with.size} counts")
    return _Block(vocabulary, texts_with)


def words_of(text: str) -> list[str]:
    """Return the words of a text; characters and pairs of neighbours where no spaces part the words.

    Examples
    --------
    >>> words_of("Ｐython入门: 2nd ed.")
    ['python', '入', '门', '入门', '2nd', 'ed']
    """
    words: list[str] = []
    for token in TOKEN.findall(unicodedata.normalize("NFKC", text).casefold()):
        if UNSPACED.match(token):
            words.extend(token)
            words.extend(map("".join, pairwise(token)))
        else:
            words.append(token)
    return words


def _grams_of(sizes: tuple[int, int]) -> Callable[[str], list[str]]:
    """Return a function that gives the n-grams of a word set between spaces; none of unspaced scripts.

    Examples
    --------
    >>> _grams_of((3, 4))("tea")
    [' te', 'tea', 'ea ', ' tea', 'tea ']
    """
    low, high = sizes
    if not 1 <= low <= high:
        raise DataError(f"ngrams must be two rising numbers above 0, not {sizes}", where="tfidf")

    def grams(word: str) -> list[str]:
        if UNSPACED.match(word):
            return []
        edged = f" {word} "
        return [edged[at : at + n] for n in range(low, high + 1) for at in range(len(edged) - n + 1)]

    return grams


def _count(texts: list[str], analyzer: Callable[[str], list[str]]) -> tuple[list[str], Counts]:
    """Return the distinct features of ``texts``, sorted, and how often each text has each, (N, features)."""
    from sklearn.feature_extraction.text import CountVectorizer

    vectoriser = CountVectorizer(analyzer=analyzer, dtype=np.float64)
    try:
        counts = vectoriser.fit_transform(texts)
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return [], sparse.csr_matrix((len(texts), 0), dtype=np.float64)
    return vectoriser.get_feature_names_out().tolist(), sparse.csr_matrix(counts)


def _kept(names: Sequence[str], counts: Counts, settings: TfidfSettings) -> tuple[list[str], NDArray[np.int64]]:
    """Return the features that enough texts have, sorted by name, and how many texts have each."""
    texts_with = np.bincount(counts.indices, minlength=len(names)).astype(np.int64)
    most = settings.max_df * counts.shape[0] if counts.shape[0] >= _MANY else counts.shape[0]
    allowed = np.flatnonzero((texts_with >= settings.min_df) & (texts_with <= most))
    kept = np.sort(allowed[np.argsort(-texts_with[allowed], kind="stable")[: settings.max_features]])
    return [names[place] for place in kept.tolist()], texts_with[kept]


def _columns(counts: Counts, names: Sequence[str], wanted: Sequence[str]) -> Counts:
    """Return the columns ``wanted`` of ``counts``, whose columns are called ``names``."""
    place = {name: number for number, name in enumerate(wanted)}
    target = np.array([place.get(name, -1) for name in names], dtype=np.int64)
    source = np.flatnonzero(target >= 0)
    ones = np.ones(source.size)
    choose = sparse.csr_matrix((ones, (source, target[source])), shape=(len(names), len(wanted)))
    chosen: Counts = counts @ choose
    return chosen


def _unit(rows: Counts) -> Counts:
    length: Floats = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    scaled: Counts = sparse.diags(scale, format="csr") @ rows
    return scaled
