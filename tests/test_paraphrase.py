"""Texts in other words: synonyms from vectors in any script, words left out and swapped, there and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.pages import run_programs

from isthmus.data.paraphrase import (
    BackTranslation,
    Paraphraser,
    Seq2Seq,
    WordEdits,
    delete_words,
    exchange_words,
    swap_words,
)
from isthmus.data.simulate import town_tables
from isthmus.data.synonyms import LONGEST, Synonyms, company_vectors, pieces, words_of
from isthmus.errors import DataError, InputError, NotFoundError

TEXTS = st.text(st.sampled_from("ab绿茶 ,.Z9好'-_\n"), max_size=20)
WORDS = Synonyms({"ab": ("ba",), "绿茶": ("红茶",)})
quick = settings(max_examples=100, deadline=None)


def words(text: str, known: Sequence[str] = ()) -> list[str]:
    return [piece for piece, is_word in pieces(text, set(known)) if is_word]


# --- words ------------------------------------------------------------------------------------------------------------


@quick
@given(TEXTS, st.sets(st.sampled_from(["绿茶", "茶好", "绿茶好好", "好茶绿"])))
def test_pieces_joined_are_the_text(text: str, known: set[str]) -> None:
    found = list(pieces(text, known))
    assert "".join(piece for piece, _ in found) == text
    for piece, is_word in found:
        if re.fullmatch("[绿茶好]+", piece):
            assert is_word
            assert len(piece) == 1 or piece in known
        else:
            assert is_word == piece.isalnum()


def test_the_longest_known_word_is_taken() -> None:
    assert words("机器学习", ["机器", "机器学习"]) == ["机器学习"]
    assert words("学机器学", ["机器", "学习"]) == ["学", "机器", "学"]
    assert words("カメラ用", ["カメラ"]) == ["カメラ", "用"]
    assert LONGEST == 4


def test_words_are_those_in_enough_texts_and_not_in_too_many() -> None:
    texts = ["The blue Mug", "the mug 500g x"] + ["the lamp"] * 3
    assert words_of(texts) == ["lamp", "mug", "the"]
    many = [f"the {'mug' if n % 20 == 0 else 'lamp' if n % 3 == 0 else 'cup'}" for n in range(1200)]
    assert words_of(many) == ["mug"]


def test_words_of_a_script_without_spaces_hold_together_and_are_no_fragments() -> None:
    rng = np.random.default_rng(0)
    lexicon = ["手机", "电话", "冰箱", "计算机", "绿茶", "红茶", "相机", "书包", "雨伞", "毛巾"]
    texts = ["".join(rng.choice(lexicon, 4)) for _ in range(300)]
    found = words_of(texts, bond=3)
    assert set(lexicon) <= set(found)
    assert not {"算机", "计算"} & set(found)
    assert len(found) <= len(lexicon) + 2


# --- synonyms ---------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(0, 8), st.integers(0, 99))
def test_synonyms_equal_a_loop(n: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float32)
    names = [f"w{place}" for place in range(n)]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = Synonyms.of(names, vectors, k=2, least=0.3, most=0.9).near
    for a in range(n):
        near = {names[b]: float(unit[a] @ unit[b]) for b in range(n) if a != b and 0.3 < unit[a] @ unit[b] < 0.9}
        assert list(found.get(names[a], ())) == sorted(near, key=near.__getitem__, reverse=True)[:2]


def test_words_a_model_cannot_tell_apart_are_no_synonyms() -> None:
    vectors = np.array([[1, 0], [1, 0], [0.9, 0.5], [0, 0]], np.float32)
    found = Synonyms.of(["冰箱", "空调", "fridge", "unread"], vectors).near
    assert found["冰箱"] == ("fridge",)
    assert "unread" not in found


def test_a_language_model_knows_synonyms_and_the_scripts_it_cannot_read_stay_out() -> None:
    from isthmus.encode.text import TextEncoder

    texts = ["a cheap movie", "an inexpensive film", "cheap film", "inexpensive movie", "hammer 冰箱", "hammer 空调"]
    found = Synonyms.learn([*texts, "冰箱", "空调"], TextEncoder().encode_texts).near
    assert found["cheap"] == ("inexpensive",)
    assert found["movie"] == ("film",)
    assert "hammer" not in found
    assert "冰箱" not in found


KINDS = [
    (["手机", "电话"], ["打给", "铃声", "号码"]),
    (["绿茶", "红茶"], ["泡开", "茶杯", "喝完"]),
    (["毛巾", "浴巾"], ["擦干", "洗澡", "挂好"]),
]


def chinese(n: int = 600) -> list[str]:
    """Return sentences in which 手机 and 电话, and 便宜 and 实惠, stand in the same places."""
    rng = np.random.default_rng(1)
    texts = []
    for _ in range(n):
        things, company = KINDS[rng.integers(3)]
        texts.append(str(rng.choice(company)) + str(rng.choice(things)) + "，" + str(rng.choice(company)))
    return texts


def test_words_used_alike_are_found_without_a_model_in_chinese() -> None:
    texts = chinese()
    known = sorted({word for pair in KINDS for some in pair for word in some})
    found = Synonyms.of(known, company_vectors(texts, known, dim=8), k=1, least=0.3, most=1.1).near
    pairs = [("手机", "电话"), ("绿茶", "红茶"), ("毛巾", "浴巾")]
    assert all(found[a] == (b,) and found[b] == (a,) for a, b in pairs)


@pytest.mark.parametrize("texts", [[], [""], ["一"], ["tea", "tea"]])
def test_too_little_text_gives_no_vectors_and_no_error(texts: list[str]) -> None:
    known = words_of(texts)
    assert not company_vectors(texts, known, dim=4).any()
    assert Synonyms.learn(texts, lambda some: np.zeros((len(some), 2), np.float32)).near == {}


def test_two_sets_of_synonyms_join_by_script() -> None:
    english = Synonyms({"cheap": ("inexpensive",), "冰箱": ("空调",)})
    joined = english.of_script(spaced=True) | Synonyms({"冰箱": ("冰柜",), "cheap": ("bad",)}).of_script(spaced=False)
    assert joined.near == {"cheap": ("inexpensive",), "冰箱": ("冰柜",)}
    with pytest.raises(DataError, match="2 words but 1"):
        Synonyms.of(["a", "b"], np.ones((1, 2), np.float32))


# --- edits ------------------------------------------------------------------------------------------------------------


@quick
@given(TEXTS, st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 9))
def test_exchanging_changes_words_with_synonyms_only(text: str, share: float, seed: int) -> None:
    said = exchange_words(text, WORDS, share, np.random.default_rng(seed))
    pairs = list(zip(pieces(text, WORDS.near), pieces(said, {"红茶", "绿茶"}), strict=True))
    changed = [(a, b) for (a, _), (b, _) in pairs if a != b]
    assert all(b.casefold() in WORDS.near[a.casefold()] for a, b in changed)
    able = [a for (a, is_word), _ in pairs if is_word and a.casefold() in WORDS.near]
    total = sum(is_word for (_, is_word), _ in pairs)
    assert min(len(able), int(share * total)) <= len(changed) <= min(len(able), int(share * total) + 1)


@quick
@given(TEXTS, st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 9))
def test_deleting_keeps_order_and_one_word(text: str, share: float, seed: int) -> None:
    before, after = words(text), words(delete_words(text, share, np.random.default_rng(seed)))
    left = iter(before)
    assert all(word in left for word in after) or _glued(text)
    assert len(after) >= min(1, len(before))
    if share == 0:
        assert after == before


def test_a_word_goes_with_the_gap_on_its_inner_side() -> None:
    said = {delete_words("(one, two)", 0.5, np.random.default_rng(seed)) for seed in range(9)}
    assert said == {"(one)", "(two)"}


def test_different_texts_are_touched_at_different_places() -> None:
    texts = [f"{chr(97 + n)}{chr(97 + n)} b c d" for n in range(20)]
    said = WordEdits(delete=0.25).paraphrase(texts)
    assert len({tuple(word in after for word in before.split()) for before, after in zip(texts, said, strict=True)}) > 2


def _glued(text: str) -> bool:
    """Return whether words of two scripts touch, so that leaving out one may join its neighbours."""
    return bool(re.search("[abZ9][绿茶好]|[绿茶好][abZ9]", text))


@quick
@given(TEXTS, st.sampled_from([0.3, 1.0]), st.integers(0, 9))
def test_swapping_keeps_every_character(text: str, share: float, seed: int) -> None:
    said = swap_words(text, share, np.random.default_rng(seed))
    assert Counter(said) == Counter(text)


def test_shares_are_met_on_average() -> None:
    text = "one two three four five six seven"
    rng = np.random.default_rng(0)
    left = [len(words(delete_words(text, 0.2, rng))) for _ in range(2000)]
    assert abs(np.mean(left) - 7 * 0.8) < 0.05
    moved = [
        sum(a != b for a, b in zip(words(text), words(swap_words(text, 0.2, rng)), strict=True)) for _ in range(2000)
    ]
    assert abs(np.mean(moved) - 7 * 0.2) < 0.1


def test_a_paraphrase_does_not_depend_on_its_batch_but_on_the_seed() -> None:
    texts = town_tables(seed=1, persons=5)["items"]["title"].to_list()[:60]
    synonyms = Synonyms(dict.fromkeys(words_of(texts), ("other",)))
    edits: Paraphraser = WordEdits(synonyms, exchange=0.3, delete=0.1, swap=0.2)
    whole = edits.paraphrase(texts)
    assert [edits.paraphrase([text])[0] for text in texts] == whole
    assert edits.paraphrase(texts) == whole
    assert edits.paraphrase(texts, seed=1) != whole
    assert sum(a != b for a, b in zip(texts, whole, strict=True)) > 20
    assert WordEdits(exchange=0.5).paraphrase(["untouched tea"]) == ["untouched tea"]


def test_shares_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="delete = 2"):
        WordEdits(delete=2)


# --- there and back ---------------------------------------------------------------------------------------------------


class Counting:
    """A translator that turns words around and counts what it was given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def __call__(self, texts: Sequence[str]) -> list[str]:
        self.given += texts
        return [" ".join(reversed(text.split())) + " " for text in texts]


def test_each_text_is_translated_once_also_after_a_restart(tmp_path: Path) -> None:
    there, back = Counting(), Counting()
    texts = ["green tea", "mug", "green tea", "", " "]
    first = BackTranslation(there, lambda some: [text.upper() for text in some], name="x", cache=tmp_path)
    assert first.paraphrase(texts) == ["TEA GREEN", "MUG", "TEA GREEN", "", " "]
    assert first.paraphrase(["mug"]) == ["MUG"]
    again = BackTranslation(there, back, name="x", cache=tmp_path)
    assert again.paraphrase(["mug", "new one"]) == ["MUG", "new one"]
    assert there.given == ["green tea", "mug", "new one"]
    other = BackTranslation(there, back, name="y", cache=tmp_path)
    assert other.paraphrase(["mug"]) == ["mug"]
    assert there.given[-1] == "mug"


def test_a_damaged_cache_is_passed_over(tmp_path: Path) -> None:
    there = Counting()
    BackTranslation(there, there, cache=tmp_path).paraphrase(["tea"])
    next(tmp_path.rglob("*.json")).write_text("{", encoding="utf-8")
    assert BackTranslation(there, there, cache=tmp_path).paraphrase(["tea"]) == ["tea"]
    assert there.given == ["tea"] * 4


def test_what_comes_back_empty_stays_and_a_wrong_number_is_refused() -> None:
    silent = BackTranslation(lambda texts: texts, lambda texts: ["" for _ in texts])
    assert silent.paraphrase(["tea"]) == ["tea"]
    with pytest.raises(DataError, match="2 texts in, 1 out"):
        BackTranslation(lambda texts: texts[:1], lambda texts: texts).paraphrase(["a", "b"])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of a tiny BART with random weights."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerFast

    vocabulary = {word: place for place, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", "green", "tea", "mug"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("tiny")
    marks = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks).save_pretrained(folder)
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=7, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32, init_std=1.0,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
    )  # fmt: skip
    model = BartForConditionalGeneration(config)
    model.generation_config.update(min_new_tokens=3, suppress_tokens=[0, 1, 3])
    model.save_pretrained(folder)
    return str(folder)


def test_a_hugging_face_pair_translates_there_and_back(tiny: str, tmp_path: Path) -> None:
    texts = ["green tea", "mug", "tea mug green tea mug"]
    model = Seq2Seq(tiny, batch_size=2, max_tokens=8)
    said = model(texts)
    assert len(said) == 3
    assert [model([text])[0] for text in texts] == said
    assert len(set(said)) > 1
    pair = BackTranslation.of_models(tiny, tiny, cache=tmp_path)
    pair.there = pair.back = model
    assert pair.paraphrase(texts) == [
        model([text.strip()])[0].strip() or own for text, own in zip(said, texts, strict=True)
    ]


def test_an_unknown_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such translation model"):
        Seq2Seq(str(tmp_path / "nowhere"))(["tea"])


def test_the_programs_of_the_page_run() -> None:
    run_programs("augment.md", 3)
