"""Lists for a domain that nobody was seen in: who takes part, how they are weighed, and what it is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from tests.carried import pretrained, scene

from isthmus.data.sequences import Histories
from isthmus.errors import InputError
from isthmus.evaluate.metrics import ndcg
from isthmus.evaluate.ranks import Ranks
from isthmus.model.base import Features
from isthmus.model.blend import COHORTS
from isthmus.recommender.facade import System
from isthmus.split.cohorts import build_task, target_items
from isthmus.split.task import Task
from isthmus.split.temporal import CONTEXT, TEST, VALID, Split
from isthmus.train.carriers import SequenceCarrier
from isthmus.train.fit import FitSettings, training_data
from isthmus.train.methods import make
from isthmus.train.tune import validate
from isthmus.transfer.halves import half, halved
from isthmus.transfer.zero import fit_unseen, is_unseen


def settings(**chosen: object) -> FitSettings:
    starts = {"sequence": {"start": str(pretrained())}}
    return replace(FitSettings(methods=("popularity", "tfidf"), settings=starts), **chosen)  # type: ignore[arg-type]


def value(task: Task, scores: np.ndarray) -> float:
    scores = scores.copy()
    scores[task.seen(0, len(task))] = -np.inf
    return float(np.nanmean(ndcg(Ranks.of(scores, task.target_indptr, task.targets), 10)))


def test_a_domain_is_unseen_without_training_or_validation_events() -> None:
    split = scene().split
    assert not is_unseen(split, "target")
    assert is_unseen(scene().unseen, "target")
    assert not is_unseen(scene().unseen, "source")
    inside = split.corpus.items["domain"].gather(split.events["item"]) == "target"
    for part in (0, 1):
        kept = split.events.filter(~(inside & (pl.col("part") == part)))
        assert is_unseen(Split(split.corpus, kept, split.card), "target")


def test_methods_that_read_take_part_and_nothing_else() -> None:
    target = fit_unseen(scene().unseen, "target", scene().features, settings())
    assert target.blend.methods == ("tfidf", "terms", "topics", "sequence")
    assert target.new.all()
    rows = {target.blend.weights[cohort] for cohort in COHORTS}
    assert len(rows) == 1, "nothing is known of kinds of persons"
    assert sum(rows.pop()) == pytest.approx(1.0)
    alone = fit_unseen(scene().unseen, "target", scene().features, settings(settings={}))
    assert alone.blend.methods == ("tfidf", "terms", "topics")


def test_a_carrier_counts_only_where_it_can_be_judged() -> None:
    target = fit_unseen(scene().unseen, "target", scene().features, settings())
    assert not target.blend.weighs("sequence"), "it was pre-trained on the only other domain"
    only = fit_unseen(scene().unseen, "target", scene().features, settings(methods=("popularity",)))
    assert only.blend.methods == ("sequence",)
    assert only.blend.weighs("sequence"), "there is nothing else"


def test_how_a_history_is_looked_at_is_chosen_in_the_other_domain() -> None:
    target = fit_unseen(scene().unseen, "target", scene().features, settings())
    chosen = {method.name: method.settings for method in target.methods}
    data = training_data(scene().unseen, VALID, "source", scene().features)
    task = build_task(scene().unseen, VALID, "source")
    away = chosen["tfidf"]["away"]
    decays = (0.5, 0.7, 0.9, 1.0)
    reached = {decay: validate(make("tfidf", {"decay": decay, "away": away}).fit(data), task) for decay in decays}
    assert reached[chosen["tfidf"]["decay"]] == max(reached.values())  # type: ignore[index]


def test_the_lists_are_much_better_than_chance() -> None:
    unseen = scene().unseen
    task = build_task(unseen, TEST, "target")
    target = fit_unseen(unseen, "target", scene().features, settings())
    chance = value(task, np.random.default_rng(0).random((len(task), 60)).astype(np.float32))
    assert value(task, System(target, name="x").score(task.histories)) > 1.5 * chance
    carrier = next(method for method in target.methods if method.name == "sequence")
    assert validate(carrier, task) > 1.3 * chance


def test_the_carrier_is_used_as_it_is() -> None:
    unseen, features = scene().unseen, scene().features
    data = training_data(unseen, TEST, "target", features)
    fitted = make("sequence", {"start": str(pretrained()), "epochs": 0, "ids": False}).fit(data)
    assert isinstance(fitted, SequenceCarrier)
    wrapped = SequenceCarrier.wrap(fitted.models[0], data, fitted.number("shrink"))
    asked = build_task(unseen, TEST, "target").histories
    np.testing.assert_allclose(fitted.score(asked), wrapped.score(asked), atol=1e-5)
    again = make("sequence", {"start": str(pretrained()), "epochs": 0, "ids": False}).fit(data, seed=9)
    np.testing.assert_array_equal(fitted.score(asked), again.score(asked))


def test_what_people_did_in_the_target_is_never_learned_from() -> None:
    unseen, features = scene().unseen, scene().features
    inside = unseen.corpus.items["domain"].gather(unseen.events["item"]) == "target"
    bare = Split(unseen.corpus, unseen.events.filter(~(inside & (pl.col("part") == CONTEXT))), unseen.card)
    asked = build_task(bare, TEST, "target").histories
    one, other = (fit_unseen(part, "target", features, settings()).methods for part in (unseen, bare))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_allclose(first.score(asked), second.score(asked), atol=1e-5)


def test_a_new_person_has_no_list_of_her_own_and_no_error() -> None:
    target = fit_unseen(scene().unseen, "target", scene().features, settings())
    scores = System(target, name="x").score(Histories.of([[], []]))
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores[0], scores[1])


def test_without_anything_that_reads_it_says_so() -> None:
    with pytest.raises(InputError, match="no method that reads"):
        fit_unseen(scene().unseen, "target", Features(), settings(settings={}))


def test_where_no_other_domain_can_choose_all_count_alike() -> None:
    target = fit_unseen(scene().unseen.only("target"), "target", scene().features, settings())
    assert target.blend.weights[COHORTS[0]] == (0.5, 0.5)


def test_a_single_other_domain_is_judged_in_halves_that_differ_in_what_they_say() -> None:
    split, features = scene().unseen, scene().features
    parted, told = halved(split, "source", features, seed=0)
    items = target_items(split, "source")
    names = parted.corpus.items["domain"]
    halves = [np.flatnonzero((names == half("source", number)).to_numpy()) for number in (1, 2)]
    assert sorted(np.concatenate(halves).tolist()) == items.tolist()
    assert abs(halves[0].size - halves[1].size) <= 1
    assert parted.corpus.domains == [half("source", 1), half("source", 2), "target"]
    assert told.places is not None
    assert [told.places.domains[code] for code in told.places.domain] == names.to_list()
    assert split.corpus.domains == ["source", "target"], "the corpus itself stays as it was"
    assert features.text is not None
    alike = (features.text @ features.text.T).toarray()
    within = np.mean([alike[np.ix_(some, some)].mean() for some in halves])
    assert within > 1.2 * alike[np.ix_(*halves)].mean()
    for part in (1, 2):
        data = training_data(parted, VALID, half("source", part), told)
        apart = data.histories.keep(~data.in_target[data.histories.items])
        assert 0 < apart.items.size < data.histories.items.size, "the other half has something to teach"
