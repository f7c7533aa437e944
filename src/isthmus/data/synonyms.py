"""Words of a corpus that may stand for one another, in any script, found through word vectors."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from isthmus.data.similar import similar_items
from isthmus.errors import DataError
from isthmus.types import Floats

#: Scripts written without spaces: kana, Han with its extensions, and compatibility forms.
_UNSPACED: Final = "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE: Final = re.compile(f"([{_UNSPACED}]+)|([^\\W_{_UNSPACED}]+)|([\\W_]+)")
_HAS_UNSPACED: Final = re.compile(f"[{_UNSPACED}]")
#: Longest word looked for in a script without spaces, in characters.
LONGEST: Final = 4
#: Different neighbours that such a word has on either side, the ends of runs counted one by one.
VARIETY: Final = 2
#: Below this many texts a word in many of them may still carry meaning.
_MANY: Final = 1000

Read = Callable[[Sequence[str]], Floats]


def pieces(text: str, known: Collection[str] = frozenset()) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a text and whether each is a word; joined they are the text again.

    In a script without spaces a word is the longest of ``known`` that starts there, else one character.

    Examples
    --------
    >>> list(pieces("Hot tea, 绿茶好!", {"绿茶"}))
    [('Hot', True), (' ', False), ('tea', True), (', ', False), ('绿茶', True), ('好', True), ('!', False)]
    """
    for found in _PIECE.finditer(text):
        run, word, gap = found.groups()
        if run is None:
            yield word or gap, word is not None
            continue
        start = 0
        while start < len(run):
            sizes = range(min(LONGEST, len(run) - start), 1, -1)
            size = next((n for n in sizes if run[start : start + n] in known), 1)
            yield run[start : start + size], True
            start += size


def words_of(texts: Sequence[str], *, least: int = 2, most: float = 0.2, bond: float = 30.0) -> list[str]:
    """Return the words of ``texts``, sorted, in lower case: candidates to be exchanged.

    A word without digits and of two letters or more that stands in ``least`` texts; where there are 1,000 texts or
    more, at most in the share ``most`` of them, since a word that is everywhere carries grammar. In a script without
    spaces a word is a run of 2 to 4 characters whose parts stand together ``bond`` times as often as chance has it, and
    that has at least :data:`VARIETY` different neighbours on either side, as fragments of words have not (Feng, Chen,
    Deng & Zheng, "Accessor Variety Criteria for Chinese Word Extraction", Computational Linguistics 2004).

    Examples
    --------
    >>> words_of(["Green tea", "green TEA 500g", "a mug", "绿茶好", "喝绿茶", "好手机", "手机"], bond=2)
    ['green', 'tea', '手机', '绿茶']
    """
    spaced: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    for text in texts:
        found = list(_PIECE.finditer(text.casefold()))
        spaced.update({piece[2] for piece in found if piece[2]})
        runs.update(piece[1] for piece in found if piece[1])
    limit = most * len(texts) if len(texts) >= _MANY else len(texts)
    plain = [word for word, n in spaced.items() if least <= n <= limit and len(word) > 1 and word.isalpha()]
    return sorted(plain + _bound_words(runs, least, limit, bond))


def _bound_words(runs: Counter[str], least: int, most: float, bond: float) -> list[str]:
    """Return the words inside runs of a script without spaces."""
    counts: Counter[str] = Counter()
    before: dict[str, set[str]] = defaultdict(set)
    after: dict[str, set[str]] = defaultdict(set)
    for number, (run, n) in enumerate(runs.items()):
        for size in range(1, LONGEST + 1):
            for start in range(len(run) - size + 1):
                gram = run[start : start + size]
                counts[gram] += n
                before[gram].add(run[start - 1] if start else f"edge {number}")
                after[gram].add(run[start + size] if start + size < len(run) else f"edge {number}")
    total = sum(n for gram, n in counts.items() if len(gram) == 1)
    kept = []
    for gram, n in counts.items():
        if len(gram) > 1 and least <= n <= most and min(len(before[gram]), len(after[gram])) >= VARIETY:
            parts = [counts[gram[:cut]] * counts[gram[cut:]] for cut in range(1, len(gram))]
            if n * total >= bond * max(parts):
                kept.append(gram)
    return kept


@dataclass(frozen=True)
class Synonyms:
    """What may stand for a word: ``near[word]``, the nearest first; words in lower case.

    Examples
    --------
    >>> vectors = np.array([[1, 0], [0.9, 0.4], [0, 1]], dtype="float32")
    >>> Synonyms.of(["cheap", "inexpensive", "tea"], vectors, least=0.8).near
    {'cheap': ('inexpensive',), 'inexpensive': ('cheap',)}
    """

    near: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(
        cls, words: Sequence[str], vectors: Floats, *, k: int = 5, least: float = 0.75, most: float = 0.95
    ) -> Synonyms:
        """Return up to ``k`` neighbours of each word with a cosine above ``least`` and below ``most``.

        A model gives one vector to all words it has no tokens for; ``most`` keeps those apart.

        Parameters
        ----------
        words : sequence of str
            Such as :func:`words_of` gives.
        vectors : float32 array (len(words), D)
            A row of zeros is a word without a vector.

        Raises
        ------
        DataError
            Another number of vectors than words.
        """
        if len(words) != len(vectors):
            raise DataError(f"{len(words)} words but {len(vectors)} vectors", where="synonyms")
        table = similar_items(np.asarray(vectors, dtype=np.float32), k, least=least, most=most)
        rows = zip(words, table.tolist(), strict=True)
        near = {word: tuple(words[place] for place in row if place >= 0) for word, row in rows}
        return cls({word: others for word, others in near.items() if others})

    @classmethod
    def learn(cls, texts: Sequence[str], read: Read, *, k: int = 5, least: float = 0.75) -> Synonyms:
        """Return the synonyms among the words of ``texts`` by the vectors that ``read`` gives each word.

        ``read`` is for instance ``TextEncoder().encode_texts``. A model without tokens for a script cannot tell its
        words apart; :func:`company_vectors` needs no model.
        """
        words = words_of(texts)
        return cls.of(words, read(words), k=k, least=least) if words else cls({})

    def __or__(self, other: Synonyms) -> Synonyms:
        """Return both; where both know a word, this one."""
        return Synonyms({**other.near, **self.near})

    def of_script(self, *, spaced: bool) -> Synonyms:
        """Return only the words of scripts with spaces between words, or only the others."""
        return Synonyms({word: near for word, near in self.near.items() if bool(_HAS_UNSPACED.search(word)) != spaced})


def company_vectors(texts: Sequence[str], words: Sequence[str], *, dim: int = 64, window: int = 4) -> Floats:
    """Return vectors of ``words`` from the company they keep in ``texts``, (len(words), dim) float32.

    Singular vectors, times the root of their values, of the positive pointwise mutual information of words at most
    ``window`` apart: Levy & Goldberg, "Neural Word Embedding as Implicit Matrix Factorization", NIPS 2014, sections 3.3
    and 5.1. Needs no model and knows any script; wants many texts. Words that stand in the same places are near.
    """
    place = {word: number for number, word in enumerate(words)}
    known = frozenset(place)
    told = [[place.get(piece, -1) for piece, word in pieces(text.casefold(), known) if word] for text in texts]
    flat = np.array([number for row in told for number in [*row, *[-1] * window]], dtype=np.int64)
    shape = (len(words), len(words))
    counts = sparse.csr_array(shape, dtype=np.float64)
    for distance in range(1, window + 1):
        left, right = flat[:-distance], flat[distance:]
        both = (left >= 0) & (right >= 0)
        counts = counts + sparse.csr_array((np.ones(int(both.sum())), (left[both], right[both])), shape=shape)
    counts = sparse.coo_array(counts + counts.T)
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
    gain = np.log(counts.data * total.sum() / (total[counts.row] * total[counts.col]))
    matrix = sparse.csr_array((np.maximum(gain, 0), (counts.row, counts.col)), shape=shape)
    rank = min(dim, len(words) - 1)
    vectors = np.zeros((len(words), dim), dtype=np.float32)
    if rank > 0 and matrix.nnz:
        left_vectors, values, _ = svds(matrix, k=rank, v0=np.ones(len(words)))
        vectors[:, :rank] = left_vectors * np.sqrt(np.maximum(values, 0))
    vectors[total <= 1] = 0
    return vectors
