"""The language carrier as a method: what it scores, needs, keeps, learns; and that nothing of it loads torch early."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.small import corpus, items
from tests.tiny_language import folder

from isthmus.data.sequences import Histories
from isthmus.encode.base import unit
from isthmus.encode.whiten import Whitening
from isthmus.errors import ArtefactError, InputError
from isthmus.model.base import Features, Hooks, Places, Setting, TrainingData
from isthmus.model.language_encoder import person_vectors
from isthmus.recommender import Recommender
from isthmus.split.temporal import Split
from isthmus.testing import check_method
from isthmus.train.fit import FitSettings, task_names
from isthmus.train.language_carrier import LanguageCarrier
from isthmus.train.languages import Lesson, check_weights, pack, read_items, reader_of, start_model, unpack
from isthmus.train.pairs import PairSettings

WORDS = ("green tea", "black tea", "strong coffee", "tea pot", "coffee mill", "milk jug")
TOOLS = ("steel hammer", "claw hammer", "hand saw", "saw blade", "nail box", "")
TEXTS = (*WORDS, *TOOLS)
TARGET = np.arange(6, 12, dtype=np.int32)
PLACES = Places(np.repeat(np.int32([0, 1]), 6), np.repeat(np.int32([0, 1]), 6), ("food", "tools"), ("shop", "yard"))


def data(rows: list[list[int]] | None = None) -> TrainingData:
    known = rows if rows is not None else [[0, 6, 7], [1, 0, 8, 9], [2, 4, 10], [3, 5, 6], [7, 6, 8], [4, 11, 7]]
    histories = Histories.of(known)
    return TrainingData(histories, TARGET, 12, 99, Features(places=PLACES, texts=TEXTS))


def carrier(**chosen: Setting) -> LanguageCarrier:
    return LanguageCarrier({"start": folder(), "precision": "float32", **chosen})


ASKED = Histories.of([[0, 1], [6], [7, 2, 6], [], [11]])


def test_it_keeps_the_contract_read_as_text() -> None:
    check_method(lambda chosen: carrier(**{"person": "text", **chosen}), data())


def test_it_keeps_the_contract_when_it_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageCarrier, "grid", {"shrink": (0.1, 0.0)})
    check_method(lambda chosen: carrier(**{"epochs": 1.0, "learning_rate": 1e-2, "batch": 4, **chosen}), data())


def test_persons_as_items_score_the_decayed_mean_of_whitened_cosines() -> None:
    fitted = carrier(decay=0.5, shrink=0.2).fit(data())
    raw = read_items(start_model(folder()), TEXTS, precision="float32").astype(np.float16).astype(np.float32)
    white = np.concatenate([unit(Whitening.fit(part, shrink=0.2).transform(part)) for part in (raw[:6], raw[6:])])
    white[11] = 0
    own = 1.0 * white[6] @ white[6]
    expected = (0.25 * white[7] + 0.5 * white[2] + white[6]) @ white[6:].T
    expected[0] -= own
    expected[1] -= 0.25 * white[7] @ white[7]
    np.testing.assert_allclose(fitted.score(ASKED)[2], expected / 1.75, atol=1e-5)
    assert not fitted.score(ASKED)[3:].any(), "no event, or no text: nothing to say"


def test_persons_told_in_words_are_whitened_around_their_mean() -> None:
    known = data()
    fitted = carrier(person="text", shrink=0.3).fit(known)
    model = start_model(folder())
    reader = reader_of(model, TEXTS, PLACES)
    assert "shop" in model.tokenizer.decode(reader.behaviour(ASKED.take(np.array([0]))).ids)
    raw = read_items(model, TEXTS, precision="float32").astype(np.float16).astype(np.float32)
    people = person_vectors(model, reader, known.histories, precision="float32")
    asked = person_vectors(model, reader, ASKED, precision="float32")
    white = Whitening.fit(raw[6:], shrink=0.3)
    expected = unit((asked - people.mean(axis=0)) @ white.directions) @ unit(white.transform(raw[6:])).T
    expected[3], expected[:, 5] = 0, 0
    np.testing.assert_allclose(fitted.score(ASKED), expected, atol=1e-4)


def test_without_any_event_it_gives_lists_and_without_sources_it_looks_at_the_target_only() -> None:
    for person in ("items", "text"):
        fitted = carrier(person=person).fit(data([]))
        assert np.ptp(fitted.score(ASKED)[0]) > 0.01, "events of another domain are enough"
        alone = carrier(person=person, sources=False).fit(data([]))
        assert not alone.score(ASKED)[0].any()
        np.testing.assert_allclose(alone.score(ASKED)[2], alone.score(Histories.of([[7, 6]]))[0], atol=1e-1)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_model_survives_being_made_arrays(kind: str) -> None:
    model = start_model(folder(kind))
    packed = pack(model)
    assert {array.dtype.kind for array in packed.values()} == {"f", "u"}
    assert not any("model.safetensors" in name for name in packed)
    again = unpack(packed)
    np.testing.assert_array_equal(
        read_items(again, TEXTS, precision="float32"), read_items(model, TEXTS, precision="float32")
    )
    with pytest.raises(ArtefactError, match="missing"):
        unpack({name: array for name, array in packed.items() if name != "file.config.json"})


def test_a_restored_method_needs_no_path_and_loads_no_model_to_score_by_items() -> None:
    fitted = carrier(person="items").fit(data())
    state = fitted.state()
    again = LanguageCarrier({**fitted.settings, "start": "/nowhere"})
    again.target, again.n_items = TARGET, 12
    again.restore(state, data().features)
    np.testing.assert_array_equal(again.score(ASKED), fitted.score(ASKED))
    assert again._model is None
    assert set(again.state()) == set(state)
    with pytest.raises(ArtefactError, match="lacks its item texts"):
        again.restore(state, Features())


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the texts that carriers read from now on."""
    read: list[str] = []
    plain = LanguageCarrier._read

    def spy(self: LanguageCarrier, texts: tuple[str, ...], *, keep: bool) -> np.ndarray:
        read.extend(texts)
        return plain(self, texts, keep=keep)

    monkeypatch.setattr(LanguageCarrier, "_read", spy)
    return read


def test_without_sources_only_the_texts_of_the_target_are_read(read: list[str]) -> None:
    fitted = carrier(sources=False).fit(data())
    assert [text for text in read if text] == [text for text in TOOLS if text]
    assert not fitted.vectors[:6].any()
    places = replace(PLACES, domain=np.append(PLACES.domain, 1), platform=np.append(PLACES.platform, 1))
    longer = fitted.extended(Features(places=places, texts=(*TEXTS, "tea pot")), np.arange(6, 13, dtype=np.int32), 13)
    assert longer.vectors[12].any(), "a text that another domain has was not read before"


def test_the_items_are_read_once_an_epoch(read: list[str]) -> None:
    method = carrier(epochs=2.0, learning_rate=1e-2, batch=4)
    rising = iter(range(9))
    method.hooks = Hooks(watch=lambda fitted: float(next(rising)))
    method.fit(data())
    assert len(read) == 2 * len(TEXTS)
    raw = read_items(method.model, TEXTS, precision="float32")
    np.testing.assert_allclose(method.vectors.astype(np.float32), raw, atol=2e-3)


def test_a_known_text_is_not_read_again(read: list[str]) -> None:
    fitted = carrier().fit(data())
    read.clear()
    places = replace(PLACES, domain=np.append(PLACES.domain, [1, 1, 1]), platform=np.append(PLACES.platform, [1, 1, 1]))
    features = Features(places=places, texts=(*TEXTS, "hand saw", "a new saw", "a new saw"))
    longer = fitted.extended(features, np.arange(6, 15, dtype=np.int32), 15)
    assert read == ["a new saw"]
    scores = longer.score(ASKED)
    np.testing.assert_array_equal(scores[:, 7], scores[:, 8])
    np.testing.assert_allclose(scores[[0, 1], 6], scores[[0, 1], 2], atol=1e-6)


def test_learning_brings_what_people_had_together_nearer() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.permutation([6, 7, 0] if n % 2 else [8, 9, 2]).tolist() for n in range(40)]
    before = carrier(person="items", shrink=1.0).fit(data(rows))
    chosen = {"epochs": 8.0, "learning_rate": 5e-3, "batch": 16, "hard": 2, "shrink": 1.0}
    after = carrier(**chosen).fit(data(rows))
    asked = Histories.of([[6], [8]])

    def margin(method: LanguageCarrier) -> float:
        scores = method.score(asked)
        return float(scores[0, 1] - scores[0, 2:4].mean() + scores[1, 3] - scores[1, :2].mean())

    assert margin(after) > margin(before) + 0.3
    assert after.log is not None
    assert after.log.losses[-1] < after.log.losses[0]


@pytest.mark.parametrize("strategy", ["frozen", "lora"])
def test_a_strategy_says_what_is_trained_and_survives_the_arrays(strategy: str) -> None:
    chosen = {"epochs": 1.0, "learning_rate": 1e-2, "batch": 4, "strategy": strategy}
    fitted = carrier(**chosen).fit(data())
    assert fitted.log is not None
    assert fitted.log.trainable < sum(weight.numel() for weight in fitted.model.parameters()) / 2
    assert np.abs(fitted.score(ASKED) - carrier().fit(data()).score(ASKED)).max() > 1e-3
    again = carrier(**chosen)
    again.target, again.n_items = TARGET, 12
    again.restore(fitted.state(), data().features)
    np.testing.assert_allclose(
        read_items(again.model, TEXTS, precision="float32"), fitted.vectors.astype(np.float32), atol=1e-3
    )


def test_with_a_watch_the_best_epoch_is_kept_and_noted() -> None:
    method = carrier(epochs=3.0, learning_rate=1e-2, batch=4)
    seen: list[float] = []

    def watch(fitted: object) -> float:
        assert isinstance(fitted, LanguageCarrier)
        assert fitted.score(ASKED).shape == (5, 6)
        seen.append(-float(len(seen)))
        return seen[-1]

    method.hooks = Hooks(watch=watch)
    method.fit(data())
    assert method.settings["epochs"] == 1.0
    once = carrier(epochs=3.0, learning_rate=1e-2, batch=4).fit(data())
    assert np.abs(method.score(ASKED) - once.score(ASKED)).max() > 1e-4
    assert len(seen) == 2, "patience ends it"


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="person 'itms'"):
        LanguageCarrier({"person": "itms"})
    with pytest.raises(InputError, match="needs item texts"):
        carrier().fit(replace(data(), features=Features()))
    with pytest.raises(InputError, match="precision 'half'"):
        carrier(precision="half").fit(data())
    with pytest.raises(InputError, match=r"no strategy 'lorra'.*did you mean 'lora'"):
        carrier(epochs=1.0, strategy="lorra").fit(data())
    with pytest.raises(InputError, match="nothing to train on"):
        carrier(epochs=1.0).fit(data([]))
    with pytest.raises(InputError, match="did you mean 'mlm'"):
        check_weights({"mlmm": 1.0})
    with pytest.raises(InputError, match="weight 0"):
        check_weights({"mlm": 0.0})


def test_every_objective_finds_its_batches() -> None:
    model = start_model(folder())
    everything = np.ones(12, bool)
    labels = {"domain": (PLACES.domain.astype(np.int64), ["food", "tools"])}
    reader = reader_of(model, TEXTS, PLACES)
    lesson = Lesson(reader, data().histories, everything, everything, labels)
    wanted = dict.fromkeys(("contrastive-next", "contrastive-together", "contrastive-views", "mlm", "classify"), 0.5)
    parts = lesson.batches(model, wanted, PairSettings(batch_size=4)).batch(0)["parts"]
    assert [part["objective"] for part in parts] == ["contrastive"] * 3 + ["mlm", "classify"]
    assert all(part["weight"] == 0.5 for part in parts)
    decoder = start_model(folder("gpt2"))
    assert len(lesson.batches(decoder, {"clm": 1.0}, PairSettings(batch_size=4))) == 3
    with pytest.raises(InputError, match="take mlm"):
        lesson.batches(model, {"clm": 1.0}, PairSettings())


def split() -> Split:
    log = [("shop", f"u{n}", f"i{(n + step) % 8}", 5 * step + n % 5) for n in range(12) for step in range(4)]
    titles = {f"i{n}": f"{TEXTS[n]} number {n}" for n in range(8)}
    return Split.make(corpus(log, titles=titles), valid_share=0.2, test_share=0.2)


def test_a_recommender_with_it_is_saved_opened_and_reads_new_items(tmp_path: Path) -> None:
    settings = FitSettings(methods=("language",), settings={"language": carrier().settings}, budget=1.0, persons=50)
    fitted = Recommender.fit(split(), settings=settings)
    assert fitted.targets["books"].blend.methods == ("language",)
    assert fitted.features.texts is not None
    assert fitted.features.texts[0] == fitted.items["title"][0]
    fitted.save(tmp_path / "model")
    opened = Recommender.open(tmp_path / "model")
    assert opened.features.texts == fitted.features.texts
    assert opened.recommend(k=3).equals(fitted.recommend(k=3))
    title = fitted.features.texts[0]
    longer = opened.add_items(items([("shop", "new")], {"new": title}, {}))
    assert longer.features.texts == (*fitted.features.texts, title)
    scores = longer.system("books", "language").score(Histories.of([[3]]))
    assert scores[0, -1] == pytest.approx(float(scores[0, 0]), abs=1e-5)


def test_it_takes_part_only_where_it_is_named_and_can_read() -> None:
    assert "language" not in FitSettings().methods
    named = FitSettings(methods=("popularity", "language"))
    assert task_names(split(), named, Features()) == ["popularity"]
    assert task_names(split(), named, Features(texts=("a",))) == ["popularity", "language"]


def test_the_methods_load_no_torch() -> None:
    code = "import sys, isthmus.train.methods, isthmus.transfer.language; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_items_are_told_by_the_start_of_their_texts() -> None:
    model = start_model(folder())
    reader = reader_of(model, TEXTS, PLACES)
    said = model.tokenizer.decode(reader.behaviour(Histories.of([[0, 11]])).ids, skip_special_tokens=True)
    assert said == 'viewed " green tea " on shop, then viewed " item " on yard.'
    assert reader.items.lengths[11] == 0
    assert pl.Series(reader.table["item"]).unique().to_list() == ["item"]
