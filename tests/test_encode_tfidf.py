"""TF-IDF against a naive oracle and scikit-learn, in several scripts."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.encode.tfidf import TfidfEncoder, TfidfSettings, _grams_of, words_of
from isthmus.errors import ArtefactError, DataError

TEXTS = [
    "green tea, green bags",
    "Green TEA",
    "绿茶 green 绿茶",
    "深度学习入门",
    "机器学习",
    "カフェ café",
    "",
    "!!! ...",
    "한국어 책 tea",
]
ALL = TfidfSettings(min_df=1)


def oracle(texts: list[str], settings: TfidfSettings) -> np.ndarray:
    """Return the rows with plain dictionaries: a block a kind, each weighted and scaled, then joined and scaled."""
    low, high = settings.ngrams
    words = [Counter(words_of(text)) for text in texts]
    grams = [
        Counter(gram for word, n in row.items() for gram in _grams_of((low, high))(word) for _ in range(n))
        for row in words
    ]
    rows = [np.zeros(0) for _ in texts]
    for block, share in ((words, 1 - settings.char_weight), (grams, settings.char_weight)):
        df = Counter(feature for row in block for feature in row)
        names = sorted(name for name, count in df.items() if count >= settings.min_df)
        idf = [math.log((1 + len(texts)) / (1 + df[name])) + 1 for name in names]
        for place, row in enumerate(block):
            values = [
                (1 + math.log(row[name])) * weight if row[name] else 0.0
                for name, weight in zip(names, idf, strict=True)
            ]
            length = math.sqrt(sum(value * value for value in values)) or 1.0
            rows[place] = np.append(rows[place], np.array(values) / length * math.sqrt(share))
    return np.stack([row / (np.linalg.norm(row) or 1.0) for row in rows])


@pytest.mark.parametrize("options", [{"min_df": 1}, {"min_df": 2}, {"min_df": 1, "char_weight": 0.0, "ngrams": (2, 5)}])
def test_rows_agree_with_a_naive_oracle(options: dict[str, object]) -> None:
    chosen = TfidfSettings(**options)
    rows = TfidfEncoder.fit(TEXTS, chosen).transform(TEXTS)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows.toarray(), oracle(TEXTS, chosen), atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(alphabet="ab c茶学Ａé-", max_size=12), min_size=1, max_size=6))
def test_rows_agree_with_the_oracle_on_any_text(texts: list[str]) -> None:
    np.testing.assert_allclose(TfidfEncoder.fit(texts, ALL).transform(texts).toarray(), oracle(texts, ALL), atol=1e-6)


def test_words_agree_with_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    chosen = TfidfSettings(min_df=1, char_weight=0.0)
    theirs = TfidfVectorizer(analyzer=words_of, sublinear_tf=True).fit_transform(TEXTS).toarray()
    ours = TfidfEncoder.fit(TEXTS, chosen)
    n_words = len(ours.state()["words"])
    np.testing.assert_allclose(ours.transform(TEXTS).toarray()[:, :n_words], theirs, atol=1e-6)


def test_words_are_normalised_and_unspaced_scripts_give_characters_and_pairs() -> None:
    assert words_of("Ｐｙｔｈｏｎ３ STRASSE straße") == ["python3", "strasse", "strasse"]
    assert words_of("学习AI绘画") == ["学", "习", "学习", "ai", "绘", "画", "绘画"]
    assert words_of("カフェ") == ["カ", "フ", "ェ", "カフ", "フェ"]
    assert words_of("한국어 책_tea") == ["한국어", "책", "tea"]
    assert words_of("𠀀𠀁") == ["𠀀", "𠀁", "𠀀𠀁"]
    assert words_of("") == []


def test_neighbours_make_sense_in_both_languages() -> None:
    encoder = TfidfEncoder.fit(TEXTS, ALL)
    cosine = (encoder.transform(["teas", "学习机器", "unseen词"]) @ encoder.transform(TEXTS).T).toarray()
    assert cosine[0].argmax() == 1
    assert cosine[1].argmax() == 4
    assert cosine.max() <= 1 + 1e-6


def test_rows_have_length_one_or_zero_and_new_texts_use_the_old_vocabulary() -> None:
    encoder = TfidfEncoder.fit(TEXTS, ALL)
    rows = encoder.transform([*TEXTS, "zzz qqq", "tea zzz"])
    lengths = np.sqrt(rows.multiply(rows).sum(axis=1))
    np.testing.assert_allclose(lengths, [1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1], atol=1e-6)
    assert rows.shape[1] == encoder.n_features == len(encoder.vocabulary)
    assert "zzz" not in encoder.vocabulary


def test_the_state_survives_json_and_gives_the_same_rows() -> None:
    encoder = TfidfEncoder.fit(TEXTS, ALL)
    again = TfidfEncoder.from_state(json.loads(json.dumps(encoder.state(), ensure_ascii=False)))
    np.testing.assert_array_equal(again.transform(TEXTS).toarray(), encoder.transform(TEXTS).toarray())
    assert TfidfEncoder.fit(TEXTS, ALL).state() == encoder.state()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "format 9"),
        ({"words": ["a"]}, "damaged"),
        ({"settings": {"x": 1}}, "damaged"),
        ({"n_texts": None}, "damaged"),
    ],
)
def test_a_damaged_state_is_refused(change: dict[str, object], message: str) -> None:
    state = {**TfidfEncoder.fit(TEXTS, ALL).state(), **change}
    with pytest.raises(ArtefactError, match=message):
        TfidfEncoder.from_state(state)


def test_limits_keep_the_features_of_most_texts() -> None:
    encoder = TfidfEncoder.fit(TEXTS, TfidfSettings(min_df=1, max_features=2))
    assert encoder.vocabulary[:2] == ["green", "tea"]
    assert encoder.n_features == 4
    assert TfidfEncoder.fit(["", "!"], ALL).transform(["tea"]).shape == (1, 0)
    with pytest.raises(DataError, match="ngrams must be"):
        TfidfEncoder.fit(TEXTS, TfidfSettings(ngrams=(4, 3)))


@pytest.mark.real
def test_real_titles_are_fast_enough(real_data: Path) -> None:
    path = real_data / "amazon2014_food_kitchen" / "llmcdsr" / "text_B.derived.tsv"
    titles = [line.split("\t")[1] for line in path.read_text(encoding="utf-8").splitlines()]
    start = time.process_time()
    rows = TfidfEncoder.fit(titles).transform(titles)
    assert rows.shape[0] == 27_637
    assert time.process_time() - start < 12
