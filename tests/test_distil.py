"""Distillation: a student lists what its teacher lists, also new items, at a fraction of the cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tests.test_methods import DATA, small_data

from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import WORLD, twin_world
from isthmus.errors import DataError, InputError
from isthmus.evaluate.protocol import judge
from isthmus.model.base import Features, TrainingData
from isthmus.model.blend import COHORTS, Blend, standardise
from isthmus.model.student import STUDENTS, ListStudent, Student, VectorStudent, nearest_texts
from isthmus.recommender import Recommender
from isthmus.recommender.distilled import distil, known_texts, reads_with, serving_cost, some_histories
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import TEST, Split
from isthmus.testing import check_method, check_system
from isthmus.train.fit import FitSettings, Target
from isthmus.train.methods import make
from isthmus.transfer.distil import DistilSettings, Exam, distil_target, ensemble
from isthmus.transfer.distil_lessons import gradient, hear
from isthmus.transfer.distil_steps import Adam
from isthmus.transfer.distil_vectors import cosine_gradient, directions
from isthmus.types import Floats

PLAN = replace(WORLD, persons=260, items=120)
LISTS = DistilSettings(epochs=6, kept=60)
VECTORS = DistilSettings(student="vectors", dim=32, epochs=6, objectives={"score": 1.0, "list": 1.0, "vector": 0.5})


@pytest.fixture(scope="module")
def fitted() -> tuple[Split, Recommender]:
    split = Split.make(Corpus.from_tables(twin_world(1, PLAN).tables, name="world"), valid_share=0.15, test_share=0.15)
    cold = split.few_shot("target", keep=0, share=0.5, seed=2)
    how = FitSettings(methods=("popularity", "knn", "tfidf", "ease"), budget=1.0, seed=1)
    return cold, Recommender.fit(cold, targets=["target"], settings=how)


@pytest.fixture(scope="module")
def students(fitted: tuple[Split, Recommender]) -> dict[str, Recommender]:
    split, teacher = fitted
    return {how.student: distil([teacher], split, how) for how in (LISTS, VECTORS)}


def target_of(data: TrainingData, *names: str) -> Target:
    """A target with equal weights on some methods."""
    methods = [make(name).fit(data) for name in names]
    weights = dict.fromkeys(COHORTS, tuple([1 / len(names)] * len(names)))
    new = data.popularity[data.target] == 0
    return Target("target", data.target, new, methods, Blend(tuple(names), weights))


def taught(kind: type[Student]) -> type[Student]:
    """A student that a popularity and text blend teaches when it is told to fit."""

    class Taught(kind):  # type: ignore[valid-type, misc]
        def _fit(self, data: TrainingData, seed: int) -> None:
            student = "lists" if self.name == ListStudent.name else "vectors"
            how = DistilSettings(student=student, epochs=2, seed=seed, objectives={"score": 1.0})  # type: ignore[arg-type]
            made = distil_target([target_of(data, "popularity", "tfidf")], data.histories, data.n_items, how)
            self.settings["decay"] = made.methods[0].settings["decay"]
            self.restore(made.methods[0].state(), data.features)

    return Taught


@pytest.mark.parametrize("kind", STUDENTS.values())
def test_a_student_keeps_the_contract_of_methods(kind: type[Student]) -> None:
    check_method(lambda chosen: taught(kind)(chosen), DATA)


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_student_cannot_be_fitted_to_events(kind: str) -> None:
    with pytest.raises(InputError, match="isthmus distil"):
        make(kind).fit(DATA)


@pytest.mark.parametrize("student", ["lists", "vectors"])
def test_the_lists_are_as_good_as_the_teacher_s(
    fitted: tuple[Split, Recommender], students: dict[str, Recommender], student: str
) -> None:
    split, teacher = fitted
    task = build_task(split, TEST, "target")
    cold = task.cohorts["cold, overlap"]
    assert cold.sum() > 30
    systems = [teacher.system("target"), students[student].system("target"), teacher.system("target", "popularity")]
    whole, least, popular = (judge(system, task).metrics["ndcg@10"] for system in systems)
    kept = float(np.nanmean(least) / np.nanmean(whole))
    assert 0.93 < kept < 1.12
    assert np.nanmean(least[cold]) > 2 * np.nanmean(popular[cold]), "who is cold in the target profits from the source"
    check_system(students[student].system("target"), task)


def test_learning_from_people_makes_lists_agree_more(students: dict[str, Recommender]) -> None:
    reached = {}
    for name, made in students.items():
        log = made.targets["target"].log
        first, last = float(str(log[0]["agreement@10"])), float(str(log[-1]["agreement@10"]))
        assert 0.3 < first <= last == max(float(str(row["agreement@10"])) for row in log) <= 1.0
        reached[name] = first, last
    assert reached["vectors"][0] < reached["vectors"][1]


def test_a_student_is_smaller_and_its_cost_is_measured(
    fitted: tuple[Split, Recommender], students: dict[str, Recommender]
) -> None:
    split, teacher = fitted
    some = some_histories(split, 40)
    assert len(some) == 40
    large, small = (serving_cost(model, "target", some, times=2) for model in (teacher, students["lists"]))
    assert 0 < small.megabytes < large.megabytes
    assert min(large.one, large.batch, small.one, small.batch) > 0
    assert serving_cost(teacher, "target", some.take(np.array([3])), times=1).batch > 0
    with pytest.raises(InputError, match="at least one"):
        serving_cost(teacher, "target", some.take(np.zeros(0, np.int64)))


def test_a_student_is_a_recommender_like_any_other(
    fitted: tuple[Split, Recommender], students: dict[str, Recommender], tmp_path: Path
) -> None:
    for made in students.values():
        opened = made.save(tmp_path / "small").open(tmp_path / "small")
        before, after = made.recommend(k=5), opened.recommend(k=5)
        assert before.drop("score").equals(after.drop("score"))
        assert opened.targets["target"].blend.methods == (made.targets["target"].methods[0].name,)
        assert opened.card["distilled"]["objectives"]["score"] == 1.0  # type: ignore[index]
        assert opened.recommend(pl.DataFrame({"platform": ["火星"], "user": ["谁"]}), k=4).height == 4
    vectors = students["lists"].content
    assert vectors.features.vectors is None, "no language model is needed to serve"
    assert not vectors.readers.vectors


def test_a_new_item_is_listed_for_those_who_like_its_text(
    fitted: tuple[Split, Recommender], students: dict[str, Recommender]
) -> None:
    split, _ = fitted
    everybody = split.corpus.identities.select("platform", "user")
    for made in students.values():
        model = made.items.filter(domain="target").head(1)
        copy = model.with_columns(item=pl.lit("新片-001"))
        longer = made.add_items(copy)
        lists = longer.recommend(everybody, k=30, exclude_seen=False)
        old, new = (
            set(lists.filter(item=name).select("platform", "user").iter_rows())
            for name in (model["item"][0], "新片-001")
        )
        assert new, "it is listed"
        assert len(old & new) > 0.8 * len(old | new), "the same text, the same people, but for ties at the end"
        silent = made.add_items(copy.with_columns(title=None, text=None, categories=None, attributes=None))
        assert silent.recommend(k=5)["score"].is_finite().all()
        log = pl.DataFrame({"platform": model["platform"], "user": ["n"], "item": ["新片-001"]})
        assert longer.recommend(log.select("platform", "user"), events=log, k=3).height == 3


def test_several_teachers_are_averaged(fitted: tuple[Split, Recommender]) -> None:
    split, teacher = fitted
    target = teacher.targets["target"]
    alone = [
        replace(target, methods=[method], blend=Blend((method.name,), dict.fromkeys(COHORTS, (1.0,))))
        for method in target.methods[:2]
    ]
    some = some_histories(split, 5)
    expected = np.mean([standardise(each.blend.score(each.methods, some, each.new)) for each in alone], axis=0)
    assert np.allclose(ensemble(alone)(some), expected, atol=1e-5)
    with pytest.raises(DataError, match="the same items"):
        ensemble([target, replace(target, items=target.items[:-1])])


def test_a_seed_gives_one_student() -> None:
    target = target_of(DATA, "popularity", "knn")
    how = DistilSettings(epochs=2, seed=3)
    one, two = (distil_target([target], DATA.histories, DATA.n_items, how).methods[0] for _ in range(2))
    assert np.array_equal(one.score(DATA.histories), two.score(DATA.histories))


def test_a_teacher_of_item_to_item_weights_is_learned_by_heart() -> None:
    rng, n = np.random.default_rng(0), 40
    weights = rng.random((n, n)).astype(np.float32) ** 4
    histories = Histories.of([rng.choice(n, 6, replace=False).tolist() for _ in range(400)])

    def teacher(asked: Histories) -> Floats:
        return np.asarray(asked.matrix(n) @ weights / np.sqrt(np.maximum(asked.lengths, 1))[:, None], np.float32)

    target = target_of(small_data(), "popularity")
    target = replace(target, items=np.arange(n, dtype=np.int32), blend=_Says(teacher))  # type: ignore[arg-type]
    how = DistilSettings(epochs=30, kept=n, learning_rate=0.02, objectives={"score": 1.0})
    made = distil_target([target], histories, n, how)
    fresh = Histories.of([rng.choice(n, 6, replace=False).tolist() for _ in range(50)])
    exam = Exam.of(teacher, fresh, target.items)
    assert made.methods[0].settings["decay"] == 1.0, "the teacher does not forget"
    assert 0.9 < exam.agreement(made.methods[0].score) <= 1.0
    chance = exam.agreement(lambda asked: rng.random((len(asked), n)).astype(np.float32))
    assert 0.15 < chance < 0.45


class _Says(Blend):
    """A blend that says what a function says."""

    def __init__(self, say: object) -> None:
        object.__setattr__(self, "say", say)

    @property
    def plain(self) -> Blend:
        return self

    def score(self, methods: object, histories: Histories, new: object) -> Floats:  # type: ignore[override]
        return self.say(histories)  # type: ignore[attr-defined, no-any-return]


def test_the_exam_counts_shared_items_and_passes_over_what_was_seen() -> None:
    items = np.arange(14, dtype=np.int32)
    rising = np.arange(14, dtype=np.float32)
    exam = Exam.of(lambda asked: np.tile(rising, (len(asked), 1)), Histories.of([[13], [0]]), items)
    assert exam.lists[0].tolist() == list(range(12, 2, -1))
    assert exam.agreement(lambda asked: np.tile(rising, (len(asked), 1))) == 1.0
    assert exam.agreement(lambda asked: np.tile(-rising, (len(asked), 1))) == pytest.approx(0.75 - 0.05)


def test_what_is_heard_is_what_the_teacher_said() -> None:
    target = target_of(DATA, "popularity", "knn")
    teacher = ensemble([target])
    lessons = hear(teacher, DATA.histories, DATA.target, DATA.n_items, 1000)
    said = teacher(DATA.histories)
    known = np.isfinite(lessons.scores)
    assert np.allclose(np.take_along_axis(said, lessons.columns, axis=1)[known], lessons.scores[known], atol=1e-5)
    rows, columns = lessons.seen(np.arange(len(DATA.histories)))
    seen = np.zeros(said.shape, bool)
    seen[rows, columns] = True
    assert (np.take_along_axis(seen, lessons.columns, axis=1) == ~known).all(), "what was seen is no lesson"
    assert (lessons.added.data > 0).all()
    few = hear(teacher, DATA.histories, DATA.target, DATA.n_items, 3)
    asked = np.flatnonzero(np.diff(few.added.indptr))
    assert 0 < asked.size <= 3
    assert np.isin(asked, DATA.target).all(), "the target's own items come first"


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.5), (0.0, 1.0, 0.7), (0.3, 2.0, 1.5)])
def test_gradients_are_those_of_the_losses(weights: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3, 9))
    columns = np.stack([rng.permutation(9)[:6] for _ in range(3)]).astype(np.int32)
    said = rng.normal(size=(3, 6)).astype(np.float32)
    seen = np.array([0, 2]), np.array([columns[0, 0], columns[2, 5]])
    said[0, 0] = said[2, 5] = -np.inf

    def loss(at: np.ndarray) -> float:
        return gradient(at.copy(), (columns, said, 4), seen, weights)[0]

    slope = gradient(scores.copy(), (columns, said, 4), seen, weights)[1]
    for row, column in np.ndindex(3, 9):
        step = np.zeros_like(scores)
        step[row, column] = 1e-5
        assert slope[row, column] == pytest.approx((loss(scores + step) - loss(scores - step)) / 2e-5, abs=1e-5)


def test_the_cosine_s_gradient() -> None:
    rng = np.random.default_rng(2)
    mine, theirs = torch.tensor(rng.normal(size=(4, 5)), requires_grad=True), rng.normal(size=(4, 5))
    theirs[3] = 0
    loss = (1 - torch.cosine_similarity(mine, torch.from_numpy(theirs), dim=1))[:3].sum() / 4
    loss.backward()
    found, slope = cosine_gradient(mine.detach().numpy().astype(np.float32), theirs.astype(np.float32))
    assert found == pytest.approx(loss.item(), abs=1e-6)
    assert mine.grad is not None
    assert np.allclose(slope, mine.grad.numpy(), atol=1e-6)


def test_adam_is_that_of_torch_and_leaves_other_rows_alone() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, 4)).astype(np.float32)
    first = values[2].copy()
    theirs = torch.tensor(values[:2], requires_grad=True)
    other, mine = torch.optim.Adam([theirs], lr=0.1), Adam(values, 0.1)
    for _ in range(5):
        slope = rng.normal(size=(2, 4)).astype(np.float32)
        mine.step(np.array([0, 1]), slope)
        theirs.grad = torch.from_numpy(slope)
        other.step()
    assert np.allclose(values[:2], theirs.detach().numpy(), atol=1e-5)
    assert np.array_equal(values[2], first)


def test_directions_are_the_best_of_low_rank() -> None:
    rng = np.random.default_rng(4)
    full = rng.random((30, 20)) * (rng.random((30, 20)) < 0.4)
    given, listed = directions(sparse.csr_array(full.astype(np.float32)), 5, rng)
    left, strength, right = np.linalg.svd(full)
    best = (left[:, :5] * strength[:5]) @ right[:5]
    assert np.linalg.norm(full - best) <= np.linalg.norm(full - given @ listed.T) < 1.02 * np.linalg.norm(full - best)
    assert directions(sparse.csr_array(full.astype(np.float32)), 25, rng)[0].shape == (30, 25)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 14))
def test_a_new_item_is_made_of_shares_of_known_ones(seed: int, known: int) -> None:
    rng = np.random.default_rng(seed)
    words = (rng.random((known + 4, 6)) < 0.4) * rng.random((known + 4, 6))
    words /= np.maximum(np.linalg.norm(words, axis=1, keepdims=True), 1e-9)
    features = Features(sparse.csr_array(words.astype(np.float32)))
    made = nearest_texts(features, np.arange(known, known + 4), np.arange(known))
    total = np.asarray(made.sum(axis=1)).ravel()
    assert made.shape == (4, known)
    assert (np.isclose(total, 1, atol=1e-4) | (total == 0)).all()
    assert made.nnz == 0 or made.data.min() > 0
    alike = (words[known:] @ words[:known].T).max(axis=1) > 1e-6
    assert (alike == (total > 0)).all()


def test_without_words_vectors_say_which_texts_are_near() -> None:
    vectors = np.array([[1, 0], [0, 1], [2, 0]], np.float32)
    assert nearest_texts(Features(vectors=vectors), np.array([2]), np.array([0, 1])).toarray().round(3).tolist() == [
        [1, 0]
    ]
    assert nearest_texts(Features(), np.array([2]), np.array([0, 1])).nnz == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"objectives": {"vector": 1.0}}, "no objective 'vector'"),
        ({"objectives": {"scores": 1.0}}, "did you mean 'score'"),
        ({"objectives": {"score": -1.0}}, "no number from 0"),
        ({"objectives": {"list": float("nan")}}, "no number from 0"),
        ({"objectives": {"list": 0.0}}, "no objective has a weight"),
        ({"temperature": 0.0}, "not above 0"),
        ({"kept": 0}, "kept = 0"),
    ],
)
def test_what_cannot_be_taught_is_named(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        DistilSettings(**wrong)  # type: ignore[arg-type]


def test_wrong_teachers_are_named(fitted: tuple[Split, Recommender]) -> None:
    split, teacher = fitted
    with pytest.raises(InputError, match="no model"):
        distil([], split)
    other = Recommender(replace(teacher.content, card={**teacher.card, "fingerprint": "another"}))
    with pytest.raises(DataError, match="other data"):
        distil([other], split)
    with pytest.raises(DataError, match="no target domain"):
        distil([teacher, Recommender(replace(teacher.content, targets={}))], split)
    target = teacher.targets["target"]
    with pytest.raises(InputError, match="nobody has a history"):
        distil_target([target], Histories.of([[], []]), 5)


def test_one_person_is_enough() -> None:
    target = target_of(DATA, "popularity")
    made = distil_target([target], Histories.of([[7]]), DATA.n_items, DistilSettings(epochs=1))
    assert np.isfinite(made.methods[0].score(Histories.of([[], [7], [2, 8]]))).all()


def test_texts_to_learn_from_are_those_met_before_test(fitted: tuple[Split, Recommender], tmp_path: Path) -> None:
    split, teacher = fitted
    texts = known_texts(split)
    assert 0 < len(texts) <= split.known(TEST)["item"].n_unique()
    bare = split.corpus.items.with_columns(title=None, text=None, categories=None, attributes=None)
    tables = {"events": split.corpus.events, "items": bare, "identities": split.corpus.identities}
    silent = Split(Corpus.from_tables(tables, name="silent"), split.events, split.card)
    with pytest.raises(InputError, match="no item has a text"):
        known_texts(silent)
    teacher.save(tmp_path / "model")
    assert reads_with(str(tmp_path / "model")) is None
    assert reads_with("bundled") is None
    assert reads_with("some/model") == "some/model"


def test_a_vector_student_keeps_its_size() -> None:
    target = target_of(DATA, "popularity", "knn")
    how = DistilSettings(student="vectors", dim=4, epochs=1)
    made = distil_target([target], DATA.histories, DATA.n_items, how).methods[0]
    assert isinstance(made, VectorStudent)
    assert made.given.shape == (DATA.n_items, 4)
    assert made.listed.shape == (DATA.target.size, 4)
