"""The phrases two texts share."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.encode.phrases import shared_phrases
from isthmus.encode.tfidf import TfidfEncoder, TfidfSettings

TEXTS = [
    "The Lake District in winter",
    "A murder in the Lake District",
    "Lake of the moon",
    "深海之夜",
    "深海的秘密",
    "Winter, a murder",
]
ENCODER = TfidfEncoder.fit([*TEXTS, *["The town in spring"] * 20])


def test_runs_of_words_are_named_as_they_stand_and_the_most_telling_first() -> None:
    assert shared_phrases(ENCODER, TEXTS[0], TEXTS[1]) == ["Lake District"], "words that most texts have tell nothing"
    assert shared_phrases(ENCODER, "In winter the lake", "a lake in winter") == ["winter", "lake"]
    assert shared_phrases(ENCODER, "深海之谜", TEXTS[4]) == ["深海"]
    assert shared_phrases(ENCODER, "WINTER", TEXTS[5]) == ["WINTER"]


def test_a_stop_ends_a_phrase() -> None:
    assert "Lake. District" not in shared_phrases(ENCODER, "Lake. District", "lake district")
    assert set(shared_phrases(ENCODER, "Lake. District", "lake district")) == {"Lake", "District"}
    assert set(shared_phrases(ENCODER, "Lake District", "lake. district")) == {"Lake", "District"}


def test_words_the_encoder_does_not_know_tell_nothing() -> None:
    assert shared_phrases(ENCODER, "zebra", "zebra") == []
    assert shared_phrases(ENCODER, "zebra lake zebra", "zebra lake zebra") == ["lake"]
    assert shared_phrases(ENCODER, "深", "深") == [], "one character is no phrase"
    assert shared_phrases(ENCODER, "", "lake") == shared_phrases(ENCODER, "lake", "") == []


def test_no_more_than_asked_for_and_none_inside_another() -> None:
    said = shared_phrases(ENCODER, "lake. winter. murder. lake district", " ".join(TEXTS), most=2)
    assert len(said) == 2
    assert len({one.casefold() for one in said}) == 2


@settings(deadline=None, max_examples=100)
@given(st.text("ab 深海.-'ßＡ\n", max_size=40), st.text("ab 深海.-'ßＡ\n", max_size=40))
def test_whatever_the_texts_a_phrase_stands_in_the_first(text: str, other: str) -> None:
    encoder = TfidfEncoder.fit(["aab b 深海", "aab bab ss 深海", *["-"] * 20], TfidfSettings(min_df=1))
    for said in shared_phrases(encoder, text, other):
        assert said in unicodedata.normalize("NFKC", text)
