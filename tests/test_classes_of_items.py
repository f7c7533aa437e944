"""Classes of items: labels hidden from what is read, linear heads and their pool, figures, and who is asked next."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from isthmus.data.corpus import Corpus
from isthmus.errors import DataError, InputError
from isthmus.evaluate.cards import data_card
from isthmus.evaluate.classes import Told, class_errors, class_tests
from isthmus.model.text_classes import Linear, Majority, learn_pool, pool
from isthmus.pipeline.classifier import Classifier
from isthmus.pipeline.classify import ClassifySettings, FittedClasses, classify
from isthmus.pipeline.labels import CHOOSE, EXAMINE, TEACH, LabelSettings, labelled, open_items
from isthmus.pipeline.task_reports import class_report

WORDS = {
    "茶": ("绿茶", "红茶", "乌龙茶", "普洱", "茶叶"),
    "工具": ("铁锤", "扳手", "螺丝刀", "钳子", "锯子"),
    "Books": ("novel", "poem", "atlas", "diary", "essay"),
}


@cache
def corpus() -> Corpus:
    """240 items of three classes, told by Chinese or English words, every tenth by noise; 30 more have no class."""
    rng = np.random.default_rng(0)
    names = list(WORDS)
    truth = rng.integers(0, 3, 270)
    noisy = rng.random(270) < 0.1
    shown = np.where(noisy, rng.integers(0, 3, 270), truth)
    titles = [" ".join(rng.choice(WORDS[names[k]], 2)) + f" {chr(0x4E00 + i)}" for i, k in enumerate(shown)]
    items = pl.DataFrame(
        {
            "platform": ["shop"] * 270,
            "item": [f"{k:03}" for k in range(270)],
            "domain": ["things"] * 200 + ["stuff"] * 70,
            "title": titles,
            "categories": [["All", names[k]] if i < 240 else None for i, k in enumerate(truth)],
            "attributes": [
                json.dumps({"brand": names[k], "maker": f"m{k}"}, ensure_ascii=False) for k in truth.tolist()
            ],
        }
    )
    return Corpus.from_tables({"items": items}, name="杂货")


def split_of(folder: Path) -> Path:
    corpus().save(folder / "corpus")
    return folder / "corpus"


@cache
def fitted() -> FittedClasses:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        split = open_items(split_of(Path(folder)))
        how = LabelSettings(label="domain", least=5)
        assert labelled(split.corpus, how).names == ("stuff", "things")
        return classify(split, ClassifySettings(LabelSettings("category", "things", least=5), read=False))


def test_no_label_is_read() -> None:
    by_category = labelled(corpus(), LabelSettings("category", "things"))
    assert by_category.names == tuple(sorted(WORDS))
    assert by_category.items["categories"].null_count() == 270
    assert by_category.named > 0.2  # the brand still says it
    by_brand = labelled(corpus(), LabelSettings("attribute:brand", "things"))
    assert by_brand.names == by_category.names
    assert not by_brand.items["attributes"].str.contains("brand").any()
    assert by_brand.items["attributes"].str.contains("maker").all()
    hidden = labelled(corpus(), LabelSettings("attribute:maker", "things", hide_names=True))
    assert hidden.named == 0
    cut = labelled(corpus(), LabelSettings("attribute:brand", "things", hide_names=True))
    assert not cut.items["title"].str.contains("茶").any()


def test_no_text_both_teaches_and_examines() -> None:
    items = corpus().items.with_columns(title=pl.col("title").str.slice(0, 3), attributes=pl.lit(None, pl.String))
    found = labelled(Corpus.from_tables({"items": items}, name="same"), LabelSettings("category", "things", least=5))
    texts = [{found.texts[row] for row in found.of(part)[0].tolist()} for part in (TEACH, CHOOSE, EXAMINE)]
    assert all(texts)
    assert sum(map(len, texts)) == len(set.union(*texts))


def test_parts_are_drawn_once_and_a_share_teaches() -> None:
    whole = labelled(corpus(), LabelSettings("category", "things"))
    some = labelled(corpus(), LabelSettings("category", "things", share=0.3))
    np.testing.assert_array_equal(whole.of(EXAMINE)[0], some.of(EXAMINE)[0])
    assert set(some.of(TEACH)[0]) < set(whole.of(TEACH)[0])
    assert 0.15 < some.of(TEACH)[0].size / whole.of(TEACH)[0].size < 0.45
    assert labelled(corpus(), LabelSettings("category", "stuff", least=5)).unlabelled.size == 30


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"label": "categry", "target": "things"}, "did you mean 'category'"),
        ({"label": "attribute:", "target": "things"}, "no label"),
        ({"label": "category"}, "needs a target"),
        ({"label": "category", "target": "things", "share": 0.0}, "share"),
        ({"label": "category", "target": "thing"}, "did you mean 'things'"),
        ({"label": "single-category", "target": "things"}, "not two classes"),
        ({"label": "attribute:colour", "target": "things"}, "not two classes"),
        ({"label": "attribute:title", "target": "things"}, "no attribute"),
        ({"label": "category", "target": "things", "least": 999}, "not two classes"),
    ],
)
def test_what_cannot_be_told_apart_is_refused(how: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        labelled(corpus(), LabelSettings(**how))  # type: ignore[arg-type]


def test_a_strategy_needs_a_model() -> None:
    with pytest.raises(InputError, match="needs a model"):
        ClassifySettings(LabelSettings("category", "things"), strategy="lora")
    with pytest.raises(InputError, match="frozen"):
        ClassifySettings(LabelSettings("domain"), start=Path("x"), strategy="lora")


def test_chinese_and_english_classes_are_told_by_their_words() -> None:
    found = fitted()
    table = class_errors(found.judged()).filter((pl.col("class") == "all") & (pl.col("metric") == "accuracy"))
    by = dict(table.select("system", "value").iter_rows())
    assert set(by) == {"blend", "majority", "tfidf"}
    assert by["majority"] < 0.6
    assert 0.8 < by["blend"] <= 1.0
    assert by["blend"] >= by["tfidf"] - 0.03
    report = class_report(found, data_card(corpus()), LabelSettings("category", "things"))
    assert "better than “" in str(report.notes[0]) or "No detectable" in str(report.notes[0])
    assert {row[0] for row in report.sheets[1].rows} == set(WORDS)


def test_items_without_a_label_get_one_and_the_doubtful_are_asked_first() -> None:
    whole = classify(open_like(corpus()), ClassifySettings(LabelSettings("category", "stuff", least=5), read=False))
    told = whole.predict(corpus().items, ask=5)
    assert told.height == 30
    assert told["label"].is_in(list(WORDS)).all()
    assert told["probability"].is_between(1 / 3 - 1e-6, 1).all()
    brand = corpus().items.select("item", truth=pl.col("attributes").str.json_path_match("$.brand"))
    assert (told.join(brand, on="item").select((pl.col("label") == pl.col("truth")).mean())).item() > 0.75
    assert sorted(told["ask"].drop_nulls().to_list()) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("label", ["category", "attribute:brand", "domain"])
def test_a_kept_classifier_says_what_it_said_at_first_and_reads_no_label(label: str, tmp_path: Path) -> None:
    how = LabelSettings(label, None if label == "domain" else "things", least=5, hide_names=True)
    settings = ClassifySettings(how, read=False)
    with_all = classify(open_items(split_of(tmp_path)), settings)
    rows = with_all.labelled.rows
    Classifier.of(with_all, settings).save(tmp_path / "kept")
    items = corpus().items[rows]
    opened = Classifier.open(tmp_path / "kept")
    found = opened.tell(items)
    chances = np.exp(with_all.log_chances(rows)["blend"])
    told = dict(zip(items["item"], chances.max(axis=1), strict=True))
    names = dict(zip(items["item"], chances.argmax(axis=1), strict=True))
    for item, said, chance in found.select("item", "label", "probability").iter_rows():
        assert with_all.labelled.names[names[item]] == said
        assert chance == pytest.approx(told[item], abs=1e-6)
    if label == "category":
        lied = items.with_columns(categories=pl.Series([["茶"]] * items.height))
        assert opened.tell(lied)["label"].to_list() == found["label"].to_list()
    bare = opened.tell(items[:1].with_columns(title=pl.lit(None, pl.String), attributes=pl.lit(None, pl.String)))
    assert bare.height == 1
    assert opened.tell(items[:0]).height == 0


def test_one_logistic_regression_is_that_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    for n_classes in (2, 3):
        rows = rng.normal(size=(60, 4)).astype(np.float32)
        codes = rng.integers(0, n_classes, 60)
        mine = Linear(10.0).fit(rows, codes, n_classes)
        shaped = np.asarray((rows - mine.centre) / mine.spread, dtype=np.float64)
        theirs = LogisticRegression(C=1.0, max_iter=1000, tol=1e-3).fit(shaped, codes)
        np.testing.assert_allclose(mine.log_chances(rows), theirs.predict_log_proba(shaped), atol=1e-9)


def open_like(given: Corpus):
    from isthmus.split.temporal import Split

    none = given.interactions().clear().with_columns(part=pl.lit(None, pl.UInt8))
    return Split(given, none, {})


def test_a_class_that_never_taught_is_never_told() -> None:
    rows = np.array([[0.0], [1.0], [0.1], [0.9]], np.float32)
    logs = Linear(10.0).fit(rows, np.array([0, 2, 0, 2]), 3).log_chances(rows)
    assert (logs[:, 1] == -20).all()
    assert logs.argmax(1).tolist() == [0, 2, 0, 2]
    shares = np.exp(Majority().fit(rows, np.array([0, 2, 2, 2]), 3).log_chances(rows[:1]))
    assert shares[0, [0, 2]].tolist() == pytest.approx([0.25, 0.75])
    with pytest.raises(InputError, match="same class"):
        Linear(1.0).fit(rows, np.zeros(4, np.int64), 2)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_a_pool_is_a_distribution_and_weights_are_from_0_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logs = [np.log(rng.dirichlet(np.ones(4), 30)) for _ in range(3)]
    codes = rng.integers(0, 4, 30)
    weights = learn_pool(logs, codes, rng)
    assert (weights >= 0).all()
    np.testing.assert_allclose(np.exp(pool(logs, weights)).sum(1), 1)


def test_a_pool_of_two_that_know_different_things_is_better_than_each() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, 600)
    logs = []
    for bit in (1, 2):  # each knows one of the two bits of the class
        table = np.full((600, 4), 0.05)
        table[(np.arange(4) & bit) == (codes[:, None] & bit)] = 0.45
        logs.append(np.log(table + 0.02 * rng.random((600, 4))))
    weights = learn_pool(logs, codes, np.random.default_rng(1))
    alone = max((table.argmax(1) == codes).mean() for table in logs)
    assert alone < 0.65
    assert (pool(logs, weights).argmax(1) == codes).mean() > 0.99
    assert (weights > 0.3).all()
    with pytest.raises(DataError):
        learn_pool(logs, codes[:3], rng)


def test_figures_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 4, 300), rng.integers(0, 5, 300)
    said = np.where(rng.random(300) < 0.5, truth, said)
    told = Told(["a", "b", "c", "d", "e"], truth, {"x": said, "y": truth})
    table = class_errors(told)
    exact = precision_recall_fscore_support(truth, said, labels=range(5), zero_division=0)
    for name, values in zip(("precision", "recall", "f1"), exact, strict=False):
        rows = table.filter((pl.col("system") == "x") & (pl.col("metric") == name))
        np.testing.assert_allclose(rows.filter(pl.col("class") != "all")["value"], values)
        assert rows.filter(pl.col("class") == "all")["value"][0] == pytest.approx(values[:4].mean())
    row = table.row(0, named=True)
    assert row["value"] == pytest.approx((truth == said).mean())
    assert row["low"] < row["value"] < row["high"]
    assert 0.07 < row["high"] - row["low"] < 0.16  # 2 * 1.96 * sqrt(.6 * .4 / 300) = 0.11
    tests = class_tests(told, "y").row(0, named=True)
    assert tests["difference"] == pytest.approx(1 - row["value"])
    assert tests["p_holm"] < 0.001
    with pytest.raises(DataError, match="not"):
        Told(["a"], truth, {"x": said})
