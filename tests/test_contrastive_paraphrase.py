"""Texts and the same in other words: whose words they are, what is no wrong answer, and the same for the same step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.test_pretrain_language import LEARN, start, twin
from tests.test_texts import lists, tokenizer

from isthmus.data.paraphrase import BackTranslation, WordEdits
from isthmus.data.synonyms import Synonyms
from isthmus.errors import InputError
from isthmus.model.reading import Reader, Tokens
from isthmus.train.languages import Lesson, check_weights, reader_of, start_model
from isthmus.train.pairs import PairSettings
from isthmus.train.paraphrases import ParaphrasedTexts, word_edits
from isthmus.train.schedule import TextSettings
from isthmus.transfer.language import LanguagePretraining, pretrain_language
from isthmus.transfer.pretrained import read_card

TITLES = [
    f"{size} {what} number {n}" for n, what in enumerate(("tea", "cup", "saw", "book")) for size in ("big", "red")
]
SAID = {"big": "large"}


class Says:
    """Says ``big`` in other words, and notes the seeds."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def paraphrase(self, texts: Sequence[str], *, seed: int = 0) -> list[str]:
        self.seeds.append(seed)
        return [" ".join(SAID.get(word, word) for word in text.split()) for text in texts]


def reader(titles: Sequence[str] = TITLES) -> Reader:
    n = len(titles)
    domains = ["a" if place < n // 2 else "b" for place in range(n)]
    items = [str(place) for place in range(n)]
    return Reader(tokenizer(), pl.DataFrame({"platform": ["p"] * n, "item": items, "domain": domains, "title": titles}))


def source(paraphraser: object, titles: Sequence[str] = TITLES, **how: object) -> ParaphrasedTexts:
    plan = TextSettings(**{"batch_size": 4, **how})  # type: ignore[arg-type]
    return ParaphrasedTexts(reader(titles), np.arange(len(titles)), paraphraser, plan)  # type: ignore[arg-type]


def read(part: dict, side: str) -> list[str]:
    ids, mask = part[f"{side}_ids"], part[f"{side}_mask"]
    return [tokenizer().decode(row[kept > 0][1:-1]) for row, kept in zip(ids, mask, strict=True)]


def test_pairs_are_of_one_item_and_differ_and_what_did_not_change_is_a_wrong_answer() -> None:
    made = source(Says())
    assert len(made) == 2
    met: set[str] = set()
    for step in range(2):
        (part,) = made.batch(step)["parts"]
        left, right = read(part, "left"), read(part, "right")
        assert left
        assert all("big" in text for text in left)
        assert right[: len(left)] == [text.replace("big", "large") for text in left]
        assert len(right) == 4
        assert all(text.startswith("red") for text in right[len(left) :])
        assert {int(text.split()[-1]) < 2 for text in right} in ({True}, {False}), "one domain a batch"
        assert part["ignored"].tolist() == [[row == column for column in range(4)] for row in range(len(left))]
        met |= set(left)
    assert met == set(TITLES[::2])


def test_items_of_one_text_are_not_told_apart() -> None:
    made = source(Says(), ["big tea"] * 3 + ["red tea"], alpha=1.0)
    parts = [made.batch(step)["parts"][0] for step in range(len(made))]
    for part in parts:
        right = read(part, "right")
        same = [text != "red tea" for text in right]
        assert all(row == same for row in part["ignored"].tolist())


def test_a_batch_that_comes_back_as_it_was_pairs_each_text_with_itself() -> None:
    titles = ["big tea", "big cup", "red saw", "red book"]
    made = source(Says(), titles, batch_size=2)
    found = {tuple(sorted(read(made.batch(step)["parts"][0], "left"))) for step in range(2)}
    assert found == {("big cup", "big tea"), ("red book", "red saw")}
    for step in range(2):
        (part,) = made.batch(step)["parts"]
        assert [text.replace("big", "large") for text in read(part, "left")] == read(part, "right")


def test_a_step_is_said_the_same_always_and_another_anew() -> None:
    synonyms = Synonyms({"number": ("figure", "digit", "count"), "big": ("large", "huge", "great")})
    edits = WordEdits(synonyms, exchange=0.5)
    one, other, third = (source(edits, seed=seed) for seed in (0, 0, 1))

    def said(made: ParaphrasedTexts, step: int) -> list[str]:
        return read(made.batch(step)["parts"][0], "right")

    forward = [said(one, step) for step in range(6)]
    assert forward == [said(other, step) for step in reversed(range(6))][::-1]
    assert len({tuple(sorted(row)) for row in forward}) > 2, "each epoch in other words"
    assert forward != [said(third, step) for step in range(6)]


def test_any_paraphraser_serves_and_empty_answers_do_not_count() -> None:
    there = {text: text.replace("big", "gross") for text in TITLES}
    made = source(BackTranslation(lambda texts: [there[text] for text in texts], lambda texts: texts))
    assert any("gross" in text for text in read(made.batch(0)["parts"][0], "right"))

    class Silent(Says):
        def paraphrase(self, texts: Sequence[str], *, seed: int = 0) -> list[str]:
            return [" " if "tea" in text else text.upper() + " !" for text in texts]

    (part,) = source(Silent(), batch_size=8, alpha=1.0).batch(0)["parts"]
    assert not any("tea" in text for text in read(part, "left"))


def test_texts_that_cannot_be_said_otherwise_are_refused() -> None:
    with pytest.raises(InputError, match="as they are"):
        source(WordEdits())
    with pytest.raises(InputError, match="nothing to train on"):
        source(Says(), ["", ""])


def chinese_texts(n: int = 700) -> list[str]:
    """Return texts of 60 made-up nouns of two characters; the two of a pair stand with the same three words."""
    rng = np.random.default_rng(0)
    words = [chr(0x4E00 + 7 * place) + chr(0x6000 + 7 * place) for place in range(150)]
    nouns, others = words[:60], words[60:]
    pair = rng.integers(0, 30, n)
    chosen = rng.integers(0, 2, n)
    beside = [[others[3 * p + place] for place in rng.permutation(3)] for p in pair]
    found = [f"{a}{nouns[2 * p + c]}{b}" for p, c, (a, b, _) in zip(pair, chosen, beside, strict=True)]
    return [text + chr(0x8000 + int(end)) for text, end in zip(found, rng.integers(0, 9, n), strict=True)]


def test_the_usual_paraphraser_knows_the_words_of_the_texts_in_any_script() -> None:
    english = ["a cheap movie", "an inexpensive film", "cheap film", "inexpensive movie"] * 2
    chinese = chinese_texts()
    edits = word_edits([*english, *chinese])
    assert edits.synonyms.near["movie"] == ("film",)
    near = {word: others for word, others in edits.synonyms.near.items() if not word.isascii()}
    assert near
    assert not any(other.isascii() for others in near.values() for other in others)
    changed = edits.paraphrase(chinese, seed=1)
    assert np.mean([new != old for new, old in zip(changed, chinese, strict=True)]) > 0.3
    assert word_edits([]).synonyms.near == {}


def test_the_lesson_pairs_texts_of_items_without_events() -> None:
    model = start_model(start())
    world = twin()
    texts = world.data.features.texts
    assert texts is not None
    inside = reader_of(model, texts, world.data.features.places)  # type: ignore[arg-type]
    nobody, rows = np.zeros(len(texts), bool), np.arange(len(texts)) % 2 == 0
    lesson = Lesson(inside, world.data.histories.take(np.zeros(0, np.int64)), nobody, rows)
    batches = lesson.batches(model, {"contrastive-paraphrase": 0.5}, PairSettings(batch_size=8))
    (part,) = batches.batch(0)["parts"]  # type: ignore[misc]
    assert (part["objective"], part["weight"]) == ("contrastive", 0.5)
    known = {tuple(row) for row in lists(inside.items.take(np.flatnonzero(rows)))}
    left = Tokens.of([ids[kept > 0].tolist() for ids, kept in zip(part["left_ids"], part["left_mask"], strict=True)])
    assert {tuple(row) for row in lists(left)} <= known
    loss = model(parts=[part]).loss
    assert np.isfinite(loss.item())
    check_weights({"contrastive-paraphrase": 1.0})


def test_a_model_learns_from_it_and_its_card_names_the_paraphraser(tmp_path: Path) -> None:
    how = replace(
        LEARN, start=start(), objectives={"contrastive-paraphrase": 1.0}, unlabelled=("target",), steps=30, batch=16
    )
    pretrain_language([twin().split], tmp_path / "usual", how)
    card = read_card(tmp_path / "usual")
    assert card["objectives"] == {"contrastive-paraphrase": 1.0}
    assert card["settings"]["paraphraser"] is None  # type: ignore[index]
    assert card["items"] == 240
    mine = replace(how, steps=2, paraphraser=BackTranslation(lambda texts: [text[::-1] for text in texts], list))
    pretrain_language([twin().split], tmp_path / "mine", mine)
    settings = read_card(tmp_path / "mine")["settings"]
    assert settings["paraphraser"] == "BackTranslation"  # type: ignore[index]
    assert LanguagePretraining().to_json()["paraphraser"] is None
